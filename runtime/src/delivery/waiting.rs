//! Agents of one data type whose messages wait: one of them is to be given to the receiver again, and those behind it may
//! not overtake it, so they are *parked*. The other agents of their lanes go on meanwhile.
//!
//! Only offsets are kept, each exactly: 8 bytes in the agent's list and about 40 in its lane's, so that the 100,000 that
//! may be parked by default take some megabytes. The messages are read again when their agent's time has come.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wharf_log::{LANES, Lane};

use super::LONGEST_PAUSE;
use crate::backoff::Backoff;

#[cfg(test)]
mod tests;

/// The agents that wait in one topic, for one worker.
#[derive(Debug)]
pub struct WaitingAgents {
    retry_pause: Duration,
    agents: HashMap<Arc<str>, Waiting>,
    /// When each is tried again. Those that wait for room in their lane are not here.
    due: BTreeSet<(Instant, Arc<str>)>,
    /// Every offset that waits with its agent, by lane: what lies between two of them is finished.
    lanes: Vec<BTreeMap<u64, Arc<str>>>,
    given: usize,
    parked: usize,
}

#[derive(Debug)]
struct Waiting {
    lane: Lane,
    /// What is not finished of it, ascending; never empty.
    offsets: VecDeque<u64>,
    /// How many of these were given to the receiver before. They come first.
    given: usize,
    /// Nothing: not before there is room in its lane.
    due: Option<Instant>,
    backoff: Backoff,
    /// How often the first one failed when it was alone. If it did, it goes alone again.
    attempts: u32,
}

impl WaitingAgents {
    /// No agent waits. The first pause of each is `retry_pause`.
    pub fn new(retry_pause: Duration) -> WaitingAgents {
        WaitingAgents {
            retry_pause,
            agents: HashMap::new(),
            due: BTreeSet::new(),
            lanes: vec![BTreeMap::new(); LANES],
            given: 0,
            parked: 0,
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// How many agents wait.
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Messages that were given to the receiver and wait to be given again.
    pub fn given(&self) -> usize {
        self.given
    }

    /// The offsets of these.
    pub fn all_given(&self) -> impl Iterator<Item = u64> {
        self.agents.values().flat_map(|waiting| waiting.offsets.iter().take(waiting.given).copied())
    }

    /// Messages that wait behind others.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Whether this agent waits.
    pub fn contains(&self, agent: &str) -> bool {
        self.agents.contains_key(agent)
    }

    /// Whether this message waits and was given to the receiver before.
    pub fn was_given(&self, agent: &str, offset: u64) -> bool {
        self.agents
            .get(agent)
            .is_some_and(|waiting| waiting.offsets.partition_point(|waits| *waits < offset) < waiting.given)
    }

    /// How often this message failed alone.
    pub fn attempts(&self, agent: &str, offset: u64) -> u32 {
        let waiting = self.agents.get(agent).filter(|waiting| waiting.offsets.front() == Some(&offset));
        waiting.map_or(0, |waiting| waiting.attempts)
    }

    /// Parks a message that was not given yet behind those of its agent.
    pub fn park(&mut self, agent: &str, lane: Lane, offset: u64) {
        self.add(agent, lane, offset, false);
    }

    /// Leaves out a message that was given, because one before it of its agent waits.
    pub fn park_given(&mut self, agent: &str, lane: Lane, offset: u64) {
        self.add(agent, lane, offset, true);
    }

    /// Lets a message wait that the receiver wants again, not sooner than after `pause`.
    pub fn retry(&mut self, agent: &str, lane: Lane, offset: u64, pause: Duration, now: Instant) {
        self.add(agent, lane, offset, true);
        if let Some(waiting) = self.agents.get_mut(agent) {
            waiting.attempts = 0;
        }
        self.postpone(agent, pause, now);
    }

    /// Lets a message wait that failed alone for the `attempts`th time.
    pub fn retry_alone(&mut self, agent: &str, lane: Lane, offset: u64, attempts: u32, now: Instant) {
        self.add(agent, lane, offset, true);
        if let Some(waiting) = self.agents.get_mut(agent) {
            waiting.attempts = attempts;
        }
        self.postpone(agent, Duration::ZERO, now);
    }

    /// Lets an agent wait until there is [room](Self::room_in) in its lane.
    pub fn wait_for_room(&mut self, agent: &str) {
        let Some((name, _)) = self.agents.get_key_value(agent) else { return };
        let name = name.clone();
        if let Some(due) = self.agents.get_mut(agent).and_then(|waiting| waiting.due.take()) {
            self.due.remove(&(due, name));
        }
    }

    /// Lets the agents go on that waited for room in this lane.
    pub fn room_in(&mut self, lane: Lane, now: Instant) {
        for (agent, waiting) in &mut self.agents {
            if waiting.lane == lane && waiting.due.is_none() {
                waiting.due = Some(now);
                self.due.insert((now, agent.clone()));
            }
        }
    }

    /// Lets the agent of the first message that waits in this lane go on, if it waits for room: that message needs none.
    pub fn room_for_first_in(&mut self, lane: Lane, now: Instant) {
        let first = self.lanes.get(lane.index()).and_then(|waits| waits.values().next()).cloned();
        if let Some(agent) = first
            && let Some(waiting) = self.agents.get_mut(&agent)
            && waiting.due.is_none()
        {
            waiting.due = Some(now);
            self.due.insert((now, agent));
        }
    }

    /// Whether nothing waits before this offset in its lane, so that the cursor moves on when that is finished.
    pub fn is_first_in(&self, lane: Lane, offset: u64) -> bool {
        self.first_in(lane).is_none_or(|first| offset <= first)
    }

    fn first_in(&self, lane: Lane) -> Option<u64> {
        self.lanes.get(lane.index()).and_then(|waits| waits.keys().next()).copied()
    }

    /// Forgets what waits below an offset that the cursor of this lane has been moved to by somebody else. What was parked behind
    /// it alone goes on.
    pub fn pass(&mut self, lane: Lane, next: u64, now: Instant) {
        while let Some(offset) = self.first_in(lane).filter(|first| *first < next) {
            let agent = self.lanes.get(lane.index()).and_then(|waits| waits.get(&offset)).cloned();
            let Some(agent) = agent else { return };
            self.finish(&agent, offset, next);
            if let Some(waiting) = self.agents.get_mut(&agent)
                && waiting.given == 0
                && let Some(due) = waiting.due.as_mut()
                && *due > now
            {
                self.due.remove(&(*due, agent.clone()));
                *due = now;
                self.due.insert((now, agent));
            }
        }
    }

    /// A message is finished. Gives what is finished around it: everything between the messages before and after it that
    /// wait, or up to `below`, below which all that does not wait is finished.
    pub fn finish(&mut self, agent: &str, offset: u64, below: u64) -> Option<(Lane, Range<u64>)> {
        let (name, waiting) = self.agents.get_key_value(agent)?;
        let name = name.clone();
        let lane = waiting.lane;
        let waiting = self.agents.get_mut(agent)?;
        let at = waiting.offsets.partition_point(|waits| *waits < offset);
        if waiting.offsets.get(at) != Some(&offset) {
            return None;
        }
        waiting.offsets.remove(at);
        if at == 0 {
            waiting.attempts = 0;
        }
        if at < waiting.given {
            waiting.given -= 1;
            self.given = self.given.saturating_sub(1);
        } else {
            self.parked = self.parked.saturating_sub(1);
        }
        let (is_done, due) = (waiting.offsets.is_empty(), waiting.due);
        waiting.backoff.reset();
        if let Some(set) = self.lanes.get_mut(lane.index()) {
            set.remove(&offset);
        }
        if is_done {
            if let Some(due) = due {
                self.due.remove(&(due, name.clone()));
            }
            self.agents.remove(&name);
        }
        Some((lane, self.span(lane, offset, below)))
    }

    /// What is finished around an offset that is: everything between those that wait in its lane, or up to `below`.
    pub fn span(&self, lane: Lane, offset: u64, below: u64) -> Range<u64> {
        let Some(waits) = self.lanes.get(lane.index()) else { return offset..offset.saturating_add(1) };
        let start = waits.range(..offset).next_back().map_or(0, |(before, _)| before.saturating_add(1));
        let end = waits.range(offset..).next().map_or(below, |(next, _)| *next).min(below);
        start..end.max(offset.saturating_add(1))
    }

    /// Whether this offset waits.
    pub fn waits_at(&self, lane: Lane, offset: u64) -> bool {
        self.lanes.get(lane.index()).is_some_and(|waits| waits.contains_key(&offset))
    }

    /// Whether anything waits in this lane.
    pub fn waits_in(&self, lane: Lane) -> bool {
        self.lanes.get(lane.index()).is_some_and(|waits| !waits.is_empty())
    }

    /// When the first agent's time comes.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What to give next of the agents whose time has come: at most so many messages with their agents, in order; none if
    /// nobody's time has come.
    ///
    /// Of an agent that is tried again only what it was given before, so that a receiver that still can't handle it is not given
    /// its whole backlog; once that is finished, the rest follows. What failed alone goes alone.
    pub fn due(&self, now: Instant, most: usize) -> Vec<(u64, Arc<str>)> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now).take(most.max(1));
        let due: Vec<_> = due.filter_map(|(_, agent)| Some((agent, self.agents.get(agent)?))).collect();
        if let Some((agent, waiting)) = due.iter().find(|(_, waiting)| waiting.attempts > 0) {
            return waiting.offsets.front().map(|offset| (*offset, Arc::clone(agent))).into_iter().collect();
        }
        let share = most.max(1).checked_div(due.len()).unwrap_or_default().max(1);
        let mut messages = Vec::new();
        for (agent, waiting) in due {
            let ready = if waiting.given > 0 { waiting.given } else { waiting.offsets.len() };
            let some = waiting.offsets.iter().take(ready.min(share));
            messages.extend(some.map(|offset| (*offset, Arc::clone(agent))));
        }
        messages.sort_unstable();
        messages
    }

    /// The lane of an agent that waits.
    pub fn lane_of(&self, agent: &str) -> Option<Lane> {
        self.agents.get(agent).map(|waiting| waiting.lane)
    }

    /// Every agent that waits with its lane and offsets, to be looked at in tests.
    #[cfg(test)]
    fn offsets(&self, agent: &str) -> Vec<u64> {
        self.agents.get(agent).map(|waiting| waiting.offsets.iter().copied().collect()).unwrap_or_default()
    }

    fn add(&mut self, agent: &str, lane: Lane, offset: u64, given: bool) {
        let name: Arc<str> =
            self.agents.get_key_value(agent).map_or_else(|| agent.into(), |(name, _)| name.clone());
        let waiting = self.agents.entry(name.clone()).or_insert_with(|| Waiting {
            lane,
            offsets: VecDeque::new(),
            given: 0,
            due: None,
            backoff: Backoff::new(self.retry_pause, LONGEST_PAUSE),
            attempts: 0,
        });
        let at = waiting.offsets.partition_point(|waits| *waits < offset);
        if waiting.offsets.get(at) != Some(&offset) {
            waiting.offsets.insert(at, offset);
            if let Some(set) = self.lanes.get_mut(lane.index()) {
                set.insert(offset, name);
            }
            self.parked += 1;
            if at < waiting.given {
                // It lies among those that were given.
                waiting.given += 1;
                self.given += 1;
                self.parked -= 1;
            }
        }
        if given && at >= waiting.given {
            let more = (at + 1).saturating_sub(waiting.given);
            waiting.given += more;
            self.given += more;
            self.parked = self.parked.saturating_sub(more);
        }
    }

    fn postpone(&mut self, agent: &str, pause: Duration, now: Instant) {
        let Some((name, _)) = self.agents.get_key_value(agent) else { return };
        let name = name.clone();
        let Some(waiting) = self.agents.get_mut(agent) else { return };
        let before = waiting.due.take();
        let pause = match before {
            // Another message of the same batch has drawn its pause already.
            Some(due) if due > now => pause.max(due.duration_since(now)),
            _ => waiting.backoff.next_pause().max(pause),
        };
        let due = now + pause;
        waiting.due = Some(due);
        if let Some(before) = before {
            self.due.remove(&(before, name.clone()));
        }
        self.due.insert((due, name));
    }
}

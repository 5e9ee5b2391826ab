//! The agents that are known, in memory: who is active, which topics each has used, and what the last record in each of
//! these says of it. Decides who is inactive and who is forgotten; writes no record and reads no clock of its own.
//!
//! The table is divided as lanes are, with a lock for each part. No two are held at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use wharf_log::{LANES, Lane, LaneSet};
use wharf_protocol::AgentId;

use super::clock::ReadClock;
use super::index_of;

#[cfg(test)]
mod tests;

/// How many times `max_agents` the table remembers what is to be saved or removed while the state database fails. What
/// is dropped beyond is an agent that stays in the database although it is forgotten.
const UNSAVED_FACTOR: usize = 2;

/// The place of a topic among the configured ones.
pub type TopicIndex = usize;

/// A topic and what it was told of an agent, if that is certain.
pub type Known = (TopicIndex, Option<bool>);

/// The numbers that operators see.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Agents that are active.
    pub active: Gauge,
    /// Agents that are remembered, active or not.
    pub known: Gauge,
    /// Agents that became active or inactive.
    pub changes: Counter,
    /// Calls of agents that could not be remembered, because `max_agents` others were active.
    pub untracked: Counter,
}

/// A sign of life: on which connection, and what its clock showed.
#[derive(Clone, Debug)]
pub struct Seen {
    pub clock: Arc<ReadClock>,
    pub at: Duration,
}

/// What a sign of life changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The topic of the message is to be told that the agent is active, before the message.
    pub tell: bool,
    /// The agent was inactive, and other topics that it has used are to be told that it is active.
    pub came_back: bool,
}

/// A topic in which the last record of an agent is not known to say what is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub topic: TopicIndex,
    pub agent: AgentId,
}

/// An agent as it is saved, or that it is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub agent: AgentId,
    /// Whether it is active, and the topics that it has used.
    pub known: Option<(bool, Vec<Known>)>,
}

#[derive(Debug)]
pub struct Table {
    parts: Vec<Mutex<Part>>,
    max_agents: usize,
    numbers: Numbers,
    /// Counts the agents that became idle, to know which did so first.
    idle_count: AtomicU64,
}

#[derive(Debug, Default)]
struct Part {
    agents: HashMap<AgentId, Agent>,
    /// Agents that may be forgotten: inactive, and told so everywhere. The first became so the longest ago.
    idle: BTreeMap<u64, AgentId>,
    /// Agents that are not saved as they are.
    unsaved: HashSet<AgentId>,
}

#[derive(Debug)]
struct Agent {
    active: bool,
    seen: Seen,
    uses: Vec<Use>,
    /// Its key in [`Part::idle`].
    idle: Option<u64>,
}

#[derive(Debug)]
struct Use {
    topic: TopicIndex,
    /// What the last record in the topic says, or will when it is stored; `None` if that is not known.
    told: Option<bool>,
    /// Records that are on their way.
    unconfirmed: u32,
}

impl Agent {
    fn new(seen: Seen) -> Agent {
        Agent { active: false, seen, uses: Vec::new(), idle: None }
    }

    fn see(&mut self, seen: &Seen) {
        if !Arc::ptr_eq(&self.seen.clock, &seen.clock) {
            self.seen.clock = seen.clock.clone();
        }
        self.seen.at = seen.at;
    }

    fn topic(&mut self, topic: TopicIndex) -> Option<&mut Use> {
        self.uses.iter_mut().find(|using| using.topic == topic)
    }

    fn is_settled(&self) -> bool {
        self.uses.iter().all(|using| using.told == Some(self.active))
    }

    fn due(&self, id: &AgentId) -> impl Iterator<Item = Due> {
        let due = self.uses.iter().filter(|using| using.told != Some(self.active));
        due.map(|using| Due { topic: using.topic, agent: id.clone() })
    }

    /// Sets what the topic is told, which is on its way from now on.
    fn tell(&mut self, topic: TopicIndex) {
        let active = self.active;
        match self.topic(topic) {
            Some(using) => {
                using.told = Some(active);
                using.unconfirmed = using.unconfirmed.saturating_add(1);
            }
            None => self.uses.push(Use { topic, told: Some(active), unconfirmed: 1 }),
        }
    }
}

impl Part {
    /// Forgets the agent that has been idle the longest; gives whether there is one.
    fn forget_first(&mut self) -> bool {
        let Some((_, id)) = self.idle.pop_first() else { return false };
        self.agents.remove(&id);
        self.unsaved.insert(id);
        true
    }
}

impl Table {
    pub fn new(max_agents: usize, numbers: Numbers) -> Table {
        let parts = (0..LANES).map(|_| Mutex::default()).collect();
        Table { parts, max_agents, numbers, idle_count: AtomicU64::new(0) }
    }

    /// Counts a sign of life: a message to a topic, or any other call. From here on the topic counts as told.
    pub fn touch(&self, id: &AgentId, seen: &Seen, topic: Option<TopicIndex>) -> Touched {
        if let Some(touched) = self.touch_known(id, seen, topic) {
            return touched;
        }
        if !self.make_room() {
            self.numbers.untracked.inc();
            return Touched::default();
        }
        if !self.insert(id, Agent::new(seen.clone())) {
            // Another connection was faster, and has taken a place of its own.
            self.numbers.known.dec();
        }
        self.touch_known(id, seen, topic).unwrap_or_default()
    }

    /// Counts a message of an agent that the topic knows to be active; gives whether it is so. It changes nothing else.
    pub fn touch_told(&self, id: &AgentId, seen: &Seen, topic: TopicIndex) -> bool {
        let mut part = self.part(id);
        let Some(agent) = part.agents.get_mut(id) else { return false };
        let told = agent.active && agent.topic(topic).is_some_and(|using| using.told == Some(true));
        if told {
            agent.see(seen);
        }
        told
    }

    fn touch_known(&self, id: &AgentId, seen: &Seen, topic: Option<TopicIndex>) -> Option<Touched> {
        let mut part = self.part(id);
        let agent = part.agents.get_mut(id)?;
        agent.see(seen);
        let tell = match topic {
            Some(topic) => agent.topic(topic).is_none_or(|using| using.told != Some(true)),
            None => false,
        };
        if agent.active && !tell {
            return Some(Touched::default());
        }
        self.change(&mut part, id, |agent| {
            let elsewhere = |using: &Use| Some(using.topic) != topic && using.told != Some(true);
            let came_back = !agent.active && agent.uses.iter().any(elsewhere);
            agent.active = true;
            if let Some(topic) = topic.filter(|_| tell) {
                agent.tell(topic);
            }
            Touched { tell, came_back }
        })
    }

    /// Ends an agent's activity. Nothing for one that is not known.
    pub fn leave(&self, id: &AgentId) {
        let mut part = self.part(id);
        if part.agents.get(id).is_some_and(|agent| agent.active) {
            self.change(&mut part, id, |agent| agent.active = false);
        }
    }

    /// Ends the activity of the agents of a lane whose connection was read for `timeout` without a sign of life, unless
    /// `held`, and gives everything of the lane that is to be told.
    pub fn sweep(&self, lane: Lane, now: Instant, timeout: Duration, held: bool) -> Vec<Due> {
        let mut part = self.part_of(lane);
        let expired = |agent: &Agent| {
            let read = agent.seen.clock.running(now).map(|shown| shown.saturating_sub(agent.seen.at));
            agent.active && !held && read.is_some_and(|read| read >= timeout)
        };
        let expired: Vec<AgentId> =
            part.agents.iter().filter(|(_, agent)| expired(agent)).map(|(id, _)| id.clone()).collect();
        for id in expired {
            self.change(&mut part, &id, |agent| agent.active = false);
        }
        // Those of an earlier run for which there is no place.
        while index_of(self.numbers.known.get()) > self.max_agents && part.forget_first() {
            self.numbers.known.dec();
        }
        part.agents.iter().flat_map(|(id, agent)| agent.due(id)).collect()
    }

    /// What is to be told of an agent.
    pub fn due(&self, id: &AgentId) -> Vec<Due> {
        self.part(id).agents.get(id).map(|agent| agent.due(id).collect()).unwrap_or_default()
    }

    /// What the topic is to be told of an agent, if anything. From here on it counts as told.
    pub fn tell(&self, id: &AgentId, topic: TopicIndex) -> Option<bool> {
        let mut part = self.part(id);
        let agent = part.agents.get_mut(id)?;
        let active = agent.active;
        if agent.topic(topic)?.told == Some(active) {
            return None;
        }
        self.change(&mut part, id, |agent| agent.tell(topic))?;
        Some(active)
    }

    /// Takes note that what a topic was told of an agent is stored, or is not and has to be told again.
    pub fn told(&self, id: &AgentId, topic: TopicIndex, stored: bool) {
        self.change(&mut self.part(id), id, |agent| {
            if let Some(using) = agent.topic(topic) {
                using.unconfirmed = using.unconfirmed.saturating_sub(1);
                if !stored {
                    using.told = None;
                }
            }
        });
    }

    /// Puts back an agent of an earlier run. There may be more of them than `max_agents` says now: those beyond are forgotten
    /// once they are inactive and told so.
    pub fn restore(&self, id: &AgentId, seen: &Seen, active: bool, uses: Vec<Known>) {
        if self.insert(id, Agent::new(seen.clone())) {
            self.numbers.known.inc();
        }
        let uses = uses.into_iter().map(|(topic, told)| Use { topic, told, unconfirmed: 0 });
        self.change(&mut self.part(id), id, |agent| {
            agent.active = active;
            agent.uses = uses.collect();
        });
    }

    /// Takes note of a record that was stored after the last save of an earlier run: of a message, or of what the topic was
    /// told. Gives whether the agent could be remembered.
    pub fn replay(&self, id: &AgentId, seen: &Seen, topic: TopicIndex, told: Option<bool>) -> bool {
        if !self.part(id).agents.contains_key(id) {
            if !self.make_room() {
                return false;
            }
            if !self.insert(id, Agent::new(seen.clone())) {
                self.numbers.known.dec();
            }
        }
        let changed = self.change(&mut self.part(id), id, |agent| match (agent.topic(topic), told) {
            (Some(using), Some(_)) => using.told = told,
            (Some(_), None) => {}
            (None, told) => agent.uses.push(Use { topic, told, unconfirmed: 0 }),
        });
        changed.is_some()
    }

    /// Sets whether an agent of an earlier run is active.
    pub fn set_active(&self, id: &AgentId, active: bool) {
        self.change(&mut self.part(id), id, |agent| agent.active = active);
    }

    /// Takes what is to be saved of a lane.
    pub fn take_unsaved(&self, lane: Lane) -> Vec<Snapshot> {
        let mut part = self.part_of(lane);
        let unsaved = std::mem::take(&mut part.unsaved);
        let snapshot = |id: AgentId| {
            let certain = |using: &Use| (using.topic, using.told.filter(|_| using.unconfirmed == 0));
            let known =
                part.agents.get(&id).map(|agent| (agent.active, agent.uses.iter().map(certain).collect()));
            Snapshot { agent: id, known }
        };
        unsaved.into_iter().map(snapshot).collect()
    }

    /// Takes back what could not be saved.
    pub fn put_back(&self, agents: impl IntoIterator<Item = AgentId>) {
        let max_unsaved = self.max_agents.saturating_mul(UNSAVED_FACTOR).div_ceil(LANES);
        for id in agents {
            let mut part = self.part(&id);
            if part.agents.contains_key(&id) || part.unsaved.len() < max_unsaved {
                part.unsaved.insert(id);
            }
        }
    }

    /// Changes an agent and whatever depends on it. Gives nothing for one that is not known.
    fn change<T>(&self, part: &mut Part, id: &AgentId, change: impl FnOnce(&mut Agent) -> T) -> Option<T> {
        let Part { agents, idle, unsaved } = part;
        let agent = agents.get_mut(id)?;
        let was_active = agent.active;
        let result = change(agent);
        if agent.active != was_active {
            self.numbers.changes.inc();
            if agent.active {
                self.numbers.active.inc()
            } else {
                self.numbers.active.dec()
            };
        }
        match agent.idle {
            None if !agent.active && agent.is_settled() => {
                let key = self.idle_count.fetch_add(1, Ordering::Relaxed);
                agent.idle = Some(key);
                idle.insert(key, id.clone());
            }
            Some(key) if agent.active || !agent.is_settled() => {
                agent.idle = None;
                idle.remove(&key);
            }
            _ => {}
        }
        unsaved.insert(id.clone());
        Some(result)
    }

    /// Puts an agent in a place that was made for it, unless it is there.
    fn insert(&self, id: &AgentId, agent: Agent) -> bool {
        let mut part = self.part(id);
        if part.agents.contains_key(id) {
            return false;
        }
        part.agents.insert(id.clone(), agent);
        true
    }

    /// Takes a place for one more agent, that of an idle one if all are taken.
    fn make_room(&self) -> bool {
        let known = self.numbers.known.inner();
        let one_more = |known: i64| (index_of(known) < self.max_agents).then(|| known.saturating_add(1));
        known.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok() || self.forget_one()
    }

    /// Forgets the agent that has been idle the longest.
    fn forget_one(&self) -> bool {
        let first = |lane: &Lane| self.part_of(*lane).idle.first_key_value().map(|(key, _)| *key);
        let oldest =
            LaneSet::ALL.iter().filter_map(|lane| Some((first(&lane)?, lane))).min_by_key(|(key, _)| *key);
        let Some((_, lane)) = oldest else { return false };
        // It may have come back meanwhile; then the next one goes, or none.
        self.part_of(lane).forget_first()
    }

    fn part(&self, id: &AgentId) -> MutexGuard<'_, Part> {
        self.part_of(Lane::of(id.as_str()))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "there is a part for each lane, and a lane's index is below their number"
    )]
    fn part_of(&self, lane: Lane) -> MutexGuard<'_, Part> {
        // A panic while a lock was held leaves at worst one agent half changed.
        self.parts[lane.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

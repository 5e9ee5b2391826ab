//! Keeps the table of agents over restarts, and the tasks that sweep and save it.
//!
//! With the agents that have changed, the end of each topic is saved as it was before they were looked at: the table
//! reflects everything below, because it changes before a record is enqueued. After a start, what lies above is read. What a
//! topic was told but was not known to be stored is saved as unknown, and told again unless it is found there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use wharf_log::{Durability, LaneSet, ReadError};
use wharf_protocol::{AgentId, Record};
use wharf_state::{KnownAgent, State, StateError, UsedTopic};

use super::table::{Known, Snapshot, TopicIndex};
use super::{Presence, Told, seen};

/// Sweeps within one time-out: an agent is noticed to be inactive at most a tenth of the time-out late.
const SWEEPS: u32 = 10;
/// No more often than this, so that a short time-out does not keep a core busy,
const SHORTEST_SWEEP: Duration = Duration::from_millis(50);
/// and no less, so that what could not be told is told soon.
const LONGEST_SWEEP: Duration = Duration::from_secs(1);
/// A sweep that is late by more than this part of the time-out means that the process did not run, so that nobody was read.
const LATE: u32 = 4;
/// How often it is said that agents are not remembered.
const UNTRACKED_PAUSE: Duration = Duration::from_secs(60);
/// Records that are read at once when the server starts, and their bytes.
const READ_RECORDS: usize = 4096;
const READ_BYTES: usize = 4 * 1024 * 1024;
/// Damaged entries of the state database that are named in the log; the others are counted.
const NAMED_DAMAGES: usize = 10;

/// The running tasks.
#[derive(Debug)]
#[must_use = "it is to be stopped, or the last changes are not saved"]
pub struct Keeper {
    presence: Arc<Presence>,
    sweeping: JoinHandle<()>,
    saving: JoinHandle<Saver>,
    stop: CancellationToken,
}

impl Presence {
    /// Takes up what is known from earlier runs: what was saved, then what the topics say since.
    ///
    /// # Errors
    ///
    /// When the state database can't be read or written. A topic that can't be read is logged; what it would have said is missing.
    pub async fn restore(&self, state: State) -> Result<(), StateError> {
        let kept = self.told().filter(|told| told.durability != Durability::Memory);
        let kept: HashSet<String> = kept.map(|told| told.topic.name().to_owned()).collect();
        let known = tokio::task::spawn_blocking(move || {
            let known = state.agents()?;
            // This run tells these topics nothing and forgets who used them: when they are back, they are read from the start.
            let topics = known.reflected.iter().map(|(topic, _)| topic.as_str());
            state.forget_topics(topics.filter(|topic| !kept.contains(*topic)))?;
            Ok::<_, StateError>(known)
        });
        let known = match known.await {
            Ok(known) => known?,
            // Blocking work is only given up when the runtime ends.
            Err(_) => return Ok(()),
        };
        for damage in known.damaged.iter().take(NAMED_DAMAGES) {
            tracing::error!(damage, "an entry of the state database is damaged; presence goes on without it");
        }
        if known.damaged.len() > NAMED_DAMAGES {
            tracing::error!(damaged = known.damaged.len(), "more entries of presence are damaged");
        }
        let seen = seen(&self.earlier);
        let reflected: HashMap<String, u64> = known.reflected.into_iter().collect();
        let mut saved = HashSet::new();
        for KnownAgent { id, active, topics } in known.agents {
            let Ok(id) = AgentId::new(&id) else { continue };
            let uses = topics.into_iter().filter_map(|used| self.restored(used, &reflected)).collect();
            self.table.restore(&id, &seen, active, uses);
            saved.insert(id);
        }
        // An agent that was active in one topic may have been so after it was inactive in another.
        let mut last: HashMap<AgentId, bool> = HashMap::new();
        for (topic, told) in self.told().enumerate() {
            let below = reflected.get(told.topic.name()).copied();
            let from = below.unwrap_or(0);
            let mut here = HashMap::new();
            if let Err(error) = self.replay(topic, told, from, &mut here).await {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    log.topic = told.topic.name(),
                    error,
                    "failed to read which agents were active last"
                );
            }
            // What was saved is newer than what lies in a topic that the last run did not have.
            here.retain(|agent, _| below.is_some() || !saved.contains(agent));
            for (agent, active) in here {
                *last.entry(agent).or_default() |= active;
            }
        }
        for (agent, active) in last {
            self.table.set_active(&agent, active);
        }
        Ok(())
    }

    /// Takes up what a topic says that comes while agents are there. Those that are known are as they are; others were last seen
    /// before this run, so that they are inactive. Where the topic says otherwise, it is told.
    pub(super) async fn take_up(&self, index: TopicIndex, told: &Told) {
        if let Err(error) = self.replay(index, told, 0, &mut HashMap::new()).await {
            let error: &dyn std::error::Error = &error;
            tracing::error!(
                log.topic = told.topic.name(),
                error,
                "failed to read which agents were active last"
            );
        }
    }

    /// A topic that an agent has used, if it is still there, with what it was told.
    fn restored(&self, used: UsedTopic, reflected: &HashMap<String, u64>) -> Option<Known> {
        let (topic, told) = self.told().enumerate().find(|(_, told)| told.topic.name() == used.name)?;
        let known = match told.durability {
            // Whatever was told is gone, and receivers begin anew.
            Durability::Memory => Some(false),
            // A power loss took records that the database had heard of.
            _ if reflected.get(&used.name).is_none_or(|below| *below > told.topic.end()) => None,
            _ => used.told,
        };
        Some((topic, known))
    }

    /// Applies the records of a topic from an offset on, and gives how each agent was left.
    async fn replay(
        &self,
        topic: TopicIndex,
        told: &Told,
        from: u64,
        last: &mut HashMap<AgentId, bool>,
    ) -> Result<(), ReadError> {
        let end = told.topic.end();
        if told.durability == Durability::Memory || from >= end {
            return Ok(());
        }
        let seen = seen(&self.earlier);
        let mut reader = told.topic.reader(LaneSet::ALL, from.max(told.topic.start()));
        while reader.position() < end {
            for entry in reader.next(READ_RECORDS, READ_BYTES).await?.entries {
                let (agent, change) = match Record::decode(entry.payload) {
                    Ok(Record::Message(message)) => (message.agent, None),
                    Ok(Record::Presence(presence)) => (presence.agent, Some(presence.active)),
                    // Delivery tells of a record that it can't read.
                    Err(_) => continue,
                };
                if self.table.replay(&agent, &seen, topic, change) {
                    last.insert(agent, change.unwrap_or(true));
                }
            }
        }
        Ok(())
    }

    /// Starts to sweep, until `shutdown`, and to save every `interval`. Agents of earlier runs have one time-out from now.
    pub fn start(self: &Arc<Self>, state: State, interval: Duration, shutdown: CancellationToken) -> Keeper {
        self.earlier.reading(Instant::now());
        let stop = CancellationToken::new();
        let saver = Saver { presence: self.clone(), state, saved: Vec::new(), failing: false };
        Keeper {
            presence: self.clone(),
            sweeping: tokio::spawn(self.clone().sweep_until(shutdown)),
            saving: tokio::spawn(saver.save_until(interval, stop.clone())),
            stop,
        }
    }

    async fn sweep_until(self: Arc<Self>, shutdown: CancellationToken) {
        let pause = (self.timeout / SWEEPS).clamp(SHORTEST_SWEEP, LONGEST_SWEEP);
        let mut held_until = Instant::now();
        let mut untracked = (Instant::now(), 0);
        loop {
            let planned = Instant::now() + pause;
            tokio::select! {
                () = sleep_until(planned.into()) => {}
                // Calls are refused from here on: nobody can show that it lives.
                () = shutdown.cancelled() => return,
            }
            let now = Instant::now();
            let late = now.saturating_duration_since(planned);
            if late > self.timeout / LATE {
                tracing::info!(
                    ?late,
                    "the server did not run for a while; every agent gets its whole time again"
                );
                held_until = now + self.timeout;
            }
            self.sweep(now, now < held_until).await;
            let calls = self.numbers.untracked.get();
            if calls > untracked.1 && now >= untracked.0 {
                tracing::warn!(
                    calls = calls.saturating_sub(untracked.1),
                    "calls of agents that are not remembered, because presence.max-agents others are active"
                );
                untracked = (now + UNTRACKED_PAUSE, calls);
            }
        }
    }
}

impl Keeper {
    /// Ends the tasks and saves for the last time. Topics are to be closed before, so that all that was told is stored.
    pub async fn stop(self) {
        let Keeper { presence, sweeping, saving, stop } = self;
        // It has ended with the server's shutdown.
        let _ = sweeping.await;
        presence.telling.close();
        presence.telling.wait().await;
        stop.cancel();
        if let Ok(mut saver) = saving.await {
            saver.save().await;
        }
    }
}

/// Writes down what has changed.
#[derive(Debug)]
struct Saver {
    presence: Arc<Presence>,
    state: State,
    /// The ends of the topics that were saved last.
    saved: Vec<(String, u64)>,
    /// Whether the last save failed: only changes are logged.
    failing: bool,
}

impl Saver {
    async fn save_until(mut self, interval: Duration, stop: CancellationToken) -> Saver {
        loop {
            tokio::select! {
                () = sleep(interval) => self.save().await,
                () = stop.cancelled() => return self,
            }
        }
    }

    async fn save(&mut self) {
        // In this order, see above.
        let kept = self.presence.told().filter(|told| told.durability != Durability::Memory);
        let ends: Vec<(String, u64)> =
            kept.map(|told| (told.topic.name().to_owned(), told.topic.end())).collect();
        let unsaved: Vec<Snapshot> =
            LaneSet::ALL.iter().flat_map(|lane| self.presence.table.take_unsaved(lane)).collect();
        if unsaved.is_empty() && ends == self.saved {
            return;
        }
        let names: Vec<String> = self.presence.topics().map(str::to_owned).collect();
        let (state, reflected) = (self.state.clone(), ends.clone());
        let written = tokio::task::spawn_blocking(move || {
            let (mut changed, mut forgotten) = (Vec::new(), Vec::new());
            for Snapshot { agent, known } in &unsaved {
                match known {
                    Some((active, uses)) => changed.push(known_agent(agent, *active, uses, &names)),
                    None => forgotten.push(agent.as_str().to_owned()),
                }
            }
            let saved = state.save_agents(&changed, &forgotten, &reflected);
            (saved, unsaved)
        });
        // Blocking work is only given up when the runtime ends.
        let Ok((saved, unsaved)) = written.await else { return };
        match saved {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("agents can be saved again");
                }
                self.saved = ends;
            }
            Err(error) => {
                self.presence.table.put_back(unsaved.into_iter().map(|snapshot| snapshot.agent));
                if !std::mem::replace(&mut self.failing, true) {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "failed to save which agents are active");
                }
            }
        }
    }
}

fn known_agent(agent: &AgentId, active: bool, uses: &[Known], names: &[String]) -> KnownAgent {
    let topics =
        uses.iter().filter_map(|&(topic, told)| Some(UsedTopic { name: names.get(topic)?.clone(), told }));
    KnownAgent { id: agent.as_str().to_owned(), active, topics: topics.collect() }
}

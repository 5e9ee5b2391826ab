//! Which agents are active, and how receivers learn of it: each change is a record in the topics that the agent has used,
//! in order with the agent's messages.
//!
//! Any call is a sign of life. An agent becomes inactive with `bye`, or when the connection on which it was last seen was
//! read for `presence.timeout` without another sign (see [`clock`]).
//!
//! What holds for the records of one agent in one topic:
//!
//! - No message lies in the topic while the last record before it says that the agent is inactive, or while there is none. The
//!   record that makes it active is part of the append of the message that it comes before.
//! - The last record says what is so, a moment later: what could not be told, for want of room in the topic's queue or because
//!   the disk failed, is told with the next sweep. Changes in between that took each other back are not told.
//! - A `bye` comes after the messages before it on the same connection, also of the same frame, and before those after it.
//!   Beside messages of the same agent on another connection it takes effect at some moment between two of their frames.
//! - A change may be told twice, never half.
//!
//! How: whatever is put into a topic is decided and enqueued under the topic's lock, with room reserved before, so that nothing
//! waits while it is held: shared by messages whose agents the topic knows to be active, which are nearly all, and alone by
//! whatever tells something. The locks of the [`table`] are taken within it. A record counts as told from then on, for the
//! queue keeps its order; if it is not stored after all, the topic counts as untold, and messages that relied on it and were
//! stored are the one exception to the first rule.
//!
//! At most `presence.max-agents` are remembered. The one that has been inactive the longest is forgotten for a new one; if
//! all are active, messages of a new one are served without any record of it.

pub mod clock;
mod keeper;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio_util::task::TaskTracker;
use wharf_log::{AppendError, Durability, Lane, LaneSet, Pending, Record, Room, Topic};
use wharf_protocol::{AgentId, PresenceRecord};

use crate::unix_time::unix_milliseconds;
use clock::Connection;
use table::{Due, Seen, Table};

pub use keeper::Keeper;
pub use table::{Numbers, TopicIndex};

/// Changes that are one append at most: what is told of a whole fleet leaves room for messages in between.
const MAX_CHANGES: usize = 1024;
/// Topics that there is room for beyond those of the start, which a reload may bring.
pub const TOPICS_TO_SPARE: usize = 64;
/// The bytes of a presence record beside the agent's id, as [`wharf_protocol::Record`] lays it out.
const PRESENCE_BYTES: usize = 10;

/// Who is active. Everything that goes into a topic goes through here.
#[derive(Debug)]
pub struct Presence {
    timeout: Duration,
    table: Table,
    /// Filled from the first on. What is there stays there, so that it can be used without a lock.
    topics: Vec<OnceLock<Told>>,
    numbers: Numbers,
    /// Agents of an earlier run were last seen here.
    earlier: Connection,
    /// The tasks that wait for records to be stored.
    telling: TaskTracker,
}

/// A topic that is told of changes.
#[derive(Debug)]
struct Told {
    topic: Topic,
    durability: Durability,
    /// Held while it is decided what is enqueued next; alone by whoever tells something.
    order: RwLock<()>,
}

/// Messages of one agent that follow each other in an append.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Whose they are.
    pub agent: AgentId,
    /// The place of the first one among the records of the append.
    pub first: usize,
}

impl Presence {
    /// Nobody is known yet. The topics' places in the list are their indices from here on.
    pub fn new(
        topics: impl IntoIterator<Item = (Topic, Durability)>,
        timeout: Duration,
        max_agents: usize,
        numbers: Numbers,
    ) -> Presence {
        let mut topics: Vec<_> = topics
            .into_iter()
            .map(|(topic, durability)| OnceLock::from(Told { topic, durability, order: RwLock::new(()) }))
            .collect();
        topics.extend((0..TOPICS_TO_SPARE).map(|_| OnceLock::new()));
        Presence {
            timeout,
            table: Table::new(max_agents, numbers.clone()),
            topics,
            numbers,
            earlier: Connection::new(Instant::now()),
            telling: TaskTracker::new(),
        }
    }

    /// The names of the topics, in the order of their indices.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.told().map(|told| told.topic.name())
    }

    /// One more topic, to which nobody sends yet. Gives its index, or nothing if there is no room for it. One at a time.
    pub async fn add(&self, topic: Topic, durability: Durability) -> Option<TopicIndex> {
        let index = self.told().count();
        let place = self.topics.get(index)?;
        let told = Told { topic, durability, order: RwLock::new(()) };
        self.take_up(index, &told).await;
        place.set(told).ok().map(|()| index)
    }

    fn told(&self) -> impl Iterator<Item = &Told> {
        self.topics.iter().map_while(OnceLock::get)
    }

    fn topic(&self, topic: TopicIndex) -> Option<&Told> {
        self.topics.get(topic)?.get()
    }

    /// How many agents are active, and how many are remembered.
    pub fn counts(&self) -> (usize, usize) {
        (index_of(self.numbers.active.get()), index_of(self.numbers.known.get()))
    }

    /// Waits at most `wait` for room in a topic for messages and for what has to be told before them. `records` are the
    /// messages, `senders` says whose they are.
    ///
    /// # Errors
    ///
    /// Those of [`Topic::reserve`].
    pub async fn reserve(
        self: &Arc<Self>,
        topic: TopicIndex,
        records: &[Record],
        senders: &[Sender],
        connection: &Connection,
        wait: Duration,
    ) -> Result<Room<'_>, AppendError> {
        let told = self.topic(topic).ok_or_else(|| unknown(topic))?;
        let bytes = Record::room(records) + presence_room(senders.iter().map(|sender| &sender.agent));
        match told.topic.try_reserve(bytes) {
            Ok(room) => Ok(room),
            Err(error) => {
                // They are alive, whatever becomes of their messages, and must not expire while these wait.
                senders.iter().for_each(|sender| self.ping(&sender.agent, connection));
                match error {
                    AppendError::Overloaded { .. } if !wait.is_zero() => {
                        told.topic.reserve(bytes, wait).await
                    }
                    error => Err(error),
                }
            }
        }
    }

    /// Puts messages into a topic in which they have room, each agent's after a record that makes it active where the topic
    /// does not know that it is.
    ///
    /// # Errors
    ///
    /// Those of [`Room::enqueue`].
    pub fn enqueue(
        self: &Arc<Self>,
        topic: TopicIndex,
        room: Room<'_>,
        records: Vec<Record>,
        senders: &[Sender],
        connection: &Connection,
    ) -> Result<Queued, AppendError> {
        let told = self.topic(topic).ok_or_else(|| unknown(topic))?;
        let seen = &seen(connection);
        let mut on_the_way = OnTheWay { presence: self.clone(), topic, agents: Vec::new() };
        {
            let _shared = told.order.read().unwrap_or_else(PoisonError::into_inner);
            if senders.iter().all(|sender| self.table.touch_told(&sender.agent, seen, topic)) {
                return Ok(Queued { fate: Fate::Own(room.enqueue(records)?), on_the_way });
            }
        }
        let mut changes = Vec::new();
        let mut came_back = Vec::new();
        let pending = {
            let _alone = told.order.write().unwrap_or_else(PoisonError::into_inner);
            for Sender { agent, first } in senders {
                let touched = self.table.touch(agent, seen, Some(topic));
                if touched.tell {
                    changes.push((*first, agent.clone()));
                }
                if touched.came_back {
                    came_back.push(agent.clone());
                }
            }
            on_the_way.agents = changes.iter().map(|(_, agent)| agent.clone()).collect();
            room.enqueue(weave(records, &changes))?
        };
        self.tell(came_back.iter().flat_map(|agent| self.table.due(agent)).collect());
        Ok(Queued { fate: Fate::Own(pending), on_the_way })
    }

    /// Counts a sign of life that is no message.
    pub fn ping(self: &Arc<Self>, agent: &AgentId, connection: &Connection) {
        if self.table.touch(agent, &seen(connection), None).came_back {
            self.tell(self.table.due(agent));
        }
    }

    /// Makes an agent inactive.
    pub fn bye(self: &Arc<Self>, agent: &AgentId) {
        self.table.leave(agent);
        self.tell(self.table.due(agent));
    }

    /// Makes agents inactive whose time is over by `now`, unless `held`, and tells whatever is untold.
    async fn sweep(self: &Arc<Self>, now: Instant, held: bool) {
        for lane in LaneSet::ALL.iter() {
            let due = self.table.sweep(lane, now, self.timeout, held);
            if !due.is_empty() {
                self.tell(due);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells topics what is so now. What has no room in a topic's queue remains for the next sweep.
    fn tell(self: &Arc<Self>, mut due: Vec<Due>) {
        due.sort_by_key(|due| due.topic);
        for due in due.chunk_by(|one, next| one.topic == next.topic) {
            for due in due.chunks(MAX_CHANGES) {
                self.tell_topic(due);
            }
        }
    }

    fn tell_topic(self: &Arc<Self>, due: &[Due]) {
        let Some(&Due { topic, .. }) = due.first() else { return };
        let Some(told) = self.topic(topic) else { return };
        let Ok(room) = told.topic.try_reserve(presence_room(due.iter().map(|due| &due.agent))) else {
            return;
        };
        let mut on_the_way = OnTheWay { presence: self.clone(), topic, agents: Vec::new() };
        let mut records = Vec::new();
        let pending = {
            let _alone = told.order.write().unwrap_or_else(PoisonError::into_inner);
            let at = unix_milliseconds();
            for Due { agent, .. } in due {
                if let Some(active) = self.table.tell(agent, topic) {
                    records.push(presence_record(agent, active, at));
                    on_the_way.agents.push(agent.clone());
                }
            }
            if records.is_empty() {
                return;
            }
            room.enqueue(records)
        };
        let Ok(pending) = pending else { return };
        self.telling.spawn(async move {
            // Failures of the disk are logged by the topic's writer.
            let _ = Queued { fate: Fate::Own(pending), on_the_way }.stored().await;
        });
    }
}

/// Messages in a topic's queue, perhaps with records of their agents.
#[derive(Debug)]
#[must_use = "what is dropped before it is stored is told again"]
pub struct Queued {
    fate: Fate,
    on_the_way: OnTheWay,
}

/// What becomes of an append, for as many as want to know it.
pub type Storing = Shared<BoxFuture<'static, Result<(), AppendError>>>;

/// What becomes of an append.
#[derive(Debug)]
enum Fate {
    Own(Pending),
    Shared(Storing),
}

impl Queued {
    /// Lets others wait for the same append, also after this was dropped.
    pub fn share(self) -> (Queued, Storing) {
        let Queued { fate, on_the_way } = self;
        let storing = match fate {
            Fate::Own(pending) => pending.map(|stored| stored.map(drop)).boxed().shared(),
            Fate::Shared(storing) => storing,
        };
        (Queued { fate: Fate::Shared(storing.clone()), on_the_way }, storing)
    }

    /// Waits until they are as durable as the topic is.
    ///
    /// # Errors
    ///
    /// Those of [`Topic::append`] that come from writing.
    pub async fn stored(self) -> Result<(), AppendError> {
        match self.fate {
            Fate::Own(pending) => pending.await.map(drop),
            Fate::Shared(storing) => storing.await,
        }?;
        self.on_the_way.stored();
        Ok(())
    }
}

/// Agents of whom a topic was told something that is not known to be stored. It is told again if this is dropped.
#[derive(Debug)]
struct OnTheWay {
    presence: Arc<Presence>,
    topic: TopicIndex,
    agents: Vec<AgentId>,
}

impl OnTheWay {
    fn stored(mut self) {
        for agent in std::mem::take(&mut self.agents) {
            self.presence.table.told(&agent, self.topic, true);
        }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        for agent in &self.agents {
            self.presence.table.told(agent, self.topic, false);
        }
    }
}

/// Indices come from [`Presence::topics`], so that this is never seen.
fn unknown(topic: TopicIndex) -> AppendError {
    AppendError::Closed { topic: topic.to_string() }
}

fn seen(connection: &Connection) -> Seen {
    Seen { clock: connection.clock().clone(), at: connection.clock().shows(Instant::now()) }
}

/// The messages with a record of each change before the message in its place.
fn weave(messages: Vec<Record>, changes: &[(usize, AgentId)]) -> Vec<Record> {
    if changes.is_empty() {
        return messages;
    }
    let mut records = Vec::with_capacity(messages.len().saturating_add(changes.len()));
    let mut changes = changes.iter().peekable();
    for (place, message) in messages.into_iter().enumerate() {
        while let Some((_, agent)) = changes.next_if(|(first, _)| *first <= place) {
            records.push(presence_record(agent, true, message.time));
        }
        records.push(message);
    }
    records
}

fn presence_record(agent: &AgentId, active: bool, at: u64) -> Record {
    let record = wharf_protocol::Record::Presence(PresenceRecord { agent: agent.clone(), active, at });
    Record { lane: Lane::of(agent.as_str()), time: at, payload: record.encode().into() }
}

/// The room that a record of each of these agents takes in a queue.
fn presence_room<'a>(agents: impl Iterator<Item = &'a AgentId>) -> usize {
    agents.map(|agent| Record::room_for(PRESENCE_BYTES.saturating_add(agent.as_str().len()))).sum()
}

/// A gauge's number as a count.
fn index_of(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

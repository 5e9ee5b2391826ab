//! Stores a message once although its agent sends it again: within a window of time and count, the same agent and
//! `message_id` in the same topic is acknowledged again and not appended.
//!
//! What holds:
//!
//! - An id counts from the moment at which its message is put into the topic's queue. Whoever sends it again meanwhile,
//!   in the same frame or on another connection, is answered as the first one is, when the first one is: with success once the message
//!   is as durable as the topic is, or with its refusal. In that case the id is forgotten, and may be sent again.
//! - Only what was accepted counts against `dedup-messages`; the oldest falls out. The window begins when a message is accepted, and
//!   sending it again does not prolong it.
//! - After a start the ids are those of the messages that the topic still has, read back over the window. A topic in memory
//!   begins anew.
//!
//! How: whether an id is known is looked up, and its message enqueued, under the lock of the topic's [`table`], so that
//! nothing comes in between; nothing waits while it is held. What becomes of an append is a future that the table
//! shares with all who wait for it, so that it is known also when the connection that sent it is gone. Messages
//! without an id never come here.
//!
//! The table keeps no texts, but 128 bits of a keyed hash of agent and id. Two that differ and have the same hash would
//! lose a message. By chance that is as good as impossible: among a million ids, one in 10^26. Nor can it be brought
//! about, because the key is random, made anew in each run and never told.

mod keeper;
mod table;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use wharf_log::{AppendError, Durability, Topic};
use wharf_protocol::AgentId;

use crate::presence::{Queued, Storing};
use table::{Claim, Table};

pub use keeper::{Remembering, keep, restore};
pub use table::Key;

/// The ids of one topic.
#[derive(Debug)]
pub struct Dedup {
    topic: Topic,
    durability: Durability,
    window: Duration,
    hash_key: RandomState,
    started: Instant,
    table: Mutex<Table>,
    remembered: Gauge,
}

/// A message with an id, among those of an append.
#[derive(Clone, Copy, Debug)]
pub struct Identified {
    /// Its place among the messages.
    pub place: usize,
    /// Its agent and id.
    pub key: Key,
}

/// A message that is not to be appended because it was before.
#[derive(Debug)]
pub struct Repeat {
    /// Its place among the messages.
    pub place: usize,
    /// What becomes of the first one.
    pub first: First,
}

/// What becomes of the message that another one repeats.
#[derive(Debug)]
pub enum First {
    /// It is stored.
    Stored,
    /// It is in the same append.
    Same,
    /// It is in another append, which is under way.
    Storing(Storing),
}

impl Dedup {
    /// Nothing is known yet. Remembers at most `max_messages` ids of stored messages, each for `window`; `remembered` shows how
    /// many there are.
    pub fn new(
        topic: Topic,
        durability: Durability,
        window: Duration,
        max_messages: usize,
        remembered: Gauge,
    ) -> Dedup {
        Dedup {
            topic,
            durability,
            window,
            hash_key: RandomState::new(),
            started: Instant::now(),
            table: Mutex::new(Table::new(milliseconds(window), max_messages)),
            remembered,
        }
    }

    /// What an agent and the id of a message are remembered as.
    pub fn key(&self, agent: &AgentId, message_id: &str) -> Key {
        // Texts are hashed with an end, so that what belongs to which makes a difference.
        let half = |half: u8| self.hash_key.hash_one((half, agent.as_str(), message_id));
        Key(half(0), half(1))
    }

    /// Appends messages without those that were appended before. `append` is told the places of these, in order, and puts the others
    /// into the topic's queue.
    pub fn append(
        &self,
        identified: &[Identified],
        append: impl FnOnce(&[Repeat]) -> Result<Queued, AppendError>,
    ) -> (Result<Queued, AppendError>, Vec<Repeat>) {
        let now = self.now();
        let mut table = self.table();
        table.settle_seen(now);
        let mut repeats = Vec::new();
        for &Identified { place, key } in identified {
            let first = match table.claim(key) {
                Claim::New => continue,
                Claim::Same => First::Same,
                Claim::Stored => First::Stored,
                Claim::Storing(storing) => First::Storing(storing),
            };
            repeats.push(Repeat { place, first });
        }
        let from = self.topic.end();
        match append(&repeats) {
            Ok(queued) => {
                let (queued, storing) = queued.share();
                table.append(storing, now, from);
                (Ok(queued), repeats)
            }
            Err(error) => {
                table.give_up();
                (Err(error), repeats)
            }
        }
    }

    /// Forgets what is out of the window.
    fn settle(&self, table: &mut Table) {
        table.settle(self.now());
        self.remembered.set(i64::try_from(table.stored()).unwrap_or(i64::MAX));
    }

    /// The time on the clock of the table, in milliseconds. What an earlier run stored a whole window before this run began has zero: this
    /// run does not depend on anybody's setting of the clock.
    fn now(&self) -> u64 {
        milliseconds(self.window.saturating_add(self.started.elapsed()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // What a panicking thread left behind is a claim at worst, which the next append takes with it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! Gap records: which messages a receiver's cursors have passed without the receiver having finished them, and why.
//!
//! A record is written in one piece with the cursors that it explains, and is on the disk when the call returns. Records are
//! few: those that touch become one, and beyond [`MAX_GAPS`] of a receiver and topic the oldest of one kind do. A seek is
//! recorded even if it skips nothing, because it says who moved the cursors. How records are written is described in
//! `gaps/layout.rs`, how they are merged in `gaps/merge.rs`.

use std::ops::Range;

use fjall::OwnedWriteBatch;
use wharf_log::Lane;

use crate::{Cursor, Cursors, Persist, State, StateError, layout::key, store::open::Open};

pub(crate) mod layout;
mod merge;
#[cfg(test)]
mod tests;

pub use merge::MAX_GAPS;

/// The longest name of an operator that is kept, in bytes.
pub const MAX_WHO: usize = 255;

/// The longest description of what an operator did that is kept, in bytes: a command line.
pub const MAX_WHAT: usize = 1024;

/// Why messages were skipped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The backlog was at its bound, and the receiver is configured to lose messages rather than to hold up others.
    Shed,
    /// They were dead letters, and fell out when there were too many of them.
    DeadLettersFull,
    /// The log was damaged there.
    Damaged,
    /// The log had deleted them.
    Trimmed,
    /// An operator moved the cursors.
    Seek {
        /// Who. At most [`MAX_WHO`] bytes are kept.
        who: String,
        /// What was done. At most [`MAX_WHAT`] bytes are kept.
        what: String,
    },
}

impl GapReason {
    /// The word of every kind of reason.
    pub const WORDS: [&'static str; 5] = ["shed", "dead-letters-full", "damaged", "trimmed", "seek"];

    /// One word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::DeadLettersFull => "dead-letters-full",
            Self::Damaged => "damaged",
            Self::Trimmed => "trimmed",
            Self::Seek { .. } => "seek",
        }
    }
}

/// A record of skipped messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where they were. Empty for a seek that skipped nothing.
    pub offsets: Range<u64>,
    /// How many they were, if that is known. Fewer than offsets if others in between were finished, or have no message.
    pub count: Option<u64>,
    /// Why they were skipped.
    pub reason: GapReason,
    /// When the first of them were, Unix milliseconds.
    pub since: u64,
    /// When the last of them were, Unix milliseconds.
    pub until: u64,
    /// How many more records this one stands for because there were too many. If it is not zero, the offsets are those of the
    /// first and the last message, and a seek is the latest of several.
    pub merged: u32,
}

impl Gap {
    /// A record of messages that are skipped now.
    #[must_use]
    pub const fn new(offsets: Range<u64>, count: Option<u64>, reason: GapReason, now: u64) -> Self {
        Self { offsets, count, reason, since: now, until: now, merged: 0 }
    }
}

/// The gap records of a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownGaps {
    /// Of each topic that has any, those that changed last at the end.
    pub topics: Vec<(String, Vec<Gap>)>,
    /// Entries that are not ones that Wharf writes, each with what is wrong.
    pub damaged: Vec<String>,
}

/// What an operator does who moves cursors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seek {
    /// Who.
    pub who: String,
    /// What was asked for.
    pub what: String,
    /// How many messages that skips, if that is known.
    pub count: Option<u64>,
    /// The time, Unix milliseconds.
    pub now: u64,
}

impl State {
    /// Records that messages were skipped, and saves the `changed` cursors of `receiver` in `topic` that passed them, in one
    /// atomic write that survives a power loss. Without cursors, only the records are written.
    ///
    /// If records of `topic` are there that can't be understood, they are set aside, and named by [`gaps`](Self::gaps).
    ///
    /// # Errors
    ///
    /// Those of [`save`](Self::save). If a write is repeated that took place after all, messages may be counted twice, but
    /// never more of them than there are offsets.
    pub fn skip<'a>(
        &self,
        receiver: &str,
        topic: &str,
        gaps: &[Gap],
        changed: impl IntoIterator<Item = (Lane, &'a Cursor)>,
    ) -> Result<(), StateError> {
        key(receiver, topic)?;
        self.write(Persist::Sync, |open, batch| {
            self.add_gaps(open, batch, receiver, topic, gaps)?;
            self.move_cursors(open, batch, receiver, topic, changed)
        })
    }

    /// Moves all cursors of `receiver` in `topic`, on or back, because an operator wants it, and records who and what, in one
    /// atomic write that survives a power loss. Nothing else may save these cursors meanwhile.
    ///
    /// Gives the record that was made. Its offsets are those that were passed and not known to be finished before. They are
    /// all below the new cursors if the old ones can't be understood, and none if there were no old ones.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], [`StateError::Read`], [`StateError::Write`], or a failure to open the database again.
    pub fn seek(&self, receiver: &str, topic: &str, to: &Cursors, seek: Seek) -> Result<Gap, StateError> {
        key(receiver, topic)?;
        self.write(Persist::Sync, |open, batch| {
            let passed = match self.read(open, receiver, topic) {
                Ok(Some(from)) => passed(&from, to),
                Ok(None) => 0..0,
                Err(StateError::DamagedCursors { .. }) => passed(&Cursors::at(0), to),
                Err(error) => return Err(error),
            };
            let Seek { who, what, count, now } = seek;
            let count = if passed.is_empty() { Some(0) } else { count };
            let gap = Gap::new(passed, count, GapReason::Seek { who, what }, now);
            self.add_gaps(open, batch, receiver, topic, std::slice::from_ref(&gap))?;
            self.move_cursors(open, batch, receiver, topic, to.iter())?;
            Ok(gap)
        })
    }

    /// The gap records of `receiver`.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], [`StateError::Read`], or a failure to open the database again.
    pub fn gaps(&self, receiver: &str) -> Result<KnownGaps, StateError> {
        let prefix = layout::prefix(receiver)?;
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let mut known = KnownGaps::default();
        for entry in open.gaps.keyspace.prefix(prefix) {
            let (key, value) = entry.into_inner().map_err(|error| self.read_error(error))?;
            let gaps = layout::parse_topic(&key).and_then(|topic| Ok((topic, layout::decode(&value)?)));
            match gaps {
                Ok(gaps) => known.topics.push(gaps),
                Err(problem) => {
                    known.damaged.push(format!("{:?}: {problem}", key.escape_ascii().to_string()))
                }
            }
        }
        Ok(known)
    }

    /// Adds gap records to those of a topic.
    pub(crate) fn add_gaps(
        &self,
        open: &Open,
        batch: &mut OwnedWriteBatch,
        receiver: &str,
        topic: &str,
        added: &[Gap],
    ) -> Result<(), StateError> {
        if added.is_empty() {
            return Ok(());
        }
        let key = key(receiver, topic)?;
        let stored = open.gaps.keyspace.get(&key).map_err(|error| self.read_error(error))?;
        let mut gaps = match stored.as_ref().map(|stored| layout::decode(stored)) {
            None => Vec::new(),
            Some(Ok(gaps)) => gaps,
            Some(Err(problem)) => {
                tracing::error!(
                    receiver.name = receiver,
                    log.topic = topic,
                    problem,
                    "the gap records of this receiver can't be understood; they are set aside"
                );
                // A cursor that may not move because of its history would be worse than a history in two parts.
                open.gaps.put(batch, layout::aside(&key), stored.unwrap_or_default());
                Vec::new()
            }
        };
        for gap in added {
            merge::add(&mut gaps, gap.clone());
        }
        open.gaps.put(batch, key, layout::encode(&gaps));
        Ok(())
    }
}

/// From the first to the last offset that is not finished in `from` and below the cursors of `to`.
fn passed(from: &Cursors, to: &Cursors) -> Range<u64> {
    let lanes = from.iter().zip(to.iter()).map(|((_, from), (_, to))| from.next()..to.next());
    lanes
        .filter(|lane| !lane.is_empty())
        .reduce(|all, lane| all.start.min(lane.start)..all.end.max(lane.end))
        .unwrap_or_default()
}

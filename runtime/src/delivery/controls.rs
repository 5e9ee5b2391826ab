//! What an operator can do with receivers while the server runs: pause and resume them, give them dead letters again, move
//! their cursors. A pause outlasts a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use thiserror::Error;
use wharf_log::{ReadError, Topic};
use wharf_state::{KeyValue, State, StateError};

use super::breaker::Breaker;
use super::halt::{Halt, HaltError};
use super::progress::Progress;
use super::redrive::Redrives;
use crate::data_dir::{DataDir, DataDirError};

mod gaps;
mod letters;
mod seek;
#[cfg(test)]
mod tests;

pub use letters::{LetterState, Letters, Page, Queued, Shown, Which};
pub use seek::{SeekTo, Sought};

/// As much of a name that somebody asked for as is repeated.
const MAX_QUOTED: usize = 64;

/// Why something could not be done with a receiver.
#[derive(Debug, Error)]
pub enum ControlError {
    /// There is no such receiver.
    #[error("find the receiver {name:?}: {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// There is no such dead letter.
    #[error(
        "find the dead letter {id} of receiver {receiver:?}: it was finished, dropped, fell out, or never was"
    )]
    NoLetter {
        /// The receiver.
        receiver: String,
        /// The number.
        id: u64,
    },
    /// Its cursors can't be moved while it works.
    #[error(
        "move the cursors of receiver {name:?} while it is not paused: pause it first: wharf pause {name}"
    )]
    NotPaused {
        /// The receiver.
        name: String,
    },
    /// The data type is not mapped to it.
    #[error("move the cursors of receiver {receiver:?} in {data_type:?}: its data types are {mapped}")]
    NotMapped {
        /// The receiver.
        receiver: String,
        /// The data type that was asked for.
        data_type: String,
        /// Those that are.
        mapped: String,
    },
    /// An offset is one of a data type.
    #[error(
        "move the cursors of receiver {receiver:?} to an offset of each of its data types: choose one of {mapped} with --type"
    )]
    WhichType {
        /// The receiver.
        receiver: String,
        /// Its data types.
        mapped: String,
    },
    /// The log has not come so far.
    #[error(
        "move the cursors of receiver {receiver:?} to offset {offset} of {data_type:?}, which ends at {end}"
    )]
    BeyondEnd {
        /// The receiver.
        receiver: String,
        /// The data type.
        data_type: String,
        /// The offset that was asked for.
        offset: u64,
        /// The end of the log.
        end: u64,
    },
    /// It was not between two batches for as long as it was waited for.
    #[error(transparent)]
    Halt(#[from] HaltError),
    /// It can't be written down, so nothing was changed.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The state database can't be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The server ends, or has a defect.
    #[error("wait for the disk")]
    Task(#[from] tokio::task::JoinError),
}

/// The receivers of a server, as far as an operator can steer them.
#[derive(Debug)]
pub struct Controls {
    receivers: RwLock<BTreeMap<String, Arc<Steered>>>,
    state: State,
    /// What receivers keep, if one of them may.
    keyvalue: Option<KeyValue>,
    data_dir: Arc<DataDir>,
    /// The names that are written down as paused; locked while that changes.
    paused: Mutex<BTreeSet<String>>,
}

/// What of a receiver an operator can steer.
#[derive(Debug)]
pub struct Steered {
    /// Its breaker.
    pub breaker: Arc<Breaker>,
    /// Where dead letters wait to be given to it again.
    pub redrives: Arc<Redrives>,
    /// The turns of its workers.
    pub halt: Arc<Halt>,
    /// The topics mapped to it, and how far it is.
    pub topics: Vec<(Topic, Arc<Progress>)>,
}

impl Controls {
    /// Takes up what the last run left paused. Receivers that are not in the config any more stay in the list: they may
    /// come back.
    pub fn open(
        data_dir: Arc<DataDir>,
        state: State,
        keyvalue: Option<KeyValue>,
    ) -> Result<Controls, DataDirError> {
        let paused = Mutex::new(data_dir.paused_receivers()?.into_iter().collect());
        let receivers = RwLock::default();
        Ok(Controls { receivers, state, keyvalue, data_dir, paused })
    }

    /// Whether a receiver is to start paused.
    pub fn starts_paused(&self, receiver: &str) -> bool {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).contains(receiver)
    }

    /// Adds a receiver, or another version of one.
    pub fn put(&self, receiver: &str, steered: Arc<Steered>) {
        let mut receivers = self.receivers.write().unwrap_or_else(PoisonError::into_inner);
        receivers.insert(receiver.to_owned(), steered);
    }

    /// Takes a receiver out. Whether it is paused is remembered: it may come back.
    pub fn remove(&self, receiver: &str) {
        self.receivers.write().unwrap_or_else(PoisonError::into_inner).remove(receiver);
    }

    /// Puts a receiver, or another version in the place of one, made to be paused or not. Nobody pauses or resumes it meanwhile.
    pub fn replace<T>(&self, receiver: &str, make: impl FnOnce(bool) -> (Arc<Steered>, T)) -> T {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let (steered, made) = make(paused.contains(receiver));
        self.put(receiver, steered);
        made
    }

    /// Stops calling a receiver, after the call that is running. Blocks on the disk.
    pub fn pause(&self, receiver: &str) -> Result<(), ControlError> {
        self.write_down(receiver, |paused| paused.insert(receiver.to_owned()), Breaker::pause)?;
        tracing::info!(receiver.name = receiver, "a receiver is paused");
        Ok(())
    }

    /// Calls a receiver again that was paused, or that is quarantined. Blocks on the disk.
    pub fn resume(&self, receiver: &str) -> Result<(), ControlError> {
        self.write_down(receiver, |paused| paused.remove(receiver), Breaker::resume)?;
        tracing::info!(receiver.name = receiver, "a receiver is resumed");
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        self.receivers.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Result<Arc<Steered>, ControlError> {
        let found = self.receivers.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        found.ok_or_else(|| {
            let known = format!("the config has {}", listed(self.names().iter().map(String::as_str)));
            ControlError::Unknown { name: quoted(name), known }
        })
    }

    /// Writes a change down, if it is one, and then acts on it: one at a time, so that what is written is what is so.
    fn write_down(
        &self,
        receiver: &str,
        change: impl FnOnce(&mut BTreeSet<String>) -> bool,
        act: impl FnOnce(&Breaker),
    ) -> Result<(), ControlError> {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        // While that is locked, it stays the one that is fed.
        let steered = self.find(receiver)?;
        let mut changed = paused.clone();
        if change(&mut changed) {
            self.data_dir.pause_receivers(changed.iter().map(String::as_str))?;
            *paused = changed;
        }
        act(&steered.breaker);
        Ok(())
    }
}

/// A name that may be anything, in a length that can be repeated.
fn quoted(name: &str) -> String {
    name.chars().take(MAX_QUOTED).collect()
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

//! What Wharf remembers beside the log: how far each receiver has come, which messages it did not get and why, which agents
//! are known, and what receivers keep for themselves.
//!
//! A [`Cursor`] says which offsets of one lane of a topic a receiver has finished; a [`KnownAgent`] which data types an
//! agent has used and whether it is active; a [`DeadLetter`] is a message that a receiver could not handle, a [`Gap`] says which
//! messages it was not given. [`State`] keeps them in a small database in the data directory. [`KeyValue`] is
//! another database, of the values that receivers keep under keys. This crate neither reads the log nor decides what is
//! finished or who is active. Every call of [`State`] and of a [`Bucket`] blocks on the disk.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod agents;
mod check;
#[cfg(test)]
mod crash;
mod cursor;
mod database;
mod dead_letters;
mod error;
mod files;
mod gaps;
mod journal;
mod keyvalue;
mod layout;
mod message_ids;
mod store;
mod swaps;

pub use agents::{KnownAgent, KnownAgents, UsedTopic};
pub use check::{
    Checked, CheckedCursors, StateContent, StateProblem, ValuesContent, check_state, check_values,
};
pub use cursor::{Cursor, CursorFull, Cursors, MAX_RUNS};
pub use dead_letters::{
    Burial, DamagedDeadLetter, DeadLetter, DeadLetterEntry, DeadLetterLimits, DeadLetterPage,
    DeadLetterUsage, Death, DeathKind, LETTER_OVERHEAD, MAX_BACKTRACE, MAX_BURIAL_BYTES, MAX_PAGE,
    MAX_REASON, MAX_STDERR, Redrive,
};
pub use error::StateError;
pub use gaps::{Gap, GapReason, KnownGaps, MAX_GAPS, MAX_WHAT, MAX_WHO, Seek};
pub use keyvalue::{
    Bucket, KeyPage, KeyValue, KeyValueError, KeyValueStore, MAX_BUCKET_NAME, MAX_KEY, MAX_KEYS, MAX_READ,
    MAX_VALUE, Refusal, Seen, Swap,
};
pub use store::{Persist, State};
pub use swaps::{KeptReceipt, MAX_RECEIPTS};

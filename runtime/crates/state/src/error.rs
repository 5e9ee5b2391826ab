//! What can go wrong with the state database.

use std::{io, path::PathBuf, time::Duration};

use wharf_log::LANES;

use crate::{MAX_BURIAL_BYTES, layout::MAX_NAME};

/// Why a call of [`State`](crate::State) or [`KeyValue`](crate::KeyValue) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The database could not be opened, or not be opened again after a failed write.
    #[error("open the state database {dir:?}")]
    Open {
        /// Where it lies.
        dir: PathBuf,
        /// What the database said.
        source: Box<fjall::Error>,
    },

    /// A file of the database is damaged. Nothing was changed.
    #[error(
        "use {}: {found}; restore the data directory from a backup, or move the folder {} out of it to go on without: {if_lost}",
        path.display(), dir.display()
    )]
    Damaged {
        /// The file, or the folder if it is not known which.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// Where the database lies.
        dir: PathBuf,
        /// What follows if it is moved away.
        if_lost: &'static str,
    },

    /// A file or folder of the database could not be prepared.
    #[error("prepare the state database {dir:?}")]
    Prepare {
        /// Where it lies.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The database could not be read.
    #[error(
        "read the state database {dir:?}; if it is damaged, which `wharf doctor` tells, restore the data directory from a backup"
    )]
    Read {
        /// Where it lies.
        dir: PathBuf,
        /// What the database said.
        source: Box<fjall::Error>,
    },

    /// A batch may or may not have been written: save again. The next call opens the database anew.
    #[error("write to the state database {dir:?}")]
    Write {
        /// Where it lies.
        dir: PathBuf,
        /// What the database said.
        source: Box<fjall::Error>,
    },

    /// A name that no key can hold.
    #[error("use {name:?} as the name of a {what}: it needs 1 to {MAX_NAME} bytes without a zero byte")]
    Name {
        /// What was named: a receiver, a topic, an agent.
        what: &'static str,
        /// The refused name.
        name: String,
    },

    /// The first save of a receiver and topic did not hold all lanes.
    #[error(
        "save the first cursors of receiver {receiver:?} in topic {topic:?}: got {found} lanes, need all {LANES}, because \
         a lane that was never saved has no place to start from"
    )]
    FirstSave {
        /// The receiver.
        receiver: String,
        /// The topic.
        topic: String,
        /// How many different lanes there were.
        found: usize,
    },

    /// A key of the database is not one that Wharf writes.
    #[error("understand the key {key:?} in the state database: expected the names of a receiver and a topic")]
    DamagedKey {
        /// The key, with bytes that are not printable escaped.
        key: String,
    },

    /// The stored cursors are not ones that Wharf writes. Where they were is not guessed.
    #[error("understand the stored cursors of receiver {receiver:?} in topic {topic:?}: {problem}")]
    DamagedCursors {
        /// The receiver.
        receiver: String,
        /// The topic.
        topic: String,
        /// What is wrong with them.
        problem: String,
    },

    /// What is stored of a receiver's version is not what Wharf writes. Which it had is not guessed.
    #[error("understand which version of receiver {receiver:?} is stored: {problem}")]
    DamagedVersion {
        /// The receiver.
        receiver: String,
        /// What is wrong with it.
        problem: String,
    },

    /// A stored dead letter is not one that Wharf writes. What it was is not guessed.
    #[error(
        "understand the stored dead letter {id} of receiver {receiver:?}: {problem}; it can only be dropped"
    )]
    DamagedDeadLetter {
        /// The receiver.
        receiver: String,
        /// Its number.
        id: u64,
        /// What is wrong with it.
        problem: String,
    },

    /// More dead letters than one write may have.
    #[error(
        "bury messages of {found} bytes in one write: the limit is {MAX_BURIAL_BYTES}; bury fewer at a time"
    )]
    Burial {
        /// The bytes of the messages together.
        found: usize,
    },

    /// A key of the database of receivers' values is not one that Wharf writes.
    #[error(
        "understand the key {key:?} in the database of receivers' values: expected the key of {expected}"
    )]
    DamagedGuestKey {
        /// The key, with bytes that are not printable escaped.
        key: String,
        /// What should be there.
        expected: &'static str,
    },

    /// What is stored for a receiver is not what Wharf writes, or does not add up.
    #[error("understand what is stored of the values of receiver {receiver:?}: {problem}")]
    DamagedValues {
        /// The receiver.
        receiver: String,
        /// What is wrong with it.
        problem: String,
    },

    /// The disk does not keep up with what is to be kept for receivers.
    #[error(
        "write to the state database {dir:?}: the disk has not taken in what was written before within {waited:?}"
    )]
    Busy {
        /// Where it lies.
        dir: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },

    /// The database was closed for good.
    #[error("use the state database {dir:?}: it is closed, because the server ends")]
    Closed {
        /// Where it lies.
        dir: PathBuf,
    },

    /// The database is closed after a failure, and it is too soon to open it again.
    #[error("use the state database {dir:?}: it failed a moment ago and will be opened again")]
    Resting {
        /// Where it lies.
        dir: PathBuf,
    },
}

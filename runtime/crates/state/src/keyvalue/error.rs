//! Why an operation of a receiver's key-value store did nothing: what the receiver did wrong, apart from what went wrong
//! here.

use super::{MAX_BUCKET_NAME, MAX_KEY, MAX_KEYS, MAX_READ, MAX_VALUE};
use crate::StateError;

/// Why an operation did nothing.
#[derive(Debug, thiserror::Error)]
pub enum KeyValueError {
    /// What was asked for can't be done. The text is for the receiver's author and says nothing of this machine.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database failed. The text is for the operator.
    #[error(transparent)]
    Failed(#[from] StateError),
}

/// What a receiver asked for that can't be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The store is full.
    #[error(
        "keep {asked} bytes more: {used} of the {limit} bytes that this receiver may keep are in use; delete something, or \
         raise `keyvalue-bytes` in the receiver's config"
    )]
    Quota {
        /// How many bytes more the store would hold.
        asked: u64,
        /// How many it holds.
        used: u64,
        /// How many it may hold.
        limit: u64,
    },

    /// The name of a bucket.
    #[error("open a bucket: its name has {found} bytes, the limit is {MAX_BUCKET_NAME}")]
    BucketLength {
        /// Its length in bytes.
        found: usize,
    },

    /// The name of a bucket holds what separates it from a key.
    #[error("open a bucket: its name holds a zero byte")]
    BucketName,

    /// A key.
    #[error("use a key: it has {found} bytes, the limit is {MAX_KEY}")]
    KeyLength {
        /// Its length in bytes.
        found: usize,
    },

    /// A value.
    #[error("keep a value: it has {found} bytes, the limit is {MAX_VALUE}")]
    ValueLength {
        /// Its length in bytes.
        found: usize,
    },

    /// Too many keys in one call.
    #[error("use {found} keys in one call: the limit is {MAX_KEYS}; ask for fewer at a time")]
    Keys {
        /// How many there were.
        found: usize,
    },

    /// Values that are too large together for one answer.
    #[error(
        "read many values in one call: together they have more than {MAX_READ} bytes; ask for fewer at a time"
    )]
    Read,

    /// A value that no number can be added to.
    #[error(
        "add to a number: the value has {found} bytes, expected the 8 of a signed number, the lowest byte first"
    )]
    NotANumber {
        /// The value's length in bytes.
        found: usize,
    },

    /// A sum that is out of range.
    #[error("add {delta} to {number}: the sum does not fit 64 bits with a sign")]
    Overflow {
        /// What is there.
        number: i64,
        /// What was to be added.
        delta: i64,
    },
}

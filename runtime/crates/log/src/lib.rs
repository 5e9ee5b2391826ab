//! The durable, ordered store of accepted messages: topics of records as segment files.
//!
//! A [`Log`] is a directory with one [`Topic`] for each data type. [`Topic::append`] gives offsets once the
//! records are as durable as the topic's [`Durability`] says; a [`Reader`] follows some [`Lane`]s of a topic
//! from an offset on, from memory at the tail and from files behind it. The log never knows what a record
//! means and keeps no cursors.
//!
//! What holds:
//!
//! - Offsets of a topic strictly increase, may have gaps and are never reused (`bound`).
//! - One append is one run of offsets, and is readable whole or not at all. Appends become readable in the order in which
//!   they were [enqueued](Topic::enqueue).
//! - A block whose checksum fails is never served. Which offsets are gone is told exactly, by [`Log::recovery`] or by
//!   [`Read::lost`].
//! - What [`Topic::trim`] deletes is told as [`Read::trimmed`] and never as lost.
//! - A write or a sync that failed is never counted as done, and never repeated: its appends are refused and a new segment begins.
//!
//! How it works, from the bottom: `files` holds every change to a file; `block` and `segment` hold the
//! format; `scan` walks a segment's blocks and past damaged ones; `recovery` does so when a topic is opened;
//! `writer` is the one thread of a topic that writes, as far as `free_space` lets it; `tail` keeps the latest
//! blocks in memory; `backlog` reads what the tail no longer holds; `times` finds records by their time, and times of records;
//! `retention` deletes segments; `observer` tells outside how the writer does; `check` looks at a log that nobody has open;
//! `backup` copies a topic while it is written to.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod backlog;
mod backup;
mod block;
mod bound;
mod check;
mod error;
mod fields;
mod files;
mod free_space;
mod lane;
mod log;
mod observer;
mod reader;
mod recovery;
mod retention;
mod scan;
mod segment;
mod tail;
mod times;
mod topic;
mod writer;

#[cfg(test)]
mod tests;

pub use check::{Effect, Finding, LogCheck, TopicCheck, check};
pub use error::{AppendError, OpenError, ReadError, TrimError};
pub use lane::{LANES, Lane, LaneSet};
pub use log::Log;
pub use observer::{Group, Observer, Outcome};
pub use reader::{Read, Reader};
pub use recovery::{CutTail, TopicRecovery};
pub use retention::{Hold, Retention, Trimmed};
pub use topic::{Durability, Entry, MAX_APPEND_BYTES, Pending, Record, Room, Topic, TopicOptions};

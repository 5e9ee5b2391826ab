//! What the writer of a topic tells of its work, for whoever counts and measures it. What is made of it is not known here.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::writer::Append;

/// A group of appends that were answered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// How many records they had.
    pub records: usize,
    /// The room that these took in the queue, in bytes.
    pub bytes: usize,
    /// What became of them.
    pub outcome: Outcome,
    /// How long it was from when each was enqueued until it was answered.
    pub appends: Vec<Duration>,
}

impl Group {
    pub(crate) fn answered_now(appends: &[Append], outcome: Outcome) -> Self {
        let now = Instant::now();
        Self {
            records: appends.iter().map(|append| append.records.len()).sum(),
            bytes: appends.iter().map(|append| append.bytes).sum(),
            outcome,
            appends: appends.iter().map(|append| now.saturating_duration_since(append.since)).collect(),
        }
    }
}

/// What became of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was stored as one block.
    Stored {
        /// How long the write took; none in memory.
        write: Option<Duration>,
        /// How long the sync took, if there was one.
        sync: Option<Duration>,
    },
    /// It was refused, because the disk would have less free space than is to be left.
    NoSpace,
    /// It was refused, because nothing could be written for it.
    Failed,
    /// It was refused, because the write or the sync of its block failed. The block was given up, with the segment.
    Abandoned,
}

/// Is told of every group of a topic, on the thread of the topic's writer and after the group was answered. It must not wait
/// for anything: the next group does not begin before it returns.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Group) + Send + Sync>);

impl Observer {
    /// Tells this function.
    pub fn new(observe: impl Fn(Group) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(crate) fn tell(&self, group: Group) {
        (self.0)(group);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Observer").finish_non_exhaustive()
    }
}

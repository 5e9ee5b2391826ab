//! Deletes the oldest segments of a topic: which ones may go, and how they go so that a crash in between does
//! no harm. The writer takes part, because it alone knows what is being written and keeps the record of it.
//!
//! The order is: the writer notes durably below which offset everything is deleted, takes the segments off
//! the list, and then their files are removed, oldest first. A crash in between leaves files that the note
//! tells to remove when the topic is opened (`recovery`), whichever of them the disk still has.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::TrimError;
use crate::segment::{Segment, now};
use crate::times;
use crate::topic::{Durability, Shared};
use crate::writer::{Message, Trim};

/// How old the last record of a topic must be before the segment that it is in is deleted. The next append
/// makes a new one, which costs three syncs: nothing in a minute, much for a topic whose receivers keep up.
const QUIET: Duration = Duration::from_secs(60);

/// What is kept of that which nobody needs any more. By default, all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// A segment is kept for so long after its last record; `None`: for ever.
    pub retain: Option<Duration>,
    /// What is kept takes at most so many bytes of the topic, whatever its age; `None`: any number.
    pub retain_bytes: Option<u64>,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// How many segments.
    pub segments: u64,
    /// How many bytes they took on disk.
    pub bytes: u64,
}

/// Keeps a topic from being trimmed, see [`Topic::hold`](crate::Topic::hold).
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
}

/// How many keep a topic from being trimmed. Locked while it is trimmed.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<usize>);

impl Hold {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let mut holds = shared.holds.lock();
        *holds = holds.saturating_add(1);
        drop(holds);
        Self { shared }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.shared.holds.lock();
        *holds = holds.saturating_sub(1);
    }
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes what [`Topic::trim`](crate::Topic::trim) says. Blocks on the disk and on the writer.
pub(crate) fn trim(
    shared: &Shared,
    writer: &Sender<Message>,
    below: u64,
    retention: Retention,
) -> Result<Trimmed, TrimError> {
    if shared.options.durability == Durability::Memory {
        return Ok(Trimmed::default());
    }
    let holds = shared.holds.lock();
    if *holds > 0 {
        return Ok(Trimmed::default());
    }
    let end = *shared.end.borrow();
    // What is appended from here on is not meant.
    let below = below.min(end);
    let segments: Vec<_> =
        shared.segments.below(below, end).into_iter().map(|(segment, _)| segment).collect();
    if let Some(last) = last_to_go(shared, &segments, retention, now()) {
        let closed = || TrimError::Closed { topic: shared.options.name.clone() };
        let (answer, done) = oneshot::channel();
        writer.send(Message::Trim(Trim { below, last, answer })).map_err(|_| closed())?;
        done.blocking_recv().map_err(|_| closed())?.map_err(failed(&shared.dir))?;
    }
    remove_files(shared)
}

/// The base of the last of these segments that is not to be kept.
fn last_to_go(shared: &Shared, segments: &[Arc<Segment>], retention: Retention, now: u64) -> Option<u64> {
    let age = |segment: &Segment| Duration::from_millis(now.saturating_sub(last_time(shared, segment)));
    let last = shared.segments.last().map(|last| last.header.base);
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes()).sum();
    let gone = segments.iter().take_while(|segment| {
        let too_much = retention.retain_bytes.is_some_and(|max| bytes > max);
        bytes = bytes.saturating_sub(segment.bytes());
        (too_much || retention.retain.is_some_and(|retain| age(segment) >= retain))
            && (Some(segment.header.base) != last || age(segment) >= QUIET)
    });
    gone.last().map(|segment| segment.header.base)
}

/// When the last record of the segment was accepted. A segment in which nothing can be read is as old as its
/// file, so that it does not stay for ever.
fn last_time(shared: &Shared, segment: &Segment) -> u64 {
    let read = times::last_time(segment).unwrap_or_else(|error| {
        tracing::warn!(
            log.topic = shared.options.name, path = %segment.path.display(),
            error = &error as &dyn std::error::Error, "the age of a segment can't be read: it counts from when it was made"
        );
        None
    });
    read.unwrap_or_else(|| {
        segment.saw_time(segment.header.created);
        segment.header.created
    })
}

fn remove_files(shared: &Shared) -> Result<Trimmed, TrimError> {
    let mut trimmed = Trimmed::default();
    while let Some(segment) = shared.segments.take_trimmed() {
        match shared.files.remove(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = segment.path.clone();
                shared.segments.return_trimmed(segment);
                return Err(TrimError::Io { path, source: error });
            }
            _ => {
                trimmed.segments = trimmed.segments.saturating_add(1);
                trimmed.bytes = trimmed.bytes.saturating_add(segment.bytes());
            }
        }
    }
    if trimmed.segments > 0 {
        shared.files.sync_dir(&shared.dir).map_err(failed(&shared.dir))?;
    }
    Ok(trimmed)
}

fn failed(path: &std::path::Path) -> impl FnOnce(io::Error) -> TrimError {
    let path = path.to_owned();
    move |source| TrimError::Io { path, source }
}

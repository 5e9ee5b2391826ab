//! What one worker reads of one topic: entries of its lanes, in batches, with what was read too much held for the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use wharf_log::{Entry, LaneSet, Reader};

use super::progress::Progress;
use super::status::Status;
use super::{Feed, Stopped, or_stop};

/// The pause after the log could not be read: a disk that fails is not asked again at once.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// The messages of one data type for one worker.
#[derive(Debug)]
pub struct Source {
    /// The data type.
    pub data_type: Arc<str>,
    /// The receiver's cursors in it.
    pub progress: Arc<Progress>,
    reader: Reader,
    /// Read, but not fit for the batch that was being made: the first of the next one.
    held: VecDeque<Entry>,
}

/// How much is read for a batch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most entries.
    pub entries: usize,
    /// The most bytes, unless one entry alone has more.
    pub bytes: usize,
    /// How long to wait for more once there is one.
    pub wait: Duration,
}

impl Source {
    /// The lanes of one topic, from the first message that is not finished.
    pub fn new(data_type: &str, feed: &Feed, lanes: LaneSet, progress: Arc<Progress>) -> Source {
        Source {
            data_type: data_type.into(),
            reader: feed.topic.reader(lanes, progress.next(lanes)),
            progress,
            held: VecDeque::new(),
        }
    }

    /// Waits until there is something to read. A failure counts as something: reading tells it.
    pub async fn ready(&mut self) {
        if self.held.is_empty() {
            let _ = self.reader.ready().await;
        }
    }

    /// Everything of the worker's lanes below has been read.
    pub fn read_below(&self) -> u64 {
        self.held.front().map_or(self.reader.position(), |held| held.offset)
    }

    /// Puts entries back, to be read again before anything else.
    pub fn hold(&mut self, entries: impl DoubleEndedIterator<Item = Entry>) {
        for entry in entries.rev() {
            self.held.push_front(entry);
        }
    }

    /// Reads entries for a batch, once something is ready. What can't be read is told here and left out.
    pub async fn read(
        &mut self,
        bounds: Bounds,
        status: &Status,
        stop: &CancellationToken,
    ) -> Result<Vec<Entry>, Stopped> {
        let deadline = Instant::now() + bounds.wait;
        let mut taken = Taken { entries: Vec::new(), bytes: 0, bounds };
        while let Some(entry) = self.held.pop_front() {
            if let Err(entry) = taken.take(entry) {
                self.held.push_front(entry);
                return Ok(taken.entries);
            }
        }
        let mut first = taken.entries.is_empty();
        while taken.has_room() {
            let next = self.reader.next(bounds.entries - taken.entries.len(), bounds.bytes - taken.bytes);
            let read = if first {
                // Something is ready: this does not wait, or only for the disk.
                or_stop(stop, next).await?
            } else {
                match timeout_at(deadline, or_stop(stop, next)).await {
                    Ok(read) => read?,
                    Err(_) => break,
                }
            };
            first = false;
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    self.read_failed(status, &error);
                    or_stop(stop, sleep(READ_PAUSE)).await?;
                    break;
                }
            };
            for lost in read.lost {
                status.lost.inc_by(lost.end.saturating_sub(lost.start));
                let data_type = &*self.data_type;
                tracing::error!(
                    receiver.name = status.name,
                    log.topic = data_type,
                    from = lost.start,
                    to = lost.end,
                    "these offsets are lost and can't be delivered"
                );
            }
            for mut entry in read.entries {
                // Copies: an entry of the log keeps its whole block in memory, which may be a thousand times its size.
                entry.payload = Bytes::copy_from_slice(&entry.payload);
                // Only the last one read can be too large, and only when it would have come alone: it waits for its turn.
                if !self.held.is_empty() {
                    self.held.push_back(entry);
                } else if let Err(entry) = taken.take(entry) {
                    self.held.push_back(entry);
                }
            }
            if !self.held.is_empty() {
                break;
            }
        }
        Ok(taken.entries)
    }

    fn read_failed(&self, status: &Status, error: &(dyn std::error::Error + 'static)) {
        status.failed(error);
        let data_type = &*self.data_type;
        tracing::error!(receiver.name = status.name, log.topic = data_type, error, "failed to read the log");
    }
}

/// Entries of a batch in the making.
struct Taken {
    entries: Vec<Entry>,
    bytes: usize,
    bounds: Bounds,
}

impl Taken {
    fn has_room(&self) -> bool {
        self.entries.len() < self.bounds.entries && self.bytes < self.bounds.bytes
    }

    /// Gives the entry back if it does not fit. The first always does.
    fn take(&mut self, entry: Entry) -> Result<(), Entry> {
        let bytes = self.bytes.saturating_add(entry.payload.len());
        if !self.entries.is_empty() && (!self.has_room() || bytes > self.bounds.bytes) {
            return Err(entry);
        }
        self.bytes = bytes;
        self.entries.push(entry);
        Ok(())
    }
}

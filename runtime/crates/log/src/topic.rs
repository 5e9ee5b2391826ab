//! A topic as the rest of the program sees it: options, records, entries, and the handle through which
//! records are appended and readers are made. The queue to the writer and its bound are here; what the writer
//! does with an append is in `writer`.

use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};

use crate::backup;
use crate::block::ROW_BYTES;
use crate::error::{AppendError, ReadError, TrimError};
use crate::files::Files;
use crate::lane::{Lane, LaneSet};
use crate::observer::Observer;
use crate::reader::Reader;
use crate::retention::{self, Hold, Holds, Retention, Trimmed};
use crate::segment::Segments;
use crate::tail::{Sought, Tail};
use crate::times;
use crate::writer::{Append, Message};

/// The largest append: its payloads and 16 bytes for each record. Far above the largest batch that a frontend
/// takes, and far below what one block can hold; a block is read and checked as a whole.
pub const MAX_APPEND_BYTES: usize = 64 * 1024 * 1024;

/// How durable the records of a topic are when an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Written and synced: survives the loss of power.
    Fsync,
    /// Written: survives the end of this process, however sudden.
    Os,
    /// Kept in memory, the latest [`TopicOptions::tail_bytes`]: survives nothing.
    Memory,
}

/// How a topic is kept.
#[derive(Debug, Clone)]
pub struct TopicOptions {
    /// The topic's name, and that of its directory: 1 to 128 of a-z, A-Z, 0-9, `_`, `-` and `.`, not
    /// beginning with `.`.
    pub name: String,
    /// When an append is answered.
    pub durability: Durability,
    /// A segment is at most this large, unless a single block is larger.
    pub segment_bytes: u64,
    /// How many bytes of appends may wait for the writer. A larger append passes alone. Capped at 4 GiB.
    pub queue_bytes: usize,
    /// How many bytes of the latest blocks are kept in memory for readers. The latest block stays however
    /// large it is.
    pub tail_bytes: usize,
    /// Whom the writer tells what it does.
    pub observer: Option<Observer>,
}

impl TopicOptions {
    /// Deletion is by whole segments: small enough that disk use follows it closely, large enough that a
    /// terabyte is not a hundred thousand files.
    pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
    /// A fraction of a second at the highest rates: enough to ride out a slow sync, not enough to hide a slow
    /// disk.
    pub const QUEUE_BYTES: usize = 32 * 1024 * 1024;
    /// A few full groups: a reader that is behind by more is not helped by memory.
    pub const TAIL_BYTES: usize = 16 * 1024 * 1024;

    /// A topic with the default sizes.
    pub fn new(name: impl Into<String>, durability: Durability) -> Self {
        Self {
            name: name.into(),
            durability,
            segment_bytes: Self::SEGMENT_BYTES,
            queue_bytes: Self::QUEUE_BYTES,
            tail_bytes: Self::TAIL_BYTES,
            observer: None,
        }
    }
}

/// What is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The lane of the agent.
    pub lane: Lane,
    /// When it was accepted, Unix milliseconds.
    pub time: u64,
    /// Any bytes.
    pub payload: Bytes,
}

impl Record {
    /// The room that these records take in the queue, in bytes.
    pub fn room<'a>(records: impl IntoIterator<Item = &'a Record>) -> usize {
        records.into_iter().map(|record| Self::room_for(record.payload.len())).sum()
    }

    /// The room that a record with so many bytes of payload takes in the queue, in bytes.
    pub const fn room_for(payload: usize) -> usize {
        payload.saturating_add(ROW_BYTES)
    }
}

/// What is read: a [`Record`] with its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the topic.
    pub offset: u64,
    /// The lane of the agent.
    pub lane: Lane,
    /// When it was accepted, Unix milliseconds.
    pub time: u64,
    /// The bytes that were appended. They share the memory of the whole block: copy what is kept for long.
    pub payload: Bytes,
}

/// A handle to a topic; cheap to clone.
#[derive(Debug, Clone)]
pub struct Topic {
    shared: Arc<Shared>,
    queue: Queue,
}

/// What the topic's handles, readers and writer have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: TopicOptions,
    pub(crate) files: Arc<dyn Files>,
    /// How many bytes of the disk are left free: one number for all topics of the log.
    pub(crate) reserve: Arc<AtomicU64>,
    pub(crate) dir: PathBuf,
    pub(crate) segments: Segments,
    pub(crate) tail: Tail,
    /// Everything below is readable or gone; it changes when a block becomes readable.
    pub(crate) end: watch::Receiver<u64>,
    pub(crate) reserved: AtomicU64,
    /// Everything below was deleted on purpose. It is set before the segments leave the list.
    pub(crate) trimmed: AtomicU64,
    pub(crate) holds: Holds,
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    messages: Sender<Message>,
    /// One permit a byte. It hands out permits in the order in which they were asked for.
    room: Arc<Semaphore>,
    max_bytes: u32,
}

impl Topic {
    pub(crate) fn new(shared: Arc<Shared>, messages: Sender<Message>) -> Self {
        // A queue without any room could not even take one append alone.
        let max_bytes = u32::try_from(shared.options.queue_bytes).unwrap_or(u32::MAX).max(1);
        let room = Arc::new(Semaphore::new(usize::try_from(max_bytes).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { shared, queue: Queue { messages, room, max_bytes } }
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.shared.options.name
    }

    /// Appends the records and gives their offsets, one after the other, once they are as durable as the
    /// topic is. Waits at most `wait` for room in the queue; the time of the write comes on top.
    ///
    /// # Errors
    ///
    /// See [`AppendError`]. Dropping the future while it waits for room appends nothing; dropping it later
    /// appends the records all the same.
    pub async fn append(&self, records: Vec<Record>, wait: Duration) -> Result<Range<u64>, AppendError> {
        self.enqueue(records, wait).await?.await
    }

    /// The first half of [`append`](Self::append): puts the records in the queue. Whoever awaits one
    /// `enqueue` before calling the next has its appends in this order, and many of them under way at once.
    ///
    /// # Errors
    ///
    /// Only those that come before writing: overloaded, closed, too large.
    pub async fn enqueue(&self, records: Vec<Record>, wait: Duration) -> Result<Pending, AppendError> {
        let bytes = Record::room(&records);
        let room = if wait.is_zero() { self.try_reserve(bytes)? } else { self.reserve(bytes, wait).await? };
        room.enqueue(records)
    }

    /// Waits at most `wait` for room in the queue for records of so many bytes (see [`Record::room`]). What has room is
    /// enqueued without waiting, so that it can be put together, and ordered with other things, under a lock.
    ///
    /// # Errors
    ///
    /// Overloaded, closed, too large.
    pub async fn reserve(&self, bytes: usize, wait: Duration) -> Result<Room<'_>, AppendError> {
        let permits = self.permits(bytes)?;
        let room = Arc::clone(&self.queue.room);
        let permit = tokio::time::timeout(wait, room.acquire_many_owned(permits))
            .await
            .map_err(|_| self.shared.overloaded())?
            .map_err(|_| self.shared.closed())?;
        Ok(Room { topic: self, bytes, permit })
    }

    /// As [`reserve`](Self::reserve), without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`reserve`](Self::reserve).
    pub fn try_reserve(&self, bytes: usize) -> Result<Room<'_>, AppendError> {
        let permits = self.permits(bytes)?;
        let permit =
            Arc::clone(&self.queue.room).try_acquire_many_owned(permits).map_err(|error| match error {
                TryAcquireError::NoPermits => self.shared.overloaded(),
                TryAcquireError::Closed => self.shared.closed(),
            })?;
        Ok(Room { topic: self, bytes, permit })
    }

    fn permits(&self, bytes: usize) -> Result<u32, AppendError> {
        if bytes > MAX_APPEND_BYTES {
            return Err(AppendError::TooLarge { bytes, max: MAX_APPEND_BYTES });
        }
        Ok(u32::try_from(bytes).unwrap_or(u32::MAX).min(self.queue.max_bytes))
    }

    /// The end of what is readable: every record that becomes readable later has this offset or a higher one.
    pub fn end(&self) -> u64 {
        *self.shared.end.borrow()
    }

    /// The lowest offset that is still kept. What is below is gone, though a reader may still find some of it in
    /// memory.
    pub fn start(&self) -> u64 {
        let first = self.shared.segments.first();
        first.map_or_else(|| self.shared.tail.from(), |first| first.header.base).max(self.shared.trimmed())
    }

    /// What the topic takes on disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shared.segments.bytes()
    }

    /// How many bytes of the topic lie at or above the offset: what a receiver that comes to it has before it, on disk or, of a
    /// topic in memory, in the tail. Never more for a higher offset, and nothing from the end on.
    ///
    /// It is computed from what is in memory, and cheap. It is exact at the borders of segments. Within one it is an estimate
    /// between two known places, as if the records between them had one size: places that were written or read since the
    /// topic was opened are known every 256 KiB, or every block if those are larger; of a segment that was not, only its ends are.
    pub fn bytes_from(&self, offset: u64) -> u64 {
        match self.shared.options.durability {
            Durability::Memory => self.shared.tail.bytes_from(offset),
            Durability::Fsync | Durability::Os => self.shared.segments.bytes_from(offset, self.end()),
        }
    }

    /// The number of its segments.
    pub fn segments(&self) -> usize {
        self.shared.segments.count()
    }

    /// How many bytes of the queue are taken: by appends that wait for the writer or are being written, and by what was
    /// reserved for others.
    pub fn queued_bytes(&self) -> usize {
        let room = usize::try_from(self.queue.max_bytes).unwrap_or(usize::MAX);
        room.saturating_sub(self.queue.room.available_permits())
    }

    /// Deletes the oldest segments, as far as all of their records are below the offset and the retention does
    /// not keep them: a segment goes when its last record is old enough, or when those that may go take too
    /// many bytes together. Readers that are still in such a segment read on to its end, and its space is free
    /// once they are there; others are told in [`Read::trimmed`](crate::Read::trimmed) what they missed.
    ///
    /// The segment that is written to goes only if besides nothing was appended for a minute, so that a topic
    /// that is quiet keeps nothing beyond its retention; a topic that is not keeps that one segment at least.
    /// The age is that of the times that were appended: records of a clock that ran ahead stay for longer, up
    /// to the bytes. A topic in memory keeps what [`TopicOptions::tail_bytes`] says, and nothing is deleted.
    ///
    /// While somebody [holds](Self::hold) the topic, nothing is deleted. Dropping the future does not end what it began.
    ///
    /// # Errors
    ///
    /// See [`TrimError`].
    pub async fn trim(&self, below: u64, retention: Retention) -> Result<Trimmed, TrimError> {
        let (shared, messages) = (Arc::clone(&self.shared), self.queue.messages.clone());
        let trimming =
            tokio::task::spawn_blocking(move || retention::trim(&shared, &messages, below, retention));
        trimming.await.map_err(|_| TrimError::Runtime { topic: self.shared.options.name.clone() })?
    }

    /// From which offset to read to get every record of this time (Unix milliseconds) or later: the first of
    /// the first block that has one, so that some earlier records may come before it; the end of the topic if
    /// there is none.
    ///
    /// Times need not increase from offset to offset: later records may be of an earlier time. Segments are
    /// passed by the time when the one behind them was made; if the clock was set back while one was written,
    /// or records are given times that lie ahead of the clock, those may be missed.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] and [`ReadError::Runtime`].
    pub async fn offset_at(&self, time: u64) -> Result<u64, ReadError> {
        let shared = Arc::clone(&self.shared);
        let seeking = tokio::task::spawn_blocking(move || times::offset_at(&shared, time));
        let found =
            seeking.await.map_err(|_| ReadError::Runtime { topic: self.shared.options.name.clone() })??;
        Ok(found.max(self.start()))
    }

    /// The time (Unix milliseconds) of the first record that is kept at this offset or above, as closely as blocks tell: the
    /// lowest of the block that it is in. `None` if there is no such record.
    ///
    /// What the tail holds is told at once. Elsewhere headers are read, from the last known place before it, but of no more
    /// than 64 MiB of blocks at a time: then the time of an earlier record is told, and the next call goes on from there.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] and [`ReadError::Runtime`].
    pub async fn time_at(&self, offset: u64) -> Result<Option<u64>, ReadError> {
        match self.shared.tail.seek(offset, LaneSet::ALL) {
            Sought::Block(block) => return Ok(Some(block.header().first_time)),
            Sought::NotYet(_) => return Ok(None),
            Sought::Gone(_) => {}
        }
        let shared = Arc::clone(&self.shared);
        let seeking = tokio::task::spawn_blocking(move || times::time_at(&shared, offset));
        seeking.await.map_err(|_| ReadError::Runtime { topic: self.shared.options.name.clone() })?
    }

    /// Every offset that was ever used is below this one, durably. A cursor above it belongs to other data.
    pub fn reserved(&self) -> u64 {
        self.shared.reserved()
    }

    /// Keeps [`trim`](Self::trim) from deleting anything for as long as the value lives. Waits for one that is at it.
    pub fn hold(&self) -> Hold {
        Hold::new(Arc::clone(&self.shared))
    }

    /// Copies the topic into the directory `to`, which must not be there, while it is written to. The copy is as a crash at
    /// this moment would leave the topic, and has everything that is readable now, unless it is trimmed meanwhile. Blocks on
    /// the disk; full segments are not copied but get a second name, where the file system can do that.
    ///
    /// # Errors
    ///
    /// When a file can't be read or written. What was copied by then is left behind.
    pub fn back_up(&self, to: &std::path::Path) -> std::io::Result<()> {
        backup::back_up(&self.shared, to)
    }

    /// A reader of these lanes that begins at this offset. Nothing is read before it is asked.
    pub fn reader(&self, lanes: LaneSet, from: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), lanes, from)
    }

    /// Ends the queue: no more appends are taken, those in it are written. The channel tells when the writer
    /// is done.
    pub(crate) fn close(&self, clean: bool) -> oneshot::Receiver<()> {
        let (done, finished) = oneshot::channel();
        self.queue.room.close();
        // Without a writer the sender is dropped, which also tells that it is done.
        let _ = self.queue.messages.send(Message::Close { clean, done });
        finished
    }
}

impl Shared {
    /// Every offset that was ever used is below, durably.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// Everything below was deleted on purpose.
    pub(crate) fn trimmed(&self) -> u64 {
        self.trimmed.load(Ordering::Acquire)
    }

    fn overloaded(&self) -> AppendError {
        AppendError::Overloaded { topic: self.options.name.clone() }
    }

    fn closed(&self) -> AppendError {
        AppendError::Closed { topic: self.options.name.clone() }
    }
}

/// Room in the queue of a topic. Dropping it gives the room back.
#[derive(Debug)]
pub struct Room<'a> {
    topic: &'a Topic,
    bytes: usize,
    permit: OwnedSemaphorePermit,
}

impl Room<'_> {
    /// Puts records in the queue, behind everything that was enqueued before.
    ///
    /// # Errors
    ///
    /// Closed; too large for records that need more room than was reserved.
    pub fn enqueue(self, records: Vec<Record>) -> Result<Pending, AppendError> {
        let Room { topic: Topic { shared, queue }, bytes: max, permit } = self;
        let bytes = Record::room(&records);
        if bytes > max {
            return Err(AppendError::TooLarge { bytes, max });
        }
        let (answer, pending) = oneshot::channel();
        let pending = Pending { answer: pending, topic: Arc::clone(shared) };
        if records.is_empty() {
            let end = *shared.end.borrow();
            return answer.send(Ok(end..end)).map(|()| pending).map_err(|_| shared.closed());
        }
        let append = Append { records, bytes, answer, since: Instant::now(), _room: permit };
        queue.messages.send(Message::Append(append)).map_err(|_| shared.closed())?;
        Ok(pending)
    }
}

/// An append that is in the queue: a future of its offsets. Dropping it does not take the append back.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Result<Range<u64>, AppendError>>,
    topic: Arc<Shared>,
}

impl Future for Pending {
    type Output = Result<Range<u64>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.topic.closed())))
    }
}

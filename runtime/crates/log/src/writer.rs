//! The thread of a topic that writes. It takes what waits in the queue, writes it as one block, syncs once,
//! makes the block readable and answers the whole group. It also reserves offsets, and begins and gives up
//! segments. It never reads what it wrote.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::block::{self, Block};
use crate::bound::{self, Bound, RESERVE};
use crate::error::AppendError;
use crate::fields::length;
use crate::free_space::FreeSpace;
use crate::observer::{Group, Outcome};
use crate::recovery::topic_hash;
use crate::segment::{HEADER_BYTES, Segment};
use crate::topic::{Durability, Record, Shared};

/// How many bytes of appends are written as one block, unless a single append is larger. At this size the
/// sync is a small part of the time that a group takes, and waiting for a group is still only some
/// milliseconds.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// What comes through the queue.
#[derive(Debug)]
pub(crate) enum Message {
    Append(Append),
    Trim(Trim),
    /// The last message. A clean close leaves the exact next offset behind.
    Close {
        clean: bool,
        done: oneshot::Sender<()>,
    },
}

/// Records that become readable together or not at all.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) records: Vec<Record>,
    pub(crate) bytes: usize,
    pub(crate) answer: oneshot::Sender<Result<Range<u64>, AppendError>>,
    /// When it was enqueued.
    pub(crate) since: Instant,
    /// Room in the queue, given back when the append is answered.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// Takes the oldest segments off the list, durably: up to the one with the base `last`, as far as all of their
/// records are below `below`.
#[derive(Debug)]
pub(crate) struct Trim {
    pub(crate) below: u64,
    pub(crate) last: u64,
    pub(crate) answer: oneshot::Sender<std::io::Result<()>>,
}

#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    messages: Receiver<Message>,
    /// What was taken from the queue and did not fit in the group.
    waiting: Option<Message>,
    readable: watch::Sender<u64>,
    /// The segment that the next block follows in; none after an error and before the first append.
    active: Option<Active>,
    /// The next offset.
    next: u64,
    /// Offsets below are reserved.
    bound: u64,
    /// The end of the last block that was acknowledged.
    end: u64,
    /// Whether the last append failed: only changes are logged.
    failing: bool,
    free_space: FreeSpace,
    /// Whether the last append was refused for want of free space.
    refusing: bool,
}

#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: File,
    pub(crate) length: u64,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        messages: Receiver<Message>,
        readable: watch::Sender<u64>,
        active: Option<Active>,
        next: u64,
    ) -> Self {
        let end = *readable.borrow();
        Self {
            shared,
            messages,
            waiting: None,
            readable,
            active,
            next,
            bound: next,
            end,
            failing: false,
            free_space: FreeSpace::default(),
            refusing: false,
        }
    }

    /// Works until the queue is closed.
    pub(crate) fn run(mut self) {
        while let Some(message) = self.waiting.take().or_else(|| self.messages.recv().ok()) {
            match message {
                Message::Append(first) => {
                    let group = self.gather(first);
                    self.commit(group);
                    self.reserve_ahead();
                }
                Message::Trim(Trim { below, last, answer }) => {
                    // Whoever asked may have gone meanwhile.
                    let _ = answer.send(self.trim(below, last));
                }
                Message::Close { clean, done } => {
                    if clean {
                        self.mark_clean();
                    }
                    // Nobody waits if the log was dropped.
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// The first append and what else is waiting already, up to the size of a group.
    fn gather(&mut self, first: Append) -> Vec<Append> {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < GROUP_BYTES {
            match self.messages.try_recv() {
                Ok(Message::Append(append)) if bytes + append.bytes <= GROUP_BYTES => {
                    bytes += append.bytes;
                    group.push(append);
                }
                Ok(message) => {
                    self.waiting = Some(message);
                    break;
                }
                Err(_) => break,
            }
        }
        group
    }

    fn commit(&mut self, group: Vec<Append>) {
        let mut outcome = Outcome::NoSpace;
        let stored = match self.take_space(&group) {
            Ok(()) => {
                let stored = self.store(&group, &mut outcome);
                self.tell(&stored);
                stored
            }
            Err(full) => Err(full),
        };
        let observer = self.shared.options.observer.clone();
        let observed = observer.map(|observer| (observer, Group::answered_now(&group, outcome)));
        let mut next = stored;
        for append in group {
            let offsets = next.clone().map(|first| first..first.saturating_add(length(append.records.len())));
            if let Ok(offsets) = &offsets {
                next = Ok(offsets.end);
            }
            // Whoever appended may have gone meanwhile.
            let _ = append.answer.send(offsets);
        }
        if let Some((observer, group)) = observed {
            observer.tell(group);
        }
    }

    /// Logs when appends begin to fail, and when they work again.
    fn tell(&mut self, stored: &Result<u64, AppendError>) {
        match stored {
            Err(error) if !self.failing => {
                tracing::error!(
                    log.topic = self.shared.options.name,
                    error = error as &dyn std::error::Error,
                    "appends fail"
                );
            }
            Ok(_) if self.failing => {
                tracing::info!(log.topic = self.shared.options.name, "appends work again")
            }
            _ => {}
        }
        self.failing = stored.is_err();
    }

    /// Refuses the group if the disk would have less free space than is to be left.
    fn take_space(&mut self, group: &[Append]) -> Result<(), AppendError> {
        if self.shared.options.durability == Durability::Memory {
            return Ok(());
        }
        let bytes = length(group.iter().map(|append| append.bytes).sum());
        let reserve = self.shared.reserve.load(Ordering::Relaxed);
        let free = || self.shared.files.free_bytes(&self.shared.dir);
        let taken = self.free_space.take(bytes, reserve, Instant::now(), free);
        match taken {
            Err(free) if !self.refusing => {
                tracing::error!(
                    log.topic = self.shared.options.name,
                    log.free_bytes = free,
                    log.reserve_bytes = reserve,
                    "the disk is nearly full: appends are refused until there is room"
                );
            }
            Ok(()) if self.refusing => {
                tracing::info!(log.topic = self.shared.options.name, "there is room on the disk again");
            }
            _ => {}
        }
        self.refusing = taken.is_err();
        taken.map_err(|_| AppendError::Full)
    }

    /// Makes the group durable and readable, and gives its first offset. What became of it is told in `outcome`.
    fn store(&mut self, group: &[Append], outcome: &mut Outcome) -> Result<u64, AppendError> {
        *outcome = Outcome::Failed;
        let records = || group.iter().flat_map(|append| &append.records);
        let count = length(records().count());
        self.reserve(count)?;
        let salt = match self.shared.options.durability {
            Durability::Memory => 0,
            Durability::Fsync | Durability::Os => {
                self.active_for(group.iter().map(|append| append.bytes).sum())?.segment.header.salt
            }
        };
        let first = self.next;
        let (block, bytes) = Block::encode(first, records(), salt)
            .ok_or_else(|| std::io::Error::other("a group is larger than a block can be"))?;
        // From here on the offsets are used, whatever happens.
        self.next = block.header().end();
        *outcome = match self.write(block.header(), &bytes) {
            Ok((write, sync)) => Outcome::Stored { write, sync },
            Err(error) => {
                *outcome = Outcome::Abandoned;
                self.abandon();
                return Err(error.into());
            }
        };
        self.end = self.next;
        self.shared.tail.push(Arc::new(block));
        self.readable.send_replace(self.end);
        Ok(first)
    }

    /// Gives how long the write and the sync took, as far as there were any.
    fn write(&mut self, header: &block::Header, bytes: &[u8]) -> std::io::Result<Times> {
        let Some(active) = &mut self.active else { return Ok((None, None)) };
        let began = Instant::now();
        self.shared.files.write(&active.file, bytes, active.length)?;
        let written = Instant::now();
        let synced = if self.shared.options.durability == Durability::Fsync {
            self.shared.files.sync(&active.file)?;
            Some(written.elapsed())
        } else {
            None
        };
        active.segment.wrote(header, active.length);
        active.length = active.length.saturating_add(length(bytes.len()));
        Ok((Some(written.duration_since(began)), synced))
    }

    /// The segment that a block with so many bytes of records goes to: a new one if the last is full or had
    /// an error.
    fn active_for(&mut self, bytes: usize) -> std::io::Result<&Active> {
        let max_bytes = self.shared.options.segment_bytes;
        let fits = |active: &Active| {
            active.length == length(HEADER_BYTES)
                || active.length.saturating_add(length(block::HEADER_BYTES + bytes)) <= max_bytes
        };
        let active = match self.active.take().filter(fits) {
            Some(active) => active,
            None => {
                let hash = topic_hash(&self.shared.options.name);
                let (segment, file) =
                    Segment::create(self.shared.files.as_ref(), &self.shared.dir, hash, self.next, self.end)?;
                let segment = Arc::new(segment);
                self.shared.segments.add(Arc::clone(&segment));
                Active { segment, file, length: length(HEADER_BYTES) }
            }
        };
        Ok(self.active.insert(active))
    }

    /// Gives the segment up after a failed write or sync: what the disk did with the block is unknown. Its
    /// offsets lie at or above the end that the next segment's header will tell, so that it is not read even
    /// if it can't be cut off.
    fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        let cut = if active.length == length(HEADER_BYTES) {
            // Without this a full disk would fill with empty segments.
            self.shared.segments.remove(&active.segment);
            self.shared.files.remove(&active.segment.path)
        } else {
            self.shared.files.truncate(&active.file, active.length)
        };
        if let Err(error) = cut {
            tracing::warn!(
                log.topic = self.shared.options.name, path = %active.segment.path.display(),
                error = &error as &dyn std::error::Error, "a block that could not be written stays in its file and is ignored"
            );
        }
    }

    /// Makes sure that the next `count` offsets are reserved.
    fn reserve(&mut self, count: u64) -> std::io::Result<()> {
        let needed =
            self.next.checked_add(count).ok_or_else(|| std::io::Error::other("no offsets are left"))?;
        if needed > self.bound {
            self.write_bound(needed.saturating_add(RESERVE))?;
        }
        Ok(())
    }

    /// Reserves more offsets once half are used, after the group was answered, so that no append waits for
    /// it.
    fn reserve_ahead(&mut self) {
        if self.bound.saturating_sub(self.next) >= RESERVE / 2 || self.failing {
            return;
        }
        if let Err(error) = self.write_bound(self.next.saturating_add(RESERVE)) {
            tracing::warn!(
                log.topic = self.shared.options.name,
                error = &error as &dyn std::error::Error,
                "offsets can't be reserved ahead"
            );
        }
    }

    fn write_bound(&mut self, bound: u64) -> std::io::Result<()> {
        self.put_bound(bound, self.shared.trimmed(), false)?;
        self.bound = bound;
        self.shared.reserved.store(bound, Ordering::Release);
        Ok(())
    }

    fn put_bound(&self, bound: u64, trimmed: u64, clean: bool) -> std::io::Result<()> {
        let hash = topic_hash(&self.shared.options.name);
        let bound = Bound { bound, end: self.end, trimmed, clean };
        bound::write(self.shared.files.as_ref(), &self.shared.dir, hash, bound)
    }

    /// Takes segments off the list; `retention` chose them and removes their files.
    fn trim(&mut self, below: u64, last: u64) -> std::io::Result<()> {
        let segments = self.shared.segments.below(below, self.end);
        let going = segments.into_iter().take_while(|(segment, _)| segment.header.base <= last);
        let Some((last, end)) = going.last() else { return Ok(()) };
        let is_going = |active: &Active| active.segment.header.base <= last.header.base;
        if self.active.as_ref().is_some_and(is_going) {
            // First: nothing may be written to a segment that the disk may already know as trimmed.
            self.active = None;
        }
        self.put_bound(self.bound, end, false)?;
        self.shared.trimmed.store(end, Ordering::Release);
        self.shared.segments.trim(last.header.base);
        Ok(())
    }

    /// Leaves the exact next offset behind, if everything before it is on disk.
    fn mark_clean(&mut self) {
        let marked = match &self.active {
            Some(active) => self.shared.files.sync(&active.file),
            None => Ok(()),
        }
        .and_then(|()| self.put_bound(self.next, self.shared.trimmed(), true));
        if let Err(error) = marked {
            tracing::error!(
                log.topic = self.shared.options.name,
                error = &error as &dyn std::error::Error,
                "the topic can't be closed cleanly; it will be recovered when it is opened"
            );
        }
    }
}

/// How long a write and its sync took.
type Times = (Option<Duration>, Option<Duration>);

#[cfg(test)]
impl Writer {
    /// Begins a segment without writing to it.
    pub(crate) fn begin_segment(&mut self) {
        self.active_for(0).unwrap();
    }

    /// From now on writes go to this file, as if it were the segment's.
    pub(crate) fn replace_file(&mut self, file: File) {
        self.active.as_mut().unwrap().file = file;
    }
}

//! What one worker reads of one topic: entries of its lanes in order, with what was read too much held for the next batch,
//! and single ones again when their agents' time has come.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use wharf_log::{Entry, Lane, LaneSet, Reader, Topic};
use wharf_state::GapReason;

use super::progress::Progress;
use super::status::Status;
use super::waiting::WaitingAgents;
use super::{Feed, Stopped, or_stop};

/// The pause after the log could not be read: a disk that fails is not asked again at once.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// How far apart two offsets may be to be read in one go: what lies between is about a block or two, and finding a place in
/// the files anew costs as much.
const NEAR: u64 = 1024;
/// Entries, and bytes of them, that are read in one go when single ones are looked for among them.
const CHUNK: (usize, usize) = (256, 1024 * 1024);

/// The messages of one data type for one worker.
#[derive(Debug)]
pub struct Source {
    /// The data type.
    pub data_type: Arc<str>,
    /// The receiver's cursors in it.
    pub progress: Arc<Progress>,
    /// The agents whose messages wait.
    pub waiting: WaitingAgents,
    /// Everything of the lanes below is finished or waits.
    pub settled: u64,
    /// Lanes whose cursors have no room, by index.
    pub full: BTreeSet<usize>,
    topic: Topic,
    lanes: LaneSet,
    reader: Reader,
    /// Where single entries are read again.
    again: Option<Reader>,
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

/// What was read.
#[derive(Debug, Default)]
pub struct Portion {
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// What is not there any more.
    pub gaps: Vec<(Range<u64>, GapReason)>,
}

impl Source {
    /// The lanes of one topic, from the first message that is not finished.
    pub fn new(feed: &Feed, lanes: LaneSet, progress: Arc<Progress>, retry_pause: Duration) -> Source {
        let next = progress.next(lanes);
        Source {
            data_type: feed.topic.name().into(),
            waiting: WaitingAgents::new(retry_pause),
            settled: next,
            full: BTreeSet::new(),
            reader: feed.topic.reader(lanes, next),
            again: None,
            topic: feed.topic.clone(),
            lanes,
            progress,
            held: VecDeque::new(),
        }
    }

    /// Whoever reads on gets what was given and is not finished again, and it is marked then: what waits, and these.
    pub fn leave(&mut self, given: &[u64]) {
        self.progress.repeat(self.waiting.all_given().chain(given.iter().copied()));
    }

    /// Begins again at the first message that is not finished.
    pub fn restart(&mut self, retry_pause: Duration) {
        self.waiting = WaitingAgents::new(retry_pause);
        self.full.clear();
        self.settled = self.progress.next(self.lanes);
        self.reader = self.topic.reader(self.lanes, self.settled);
        self.again = None;
        self.held.clear();
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
    ) -> Result<Portion, Stopped> {
        let deadline = Instant::now() + bounds.wait;
        let mut taken = Taken { portion: Portion::default(), bytes: 0, bounds };
        self.jump();
        while let Some(entry) = self.held.pop_front() {
            if let Err(entry) = taken.take(entry) {
                self.held.push_front(entry);
                return Ok(taken.portion);
            }
        }
        let mut first = taken.portion.entries.is_empty();
        while taken.has_room() {
            let (entries, bytes) = taken.room();
            let next = self.reader.next(entries, bytes);
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
            taken.portion.note_gaps(read.trimmed, read.lost, 0);
            let mut entries = read.entries;
            own(&mut entries);
            for entry in entries {
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
        Ok(taken.portion)
    }

    /// Reads single entries again that were read before, as many of the first ones as have so many bytes together, at least one.
    /// Gives besides which of them are not there any more.
    pub async fn fetch(
        &mut self,
        offsets: &[u64],
        max_bytes: usize,
        status: &Status,
        stop: &CancellationToken,
    ) -> Result<(Portion, Vec<u64>), Stopped> {
        let (mut portion, mut missing) = (Portion::default(), Vec::new());
        let mut bytes = 0_usize;
        let mut wanted = offsets.iter().copied().peekable();
        let mut reader = self.again.take();
        while let Some(&next) = wanted.peek() {
            let near =
                reader.take_if(|reader| (next.saturating_sub(NEAR)..=next).contains(&reader.position()));
            let mut at = near.unwrap_or_else(|| self.topic.reader(self.lanes, next));
            let (entries, chunk) = CHUNK;
            let read = match or_stop(stop, at.next(entries, chunk)).await? {
                Ok(read) => read,
                Err(error) => {
                    self.read_failed(status, &error);
                    or_stop(stop, sleep(READ_PAUSE)).await?;
                    return Ok((portion, missing));
                }
            };
            // What lies before has been read once and need not be there any more.
            portion.note_gaps(read.trimmed, read.lost, next);
            for mut entry in read.entries {
                // What is not there any more is passed.
                missing.extend(std::iter::from_fn(|| wanted.next_if(|wanted| *wanted < entry.offset)));
                if wanted.next_if_eq(&entry.offset).is_none() {
                    continue;
                }
                bytes = bytes.saturating_add(entry.payload.len());
                if bytes > max_bytes && !portion.entries.is_empty() {
                    return Ok((portion, missing));
                }
                own(std::slice::from_mut(&mut entry));
                portion.entries.push(entry);
            }
            let position = at.position();
            missing.extend(std::iter::from_fn(|| wanted.next_if(|wanted| *wanted < position)));
            reader = Some(at);
        }
        self.again = reader;
        Ok((portion, missing))
    }

    /// Records a message as finished that waits, or that is among those being delivered.
    pub fn finish(&mut self, agent: &str, lane: Lane, offset: u64) {
        if !self.finish_waiting(agent, offset) {
            self.progress.finish(lane, offset..offset.saturating_add(1));
        }
    }

    /// Records a message as finished, if it waits.
    pub fn finish_waiting(&mut self, agent: &str, offset: u64) -> bool {
        let finished = self.waiting.finish(agent, offset, self.settled);
        if let Some((lane, span)) = &finished {
            self.progress.finish(*lane, span.clone());
        }
        finished.is_some()
    }

    /// Whether a message of an agent that waits is finished.
    pub fn is_finished(&self, agent: &str, offset: u64) -> bool {
        self.waiting.lane_of(agent).is_none_or(|lane| self.progress.is_finished(lane, offset))
    }

    /// Forgets what waits where somebody else has moved the cursors beyond it.
    pub fn pass(&mut self, now: Instant) {
        if self.waiting.is_empty() {
            return;
        }
        for (lane, next) in self.progress.watermarks(self.lanes) {
            self.waiting.pass(lane, next, now);
        }
    }

    /// Moves on to where the cursors are, if somebody else has moved them further than this has read.
    fn jump(&mut self) {
        let next = self.progress.next(self.lanes);
        if next > self.reader.position() {
            self.held.clear();
            self.reader = self.topic.reader(self.lanes, next);
        }
    }

    fn read_failed(&self, status: &Status, error: &(dyn std::error::Error + 'static)) {
        status.failed(error);
        let data_type = &*self.data_type;
        tracing::error!(receiver.name = status.name, log.topic = data_type, error, "failed to read the log");
    }
}

impl Portion {
    /// Adds what a reader told to be gone, as far as it lies at `from` or above.
    fn note_gaps(&mut self, trimmed: Option<Range<u64>>, lost: Vec<Range<u64>>, from: u64) {
        let trimmed = trimmed.map(|trimmed| (trimmed, GapReason::Trimmed));
        let gaps = trimmed.into_iter().chain(lost.into_iter().map(|lost| (lost, GapReason::Damaged)));
        let above = gaps.map(|(offsets, reason)| (offsets.start.max(from)..offsets.end, reason));
        self.gaps.extend(above.filter(|(offsets, _)| !offsets.is_empty()));
    }
}

/// Copies the payloads: an entry of the log keeps its whole block in memory, which may be a thousand times its size. What was
/// read together is copied into one piece; it ends together too, and is no larger than a batch.
fn own(entries: &mut [Entry]) {
    let mut copy = BytesMut::with_capacity(entries.iter().map(|entry| entry.payload.len()).sum());
    entries.iter().for_each(|entry| copy.extend_from_slice(&entry.payload));
    for entry in entries {
        entry.payload = copy.split_to(entry.payload.len()).freeze();
    }
}

/// A portion in the making.
struct Taken {
    portion: Portion,
    bytes: usize,
    bounds: Bounds,
}

impl Taken {
    fn has_room(&self) -> bool {
        self.portion.entries.len() < self.bounds.entries && self.bytes < self.bounds.bytes
    }

    fn room(&self) -> (usize, usize) {
        let entries = self.bounds.entries.saturating_sub(self.portion.entries.len());
        (entries, self.bounds.bytes.saturating_sub(self.bytes))
    }

    /// Gives the entry back if it does not fit. The first always does.
    fn take(&mut self, entry: Entry) -> Result<(), Entry> {
        let bytes = self.bytes.saturating_add(entry.payload.len());
        if !self.portion.entries.is_empty() && (!self.has_room() || bytes > self.bounds.bytes) {
            return Err(entry);
        }
        self.bytes = bytes;
        self.portion.entries.push(entry);
        Ok(())
    }
}

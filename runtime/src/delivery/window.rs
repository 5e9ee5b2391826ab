//! What became of the messages around a swap, counted where the component is called and where something else was done with
//! a message, not where the cursors are: so that a message which a cursor passed without that shows as lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use wharf_host::Redelivery;
use wharf_log::{LANES, Lane, LaneSet, ReadError, Topic};
use wharf_protocol::Record;
use wharf_state::Cursors;

use super::batch::Said;
use super::progress::Progress;

/// Bytes of the log that a window spans at most, before and behind where the receiver was: many times what is in flight at a
/// swap, and read again in a moment.
const MAX_SPAN_BYTES: u64 = 64 * 1024 * 1024;
/// Messages of which a window remembers what became of them: more than it can span if they are as small as they can be.
const MAX_MESSAGES: usize = 1024 * 1024;
/// Records, and bytes of them, that are read in one go when the messages of a window are counted.
const CHUNK: (usize, usize) = (1024, 1024 * 1024);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This version of the receiver answered that it handled it.
    Handled(u64),
    /// This version was given it again.
    Again(u64),
    /// It became a dead letter.
    Dead,
    /// A gap record tells that the receiver did not get it.
    Gap,
}

/// The fates of a message as bits: it may have had more than one.
mod bits {
    pub const OLD: u8 = 1;
    pub const NEW: u8 = 2;
    pub const AGAIN: u8 = 4;
    pub const DEAD: u8 = 8;
    pub const GAP: u8 = 16;
}

/// The messages of one data type around a swap: those that were not finished when it began, up to the end of the topic when
/// the new version took over, as far as they lie within [`MAX_SPAN_BYTES`] of where the receiver was.
#[derive(Debug)]
pub struct Window {
    /// The version that went. Every later one is what came after it.
    old: u64,
    from: u64,
    /// It does not go beyond.
    limit: u64,
    /// What was finished when it began.
    began: Cursors,
    /// By offset.
    fates: Mutex<HashMap<u64, u8>>,
}

/// What became of the messages of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneCount {
    /// Everything of the lane below was finished when it began.
    pub from: u64,
    /// The last offset that the old version handled.
    pub last_by_old: Option<u64>,
    /// The first offset that the new version handled, or one that followed it.
    pub first_by_new: Option<u64>,
    /// How many of what.
    pub counts: Counts,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages that were not finished when it began, and those that came until the new version took over.
    pub accepted: u64,
    /// Handled by the old version.
    pub by_old: u64,
    /// Handled by the new version, or one that followed it.
    pub by_new: u64,
    /// Handled by both, which only a call that was ended can lead to. Counted in `by_old`.
    pub by_both: u64,
    /// Given to the new version marked as given before.
    pub redelivered: u64,
    /// Dead letters.
    pub dead: u64,
    /// Told of by gap records.
    pub gaps: u64,
    /// Not finished yet.
    pub pending: u64,
    /// Finished, and nobody knows how: there must be none.
    pub lost: u64,
}

impl Counts {
    /// Adds others.
    pub fn add(&mut self, other: &Counts) {
        self.accepted += other.accepted;
        self.by_old += other.by_old;
        self.by_new += other.by_new;
        self.by_both += other.by_both;
        self.redelivered += other.redelivered;
        self.dead += other.dead;
        self.gaps += other.gaps;
        self.pending += other.pending;
        self.lost += other.lost;
    }
}

impl Window {
    /// Begins with what is not finished of a topic now, at the end of this version.
    pub fn begin(old: u64, topic: &Topic, cursors: Cursors) -> Window {
        let furthest = cursors.iter().map(|(_, cursor)| cursor.next()).max().unwrap_or(0);
        let ahead = topic.bytes_from(furthest);
        let from = offset_with(topic, cursors.min_next(), ahead.saturating_add(MAX_SPAN_BYTES));
        let limit = match ahead.checked_sub(MAX_SPAN_BYTES) {
            Some(left) => offset_with(topic, furthest, left),
            None => u64::MAX,
        };
        Window { old, from, limit, began: cursors, fates: Mutex::default() }
    }

    /// The first offset.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Where it ends in a topic that ends there.
    pub fn to(&self, end: u64) -> u64 {
        end.min(self.limit).max(self.from)
    }

    /// Remembers what became of a message.
    pub fn note(&self, offset: u64, fate: Fate) {
        let bit = match fate {
            Fate::Handled(version) if version > self.old => bits::NEW,
            Fate::Handled(_) => bits::OLD,
            Fate::Again(version) if version > self.old => bits::AGAIN,
            Fate::Again(_) => return,
            Fate::Dead => bits::DEAD,
            Fate::Gap => bits::GAP,
        };
        let mut fates = self.lock();
        if offset >= self.from && offset < self.limit && fates.len() < MAX_MESSAGES {
            *fates.entry(offset).or_default() |= bit;
        }
    }

    /// The messages of the log between its beginning and `to` that were not finished when it began.
    pub async fn accepted(&self, topic: &Topic, to: u64) -> Result<Vec<(Lane, u64)>, ReadError> {
        let mut reader = topic.reader(LaneSet::ALL, self.from);
        let mut accepted = Vec::new();
        while reader.position() < to {
            let (records, bytes) = CHUNK;
            for entry in reader.next(records, bytes).await?.entries {
                let is_in = entry.offset < to && !self.began.get(entry.lane).is_finished(entry.offset);
                if is_in && Record::is_message(&entry.payload) {
                    accepted.push((entry.lane, entry.offset));
                }
            }
        }
        Ok(accepted)
    }

    /// What became of these by now, by lane; only lanes that have any.
    pub fn count(&self, accepted: &[(Lane, u64)], progress: &Progress) -> Vec<(Lane, LaneCount)> {
        // First the cursors: whatever they have passed has been noted by then.
        let cursors = progress.cursors();
        let fates = self.lock();
        let mut lanes: Vec<LaneCount> = vec![LaneCount::default(); LANES];
        let mut seen: HashMap<usize, Lane> = HashMap::new();
        for (lane, offset) in accepted {
            let Some(count) = lanes.get_mut(lane.index()) else { continue };
            seen.insert(lane.index(), *lane);
            let bits = fates.get(offset).copied().unwrap_or(0);
            let has = |bit: u8| bits & bit != 0;
            count.from = self.began.get(*lane).next().max(self.from);
            count.counts.accepted += 1;
            count.counts.redelivered += u64::from(has(bits::AGAIN));
            count.counts.by_both += u64::from(has(bits::OLD) && has(bits::NEW));
            if has(bits::OLD) {
                count.counts.by_old += 1;
                count.last_by_old = count.last_by_old.max(Some(*offset));
            } else if has(bits::NEW) {
                count.counts.by_new += 1;
            } else if has(bits::DEAD) {
                count.counts.dead += 1;
            } else if has(bits::GAP) {
                count.counts.gaps += 1;
            } else if cursors.get(*lane).is_finished(*offset) {
                count.counts.lost += 1;
            } else {
                count.counts.pending += 1;
            }
            if has(bits::NEW) {
                count.first_by_new = count.first_by_new.or(Some(*offset));
            }
        }
        let mut counts: Vec<_> = lanes.into_iter().enumerate().collect();
        counts.retain(|(_, count)| count.counts.accepted > 0);
        counts.into_iter().filter_map(|(index, count)| Some((*seen.get(&index)?, count))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u8>> {
        // Each of them changes as one value.
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lowest offset from `from` on with at most so many bytes before a reader that is there.
pub fn offset_with(topic: &Topic, from: u64, bytes: u64) -> u64 {
    let (mut low, mut high) = (from, topic.end());
    while low < high {
        let middle = low.midpoint(high);
        if topic.bytes_from(middle) <= bytes {
            high = middle;
        } else {
            low = middle.saturating_add(1);
        }
    }
    low
}

/// What is counted of one receiver and data type, and the windows that are open.
///
/// Between the moment that a component answered and the moment that the cursor moves, a window may begin: what was answered
/// last is kept for that, by worker.
#[derive(Debug, Default)]
pub struct Counting {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    windows: Vec<Arc<Window>>,
    /// What each worker's last call handled, and which version it was of.
    last: HashMap<usize, (u64, Vec<u64>)>,
}

impl Counting {
    /// A call of this version has returned to this worker with this answer, or failed.
    pub fn called(&self, worker: usize, version: u64, batch: &wharf_host::Batch, said: Option<&Said>) {
        let mut inner = self.lock();
        let Inner { windows, last } = &mut *inner;
        let (last_version, last) = last.entry(worker).or_default();
        *last_version = version;
        last.clear();
        if let Some(said) = said {
            let handled = batch.messages.iter().filter(|message| !said.contains_key(&message.offset));
            last.extend(handled.map(|message| message.offset));
        }
        for window in windows {
            let again = batch.messages.iter().filter(|message| message.redelivery == Redelivery::Again);
            again.for_each(|message| window.note(message.offset, Fate::Again(version)));
            last.iter().for_each(|offset| window.note(*offset, Fate::Handled(version)));
        }
    }

    /// This became of these messages. `move_on` moves the cursors past them: no window begins between.
    pub fn note_and<T>(
        &self,
        offsets: impl Iterator<Item = u64>,
        fate: Fate,
        move_on: impl FnOnce() -> T,
    ) -> T {
        let inner = self.lock();
        if !inner.windows.is_empty() {
            for offset in offsets {
                inner.windows.iter().for_each(|window| window.note(offset, fate));
            }
        }
        move_on()
    }

    /// Opens a window at the end of a version, at the cursors as they are.
    pub fn open(&self, old: u64, topic: &Topic, cursors: impl FnOnce() -> Cursors) -> Arc<Window> {
        let mut inner = self.lock();
        let window = Arc::new(Window::begin(old, topic, cursors()));
        for (version, offsets) in inner.last.values() {
            offsets.iter().for_each(|offset| window.note(*offset, Fate::Handled(*version)));
        }
        inner.windows.push(window.clone());
        window
    }

    /// Closes it: nothing more is noted in it.
    pub fn close(&self, window: &Arc<Window>) {
        self.lock().windows.retain(|open| !Arc::ptr_eq(open, window));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is counted says what was done, it decides nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

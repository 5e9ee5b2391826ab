//! Cursors as deliveries move them, in memory. The task that saves what has moved is `keeper`.
//!
//! A cursor is saved some milliseconds after it moved and without a sync of its own: what a crash redelivers in that
//! window is ordinary redelivery.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_log::{Durability, Lane, LaneSet, Topic};
use wharf_state::{Cursor, Cursors, KeyValue, Persist, State, StateError};

use super::waiting::WaitingAgents;
use super::window::{Counting, Fate, Window};
use super::{DeliveryError, Feed};
use crate::config::{self, Start};

mod keeper;
mod places;
#[cfg(test)]
mod tests;

pub use keeper::{Keeper, Keeping};
pub use places::Places;

/// The cursors of one receiver in one topic, shared by the receiver's instances and the keeper.
#[derive(Debug)]
pub struct Progress {
    receiver: String,
    topic: String,
    /// Whether the receiver keeps values, which must be as durable as the cursors that say what they came of.
    keeps_values: AtomicBool,
    /// Cursors of a `memory` topic are as volatile as what they point at.
    volatile: bool,
    /// Messages that may have been delivered before.
    repeated: Repeated,
    /// What became of messages around a swap.
    counting: Counting,
    moving: Mutex<Moving>,
    /// The lowest of the cursors as they were last written.
    saved_lowest: AtomicU64,
    /// Held from when cursors are copied until the copy is written, so that no older one is written after a newer one.
    saving: Mutex<()>,
}

#[derive(Debug)]
struct Repeated {
    /// All below this offset: by an earlier run, or before the cursors were set back.
    below: AtomicU64,
    /// Those that were given to an instance that is not there any more, and not finished; never more than may be in flight.
    offsets: Mutex<BTreeSet<u64>>,
    /// None at this offset or above is among them.
    end: AtomicU64,
}

#[derive(Debug)]
struct Moving {
    cursors: Cursors,
    changed: LaneSet,
}

/// What has moved since it was last saved.
struct Changed {
    cursors: Vec<(Lane, Cursor)>,
    /// The lowest of all cursors.
    lowest: u64,
}

impl Progress {
    /// Reads the cursors, or starts them and writes that down: where its `start` says for a receiver that is new to the topic,
    /// at the topic's beginning for one that is `known` and whose cursors are lost, so that nothing is skipped.
    pub fn take_up(
        settings: &config::Receiver,
        topic: &str,
        feed: &Feed,
        known: bool,
        state: &State,
    ) -> Result<Progress, DeliveryError> {
        let receiver = settings.name.as_str();
        let failed = |source| DeliveryError::Cursors {
            receiver: receiver.to_owned(),
            topic: topic.to_owned(),
            source: Box::new(source),
        };
        let volatile = feed.durability == Durability::Memory;
        let end = feed.topic.end();
        let mut again_below = feed.again_below;
        let cursors = if volatile {
            Cursors::at(end)
        } else if let Some(cursors) = state.cursors(receiver, topic).map_err(failed)? {
            let (next, reserved) = (cursors.end(), feed.topic.reserved());
            if next > reserved {
                let (receiver, topic) = (receiver.to_owned(), topic.to_owned());
                return Err(DeliveryError::CursorBeyondLog { receiver, topic, next, reserved });
            }
            cursors
        } else {
            let start = feed.topic.start();
            let next = if known || settings.start == Start::Oldest { start } else { end };
            if known {
                // What a lost cursor stood for may have been delivered.
                again_below = end;
                tracing::error!(
                    receiver.name = receiver,
                    log.topic = topic,
                    next,
                    "the cursors of this receiver are lost; it gets everything again that is kept"
                );
            } else {
                // Nothing was ever delivered to it.
                again_below = 0;
                let begins = match settings.start {
                    Start::Oldest => "what is kept of before is for it as well",
                    Start::New => "what came before is not for it",
                };
                if end > start {
                    tracing::info!(
                        receiver.name = receiver,
                        log.topic = topic,
                        next,
                        begins,
                        "this receiver is new to this data type"
                    );
                }
            }
            let cursors = Cursors::at(next);
            state.save(receiver, topic, cursors.iter(), Persist::Sync).map_err(failed)?;
            cursors
        };
        Ok(Progress {
            receiver: receiver.to_owned(),
            topic: topic.to_owned(),
            keeps_values: AtomicBool::new(settings.keyvalue),
            volatile,
            saved_lowest: AtomicU64::new(cursors.min_next()),
            repeated: Repeated {
                below: AtomicU64::new(again_below),
                offsets: Mutex::default(),
                end: AtomicU64::new(0),
            },
            counting: Counting::default(),
            moving: Mutex::new(Moving { cursors, changed: LaneSet::EMPTY }),
            saving: Mutex::new(()),
        })
    }

    /// The lowest offset of these lanes that is not known to be finished.
    pub fn next(&self, lanes: LaneSet) -> u64 {
        let moving = self.lock();
        lanes.iter().map(|lane| moving.cursors.get(lane).next()).min().unwrap_or(u64::MAX)
    }

    /// The lowest offset of each of these lanes that is not known to be finished.
    pub fn watermarks(&self, lanes: LaneSet) -> Vec<(Lane, u64)> {
        let moving = self.lock();
        lanes.iter().map(|lane| (lane, moving.cursors.get(lane).next())).collect()
    }

    /// What is left of a span without what is finished at its beginning in all of these lanes.
    pub fn unfinished(&self, lanes: LaneSet, span: Range<u64>) -> Range<u64> {
        let moving = self.lock();
        let first = lanes.iter().map(|lane| moving.cursors.get(lane).first_unfinished(span.start)).min();
        first.unwrap_or(span.end).min(span.end)..span.end
    }

    /// Whether a message is finished.
    pub fn is_finished(&self, lane: Lane, offset: u64) -> bool {
        self.lock().cursors.get(lane).is_finished(offset)
    }

    /// Records a finished span while something before it may not be finished.
    pub fn finish(&self, lane: Lane, span: Range<u64>) {
        let mut moving = self.lock();
        // A worker takes no more of a lane than its cursor has room for. If it had none, this would be forgotten, and after a
        // crash be delivered once more.
        let _ = moving.cursors.get_mut(lane).finish_span(span);
        moving.changed.insert(lane);
    }

    /// Records that everything of these lanes below `end` is finished or waits, and that these places are finished.
    pub fn settle(
        &self,
        lanes: LaneSet,
        end: u64,
        waiting: &WaitingAgents,
        finished: impl Iterator<Item = (Lane, u64)>,
    ) {
        if !waiting.is_empty() {
            for (lane, offset) in finished {
                if waiting.waits_in(lane) && !waiting.waits_at(lane, offset) {
                    self.finish(lane, waiting.span(lane, offset, end));
                }
            }
        }
        self.advance(lanes, end, |lane| !waiting.waits_in(lane));
    }

    /// How many more separate finished spans the cursor of each lane can remember.
    pub fn rooms(&self) -> Vec<usize> {
        self.lock().cursors.iter().map(|(_, cursor)| cursor.room()).collect()
    }

    /// The cursors of these lanes as they will be when these spans are finished, to be written. None if they are volatile.
    pub fn with_finished(&self, spans: &[(Lane, Range<u64>)]) -> Vec<(Lane, Cursor)> {
        if self.volatile {
            return Vec::new();
        }
        let moving = self.lock();
        let mut copies: BTreeMap<usize, (Lane, Cursor)> = BTreeMap::new();
        for (lane, span) in spans {
            let copy =
                copies.entry(lane.index()).or_insert_with(|| (*lane, moving.cursors.get(*lane).clone()));
            let _ = copy.1.finish_span(span.clone());
        }
        copies.into_values().collect()
    }

    /// Moves every cursor on behind these offsets, of which gap records tell. Whoever calls it holds
    /// [`writing`](Self::writing) and has saved that, with what it passes.
    pub fn pass(&self, skipped: Range<u64>) {
        let end = skipped.end;
        self.counting.note_and(skipped, Fate::Gap, || self.advance(LaneSet::ALL, end, |_| true));
    }

    /// Records that everything below `end` is finished in those of the lanes of which `which` is true.
    fn advance(&self, lanes: LaneSet, end: u64, which: impl Fn(Lane) -> bool) {
        let mut moving = self.lock();
        for lane in lanes.iter().filter(|lane| which(*lane)) {
            let cursor = moving.cursors.get_mut(lane);
            if cursor.next() < end {
                cursor.advance_to(end);
                moving.changed.insert(lane);
            }
        }
    }

    /// Keeps everybody else from writing these cursors. Whoever holds it copies them, writes the copy, and only then lets them
    /// move. It may be held while the disk is waited for: take it off the async threads.
    pub fn writing(&self) -> MutexGuard<'_, ()> {
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves what has moved, and before it what the receiver keeps.
    pub fn save(
        &self,
        _writing: &MutexGuard<'_, ()>,
        state: &State,
        keyvalue: Option<&KeyValue>,
        persist: Persist,
    ) -> Result<(), StateError> {
        let Changed { cursors: changed, lowest } = self.take_changed();
        let synced = match keyvalue.filter(|keyvalue| self.keeps_values() && keyvalue.is_dirty()) {
            Some(keyvalue) => keyvalue.sync(),
            None => Ok(()),
        };
        let cursors = changed.iter().map(|(lane, cursor)| (*lane, cursor));
        let saved = synced.and_then(|()| state.save(&self.receiver, &self.topic, cursors, persist));
        let saved = saved.inspect_err(|_| self.put_back(changed.iter().map(|(lane, _)| *lane)));
        saved.inspect(|()| self.saved_lowest.store(lowest, Ordering::Release))
    }

    /// Moves the cursors to where an operator wants them. Whoever calls it holds [`writing`](Self::writing) and has saved them,
    /// and nobody reads by the old ones any more.
    pub fn set(&self, cursors: Cursors) {
        let mut moving = self.lock();
        self.repeated.below.fetch_max(moving.cursors.end(), Ordering::Relaxed);
        self.saved_lowest.store(cursors.min_next(), Ordering::Release);
        *moving = Moving { cursors, changed: LaneSet::EMPTY };
    }

    /// Whether the cursors are not kept, because what they point at is not.
    pub fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// The receiver's name.
    pub fn receiver(&self) -> &str {
        &self.receiver
    }

    /// The data type.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Whether the receiver keeps values, which must be durable before cursors are written that stand for them.
    pub fn keeps_values(&self) -> bool {
        self.keeps_values.load(Ordering::Relaxed)
    }

    /// The receiver may keep values from now on. What it kept stays its own, so that this is never taken back.
    pub fn begins_to_keep_values(&self) {
        self.keeps_values.store(true, Ordering::Relaxed);
    }

    /// A copy of the cursors as they are now.
    pub fn cursors(&self) -> Cursors {
        self.lock().cursors.clone()
    }

    /// The lowest offset of all lanes that is not known to be finished.
    pub fn lowest(&self) -> u64 {
        self.lock().cursors.min_next()
    }

    /// Where a crash would take the slowest lane back to. What is above is still needed, finished or not: if it were deleted, it
    /// would be recorded after the crash as missed.
    pub fn saved_lowest(&self) -> u64 {
        self.saved_lowest.load(Ordering::Acquire)
    }

    /// Whether a message may have been delivered before.
    pub fn is_repeated(&self, offset: u64) -> bool {
        let Repeated { below, end, .. } = &self.repeated;
        offset < below.load(Ordering::Relaxed)
            || (offset < end.load(Ordering::Relaxed) && self.repeated_offsets().contains(&offset))
    }

    /// These messages were given to an instance and are not finished, and the instance will not get them again.
    pub fn repeat(&self, given: impl Iterator<Item = u64>) {
        let lowest = self.lowest();
        let mut offsets = self.repeated_offsets();
        offsets.extend(given);
        *offsets = offsets.split_off(&lowest);
        let end = offsets.last().map_or(0, |last| last.saturating_add(1));
        self.repeated.end.store(end, Ordering::Relaxed);
    }

    /// Whether messages that may have been delivered before may still be to come again.
    pub fn is_repeating(&self) -> bool {
        let Repeated { below, end, .. } = &self.repeated;
        self.lowest() < below.load(Ordering::Relaxed).max(end.load(Ordering::Relaxed))
    }

    fn repeated_offsets(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        // Marks decide nothing.
        self.repeated.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted of the messages around a swap.
    pub fn counting(&self) -> &Counting {
        &self.counting
    }

    /// Opens a window of what becomes of messages, see [`Counting::open`].
    pub fn open_window(&self, version: u64, topic: &Topic) -> Arc<Window> {
        self.counting.open(version, topic, || self.cursors())
    }

    /// Records finished spans of which this became.
    pub fn finish_as(&self, spans: &[(Lane, Range<u64>)], fate: Fate) {
        let offsets = spans.iter().flat_map(|(_, span)| span.clone());
        self.counting.note_and(offsets, fate, || {
            for (lane, span) in spans {
                self.finish(*lane, span.clone());
            }
        });
    }

    fn take_changed(&self) -> Changed {
        let mut moving = self.lock();
        let changed = std::mem::take(&mut moving.changed);
        let lowest = moving.cursors.min_next();
        if self.volatile {
            return Changed { cursors: Vec::new(), lowest };
        }
        let cursors = changed.iter().map(|lane| (lane, moving.cursors.get(lane).clone())).collect();
        Changed { cursors, lowest }
    }

    fn put_back(&self, lanes: impl Iterator<Item = Lane>) {
        let mut moving = self.lock();
        for lane in lanes {
            moving.changed.insert(lane);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Moving> {
        // Every change is a single step, so what a panicking thread left behind is whole.
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

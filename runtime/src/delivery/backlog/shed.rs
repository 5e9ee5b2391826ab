//! Lets a receiver lose its oldest messages: counts those that it has not finished, and moves its cursors past them in one
//! write with the gap record that says so.
//!
//! The count is that of the moment when the cursors are copied to be written. What a worker of the receiver has in hand then
//! may be handled as well: such a message is both handled and told as lost, never neither. Changes of presence are passed and
//! not counted.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_log::{Lane, LaneSet, ReadError, Reader, Topic};
use wharf_protocol::Record;
use wharf_state::{Gap, GapReason, KeyValue, State, StateError};

use crate::delivery::progress::Progress;
use crate::delivery::window::offset_with;
use crate::delivery::{Stopped, or_stop};
use crate::telemetry::DroppedLabel;
use crate::unix_time::unix_milliseconds;

/// Unfinished messages that are passed with one write at most: a megabyte of memory while they are counted, and a sync for each
/// portion that does not show.
const MAX_PIECE: usize = 65_536;
/// What is read of the log at once.
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 1024 * 1024;
/// How often a line says what was lost: the first time at once.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Sheds messages of one receiver in one topic.
#[derive(Debug)]
pub struct Shedding {
    topic: Topic,
    skipping: Skipping,
    dropped: Family<DroppedLabel, Counter>,
    /// What no line has told yet.
    untold: Option<(Range<u64>, u64)>,
    tell_at: Instant,
    /// Whether it failed last: only changes are logged.
    failing: bool,
}

/// Why messages could not be shed.
#[derive(Debug, Error)]
pub(super) enum ShedError {
    #[error("read what is to be shed")]
    Read(#[from] ReadError),
    #[error("write down what is shed")]
    State(#[from] StateError),
    #[error("wait for what is shed to be written down")]
    Task(#[from] tokio::task::JoinError),
}

/// A part of the log that is passed with one write.
#[derive(Debug)]
struct Piece {
    offsets: Range<u64>,
    /// Its messages, as far as the receiver had not finished them when they were read.
    unfinished: Vec<(Lane, u64)>,
    /// What can't be read of it any more.
    trimmed: Vec<Range<u64>>,
    lost: Vec<Range<u64>>,
}

impl Shedding {
    /// Nothing is shed yet. `dropped` counts what gap records tell of.
    pub fn new(
        topic: Topic,
        progress: Arc<Progress>,
        state: State,
        keyvalue: Option<KeyValue>,
        dropped: Family<DroppedLabel, Counter>,
    ) -> Shedding {
        Shedding {
            topic,
            skipping: Skipping { progress, state, keyvalue },
            dropped,
            untold: None,
            tell_at: Instant::now(),
            failing: false,
        }
    }

    /// Moves the cursors on until at most so many bytes lie before them, piece by piece. If that fails they stay where they are,
    /// and it is to be tried again.
    pub async fn shed_to(&mut self, bytes: u64, stop: &CancellationToken) {
        let from = self.skipping.progress.lowest();
        let to = offset_with(&self.topic, from, bytes);
        let mut reader = self.topic.reader(LaneSet::ALL, from);
        while reader.position() < to {
            let shed = match or_stop(stop, self.shed_piece(&mut reader, to)).await {
                Err(Stopped) => return,
                Ok(shed) => shed,
            };
            let progress = &self.skipping.progress;
            match shed {
                Ok(true) if self.failing => {
                    self.failing = false;
                    tracing::info!(
                        receiver.name = progress.receiver(),
                        log.topic = progress.topic(),
                        "messages are shed again"
                    );
                }
                Ok(true) => {}
                // Somebody moved the cursors back meanwhile.
                Ok(false) => return,
                Err(error) => {
                    // Said once, not at every look: until it works, the receiver keeps what it has.
                    if !std::mem::replace(&mut self.failing, true) {
                        let error: &dyn std::error::Error = &error;
                        tracing::error!(
                            receiver.name = progress.receiver(),
                            log.topic = progress.topic(),
                            error,
                            "failed to shed messages of a receiver whose backlog is at its bound; it is tried again"
                        );
                    }
                    return;
                }
            }
        }
    }

    /// Says what was lost since that was said last, if it is time to or nothing will be said later.
    pub fn tell(&mut self, last: bool) {
        if !last && Instant::now() < self.tell_at {
            return;
        }
        let Some((offsets, messages)) = self.untold.take() else { return };
        self.tell_at = Instant::now() + TELL_EVERY;
        tracing::warn!(
            receiver.name = self.skipping.progress.receiver(),
            log.topic = self.skipping.progress.topic(),
            messages,
            from = offsets.start,
            to = offsets.end,
            "the backlog of a receiver was at its bound: it lost its oldest messages, and a gap record says which"
        );
    }

    /// Passes the next piece. Nothing is passed if the cursors are not where the piece begins any more; it says whether they
    /// were.
    pub(super) async fn shed_piece(&mut self, reader: &mut Reader, to: u64) -> Result<bool, ShedError> {
        let piece = self.skipping.read(reader, to).await?;
        let skipping = self.skipping.clone();
        // A write that has begun is finished, also if this is dropped.
        let Some(gaps) = tokio::task::spawn_blocking(move || skipping.pass(&piece)).await?? else {
            return Ok(false);
        };
        for Gap { offsets, count, reason, .. } in gaps {
            let messages = count.unwrap_or(offsets.end.saturating_sub(offsets.start));
            let receiver = self.skipping.progress.receiver().to_owned();
            let label = DroppedLabel { receiver, reason: reason.word() };
            self.dropped.get_or_create_owned(&label).inc_by(messages);
            if reason == GapReason::Shed {
                let (told, count) = self.untold.get_or_insert((offsets.clone(), 0));
                told.end = offsets.end;
                *count = count.saturating_add(messages);
            }
        }
        Ok(true)
    }
}

/// The cursors, and where they and what they passed are written down.
#[derive(Clone, Debug)]
struct Skipping {
    progress: Arc<Progress>,
    state: State,
    keyvalue: Option<KeyValue>,
}

impl Skipping {
    /// Reads on, up to an offset, or until there are as many unfinished messages as a piece may have.
    async fn read(&self, reader: &mut Reader, to: u64) -> Result<Piece, ReadError> {
        let cursors = self.progress.cursors();
        let start = reader.position();
        let mut piece =
            Piece { offsets: start..start, unfinished: Vec::new(), trimmed: Vec::new(), lost: Vec::new() };
        while reader.position() < to && piece.unfinished.len() < MAX_PIECE {
            let records = READ_RECORDS.min(MAX_PIECE - piece.unfinished.len());
            let read = reader.next(records, READ_BYTES).await?;
            piece.trimmed.extend(read.trimmed);
            piece.lost.extend(read.lost);
            let entries = read.entries.iter().filter(|entry| entry.offset < to);
            let messages = entries.filter(|entry| Record::is_message(&entry.payload));
            let unfinished = messages.filter(|entry| !cursors.get(entry.lane).is_finished(entry.offset));
            piece.unfinished.extend(unfinished.map(|entry| (entry.lane, entry.offset)));
        }
        piece.offsets.end = reader.position().min(to);
        Ok(piece)
    }

    /// Moves the cursors past a piece, once that is written down, and gives the records of what that skips. Nothing happens if
    /// they do not stand at its beginning or behind it. Blocks on the disk.
    fn pass(&self, piece: &Piece) -> Result<Option<Vec<Gap>>, StateError> {
        let Piece { offsets, unfinished, trimmed, lost } = piece;
        let progress = &self.progress;
        let _writing = progress.writing();
        let mut cursors = progress.cursors();
        if cursors.min_next() < offsets.start {
            return Ok(None);
        }
        let unfinished = unfinished.iter().filter(|(lane, offset)| !cursors.get(*lane).is_finished(*offset));
        let messages = u64::try_from(unfinished.count()).unwrap_or(u64::MAX);
        for lane in LaneSet::ALL.iter() {
            cursors.get_mut(lane).advance_to(offsets.end);
        }
        // Behind the copy: what the copied cursors stand for is in the store by then.
        if let Some(keyvalue) =
            self.keyvalue.as_ref().filter(|keyvalue| progress.keeps_values() && keyvalue.is_dirty())
        {
            keyvalue.sync()?;
        }
        let now = unix_milliseconds();
        let gone = |offsets: &Range<u64>, reason| {
            Gap::new(offsets.start..offsets.end.min(piece.offsets.end), None, reason, now)
        };
        let mut gaps: Vec<Gap> = trimmed.iter().map(|offsets| gone(offsets, GapReason::Trimmed)).collect();
        gaps.extend(lost.iter().map(|offsets| gone(offsets, GapReason::Damaged)));
        if messages > 0 {
            gaps.push(Gap::new(offsets.clone(), Some(messages), GapReason::Shed, now));
        }
        let written = if progress.is_volatile() { None } else { Some(cursors.iter()) };
        self.state.skip(progress.receiver(), progress.topic(), &gaps, written.into_iter().flatten())?;
        progress.pass(offsets.clone());
        Ok(Some(gaps))
    }
}

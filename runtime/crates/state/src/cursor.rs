//! How far a receiver has come in a topic: a low watermark and the finished offsets above it, per lane.
//!
//! Cursors are plain values without I/O. They do not know which offsets exist: a lane owns only some of its topic's
//! offsets, so whoever walks the lane says which spans are finished.

use std::{collections::BTreeMap, ops::Range};

use wharf_log::{LANES, Lane};

#[cfg(test)]
mod tests;

/// How many separate runs of finished offsets a cursor remembers above its watermark.
///
/// A run opens when a message is finished while an earlier one of its lane is not. As many as a receiver has messages in
/// flight by default is ample, and a full cursor is still small: 16 KiB, so that all lanes of a topic are one write of 1 MiB.
pub const MAX_RUNS: usize = 1024;

/// The position of one receiver in one lane of one topic.
///
/// Every offset below [`next`](Self::next) is finished, and so is every offset in [`runs`](Self::runs). Runs never
/// touch each other nor the watermark: what touches is merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    next: u64,
    /// Start and end (exclusive) of each run, all above `next`.
    runs: BTreeMap<u64, u64>,
}

/// The refusal of a [`Cursor`] that holds [`MAX_RUNS`] runs to open another one.
///
/// The lane has to wait until an offset further below is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record offset {offset} as finished: the cursor at {next} already holds {MAX_RUNS} runs above it")]
pub struct CursorFull {
    /// The first offset that was to be recorded.
    pub offset: u64,
    /// The watermark of the cursor.
    pub next: u64,
}

impl Cursor {
    /// A cursor with every offset below `next` finished and none above.
    #[must_use]
    pub const fn at(next: u64) -> Self {
        Self { next, runs: BTreeMap::new() }
    }

    /// The low watermark: the smallest offset that is not known to be finished.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The finished runs above the watermark, ascending.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = Range<u64>> {
        self.runs.iter().map(|(&start, &end)| start..end)
    }

    /// How many more runs the cursor takes. [`finish`](Self::finish) cannot fail while this is not zero.
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_RUNS.saturating_sub(self.runs.len())
    }

    /// Whether `offset` is finished.
    #[must_use]
    pub fn is_finished(&self, offset: u64) -> bool {
        self.first_unfinished(offset) > offset
    }

    /// The first offset from `offset` on that is not known to be finished.
    #[must_use]
    pub fn first_unfinished(&self, offset: u64) -> u64 {
        let offset = offset.max(self.next);
        self.runs.range(..=offset).next_back().map_or(offset, |(_, &end)| offset.max(end))
    }

    /// A cursor from its parts, as the database has them; `None` if no cursor can look like this.
    pub(crate) fn from_parts(next: u64, runs: impl IntoIterator<Item = Range<u64>>) -> Option<Self> {
        let mut cursor = Self::at(next);
        let mut end_of_last = next;
        for run in runs {
            if run.start <= end_of_last || run.is_empty() {
                return None;
            }
            end_of_last = run.end;
            cursor.finish_span(run).ok()?;
        }
        Some(cursor)
    }

    /// Records `offset` as finished. Doing so again changes nothing.
    ///
    /// # Errors
    ///
    /// [`CursorFull`] when this would open one run too many. The cursor is then unchanged.
    pub fn finish(&mut self, offset: u64) -> Result<(), CursorFull> {
        self.finish_span(offset..offset.saturating_add(1))
    }

    /// Records every offset of `span` as finished. Parts that are finished already do not matter.
    ///
    /// A lane owns only some of the offsets of its topic. Whoever walked the lane and knows that nothing unfinished of it lies
    /// in a span records the whole span, and so keeps runs few; offset by offset, none would touch the next.
    ///
    /// # Errors
    ///
    /// [`CursorFull`] when this would open one run too many. The cursor is then unchanged.
    pub fn finish_span(&mut self, span: Range<u64>) -> Result<(), CursorFull> {
        if span.is_empty() || span.end <= self.next {
            return Ok(());
        }
        if span.start <= self.next {
            self.advance_to(span.end);
            return Ok(());
        }
        let mut merged = span;
        // Runs are disjoint, so their ends ascend with their starts: walking back from the span's end meets all that
        // touch it before the first that does not.
        while let Some((&start, &end)) = self.runs.range(..=merged.end).next_back() {
            if end < merged.start {
                break;
            }
            self.runs.remove(&start);
            merged = merged.start.min(start)..merged.end.max(end);
        }
        if self.runs.len() >= MAX_RUNS {
            return Err(CursorFull { offset: merged.start, next: self.next });
        }
        self.runs.insert(merged.start, merged.end);
        Ok(())
    }

    /// Moves the watermark up to `next`, and on over the run that it then touches. Runs below are dropped. A watermark never
    /// moves down.
    pub fn advance_to(&mut self, next: u64) {
        self.next = self.next.max(next);
        while let Some(run) = self.runs.first_entry() {
            if *run.key() > self.next {
                break;
            }
            self.next = self.next.max(run.remove());
        }
    }
}

/// The cursors of one receiver in one topic, one for each lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursors([Cursor; LANES]);

impl Cursors {
    /// Cursors that all stand at `next`.
    #[must_use]
    pub fn at(next: u64) -> Self {
        Self(std::array::from_fn(|_| Cursor::at(next)))
    }

    /// The cursor of `lane`.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "the index of a lane is below LANES by its type")]
    pub fn get(&self, lane: Lane) -> &Cursor {
        &self.0[lane.index()]
    }

    /// The cursor of `lane`, to move it.
    #[expect(clippy::indexing_slicing, reason = "the index of a lane is below LANES by its type")]
    pub fn get_mut(&mut self, lane: Lane) -> &mut Cursor {
        &mut self.0[lane.index()]
    }

    /// Every lane with its cursor.
    pub fn iter(&self) -> impl Iterator<Item = (Lane, &Cursor)> {
        (0..).zip(&self.0).filter_map(|(index, cursor)| Some((Lane::new(index)?, cursor)))
    }

    /// The offset behind the highest that is finished in some lane.
    #[must_use]
    pub fn end(&self) -> u64 {
        let ends = self.0.iter().map(|cursor| cursor.runs().last().map_or(cursor.next, |run| run.end));
        ends.max().unwrap_or_default()
    }

    /// The lowest watermark: below it, the receiver has finished every lane.
    #[must_use]
    pub fn min_next(&self) -> u64 {
        self.0.iter().map(Cursor::next).min().unwrap_or_default()
    }
}

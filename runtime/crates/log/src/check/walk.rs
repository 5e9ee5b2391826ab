//! A walk over all blocks of one segment, for a check: what is whole is counted, what is not is a finding.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::{Effect, Finding, TopicCheck};
use crate::bound::Bound;
use crate::fields::length;
use crate::scan::{Scan, Step};
use crate::segment::{HEADER_BYTES, Segment};

/// A walk over all blocks of a segment.
pub(super) struct Walk<'a> {
    segment: &'a Segment,
    checked: &'a mut TopicCheck,
    progress: &'a mut dyn FnMut(u64),
    lost: Vec<Range<u64>>,
    /// Where the last whole block ends, as an offset and in the file.
    end: Option<u64>,
    good_length: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn over(
        segment: &'a Segment,
        checked: &'a mut TopicCheck,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        Self { segment, checked, progress, lost: Vec::new(), end: None, good_length: length(HEADER_BYTES) }
    }

    /// Walks over a segment behind which others follow. `end` is that of its acknowledged offsets, if it is known.
    pub(super) fn older(&mut self, file: &File, end: Option<u64>) -> io::Result<()> {
        // Without it, what is missing at the end is not known to have been there.
        self.blocks(file, end.unwrap_or(u64::MAX), &(0..0))?;
        let walked_to = self.end.unwrap_or(self.segment.header.base);
        if let Some(end) = end {
            self.lost.retain(|lost| lost.start < walked_to);
            if walked_to < end {
                self.lost.push(walked_to..end);
            }
        }
        self.skip();
        Ok(())
    }

    /// Walks over the last segment.
    pub(super) fn last(&mut self, file: &File, bound: Bound) -> io::Result<()> {
        let refused = if bound.clean { bound.end..bound.bound } else { 0..0 };
        self.blocks(file, u64::MAX, &refused)?;
        let file_length = file.metadata()?.len();
        let walked_to = self.end.unwrap_or(self.segment.header.base);
        let doubtful: Vec<_> = self.lost.extract_if(.., |lost| lost.start >= walked_to).collect();
        let end = bound.end.max(self.end.unwrap_or(self.segment.header.previous_end));
        if walked_to < end {
            self.lost.push(walked_to..end);
        }
        self.skip();
        if file_length > self.good_length && !bound.clean {
            let bytes = file_length - self.good_length;
            self.checked.findings.push(Finding {
                file: self.segment.path.clone(),
                found: format!("its last {bytes} bytes, from {} on, are half-written", self.good_length),
                lost: doubtful,
                effect: Effect::Cut,
            });
        }
        Ok(())
    }

    fn blocks(&mut self, file: &File, limit: u64, refused: &Range<u64>) -> io::Result<()> {
        let Segment { header, .. } = self.segment;
        let mut scan = Scan::new(file, header.salt, self.good_length, header.base, limit);
        let mut told = 0;
        loop {
            match scan.next()? {
                // It failed and could not be cut off; nothing was written behind it.
                Step::Block(block) if refused.contains(&block.first) => return Ok(()),
                Step::Block(block) => {
                    let whole = scan.block(block)?.is_some();
                    scan.pass(&block);
                    if whole {
                        self.checked.blocks += 1;
                        self.checked.records = self.checked.records.saturating_add(block.count.into());
                        let first = self.checked.offsets.map_or(block.first, |(first, _)| first);
                        self.checked.offsets = Some((first, block.end().saturating_sub(1)));
                        self.end = Some(block.end());
                        self.good_length = scan.position();
                    } else {
                        self.lost.push(block.first..block.end());
                    }
                }
                Step::Damage(gone) => self.lost.push(gone),
                Step::End(_) => return Ok(()),
            }
            (self.progress)(scan.position().saturating_sub(told));
            told = scan.position();
        }
    }

    fn skip(&mut self) {
        let lost = joined(std::mem::take(&mut self.lost));
        if !lost.is_empty() {
            self.checked.findings.push(skipped(&self.segment.path, "blocks are damaged or missing", lost));
        }
    }
}

pub(super) fn skipped(file: &Path, found: &str, lost: Vec<Range<u64>>) -> Finding {
    Finding { file: file.to_owned(), found: found.to_owned(), lost, effect: Effect::Skipped }
}

/// The ranges, which ascend, with those that touch made one.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| last.end >= range.start) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range),
        }
    }
    joined
}

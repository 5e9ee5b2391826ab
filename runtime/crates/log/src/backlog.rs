//! Reads blocks from segment files, for readers that are behind the tail. Everything here blocks on the disk
//! and runs off the async threads.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use crate::block::Block;
use crate::error::ReadError;
use crate::lane::LaneSet;
use crate::scan::{Scan, Step};
use crate::segment::Segment;
use crate::topic::Shared;

/// How many bytes of blocks are fetched at once: enough that the way to the blocking thread and back does not
/// show, little enough that a hundred lagging readers are no burden.
const FETCH_BYTES: usize = 1024 * 1024;

/// How many bytes of blocks of other lanes are hopped over at once, so that the reader shows progress.
const HOP_BYTES: u64 = 64 * 1024 * 1024;

/// Where a reader is in the files: everything below `expected` was passed.
#[derive(Debug)]
pub(crate) struct Place {
    segment: Arc<Segment>,
    file: File,
    position: u64,
    expected: u64,
}

/// What one trip to the files brought.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) blocks: VecDeque<Arc<Block>>,
    /// Offsets that were deleted on purpose. If there are any, or lost ones, they come alone, so that they are
    /// told in their place.
    pub(crate) trimmed: Option<Range<u64>>,
    /// Offsets that can't be served. They lie behind the trimmed ones.
    pub(crate) lost: Option<Range<u64>>,
    /// Everything of the lanes below this offset is in the blocks, is gone, or was passed before.
    pub(crate) reached: u64,
    pub(crate) place: Option<Place>,
}

/// Fetches blocks with records of the lanes at or above `from`, where the last trip ended, up to where the
/// tail begins.
pub(crate) fn fetch(
    shared: &Shared,
    lanes: LaneSet,
    from: u64,
    place: Option<Place>,
) -> Result<Fetched, ReadError> {
    // In this order: a segment that is not listed yet has no block below this limit.
    let limit = shared.tail.from();
    let mut trip =
        Trip { shared, lanes, from, bytes: 0, hopped: 0, blocks: VecDeque::new(), trimmed: None, lost: None };
    let mut place = match place {
        Some(place) => place,
        None => loop {
            let Some(segment) = shared.segments.for_offset(from) else {
                trip.lose(from..limit);
                return Ok(trip.end(limit, None));
            };
            let Some(place) = Place::at(shared, segment, from)? else { continue };
            let header = &place.segment.header;
            if from < header.base {
                trip.lose(from..header.previous_end.min(limit));
                return Ok(trip.end(header.base.min(limit), Some(place)));
            }
            break place;
        },
    };
    loop {
        let next = shared.segments.after(&place.segment);
        let segment_end = next.as_ref().map_or(limit, |next| next.header.previous_end.min(limit));
        let finished = trip
            .walk(&mut place, segment_end)
            .map_err(|source| ReadError::Io { path: place.segment.path.clone(), source })?;
        // A segment whose first block is not readable yet may still be given up.
        match next.filter(|next| finished && next.header.base < limit) {
            Some(next) => match Place::at(shared, next, from)? {
                Some(next) => place = next,
                None => return Ok(trip.end(place.expected.min(limit), None)),
            },
            None => return Ok(trip.end(place.expected.min(limit), Some(place))),
        }
    }
}

impl Place {
    /// The last known place that is not behind the offset; the first block if it is in no other. `None` if the
    /// segment was trimmed meanwhile.
    fn at(shared: &Shared, segment: Arc<Segment>, offset: u64) -> Result<Option<Self>, ReadError> {
        let (expected, position) = segment.nearest(offset);
        match File::open(&segment.path) {
            Ok(file) => Ok(Some(Self { segment, file, position, expected })),
            Err(error) if error.kind() == ErrorKind::NotFound && !shared.segments.has(&segment) => Ok(None),
            Err(source) => Err(ReadError::Io { path: segment.path.clone(), source }),
        }
    }
}

struct Trip<'a> {
    shared: &'a Shared,
    lanes: LaneSet,
    from: u64,
    bytes: usize,
    hopped: u64,
    blocks: VecDeque<Arc<Block>>,
    trimmed: Option<Range<u64>>,
    lost: Option<Range<u64>>,
}

impl Trip<'_> {
    /// Walks on in the segment. Gives whether that came to the segment's end; if not, the trip is over.
    fn walk(&mut self, place: &mut Place, segment_end: u64) -> std::io::Result<bool> {
        let Place { segment, file, position, expected } = place;
        let mut scan = Scan::new(file, segment.header.salt, *position, *expected, segment_end);
        while !self.has_gap() && self.bytes < FETCH_BYTES && self.hopped < HOP_BYTES {
            let passed = match scan.next()? {
                Step::Block(header) => {
                    segment.mark(header.first, scan.position());
                    let passed = if header.end() <= self.from || !header.lanes.intersects(self.lanes) {
                        self.hopped = self.hopped.saturating_add(header.bytes());
                        true
                    } else if let Some(block) = scan.block(header)? {
                        self.bytes += block.bytes();
                        self.blocks.push_back(Arc::new(block));
                        true
                    } else {
                        self.lose(header.first..header.end())
                    };
                    scan.pass(&header);
                    passed
                }
                Step::Damage(gone) => self.lose(gone),
                Step::End(gone) => {
                    let passed = self.lose(gone);
                    if passed {
                        *position = scan.position();
                        *expected = segment_end.max(*expected);
                    }
                    return Ok(passed);
                }
            };
            if !passed {
                return Ok(false);
            }
            (*position, *expected) = (scan.position(), scan.expected());
        }
        Ok(false)
    }

    /// Takes note of offsets that are gone, trimmed or lost. Gives whether the trip may pass them: not if there
    /// are blocks from before to be read first.
    fn lose(&mut self, gone: Range<u64>) -> bool {
        let gone = gone.start.max(self.from)..gone.end;
        if gone.is_empty() {
            return true;
        }
        if !self.blocks.is_empty() {
            return false;
        }
        // Looked at behind the list of segments, so that what is missing there is known to be trimmed.
        let start = self.shared.trimmed().clamp(gone.start, gone.end);
        self.trimmed = Some(gone.start..start).filter(|gone| !gone.is_empty());
        self.lost = Some(start..gone.end).filter(|gone| !gone.is_empty());
        true
    }

    fn has_gap(&self) -> bool {
        self.trimmed.is_some() || self.lost.is_some()
    }

    fn end(self, reached: u64, place: Option<Place>) -> Fetched {
        Fetched { blocks: self.blocks, trimmed: self.trimmed, lost: self.lost, reached, place }
    }
}

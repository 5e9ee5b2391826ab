//! Finds records by their time. It reads headers only: those of blocks tell the lowest and highest time of
//! their records, those of segments when they were made. Everything here blocks on the disk.

use std::fs::File;
use std::io;

use crate::error::ReadError;
use crate::fields::length;
use crate::scan::{Scan, Step};
use crate::segment::{HEADER_BYTES, Segment};
use crate::topic::Shared;

/// How much of the end of a segment is searched for its last blocks at first: what one read gives, and more
/// than most blocks have.
const LOOK_BACK_BYTES: u64 = 1024 * 1024;

/// How many bytes of blocks are walked over at most to find the time of a record: a segment of the usual size, whose headers
/// are read in some hundredths of a second.
const MAX_WALK_BYTES: u64 = 64 * 1024 * 1024;

/// The first offset of the first block that has a record of this time or later; the end of the topic if there
/// is none.
pub(crate) fn offset_at(shared: &Shared, time: u64) -> Result<u64, ReadError> {
    // In this order: what leaves the tail meanwhile is not looked for in the files, and need not be.
    let (limit, in_tail) = shared.tail.seek_time(time);
    let mut segment = shared.segments.for_time(time);
    while let Some(found) = segment {
        let next = shared.segments.after(&found);
        let end = next.as_ref().map_or(limit, |next| next.header.previous_end.min(limit));
        match first_at(&found, end, time) {
            Ok(Some(offset)) => return Ok(offset),
            Ok(None) => {}
            // Trimmed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !shared.segments.has(&found) => {}
            Err(source) => return Err(ReadError::Io { path: found.path.clone(), source }),
        }
        segment = next.filter(|next| next.header.base < limit);
    }
    Ok(in_tail)
}

fn first_at(segment: &Segment, end: u64, time: u64) -> io::Result<Option<u64>> {
    let file = File::open(&segment.path)?;
    let start = length(HEADER_BYTES);
    let mut scan = Scan::new(&file, segment.header.salt, start, segment.header.base, end);
    loop {
        match scan.next()? {
            Step::Block(header) if header.last_time >= time => return Ok(Some(header.first)),
            Step::Block(header) => {
                segment.mark(header.first, scan.position());
                scan.pass(&header);
            }
            Step::Damage(_) => {}
            Step::End(_) => return Ok(None),
        }
    }
}

/// What [`Topic::time_at`](crate::Topic::time_at) tells of an offset that is in no block of the tail.
pub(crate) fn time_at(shared: &Shared, offset: u64) -> Result<Option<u64>, ReadError> {
    // In this order: what leaves the tail meanwhile is looked for in the files.
    let (limit, in_tail) = (shared.tail.from(), shared.tail.first_time());
    let mut segment = shared.segments.for_offset(offset);
    while let Some(found) = segment {
        let next = shared.segments.after(&found);
        let end = next.as_ref().map_or(limit, |next| next.header.previous_end.min(limit));
        match time_in(&found, end, offset) {
            Ok(Some(time)) => return Ok(Some(time)),
            Ok(None) => {}
            // Trimmed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !shared.segments.has(&found) => {}
            Err(source) => return Err(ReadError::Io { path: found.path.clone(), source }),
        }
        segment = next.filter(|next| next.header.base < limit);
    }
    Ok(in_tail)
}

fn time_in(segment: &Segment, end: u64, offset: u64) -> io::Result<Option<u64>> {
    let (expected, position) = segment.nearest(offset);
    let file = File::open(&segment.path)?;
    let mut scan = Scan::new(&file, segment.header.salt, position, expected, end);
    let last_position = position.saturating_add(MAX_WALK_BYTES);
    loop {
        match scan.next()? {
            Step::Block(header) if header.end() > offset || scan.position() > last_position => {
                return Ok(Some(header.first_time));
            }
            Step::Block(header) => {
                segment.mark(header.first, scan.position());
                scan.pass(&header);
            }
            Step::Damage(_) => {}
            Step::End(_) => return Ok(None),
        }
    }
}

/// The highest time of the latest blocks of the segment: of those that this process wrote, or else of those
/// at the end of the file. `None` if no block can be read.
pub(crate) fn last_time(segment: &Segment) -> io::Result<Option<u64>> {
    if let Some(known) = segment.last_time() {
        return Ok(Some(known));
    }
    let file = File::open(&segment.path)?;
    let bytes = file.metadata()?.len();
    let mut back = LOOK_BACK_BYTES;
    loop {
        let position = bytes.saturating_sub(back).max(length(HEADER_BYTES));
        let mut scan = Scan::new(&file, segment.header.salt, position, segment.header.base, u64::MAX);
        let mut latest = None;
        loop {
            match scan.next()? {
                Step::Block(header) => {
                    latest = latest.max(Some(header.last_time));
                    scan.pass(&header);
                }
                Step::Damage(_) => {}
                Step::End(_) => break,
            }
        }
        if let Some(latest) = latest {
            segment.saw_time(latest);
        }
        if latest.is_some() || position == length(HEADER_BYTES) {
            return Ok(latest);
        }
        // A larger block than that.
        back = back.saturating_mul(4);
    }
}

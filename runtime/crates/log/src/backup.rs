//! Copies a topic into another directory while it is being written to, so that the copy can be opened as a log that was not
//! closed cleanly. Segments that are full are never written to again: they get a second name where the file system can do
//! that. What the copy writes is in the other directory and does not go through `files`.
//!
//! Everything that was readable when the copy began is in it, unless it is trimmed meanwhile.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::bound::{self, Bound};
use crate::files::SystemFiles;
use crate::recovery::topic_hash;
use crate::segment::Segment;
use crate::topic::Shared;

/// Copies the topic into `to`, which is made, durably.
pub(crate) fn back_up(shared: &Shared, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    // In this order: what is readable now is in a segment that is listed then.
    let end = *shared.end.borrow();
    let segments = shared.segments.all();
    let last = segments.last().map(|segment| segment.header.base);
    for segment in segments {
        let is_written_to = Some(segment.header.base) == last;
        match copy(&segment, to, is_written_to) {
            // It was trimmed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound && !shared.segments.has(&segment) => {}
            copied => copied?,
        }
    }
    // Read behind the segments: whatever is in them is below.
    let bound = Bound { bound: shared.reserved(), end, trimmed: shared.trimmed(), clean: false };
    bound::write(&SystemFiles, to, topic_hash(&shared.options.name), bound)
}

fn copy(segment: &Segment, to: &Path, is_written_to: bool) -> io::Result<()> {
    let Some(name) = segment.path.file_name() else { return Ok(()) };
    let to = to.join(name);
    if !is_written_to && fs::hard_link(&segment.path, &to).is_ok() {
        return Ok(());
    }
    // Half of a block may be at its end, as a crash would leave it.
    fs::copy(&segment.path, &to)?;
    File::open(&to)?.sync_all()
}

//! Opens the directory of a topic: finds its segments, removes those that were trimmed, checks the last one
//! block by block, cuts off what a crash left half-written, and decides at which offset the topic goes on. It costs one read for each segment
//! and reads the last one whole; damage in the others is found and told when they are read.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::bound::{self, Bound, Found, JUMP};
use crate::error::OpenError;
use crate::fields::length;
use crate::files::{self, Files};
use crate::scan::{Scan, Step};
use crate::segment::{self, HEADER_BYTES, Segment};
use crate::topic::Durability;

/// What was found when a topic was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecovery {
    /// The topic.
    pub topic: String,
    /// Whether it was closed cleanly, or is new. If not, offsets are skipped.
    pub clean: bool,
    /// Everything readable has a lower offset.
    pub end: u64,
    /// The offset at which the topic goes on.
    pub next: u64,
    /// What was cut off the last segment because a crash left it half-written. Under [`Durability::Fsync`]
    /// none of it was acknowledged, unless the disk itself damaged it.
    pub cut: Option<CutTail>,
    /// Offsets of the last segment that are damaged or missing. The damaged bytes stay in the file. Readers
    /// are told as well.
    pub lost: Vec<Range<u64>>,
    /// Whether the record of used offsets was missing, damaged or older than the segments, so that the topic
    /// goes on far above all that is known.
    pub bound_lost: bool,
    /// Files in the topic's directory that are not part of it.
    pub ignored: Vec<PathBuf>,
}

/// The end of a segment that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The segment's file.
    pub file: PathBuf,
    /// Its length now.
    pub position: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// The offsets in what was cut off, as far as its headers could be read.
    pub offsets: Vec<Range<u64>>,
}

/// A topic's directory, ready for its writer.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) report: TopicRecovery,
    pub(crate) segments: Vec<Segment>,
    /// Everything below was deleted on purpose.
    pub(crate) trimmed: u64,
    /// The last segment's file and length, if the next block may follow in it.
    pub(crate) active: Option<(File, u64)>,
}

/// The hash of a topic's name that its files carry.
pub(crate) fn topic_hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Opens the directory of a topic, and makes it if it is not there.
pub(crate) fn recover(
    files: &dyn Files,
    dir: &Path,
    topic: &str,
    durability: Durability,
) -> Result<Recovered, OpenError> {
    files.create_dirs(dir).map_err(OpenError::io(dir))?;
    let hash = topic_hash(topic);
    let found = bound::read(dir, hash)?;
    let trimmed = match &found {
        Found::Bound(bound) => bound.trimmed,
        Found::Nothing | Found::Damage => 0,
    };
    let (segments, ignored) = list(files, dir, hash, trimmed)?;
    if durability == Durability::Memory && !segments.is_empty() {
        return Err(OpenError::DurableBefore { name: topic.to_owned(), dir: dir.to_owned() });
    }
    if found == Found::Damage && segments.is_empty() {
        return Err(OpenError::Bound { path: bound::path(dir) });
    }
    let bound = match found {
        Found::Bound(bound) => bound,
        // Nothing was written yet.
        Found::Nothing if segments.is_empty() => Bound { bound: 0, end: 0, trimmed, clean: true },
        Found::Nothing | Found::Damage => Bound { bound: 0, end: 0, trimmed, clean: false },
    };

    let mut report = TopicRecovery {
        topic: topic.to_owned(),
        clean: bound.clean,
        end: bound.end,
        next: bound.bound,
        cut: None,
        lost: Vec::new(),
        bound_lost: !matches!(found, Found::Bound(_)) && !segments.is_empty(),
        ignored,
    };
    let mut active = None;
    if let Some(last) = segments.last() {
        let file = files::open(&last.path).map_err(OpenError::io(&last.path))?;
        // After a clean close the end is exact: what lies between it and the next offset was refused.
        let refused = if bound.clean { bound.end..bound.bound } else { 0..0 };
        let walked = walk(last, &file, &refused).map_err(OpenError::io(&last.path))?;
        let torn = walked.length > walked.good_length;
        if torn && !bound.clean {
            files.truncate(&file, walked.good_length).map_err(OpenError::io(&last.path))?;
            last.set_bytes(walked.good_length);
            report.cut = Some(CutTail {
                file: last.path.clone(),
                position: walked.good_length,
                bytes: walked.length - walked.good_length,
                offsets: walked.doubtful,
            });
        }
        let acknowledged = walked.end.unwrap_or(last.header.previous_end);
        report.end = bound.end.max(acknowledged);
        report.lost = walked.lost;
        let walked_to = walked.end.unwrap_or(last.header.base);
        if walked_to < report.end {
            report.lost.push(walked_to..report.end);
        }
        let highest = report.end.max(last.header.base);
        if report.next < highest {
            report.bound_lost = true;
        }
        if report.bound_lost {
            report.clean = false;
            report.next = highest.saturating_add(JUMP);
        }
        if report.next == walked_to && !(torn && bound.clean) {
            active = Some((file, walked.good_length));
        }
    }
    if durability == Durability::Memory {
        report.end = report.next;
    }
    report.tell();
    Ok(Recovered { report, segments, trimmed, active })
}

/// The segments of the directory in the order of their offsets, and the names that mean nothing. What a crash
/// left of what was to be removed is removed.
fn list(
    files: &dyn Files,
    dir: &Path,
    hash: u64,
    trimmed: u64,
) -> Result<(Vec<Segment>, Vec<PathBuf>), OpenError> {
    let mut segments = Vec::new();
    let mut ignored = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let path = entry.map_err(OpenError::io(dir))?.path();
        if let Some(base) = segment::base_in_name(&path) {
            if base < trimmed {
                tracing::info!(path = %path.display(), "a segment that was to be deleted is removed");
                files.remove(&path).map_err(OpenError::io(&path))?;
                continue;
            }
            segments.push(Segment::open(path, base, hash)?);
        } else if files::is_unfinished(&path) {
            files.remove(&path).map_err(OpenError::io(&path))?;
        } else if path != bound::path(dir) {
            ignored.push(path);
        }
    }
    segments.sort_by_key(|segment| segment.header.base);
    ignored.sort();
    Ok((segments, ignored))
}

struct Walked {
    /// The end of the last good block, if there is one.
    end: Option<u64>,
    /// Where the last good block ends in the file.
    good_length: u64,
    length: u64,
    /// Damage that good blocks follow.
    lost: Vec<Range<u64>>,
    /// Offsets behind the last good block that headers still tell.
    doubtful: Vec<Range<u64>>,
}

fn walk(segment: &Segment, file: &File, refused: &Range<u64>) -> std::io::Result<Walked> {
    let start = length(HEADER_BYTES);
    let mut walked = Walked {
        end: None,
        good_length: start,
        length: file.metadata()?.len(),
        lost: Vec::new(),
        doubtful: Vec::new(),
    };
    let mut scan = Scan::new(file, segment.header.salt, start, segment.header.base, u64::MAX);
    loop {
        match scan.next()? {
            // It failed and could not be cut off; nothing was written behind it.
            Step::Block(header) if refused.contains(&header.first) => return Ok(walked),
            Step::Block(header) => {
                segment.mark(header.first, scan.position());
                let whole = scan.block(header)?.is_some();
                scan.pass(&header);
                if whole {
                    walked.lost.append(&mut walked.doubtful);
                    segment.saw_time(header.last_time);
                    walked.end = Some(header.end());
                    walked.good_length = scan.position();
                } else {
                    walked.doubtful.push(header.first..header.end());
                }
            }
            Step::Damage(gone) => walked.doubtful.push(gone),
            Step::End(_) => return Ok(walked),
        }
    }
}

impl TopicRecovery {
    fn tell(&self) {
        let topic = self.topic.as_str();
        for path in &self.ignored {
            tracing::warn!(log.topic = topic, path = %path.display(), "a file that is not the log's is ignored");
        }
        if let Some(cut) = &self.cut {
            tracing::warn!(
                log.topic = topic, path = %cut.file.display(), cut.position = cut.position, cut.bytes = cut.bytes,
                cut.offsets = ?cut.offsets, "the half-written end of a segment was cut off"
            );
        }
        if self.bound_lost {
            tracing::error!(
                log.topic = topic,
                log.next = self.next,
                "which offsets were used is unknown: going on far above"
            );
        }
        for lost in &self.lost {
            tracing::error!(log.topic = topic, log.lost = ?lost, "offsets are damaged and can't be read");
        }
        if !self.clean && !self.bound_lost {
            tracing::info!(
                log.topic = topic,
                log.end = self.end,
                log.next = self.next,
                "the topic was not closed: offsets are skipped"
            );
        }
    }
}

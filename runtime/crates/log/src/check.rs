//! Looks at a log that nobody has open and says what is whole: every block of every segment of every topic that is on
//! the disk, and what opening the log would make of the rest. It reads and never writes, and takes no lock: whoever calls it
//! sees to it that nobody writes meanwhile.
//!
//! What it says of the last segment of a topic is what `recovery` does when the topic is opened; what it says of the
//! others is what readers are told.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::bound::{self, Bound, Found, JUMP};
use crate::error::OpenError;
use crate::files;
use crate::log::is_name;
use crate::recovery::topic_hash;
use crate::segment::{self, Segment};

mod walk;

use walk::{Walk, skipped};

/// What was found in the directory of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCheck {
    /// Every topic that has a directory, by name, whether it is still used or not.
    pub topics: Vec<TopicCheck>,
    /// Files and directories that are no topic's.
    pub ignored: Vec<PathBuf>,
}

/// What was found in the directory of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCheck {
    /// The topic.
    pub topic: String,
    /// How many segment files it has.
    pub segments: u64,
    /// How many whole blocks are in them.
    pub blocks: u64,
    /// How many records are in the whole blocks.
    pub records: u64,
    /// What the segment files take on disk.
    pub bytes: u64,
    /// The first and the last offset of the whole blocks, if there is one.
    pub offsets: Option<(u64, u64)>,
    /// Every offset that was ever used is below this one; `None` if the file that says so is damaged or missing.
    pub reserved: Option<u64>,
    /// Whether it was closed cleanly.
    pub clean: bool,
    /// What is not as it should be, in the order of the files.
    pub findings: Vec<Finding>,
    /// Files that are not the topic's.
    pub ignored: Vec<PathBuf>,
}

/// Something that is not as a clean stop leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub found: String,
    /// The offsets that can't be read because of it, as far as that can be told.
    pub lost: Vec<Range<u64>>,
    /// What opening the topic makes of it.
    pub effect: Effect,
}

/// What opening a topic makes of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is cut off: the half-written end that a crash leaves. Under [`Durability::Fsync`](crate::Durability::Fsync)
    /// nothing of it was acknowledged, unless the disk itself damaged it. No other finding is harmless.
    Cut,
    /// The offsets are skipped, and whoever reads there is told that they are lost.
    Skipped,
    /// The topic goes on far above every known offset.
    FarAbove,
    /// The log can't be opened before it is mended or moved away.
    Refused,
}

/// Checks the log in this directory. `progress` is told, again and again, how many bytes more were looked at.
///
/// # Errors
///
/// When a file or directory can't be read. That files are damaged is no error.
pub fn check(dir: &Path, mut progress: impl FnMut(u64)) -> Result<LogCheck, OpenError> {
    let mut found = LogCheck { topics: Vec::new(), ignored: Vec::new() };
    for path in names_in(dir)? {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if path.is_dir() && is_name(name) => {
                found.topics.push(check_topic(&path, name, &mut progress)?);
            }
            Some(crate::log::LOCK) => {}
            _ => found.ignored.push(path),
        }
    }
    Ok(found)
}

fn check_topic(dir: &Path, topic: &str, progress: &mut dyn FnMut(u64)) -> Result<TopicCheck, OpenError> {
    let mut checked = TopicCheck {
        topic: topic.to_owned(),
        segments: 0,
        blocks: 0,
        records: 0,
        bytes: 0,
        offsets: None,
        reserved: None,
        clean: false,
        findings: Vec::new(),
        ignored: Vec::new(),
    };
    let hash = topic_hash(topic);
    let (bound, unknown_bound) = read_bound(dir, hash)?;
    let parts = list(dir, hash, bound.map_or(0, |bound| bound.trimmed), &mut checked)?;
    checked.reserved = bound.map(|bound| bound.bound);
    checked.clean = bound.map_or(parts.is_empty(), |bound| bound.clean);
    if let Some(unknown) = unknown_bound.filter(|unknown| unknown.is_damage || !parts.is_empty()) {
        let effect = match () {
            () if unknown.newer || parts.is_empty() => Effect::Refused,
            () => Effect::FarAbove,
        };
        checked.findings.push(Finding {
            file: bound::path(dir),
            found: unknown.found,
            lost: Vec::new(),
            effect,
        });
    }
    check_parts(&parts, bound, &mut checked, progress)?;
    check_highest(dir, &parts, bound, &mut checked);
    Ok(checked)
}

/// Why the file `bound` says nothing.
struct UnknownBound {
    found: String,
    is_damage: bool,
    newer: bool,
}

fn read_bound(dir: &Path, hash: u64) -> Result<(Option<Bound>, Option<UnknownBound>), OpenError> {
    let unknown = |found: String, is_damage, newer| (None, Some(UnknownBound { found, is_damage, newer }));
    Ok(match bound::read(dir, hash) {
        Ok(Found::Bound(bound)) => (Some(bound), None),
        Ok(Found::Nothing) => unknown("it is missing".to_owned(), false, false),
        Ok(Found::Damage) => unknown("it is damaged".to_owned(), true, false),
        Err(OpenError::Version { found, known, .. }) => unknown(newer_version(found, known), true, true),
        Err(error) => return Err(error),
    })
}

/// The file of a segment.
struct Part {
    base: u64,
    path: PathBuf,
    /// The segment, or what is wrong with its header.
    segment: Result<Segment, String>,
}

impl Part {
    /// Where everything acknowledged before it ends. A header that can't be read does not tell.
    fn previous_end(&self) -> Option<u64> {
        self.segment.as_ref().ok().map(|segment| segment.header.previous_end)
    }
}

fn list(dir: &Path, hash: u64, trimmed: u64, checked: &mut TopicCheck) -> Result<Vec<Part>, OpenError> {
    let mut parts = Vec::new();
    for path in names_in(dir)? {
        match segment::base_in_name(&path) {
            // What a crash left of what was deleted, and of files that were not finished. Opening removes it.
            Some(base) if base < trimmed => {}
            None if files::is_unfinished(&path) || path == bound::path(dir) => {}
            None => checked.ignored.push(path),
            Some(base) => {
                checked.segments += 1;
                checked.bytes =
                    checked.bytes.saturating_add(fs::metadata(&path).map_err(OpenError::io(&path))?.len());
                let segment = match Segment::open(path.clone(), base, hash) {
                    Ok(segment) => Ok(segment),
                    Err(OpenError::Segment { found, .. }) => Err(found.to_owned()),
                    Err(OpenError::Version { found, known, .. }) => Err(newer_version(found, known)),
                    Err(error) => return Err(error),
                };
                parts.push(Part { base, path, segment });
            }
        }
    }
    parts.sort_by_key(|part| part.base);
    Ok(parts)
}

fn check_parts(
    parts: &[Part],
    bound: Option<Bound>,
    checked: &mut TopicCheck,
    progress: &mut dyn FnMut(u64),
) -> Result<(), OpenError> {
    let trimmed = bound.map_or(0, |bound| bound.trimmed);
    if let Some(first) = parts.first()
        && let Some(end) = first.previous_end().filter(|end| *end > trimmed)
    {
        let gone = trimmed..end;
        checked.findings.push(skipped(&first.path, "segments before it are missing", vec![gone]));
    }
    for (index, part) in parts.iter().enumerate() {
        let next = parts.get(index.saturating_add(1));
        let segment = match &part.segment {
            Ok(segment) => segment,
            Err(found) => {
                let end = next.map_or(bound.map(|bound| bound.end), Part::previous_end);
                let lost = end.map(|end| part.base..end).filter(|lost| !lost.is_empty());
                checked.findings.push(Finding {
                    file: part.path.clone(),
                    found: found.clone(),
                    lost: lost.into_iter().collect(),
                    effect: Effect::Refused,
                });
                continue;
            }
        };
        let open = File::open(&part.path).map_err(OpenError::io(&part.path))?;
        let mut walk = Walk::over(segment, checked, progress);
        match next {
            Some(next) => walk.older(&open, next.previous_end()),
            None => walk.last(&open, bound.unwrap_or(UNKNOWN)),
        }
        .map_err(OpenError::io(&part.path))?;
    }
    Ok(())
}

/// What is known if nothing is: as `recovery` has it.
const UNKNOWN: Bound = Bound { bound: 0, end: 0, trimmed: 0, clean: false };

/// Whether the bound is older than what is there, as a copy leaves it that was made carelessly.
fn check_highest(dir: &Path, parts: &[Part], bound: Option<Bound>, checked: &mut TopicCheck) {
    let Some(bound) = bound else { return };
    let highest = parts.last().map_or(0, |last| last.base.max(last.previous_end().unwrap_or(0)));
    let highest = checked.offsets.map_or(highest, |(_, last)| highest.max(last.saturating_add(1)));
    if bound.bound < highest {
        checked.clean = false;
        checked.findings.push(Finding {
            file: bound::path(dir),
            found: format!(
                "it says that every offset is below {}, but there are offsets up to {highest}: it is older than the segments",
                bound.bound
            ),
            lost: Vec::new(),
            effect: Effect::FarAbove,
        });
    }
}

fn newer_version(found: u32, known: u32) -> String {
    format!("its format version is {found} and this program knows versions up to {known}")
}

/// What is in a directory, in order.
fn names_in(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = fs::read_dir(dir).map_err(OpenError::io(dir))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(OpenError::io(dir))?;
    paths.sort();
    Ok(paths)
}

impl Finding {
    /// Whether something is damaged, and not only what a crash leaves.
    pub fn is_damage(&self) -> bool {
        self.effect != Effect::Cut
    }
}

impl Effect {
    /// What opening the topic does, in a few words for an operator.
    pub fn describe(self) -> String {
        match self {
            Self::Cut => {
                "it is cut off; a crash leaves such an end, of which nothing was acknowledged".to_owned()
            }
            Self::Skipped => "these offsets are skipped, and receivers are told that they are lost".to_owned(),
            Self::FarAbove => format!("the topic goes on at an offset {JUMP} above every known one"),
            Self::Refused => "the log can't be opened; restore the file from a backup, use the program that wrote it, or move it out \
                 of the directory to go on without it"
                .to_owned(),
        }
    }
}

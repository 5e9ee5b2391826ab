//! A segment: a file that begins with a header and holds blocks, and the list of a topic's segments. Which
//! blocks are in it is found by `scan`; when one begins is decided by `writer`.
//!
//! The file's name is the base offset with 20 digits and `.seg`. It begins with 64 bytes; numbers are
//! little-endian:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | `WHARFSEG` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 8 | XXH3-64 of the topic's name |
//! | 24 | 8 | base offset: that of the first record |
//! | 32 | 8 | end of the segment before: everything acknowledged before this segment began has a lower offset |
//! | 40 | 8 | salt of the checksums of its blocks |
//! | 48 | 8 | when it was made, Unix milliseconds |
//! | 56 | 8 | XXH3-64 of the bytes before |
//!
//! Magic, version and checksum stay in place in every future version. Blocks follow each other without a byte
//! between them, and **offsets within a segment have no gaps**: wherever the offsets jump, a new segment
//! begins. Together with the end of the segment before, this is why damage can be told in exact offsets: an
//! offset between two segments that is below that end is lost, one above it was never acknowledged, and what
//! was deleted on purpose is told by the file `bound`. A segment's file appears whole, with its header (`Files::put`), so that a header that is not readable is
//! damage and not a crash.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use crate::block;
use crate::error::OpenError;
use crate::fields::{Fields, length};
use crate::files::Files;

#[cfg(test)]
mod tests;

const MAGIC: &[u8; 8] = b"WHARFSEG";
const VERSION: u32 = 1;
const CHECKSUM_AT: usize = 56;
/// The length of a segment's header: where its first block begins.
pub(crate) const HEADER_BYTES: usize = 64;

/// The distance of the places in a segment that are remembered. A reader that starts in the middle hops over
/// at most this much and a block; a full segment of 64 MiB takes 4 KiB of memory for it.
const MARK_EVERY_BYTES: u64 = 256 * 1024;

/// One segment file of a topic.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    /// Offsets and the positions of the blocks that begin with them, both increasing. Only what someone
    /// walked over is in it.
    marks: Mutex<Vec<(u64, u64)>>,
    /// The length of the file.
    bytes: AtomicU64,
    /// The highest time of its latest blocks, Unix milliseconds; 0 if nobody looked yet.
    last_time: AtomicU64,
}

/// What the header of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) base: u64,
    pub(crate) previous_end: u64,
    pub(crate) salt: u64,
    pub(crate) created: u64,
}

impl Segment {
    /// Makes the file of a new segment, durably, and opens it for writing.
    pub(crate) fn create(
        files: &dyn Files,
        dir: &Path,
        topic_hash: u64,
        base: u64,
        previous_end: u64,
    ) -> io::Result<(Self, File)> {
        let header = Header {
            base,
            previous_end,
            // The standard library's hasher is keyed from the system's randomness.
            salt: RandomState::new().hash_one(base),
            created: now(),
        };
        let path = dir.join(file_name(base));
        let file = files.put(&path, &header.encode(topic_hash))?;
        Ok((Self::new(path, header, length(HEADER_BYTES)), file))
    }

    /// Reads the header of an existing segment.
    pub(crate) fn open(path: PathBuf, base: u64, topic_hash: u64) -> Result<Self, OpenError> {
        let damaged = |found| OpenError::Segment { path: path.clone(), found };
        let mut bytes = [0; HEADER_BYTES];
        let file = File::open(&path).map_err(OpenError::io(&path))?;
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("it ends within its header"));
            }
            read => read.map_err(OpenError::io(&path))?,
        }
        let file_bytes = file.metadata().map_err(OpenError::io(&path))?.len();
        match Header::decode(&bytes, topic_hash) {
            Ok(header) if header.base == base => Ok(Self::new(path, header, file_bytes)),
            Ok(_) => Err(damaged("its name is not the offset in its header")),
            Err(NotASegment::Damaged(found)) => Err(damaged(found)),
            Err(NotASegment::Version(found)) => Err(OpenError::Version { path, found, known: VERSION }),
        }
    }

    fn new(path: PathBuf, header: Header, bytes: u64) -> Self {
        let marks = Mutex::new(vec![(header.base, length(HEADER_BYTES))]);
        Self { path, header, marks, bytes: AtomicU64::new(bytes), last_time: AtomicU64::new(0) }
    }

    /// Takes note of a block that was written at the position.
    pub(crate) fn wrote(&self, block: &block::Header, position: u64) {
        self.mark(block.first, position);
        self.set_bytes(position.saturating_add(block.bytes()));
        self.saw_time(block.last_time);
    }

    /// The length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// The highest time of its latest blocks, if that is known already (see `times`).
    pub(crate) fn last_time(&self) -> Option<u64> {
        Some(self.last_time.load(Ordering::Relaxed)).filter(|time| *time > 0)
    }

    pub(crate) fn saw_time(&self, time: u64) {
        self.last_time.fetch_max(time, Ordering::Relaxed);
    }

    /// Remembers where a block begins, if that is useful.
    pub(crate) fn mark(&self, offset: u64, position: u64) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.last().is_some_and(|(_, last)| position >= last.saturating_add(MARK_EVERY_BYTES)) {
            marks.push((offset, position));
        }
    }

    /// The last known block that does not begin above the offset: its offset and position.
    pub(crate) fn nearest(&self, offset: u64) -> (u64, u64) {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let above = marks.partition_point(|(marked, _)| *marked <= offset);
        above
            .checked_sub(1)
            .and_then(|last| marks.get(last).copied())
            .unwrap_or((self.header.base, length(HEADER_BYTES)))
    }

    /// How many bytes of the file lie at or above the offset, if the segment ends at `end`: all of them up to the base, and
    /// between two known places in proportion to the offsets.
    fn bytes_from(&self, offset: u64, end: u64) -> u64 {
        let bytes = self.bytes();
        if offset <= self.header.base {
            return bytes;
        }
        if offset >= end {
            return 0;
        }
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let above = marks.partition_point(|(marked, _)| *marked <= offset);
        let below = above.checked_sub(1).and_then(|last| marks.get(last).copied());
        let (first, position) = below.unwrap_or((self.header.base, length(HEADER_BYTES)));
        let (last, next) = marks.get(above).copied().unwrap_or((end, bytes));
        let behind =
            share(next.saturating_sub(position), last.saturating_sub(offset), last.saturating_sub(first));
        bytes.saturating_sub(next).saturating_add(behind)
    }
}

/// So many parts of so many of the bytes. All of them, if there are no parts.
pub(crate) fn share(bytes: u64, part: u64, of: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part.min(of));
    share.checked_div(u128::from(of)).and_then(|share| u64::try_from(share).ok()).unwrap_or(bytes)
}

enum NotASegment {
    Version(u32),
    Damaged(&'static str),
}

impl Header {
    fn encode(&self, topic_hash: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&topic_hash.to_le_bytes());
        bytes.extend_from_slice(&self.base.to_le_bytes());
        bytes.extend_from_slice(&self.previous_end.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.created.to_le_bytes());
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES], topic_hash: u64) -> Result<Self, NotASegment> {
        const DAMAGED: NotASegment = NotASegment::Damaged("the checksum of its header is wrong");
        let (summed, checksum) = bytes.split_at_checked(CHECKSUM_AT).ok_or(DAMAGED)?;
        let mut fields = Fields::of(summed);
        if fields.array::<8>() != Some(*MAGIC) || xxh3_64(summed).to_le_bytes() != checksum {
            return Err(DAMAGED);
        }
        let version = fields.u32().ok_or(DAMAGED)?;
        if version > VERSION {
            return Err(NotASegment::Version(version));
        }
        fields.u32().ok_or(DAMAGED)?;
        if fields.u64() != Some(topic_hash) {
            return Err(NotASegment::Damaged("it belongs to another topic"));
        }
        let mut next = || fields.u64().ok_or(DAMAGED);
        Ok(Self { base: next()?, previous_end: next()?, salt: next()?, created: next()? })
    }
}

/// The base offset that a file's name says, if it is the name of a segment.
pub(crate) fn base_in_name(path: &Path) -> Option<u64> {
    let base = path.file_name()?.to_str()?.strip_suffix(".seg")?.parse().ok()?;
    (path.file_name()?.to_str()? == file_name(base)).then_some(base)
}

fn file_name(base: u64) -> String {
    format!("{base:020}.seg")
}

/// Now, in Unix milliseconds.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(now).unwrap_or(u64::MAX)
}

/// The segments of a topic, by base offset.
#[derive(Debug, Default)]
pub(crate) struct Segments(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    kept: BTreeMap<u64, Arc<Segment>>,
    /// Trimmed, but their files are not removed yet.
    trimmed: BTreeMap<u64, Arc<Segment>>,
}

impl Segments {
    pub(crate) fn new(segments: impl IntoIterator<Item = Segment>) -> Self {
        let kept = segments.into_iter().map(|s| (s.header.base, Arc::new(s))).collect();
        Self(Mutex::new(Lists { kept, trimmed: BTreeMap::new() }))
    }

    pub(crate) fn add(&self, segment: Arc<Segment>) {
        self.lock().kept.insert(segment.header.base, segment);
    }

    pub(crate) fn remove(&self, segment: &Segment) {
        self.lock().kept.remove(&segment.header.base);
    }

    pub(crate) fn first(&self) -> Option<Arc<Segment>> {
        self.lock().kept.values().next().cloned()
    }

    pub(crate) fn last(&self) -> Option<Arc<Segment>> {
        self.lock().kept.values().next_back().cloned()
    }

    /// All that are kept, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.lock().kept.values().cloned().collect()
    }

    /// Whether the segment is still kept.
    pub(crate) fn has(&self, segment: &Segment) -> bool {
        self.lock().kept.contains_key(&segment.header.base)
    }

    /// How many segments are kept.
    pub(crate) fn count(&self) -> usize {
        self.lock().kept.len()
    }

    /// What the files take on disk, with those that are about to be removed.
    pub(crate) fn bytes(&self) -> u64 {
        let lists = self.lock();
        lists.kept.values().chain(lists.trimmed.values()).map(|segment| segment.bytes()).sum()
    }

    /// How many bytes of the files lie at or above the offset; none from `end` on, where the last segment ends.
    pub(crate) fn bytes_from(&self, offset: u64, end: u64) -> u64 {
        if offset >= end {
            return 0;
        }
        let lists = self.lock();
        let kept = &lists.kept;
        let first = kept.range(..=offset).next_back().map_or(0, |(base, _)| *base);
        let segments = || kept.range(first..).map(|(_, segment)| segment);
        let ends = segments().skip(1).map(|next| next.header.previous_end).chain([end]);
        segments().zip(ends).map(|(segment, end)| segment.bytes_from(offset, end)).sum()
    }

    /// The segment in which a reader of this offset has to look: the last that does not begin above it, or
    /// else the first.
    pub(crate) fn for_offset(&self, offset: u64) -> Option<Arc<Segment>> {
        let lists = self.lock();
        let kept = &lists.kept;
        kept.range(..=offset).next_back().or_else(|| kept.iter().next()).map(|(_, s)| s.clone())
    }

    /// The segment in which the first record of this time or later may be: the first whose successor was not
    /// made before that time.
    pub(crate) fn for_time(&self, time: u64) -> Option<Arc<Segment>> {
        let lists = self.lock();
        let kept = &lists.kept;
        let mut successors = kept.values().skip(1);
        kept.values().find(|_| successors.next().is_none_or(|next| next.header.created >= time)).cloned()
    }

    /// The segment behind this one.
    pub(crate) fn after(&self, segment: &Segment) -> Option<Arc<Segment>> {
        self.lock().kept.range(segment.header.base.saturating_add(1)..).next().map(|(_, s)| s.clone())
    }

    /// The oldest segments, as far as all of their acknowledged offsets are below this one, each with the
    /// offset at which they end. `end` is that of the last segment.
    pub(crate) fn below(&self, offset: u64, end: u64) -> Vec<(Arc<Segment>, u64)> {
        let lists = self.lock();
        let kept = &lists.kept;
        let ends = kept.values().skip(1).map(|next| next.header.previous_end).chain([end]);
        kept.values()
            .zip(ends)
            // The next segment may take the name of one without a block, which must not be removed then.
            .take_while(|(segment, end)| *end <= offset && segment.header.base < offset)
            .map(|(segment, end)| (Arc::clone(segment), end))
            .collect()
    }

    /// Keeps no segment up to the one with this base any longer. Their files are still there.
    pub(crate) fn trim(&self, last: u64) {
        let mut lists = self.lock();
        let kept = lists.kept.split_off(&last.saturating_add(1));
        let mut trimmed = std::mem::replace(&mut lists.kept, kept);
        lists.trimmed.append(&mut trimmed);
    }

    /// The oldest trimmed segment whose file is not removed yet.
    pub(crate) fn take_trimmed(&self) -> Option<Arc<Segment>> {
        self.lock().trimmed.pop_first().map(|(_, segment)| segment)
    }

    /// Takes a segment back whose file could not be removed.
    pub(crate) fn return_trimmed(&self, segment: Arc<Segment>) {
        self.lock().trimmed.insert(segment.header.base, segment);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

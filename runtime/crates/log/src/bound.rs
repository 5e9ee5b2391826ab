//! The file `bound` of a topic: how far offsets are reserved. No offset at or above the reserved bound is
//! used before a higher bound is durable, and after an unclean stop the topic goes on at the bound; that is
//! why offsets are never reused, even those of records that were lost.
//!
//! The file is 64 bytes, replaced as a whole; numbers are little-endian:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | `WHARFBND` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | flags; bit 0: the topic was closed cleanly, the bound is the next offset |
//! | 16 | 8 | XXH3-64 of the topic's name |
//! | 24 | 8 | the bound: every offset that was ever used is below |
//! | 32 | 8 | the end: everything acknowledged below was readable when this was written |
//! | 40 | 8 | everything below was deleted on purpose, or is about to be: no segment that begins below is kept |
//! | 48 | 8 | zero |
//! | 56 | 8 | XXH3-64 of the bytes before |
//!
//! Magic, version and checksum stay in place in every future version.

use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::error::OpenError;
use crate::fields::Fields;
use crate::files::Files;

const MAGIC: &[u8; 8] = b"WHARFBND";
const VERSION: u32 = 1;
const CLEAN: u32 = 1;
const BYTES: usize = 64;
const CHECKSUM_AT: usize = 56;

/// How many offsets are reserved at once. Reserving costs two syncs, so that it must be rare; after an
/// unclean stop up to this many offsets are skipped, so that it should not be absurd. At the highest rates
/// seen it is once in a second or two.
pub(crate) const RESERVE: u64 = 1 << 20;

/// How far above everything known a topic goes on when its bound is unreadable. A topic would have to have
/// lost more records than this, all of its latest, for an offset to be reused.
pub(crate) const JUMP: u64 = 1 << 32;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) bound: u64,
    pub(crate) end: u64,
    pub(crate) trimmed: u64,
    pub(crate) clean: bool,
}

/// What was found in place of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Bound(Bound),
    Nothing,
    Damage,
}

/// Where the file of a topic is.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("bound")
}

/// Reads the file.
pub(crate) fn read(dir: &Path, topic_hash: u64) -> Result<Found, OpenError> {
    let path = path(dir);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    match decode(&bytes, topic_hash) {
        Some(Ok(bound)) => Ok(Found::Bound(bound)),
        Some(Err(found)) => Err(OpenError::Version { path, found, known: VERSION }),
        None => Ok(Found::Damage),
    }
}

/// Replaces the file, durably.
pub(crate) fn write(files: &dyn Files, dir: &Path, topic_hash: u64, bound: Bound) -> io::Result<()> {
    files.put(&path(dir), &encode(topic_hash, bound)).map(drop)
}

fn encode(topic_hash: u64, bound: Bound) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(if bound.clean { CLEAN } else { 0 }).to_le_bytes());
    bytes.extend_from_slice(&topic_hash.to_le_bytes());
    bytes.extend_from_slice(&bound.bound.to_le_bytes());
    bytes.extend_from_slice(&bound.end.to_le_bytes());
    bytes.extend_from_slice(&bound.trimmed.to_le_bytes());
    bytes.resize(CHECKSUM_AT, 0);
    let checksum = xxh3_64(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The bound, or the version if that is newer, or `None` for anything else.
fn decode(bytes: &[u8], topic_hash: u64) -> Option<Result<Bound, u32>> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let (summed, checksum) = bytes.split_at_checked(CHECKSUM_AT)?;
    let mut fields = Fields::of(summed);
    if fields.array::<8>()? != *MAGIC || xxh3_64(summed).to_le_bytes() != checksum {
        return None;
    }
    let version = fields.u32()?;
    if version > VERSION {
        return Some(Err(version));
    }
    let flags = fields.u32()?;
    if fields.u64()? != topic_hash {
        return None;
    }
    Some(Ok(Bound {
        bound: fields.u64()?,
        end: fields.u64()?,
        trimmed: fields.u64()?,
        clean: flags & CLEAN != 0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::SystemFiles;

    const BOUND: Bound = Bound { bound: 1_048_576, end: 17, trimmed: 5, clean: true };

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), Found::Nothing);
        write(&SystemFiles, dir.path(), 7, BOUND).unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), Found::Bound(BOUND));
        assert_eq!(read(dir.path(), 8).unwrap(), Found::Damage, "the file of another topic");
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let whole = encode(7, BOUND);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged, 7), None, "bit {bit}");
        }
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length], 7), None, "length {length}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut newer = encode(7, BOUND);
        newer[8] = 2;
        let checksum = xxh3_64(&newer[..CHECKSUM_AT]).to_le_bytes();
        newer[CHECKSUM_AT..].copy_from_slice(&checksum);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), newer).unwrap();
        assert!(matches!(read(dir.path(), 7), Err(OpenError::Version { found: 2, known: 1, .. })));
    }
}

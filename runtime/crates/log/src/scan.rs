//! Walks over the blocks of a segment file: hops from header to header, reads bodies only when asked, and
//! finds the way behind damage. It reads and never writes, and it tells what it can't trust; what follows
//! from that is up to recovery and readers.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;

use crate::block::{self, Block, HEADER_BYTES, Header};
use crate::fields::length;

/// How much is read from a file at once. Small blocks are then many to a system call; larger ones are read
/// whole anyway.
const WINDOW_BYTES: usize = 1024 * 1024;

/// A walk over the blocks of one segment.
pub(crate) struct Scan<'a> {
    window: Window<'a>,
    salt: u64,
    /// Where the next block should begin.
    position: u64,
    /// The offset with which it should begin.
    expected: u64,
    /// Blocks at or above this offset are none of ours: not acknowledged, or not yet.
    limit: u64,
}

/// What the walk comes to next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A block with a good header. Its body is not looked at yet.
    Block(Header),
    /// Bytes that can't be read as blocks: these offsets are gone. A block with a good header follows.
    Damage(Range<u64>),
    /// There are no more blocks. The offsets up to the limit that are missing, if any.
    End(Range<u64>),
}

impl<'a> Scan<'a> {
    pub(crate) fn new(file: &'a File, salt: u64, position: u64, expected: u64, limit: u64) -> Self {
        Self { window: Window { file, start: 0, bytes: Bytes::new() }, salt, position, expected, limit }
    }

    /// Where the next block begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Every offset below was passed.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// What is at the position. Asking again gives the same, until [`pass`](Self::pass); only damage is
    /// passed at once.
    pub(crate) fn next(&mut self) -> io::Result<Step> {
        if self.expected >= self.limit {
            return Ok(Step::End(self.limit..self.limit));
        }
        let header = match self.header_at(self.position)? {
            Some(header) => header,
            None => match self.search()? {
                Some(header) => header,
                None => return Ok(Step::End(self.expected..self.limit)),
            },
        };
        if header.first > self.expected {
            let gone = self.expected..header.first;
            self.expected = header.first;
            return Ok(Step::Damage(gone));
        }
        Ok(Step::Block(header))
    }

    /// The block at the position, which has this header; `None` if its body is damaged or cut off.
    pub(crate) fn block(&mut self, header: Header) -> io::Result<Option<Block>> {
        let Ok(bytes) = usize::try_from(header.bytes()) else { return Ok(None) };
        let whole = self.window.get(self.position, bytes)?;
        Ok(whole.and_then(|whole| Block::decode(header, whole.slice(HEADER_BYTES..), self.salt)))
    }

    /// Goes on behind the block at the position, which has this header.
    pub(crate) fn pass(&mut self, header: &Header) {
        self.position = self.position.saturating_add(header.bytes());
        self.expected = header.end();
    }

    fn header_at(&mut self, position: u64) -> io::Result<Option<Header>> {
        let bytes = self.window.get(position, HEADER_BYTES)?;
        Ok(bytes
            .and_then(|bytes| Header::decode(&bytes, self.salt))
            .filter(|header| header.first >= self.expected && header.end() <= self.limit))
    }

    /// Moves the position to the next good header behind it.
    fn search(&mut self) -> io::Result<Option<Header>> {
        let mut position = self.position.saturating_add(1);
        loop {
            let Some(bytes) = self.window.ahead(position)? else { return Ok(None) };
            let step = match bytes.windows(block::MAGIC.len()).position(|bytes| *bytes == block::MAGIC) {
                Some(0) => {
                    if let Some(header) = self.header_at(position)? {
                        self.position = position;
                        return Ok(Some(header));
                    }
                    1
                }
                Some(found) => found,
                // The first bytes of a magic may be the last of these.
                None => bytes.len() - (block::MAGIC.len() - 1),
            };
            position = position.saturating_add(length(step));
        }
    }
}

/// The part of the file that was read last. It lives for one walk only: what was written meanwhile is never
/// missed.
struct Window<'a> {
    file: &'a File,
    start: u64,
    bytes: Bytes,
}

impl Window<'_> {
    /// Exactly these bytes, or `None` if the file ends before.
    fn get(&mut self, position: u64, bytes: usize) -> io::Result<Option<Bytes>> {
        if self.held(position).is_none_or(|held| held.len() < bytes) {
            self.fill(position, bytes.max(WINDOW_BYTES))?;
        }
        Ok(self.held(position).filter(|held| held.len() >= bytes).map(|held| held.slice(..bytes)))
    }

    /// All bytes from the position on that one read gives: at least a header, or `None` if the file has not
    /// that many more.
    fn ahead(&mut self, position: u64) -> io::Result<Option<Bytes>> {
        Ok(self.get(position, HEADER_BYTES)?.and_then(|_| self.held(position)))
    }

    fn held(&self, position: u64) -> Option<Bytes> {
        let skipped = usize::try_from(position.checked_sub(self.start)?).ok()?;
        (skipped <= self.bytes.len()).then(|| self.bytes.slice(skipped..))
    }

    fn fill(&mut self, position: u64, wanted: usize) -> io::Result<()> {
        // A length in a damaged file must not make us ask for memory that the file could not fill.
        let left = self.file.metadata()?.len().saturating_sub(position);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        let mut bytes = vec![0; wanted];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, position.saturating_add(length(filled))) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        *self = Self { file: self.file, start: position, bytes: Bytes::from(bytes) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Files as _, SystemFiles};
    use crate::lane::Lane;
    use crate::topic::Record;

    const SALT: u64 = 99;

    fn block(first: u64, payloads: &[&[u8]]) -> Vec<u8> {
        let records: Vec<_> = payloads
            .iter()
            .map(|payload| Record { lane: Lane::of("a"), time: 1, payload: Bytes::copy_from_slice(payload) })
            .collect();
        Block::encode(first, records.iter(), SALT).unwrap().1.to_vec()
    }

    /// Three blocks of two records: offsets 0 to 6.
    fn three() -> [Vec<u8>; 3] {
        [block(0, &[b"a", b"b"]), block(2, &[b"c", b"d"]), block(4, &[b"e", b"f"])]
    }

    /// Each step, and with each block whether its body is whole.
    fn walk(bytes: &[u8], limit: u64) -> Vec<(Step, bool)> {
        let dir = tempfile::tempdir().unwrap();
        let file = SystemFiles.put(&dir.path().join("x"), bytes).unwrap();
        let mut scan = Scan::new(&file, SALT, 0, 0, limit);
        let mut steps = Vec::new();
        loop {
            let step = scan.next().unwrap();
            match step {
                Step::Block(header) => {
                    let whole = scan.block(header).unwrap().is_some();
                    scan.pass(&header);
                    steps.push((step, whole));
                }
                Step::Damage(_) => steps.push((step, false)),
                Step::End(_) => {
                    steps.push((step, false));
                    return steps;
                }
            }
        }
    }

    fn summary(bytes: &[u8], limit: u64) -> String {
        let step = |(step, whole)| match step {
            Step::Block(header) => {
                format!("{}{}-{}", if whole { "" } else { "!" }, header.first, header.end())
            }
            Step::Damage(gone) => format!("gone {}-{}", gone.start, gone.end),
            Step::End(gone) => format!("end {}-{}", gone.start, gone.end),
        };
        walk(bytes, limit).into_iter().map(step).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn whole_blocks_are_walked_over() {
        let bytes = three().concat();
        assert_eq!(summary(&bytes, 6), "0-2, 2-4, 4-6, end 6-6");
        assert_eq!(summary(&bytes, 9), "0-2, 2-4, 4-6, end 6-9");
        assert_eq!(summary(&[], 9), "end 0-9");
    }

    #[test]
    fn blocks_beyond_the_limit_are_not_seen() {
        assert_eq!(summary(&three().concat(), 4), "0-2, 2-4, end 4-4");
        let mut blocks = three();
        blocks[1][0] ^= 1;
        assert_eq!(summary(&blocks.concat(), 4), "0-2, end 2-4");
    }

    #[test]
    fn a_damaged_body_is_hopped_over() {
        let mut blocks = three();
        *blocks[1].last_mut().unwrap() ^= 1;
        assert_eq!(summary(&blocks.concat(), 6), "0-2, !2-4, 4-6, end 6-6");
    }

    #[test]
    fn a_damaged_header_is_searched_behind() {
        for byte in 0..HEADER_BYTES {
            let mut blocks = three();
            blocks[1][byte] ^= 0x80;
            assert_eq!(summary(&blocks.concat(), 6), "0-2, gone 2-4, 4-6, end 6-6", "byte {byte}");
        }
        let mut blocks = three();
        blocks[0][0] ^= 1;
        blocks[1][9] ^= 1;
        assert_eq!(summary(&blocks.concat(), 6), "gone 0-4, 4-6, end 6-6");
        blocks[2][60] ^= 1;
        assert_eq!(summary(&blocks.concat(), 6), "end 0-6");
    }

    #[test]
    fn bytes_that_went_missing_are_noticed() {
        let mut blocks = three();
        blocks[1].pop();
        assert_eq!(summary(&blocks.concat(), 6), "0-2, !2-4, end 4-6");
        let mut blocks = three();
        blocks[1].clear();
        assert_eq!(summary(&blocks.concat(), 6), "0-2, gone 2-4, 4-6, end 6-6");
    }

    #[test]
    fn the_search_crosses_windows() {
        let mut big = block(2, &[&vec![0; WINDOW_BYTES - 400], b"x"]);
        big[0] ^= 1;
        for more in 0..200 {
            let mut bytes = block(0, &[b"a", b"b"]);
            bytes.extend_from_slice(&big);
            bytes.extend_from_slice(&vec![0xFE; 200 + more]);
            bytes.extend_from_slice(&block(4, &[b"e", b"f"]));
            assert_eq!(summary(&bytes, 6), "0-2, gone 2-4, 4-6, end 6-6", "{more} more");
        }
    }

    /// An agent may send what looks like a block; without the salt it can't make a checksum that is right.
    #[test]
    fn a_forged_block_in_a_payload_is_not_taken() {
        let record = Record { lane: Lane::of("a"), time: 1, payload: "forged".into() };
        let forged = Block::encode(3, [record].iter(), 0).unwrap().1;
        let mut bytes = block(0, &[&forged, b"b"]);
        bytes[20] ^= 1;
        bytes.extend_from_slice(&block(2, &[b"c"]));
        assert_eq!(summary(&bytes, 3), "gone 0-2, 2-3, end 3-3");
    }

    /// The same bytes twice, as a copying mistake would leave them, are not served twice.
    #[test]
    fn a_repeated_block_is_not_taken_again() {
        let [a, b, c] = three();
        assert_eq!(summary(&[&a[..], &b, &a, &b, &c].concat(), 6), "0-2, 2-4, 4-6, end 6-6");
    }
}

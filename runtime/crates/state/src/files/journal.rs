//! Walks over the entries of a journal and says where they end.
//!
//! A journal is a run of batches, and zeros up to the length that its file was made with. Numbers are little-endian:
//!
//! ```text
//! start  0x01 | number of items (4 bytes) | number of the batch (8 bytes)
//! item   0x02 | kind (1 byte) | compression (1 byte) | keyspace (8 bytes) | length of the key (2 bytes) |
//!        length of the value (4 bytes) | its length here (4 bytes) | key | value
//! clear  0x04 | keyspace (8 bytes)
//! end    0x03 | XXH3-64 of the items (8 bytes) | `FJL` 0x03
//! ```
//!
//! The number of a batch is higher than that of the one before, over all journals.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _},
    path::Path,
};

use xxhash_rust::xxh3::Xxh3;

/// How every batch ends.
const TRAILER: [u8; 4] = *b"FJL\x03";

/// The highest number that a batch can have: the database keeps the numbers above for itself.
const MAX_BATCH: u64 = u64::MAX >> 1;

/// How much of a journal is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The least that a disk writes in one piece. What it had not written when the power went is zeros, at least so many.
const SECTOR_BYTES: u64 = 512;

static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// A walk over the journals of a database, the oldest first.
#[derive(Debug, Default)]
pub struct Walked {
    /// The number of the last batch.
    last: Option<u64>,
    /// Where the journal that was walked over last can be read no further, if something follows.
    pub end: Option<End>,
}

/// Where a journal can be read no further.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// Where its last whole batch ends.
    pub position: u64,
    /// How many bytes follow, without the zeros at the end.
    pub bytes: u64,
    /// Whether this can be what the end of the process or of the power left. If not, somebody altered it later.
    pub is_torn: bool,
}

impl Walked {
    /// Walks over a journal as far as it can be read.
    pub fn walk(&mut self, path: &Path) -> io::Result<()> {
        let mut reader =
            Counted { reader: BufReader::with_capacity(CHUNK_BYTES, File::open(path)?), position: 0 };
        let mut position = 0;
        while self.batch(&mut reader)? {
            position = reader.position;
        }
        let rest = rest(path, position)?;
        self.end = (rest.bytes > 0).then_some(End {
            position,
            bytes: rest.bytes,
            is_torn: rest.has_hole || !rest.has_trailer,
        });
        Ok(())
    }

    /// Passes a batch, if one is there.
    fn batch(&mut self, reader: &mut Counted) -> io::Result<bool> {
        match self.try_batch(reader) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            passed => passed,
        }
    }

    fn try_batch(&mut self, reader: &mut Counted) -> io::Result<bool> {
        if reader.array()? != [1] {
            return Ok(false);
        }
        let items = u32::from_le_bytes(reader.array()?);
        let number = u64::from_le_bytes(reader.array()?);
        if self.last.is_some_and(|last| number <= last) || number > MAX_BATCH {
            return Ok(false);
        }
        let mut checksum = Xxh3::new();
        for _ in 0..items {
            if !reader.item(&mut checksum)? {
                return Ok(false);
            }
        }
        if reader.array()? != [3]
            || reader.array()? != checksum.digest().to_le_bytes()
            || reader.array()? != TRAILER
        {
            return Ok(false);
        }
        self.last = Some(number);
        Ok(true)
    }
}

struct Counted {
    reader: BufReader<File>,
    position: u64,
}

impl Counted {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.position = self.position.saturating_add(N as u64);
        Ok(bytes)
    }

    /// Passes an item and adds it to the checksum. Says whether it can be one.
    fn item(&mut self, checksum: &mut Xxh3) -> io::Result<bool> {
        let tag: [u8; 1] = self.array()?;
        checksum.update(&tag);
        match tag {
            [2] => {}
            [4] => {
                checksum.update(&self.array::<8>()?);
                return Ok(true);
            }
            _ => return Ok(false),
        }
        checksum.update(&self.array::<10>()?);
        let key: [u8; 2] = self.array()?;
        checksum.update(&key);
        checksum.update(&self.array::<4>()?);
        let value: [u8; 4] = self.array()?;
        checksum.update(&value);
        let mut left = u64::from(u16::from_le_bytes(key)) + u64::from(u32::from_le_bytes(value));
        let mut chunk = [0; CHUNK_BYTES];
        while left > 0 {
            let wanted = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let Some(part) = chunk.get_mut(..wanted) else { break };
            self.reader.read_exact(part)?;
            checksum.update(part);
            left = left.saturating_sub(wanted as u64);
            self.position = self.position.saturating_add(wanted as u64);
        }
        Ok(true)
    }
}

/// What a journal has behind its last whole batch.
#[derive(Debug, Default)]
struct Rest {
    /// How many bytes, up to the last that is not zero.
    bytes: u64,
    /// Whether a sector among them, or the rest of the first one, is zeros: it was never written.
    has_hole: bool,
    /// Whether they end as a batch does.
    has_trailer: bool,
}

fn rest(path: &Path, from: u64) -> io::Result<Rest> {
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, File::open(path)?);
    reader.seek_relative(i64::try_from(from).map_err(io::Error::other)?)?;
    let mut rest = Rest::default();
    let mut position = from;
    let mut latest = [0; TRAILER.len()];
    let mut sector_is_zeros = !from.is_multiple_of(SECTOR_BYTES);
    let mut zero_sectors = false;
    loop {
        let bytes = match reader.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = bytes.len();
        if read == CHUNK_BYTES && *bytes == ZEROS {
            // Most of a journal: looking at each byte would take long.
            (zero_sectors, sector_is_zeros, latest) = (true, true, [0; TRAILER.len()]);
            position = position.saturating_add(read as u64);
        } else {
            for &byte in bytes {
                if position.is_multiple_of(SECTOR_BYTES) {
                    zero_sectors |= sector_is_zeros;
                    sector_is_zeros = true;
                }
                position = position.saturating_add(1);
                let [_, b, c, d] = latest;
                latest = [b, c, d, byte];
                if byte != 0 {
                    sector_is_zeros = false;
                    rest.has_hole |= zero_sectors;
                    rest.bytes = position.saturating_sub(from);
                    rest.has_trailer = latest == TRAILER;
                }
            }
        }
        reader.consume(read);
    }
    Ok(rest)
}

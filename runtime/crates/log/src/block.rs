//! A block: the records of one commit group, with checksums. The same bytes are written to the segment and
//! kept in memory for readers at the tail. Where blocks lie in a file is not known here.
//!
//! A block is a header of 64 bytes and a body; numbers are little-endian:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | `FE` `WHBLK` `0D` `0A`: a byte that text never contains, and two that careless copies change |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | number of records, at least 1 |
//! | 16 | 8 | offset of the first record; the others follow without gaps |
//! | 24 | 8 | lowest time of its records, Unix milliseconds |
//! | 32 | 8 | highest time |
//! | 40 | 8 | lanes of its records, lane n at bit n |
//! | 48 | 8 | XXH3-64 of the body |
//! | 56 | 8 | XXH3-64 of the 56 bytes before |
//!
//! The body is a table with one row for each record, and then the payloads:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | where the payload ends, counted from the end of the table; it begins where the one before ends |
//! | 4 | 1 | lane |
//! | 5 | 3 | zero |
//! | 8 | 8 | time, Unix milliseconds |
//!
//! Both checksums are seeded with the segment's salt, a random number that never leaves the machine. So a
//! payload that contains what looks like a block is not taken for one when a scan looks for the next block
//! behind damage.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::fields::{Fields, length};
use crate::lane::{Lane, LaneSet};
use crate::topic::{Entry, Record};

/// How every block begins.
pub(crate) const MAGIC: [u8; 8] = *b"\xFEWHBLK\r\n";
/// The length of a block's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// What each record adds to a block beside its payload.
pub(crate) const ROW_BYTES: usize = 16;

const CHECKSUM_AT: usize = 56;

/// What the header of a block says. It is only made from bytes whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_bytes: u32,
    pub(crate) count: u32,
    pub(crate) first: u64,
    pub(crate) first_time: u64,
    pub(crate) last_time: u64,
    pub(crate) lanes: LaneSet,
    body_checksum: u64,
}

impl Header {
    /// The header that these bytes begin with, if they are one of a segment with this salt.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        let (summed, checksum) = bytes.split_at_checked(CHECKSUM_AT)?;
        let mut fields = Fields::of(summed);
        if fields.array()? != MAGIC || Fields::of(checksum).u64()? != xxh3_64_with_seed(summed, salt) {
            return None;
        }
        let header = Self {
            body_bytes: fields.u32()?,
            count: fields.u32()?,
            first: fields.u64()?,
            first_time: fields.u64()?,
            last_time: fields.u64()?,
            lanes: LaneSet::from_bits(fields.u64()?),
            body_checksum: fields.u64()?,
        };
        // Whoever walks over blocks must get ahead with each.
        (header.count > 0 && header.first.checked_add(u64::from(header.count)).is_some()).then_some(header)
    }

    fn encode(&self, salt: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.body_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.first_time.to_le_bytes());
        bytes.extend_from_slice(&self.last_time.to_le_bytes());
        bytes.extend_from_slice(&self.lanes.bits().to_le_bytes());
        bytes.extend_from_slice(&self.body_checksum.to_le_bytes());
        let checksum = xxh3_64_with_seed(&bytes, salt);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.first_chunk().copied().unwrap_or([0; HEADER_BYTES])
    }

    /// The offset behind the last record.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// The length of header and body in the file.
    pub(crate) fn bytes(&self) -> u64 {
        length(HEADER_BYTES).saturating_add(u64::from(self.body_bytes))
    }
}

/// A block whose checksums were right, ready to be read.
#[derive(Debug)]
pub(crate) struct Block {
    header: Header,
    table: Bytes,
    payloads: Bytes,
}

impl Block {
    /// Makes a block of the records, and the bytes that are written to the file. `None` if there are no
    /// records or more than a block can hold; the limits on appends and groups are far below.
    pub(crate) fn encode<'a>(
        first: u64,
        records: impl Iterator<Item = &'a Record> + Clone,
        salt: u64,
    ) -> Option<(Self, Bytes)> {
        let payload_bytes = records.clone().map(|record| record.payload.len()).sum::<usize>();
        let table_bytes = records.clone().count() * ROW_BYTES;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + table_bytes + payload_bytes);
        bytes.resize(HEADER_BYTES, 0);
        let mut lanes = LaneSet::EMPTY;
        let (mut first_time, mut last_time) = (u64::MAX, 0);
        let mut end = 0_u32;
        for record in records.clone() {
            end = end.checked_add(u32::try_from(record.payload.len()).ok()?)?;
            bytes.extend_from_slice(&end.to_le_bytes());
            bytes.extend_from_slice(&[record.lane.number(), 0, 0, 0]);
            bytes.extend_from_slice(&record.time.to_le_bytes());
            lanes.insert(record.lane);
            first_time = first_time.min(record.time);
            last_time = last_time.max(record.time);
        }
        records.for_each(|record| bytes.extend_from_slice(&record.payload));

        let (head, body) = bytes.split_at_mut_checked(HEADER_BYTES)?;
        let header = Header {
            body_bytes: u32::try_from(body.len()).ok()?,
            count: u32::try_from(table_bytes / ROW_BYTES).ok().filter(|count| *count > 0)?,
            first,
            first_time,
            last_time,
            lanes,
            body_checksum: xxh3_64_with_seed(body, salt),
        };
        head.copy_from_slice(&header.encode(salt));
        let bytes = Bytes::from(bytes);
        let body = bytes.slice(HEADER_BYTES..);
        Some((Self { header, table: body.slice(..table_bytes), payloads: body.slice(table_bytes..) }, bytes))
    }

    /// The block with this header and body, if the body is what was written.
    pub(crate) fn decode(header: Header, mut body: Bytes, salt: u64) -> Option<Self> {
        if xxh3_64_with_seed(&body, salt) != header.body_checksum {
            return None;
        }
        let table_bytes = usize::try_from(header.count).ok()?.checked_mul(ROW_BYTES)?;
        if table_bytes > body.len() {
            return None;
        }
        let table = body.split_to(table_bytes);
        let block = Self { header, table, payloads: body };
        block.is_sound().then_some(block)
    }

    /// Whether the rows fit each other and the payloads. Only a writer with a bug could make a block for
    /// which this is false and the checksum right.
    fn is_sound(&self) -> bool {
        let mut end = 0;
        for row in self.rows() {
            let row = Row::decode(row);
            if row.end < end || Lane::new(row.lane).is_none_or(|lane| !self.header.lanes.contains(lane)) {
                return false;
            }
            end = row.end;
        }
        usize::try_from(end).is_ok_and(|end| end == self.payloads.len())
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// What the block takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        HEADER_BYTES + self.table.len() + self.payloads.len()
    }

    /// The first record at or above the offset that is in one of the lanes. Its payload shares the block's
    /// memory.
    pub(crate) fn next(&self, from: u64, lanes: LaneSet) -> Option<Entry> {
        let skipped = usize::try_from(from.saturating_sub(self.header.first)).ok()?;
        let rows = self.rows();
        let mut start = match skipped.checked_sub(1) {
            Some(before) => Row::decode(rows.get(before)?).end,
            None => 0,
        };
        for (row, offset) in rows.get(skipped..)?.iter().zip(from.max(self.header.first)..) {
            let row = Row::decode(row);
            match Lane::new(row.lane) {
                Some(lane) if lanes.contains(lane) => {
                    let payload = usize::try_from(start).ok()?..usize::try_from(row.end).ok()?;
                    return Some(Entry {
                        offset,
                        lane,
                        time: row.time,
                        payload: self.payloads.slice(payload),
                    });
                }
                _ => start = row.end,
            }
        }
        None
    }

    fn rows(&self) -> &[[u8; ROW_BYTES]] {
        self.table.as_chunks().0
    }
}

struct Row {
    end: u32,
    lane: u8,
    time: u64,
}

impl Row {
    fn decode(&[e0, e1, e2, e3, lane, _, _, _, ref time @ ..]: &[u8; ROW_BYTES]) -> Self {
        Self { end: u32::from_le_bytes([e0, e1, e2, e3]), lane, time: u64::from_le_bytes(*time) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x1234_5678_9abc_def0;

    fn records() -> Vec<Record> {
        [(3, 20, "three"), (60, 10, ""), (3, 30, "three again"), (0, 15, "nought")]
            .into_iter()
            .map(|(lane, time, text)| Record { lane: Lane::new(lane).unwrap(), time, payload: text.into() })
            .collect()
    }

    fn decode(bytes: &Bytes, salt: u64) -> Option<Block> {
        let header = Header::decode(bytes, salt)?;
        Block::decode(header, bytes.slice(HEADER_BYTES..), salt)
    }

    fn read(block: &Block, from: u64, lanes: LaneSet) -> Vec<(u64, usize, u64, Bytes)> {
        let mut from = from;
        std::iter::from_fn(|| {
            let entry = block.next(from, lanes)?;
            from = entry.offset + 1;
            Some((entry.offset, entry.lane.index(), entry.time, entry.payload))
        })
        .collect()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let (kept, bytes) = Block::encode(1_000, records().iter(), SALT).unwrap();
        let read_back = decode(&bytes, SALT).unwrap();
        for block in [kept, read_back] {
            let header = block.header();
            assert_eq!(
                (header.first, header.end(), header.first_time, header.last_time),
                (1_000, 1_004, 10, 30)
            );
            assert_eq!(header.bytes(), bytes.len() as u64);
            assert_eq!(block.bytes(), bytes.len());
            assert_eq!(
                read(&block, 0, LaneSet::ALL),
                [
                    (1_000, 3, 20, "three".into()),
                    (1_001, 60, 10, "".into()),
                    (1_002, 3, 30, "three again".into()),
                    (1_003, 0, 15, "nought".into())
                ]
            );
            let three = LaneSet::from(Lane::new(3).unwrap());
            assert_eq!(read(&block, 1_001, three), [(1_002, 3, 30, "three again".into())]);
            assert_eq!(read(&block, 1_004, LaneSet::ALL), []);
            assert_eq!(read(&block, u64::MAX, LaneSet::ALL), []);
        }
    }

    /// Pins the layout: a change of any byte here needs a new format version.
    #[test]
    fn the_layout_is_pinned() {
        let record = Record { lane: Lane::new(5).unwrap(), time: 0x0102, payload: "hi".into() };
        let (_, bytes) = Block::encode(0x0A0B, [record].iter(), 1).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = [
            "fe5748424c4b0d0a", // magic
            "12000000",         // body: 16 + 2 bytes
            "01000000",         // records
            "0b0a000000000000", // first offset
            "0201000000000000", // lowest time
            "0201000000000000", // highest time
            "2000000000000000", // lane 5
            "162968f9e0f9076d", // checksum of the body
            "fd8e118950e7d214", // checksum of the header
            "02000000",         // end of the payload
            "05000000",         // lane
            "0201000000000000", // time
            "6869",             // payload
        ];
        assert_eq!(hex, fields.concat());
    }

    #[test]
    fn payloads_share_the_memory_of_the_block() {
        let (block, bytes) = Block::encode(0, records().iter(), SALT).unwrap();
        let memory = bytes.as_ptr_range();
        let payload = block.next(0, LaneSet::ALL).unwrap().payload;
        assert!(memory.contains(&payload.as_ptr()));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let (_, bytes) = Block::encode(7, records().iter(), SALT).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&Bytes::from(damaged), SALT).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn any_cut_is_noticed() {
        let (_, bytes) = Block::encode(7, records().iter(), SALT).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&bytes.slice(..length), SALT).is_none(), "length {length}");
        }
    }

    #[test]
    fn a_block_of_another_segment_is_not_taken() {
        let (_, bytes) = Block::encode(7, records().iter(), SALT).unwrap();
        assert!(decode(&bytes, SALT + 1).is_none());
    }

    #[test]
    fn there_is_no_block_without_records() {
        assert!(Block::encode(7, [].iter(), SALT).is_none());
    }
}

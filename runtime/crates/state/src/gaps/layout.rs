//! How gap records are written in the database. Reading checks everything; what does not fit is named, never guessed.
//!
//! All records of a receiver and topic are one entry of the keyspace `gaps`. Numbers are big-endian.
//!
//! ```text
//! key    receiver | 0x00 | topic
//! value  format (1 byte, 0x01) | the records, those that changed last at the end, each:
//!        start (8 bytes) | end, exclusive (8 bytes) | count known (1 byte, 0 or 1) | count (8 bytes, 0 if not known) |
//!        since (8 bytes) | until (8 bytes) | merged (4 bytes) |
//!        reason (1 byte: 0 shed, 1 dead letters full, 2 damaged, 3 trimmed, 4 seek) |
//!        of a seek: who, what: each its length (4 bytes) and text
//! ```
//!
//! Names hold no zero byte. A value that could not be understood when a record was added lies under its key and a zero byte,
//! where it is never read. The database keeps checksums itself.

use super::{Gap, GapReason, MAX_GAPS, MAX_WHAT, MAX_WHO};
use crate::{
    StateError,
    layout::{key, parse_key, put_text, take, take_format, take_text},
};

/// The format that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

/// What the keys of all topics of a receiver begin with.
pub fn prefix(receiver: &str) -> Result<Vec<u8>, StateError> {
    let mut prefix = key(receiver, "t")?;
    prefix.pop();
    Ok(prefix)
}

/// The topic of a key, or what is wrong with the key.
pub fn parse_topic(key: &[u8]) -> Result<String, String> {
    if key.ends_with(&[0]) {
        return Err("it could not be understood and was set aside".to_owned());
    }
    parse_key(key).map(|(_, topic)| topic.to_owned()).map_err(|error| error.to_string())
}

/// Where a value is set aside that can't be understood.
pub fn aside(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The value of gap records.
pub fn encode(gaps: &[Gap]) -> Vec<u8> {
    let mut value = vec![FORMAT];
    for gap in gaps {
        let Gap { offsets, count, reason, since, until, merged } = gap;
        value.extend_from_slice([offsets.start, offsets.end].map(u64::to_be_bytes).as_flattened());
        value.push(count.is_some().into());
        value.extend_from_slice([count.unwrap_or(0), *since, *until].map(u64::to_be_bytes).as_flattened());
        value.extend_from_slice(&merged.to_be_bytes());
        match reason {
            GapReason::Shed => value.push(0),
            GapReason::DeadLettersFull => value.push(1),
            GapReason::Damaged => value.push(2),
            GapReason::Trimmed => value.push(3),
            GapReason::Seek { who, what } => {
                value.push(4);
                put_text(&mut value, who, MAX_WHO);
                put_text(&mut value, what, MAX_WHAT);
            }
        }
    }
    value
}

/// The gap records of a value, or what is wrong with the value.
pub fn decode(mut value: &[u8]) -> Result<Vec<Gap>, String> {
    take_format(&mut value, FORMAT)?;
    let mut gaps = Vec::new();
    while !value.is_empty() {
        if gaps.len() == MAX_GAPS {
            return Err(format!("it has more than {MAX_GAPS} records"));
        }
        let problem = |problem| format!("record {} {problem}", gaps.len());
        let gap = take_gap(&mut value).ok_or_else(|| problem("ends early or has a text that is none"))?;
        gaps.push(gap.map_err(problem)?);
    }
    Ok(gaps)
}

/// The next record, with what is wrong inside if no record can look like it, and nothing if the value ends within it.
fn take_gap(value: &mut &[u8]) -> Option<Result<Gap, &'static str>> {
    let start = u64::from_be_bytes(take(value)?);
    let end = u64::from_be_bytes(take(value)?);
    let [known] = take(value)?;
    let count = u64::from_be_bytes(take(value)?);
    let since = u64::from_be_bytes(take(value)?);
    let until = u64::from_be_bytes(take(value)?);
    let merged = u32::from_be_bytes(take(value)?);
    let [reason] = take(value)?;
    let reason = match reason {
        0 => GapReason::Shed,
        1 => GapReason::DeadLettersFull,
        2 => GapReason::Damaged,
        3 => GapReason::Trimmed,
        4 => GapReason::Seek { who: take_text(value)?, what: take_text(value)? },
        _ => return Some(Err("has a reason that no record can have")),
    };
    let count = match (known, count) {
        (0, 0) => None,
        (1, count) => Some(count),
        _ => return Some(Err("has a count that no record can have")),
    };
    if end < start {
        return Some(Err("has offsets that no record can have"));
    }
    Some(Ok(Gap { offsets: start..end, count, reason, since, until, merged }))
}

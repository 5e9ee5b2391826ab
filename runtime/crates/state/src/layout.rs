//! How cursors are written in the database. Reading checks everything; what does not fit is an error, never a guess.
//!
//! The cursors of a receiver and topic are one entry of the keyspace `cursors`, because an instance moves nearly all of its
//! lanes at a time, and many small entries make the journal long and opening slow. Numbers are big-endian.
//!
//! ```text
//! key    receiver | 0x00 | topic
//! value  format (1 byte, 0x01) | for each lane: next (8 bytes) | number of runs (2 bytes) | the runs, ascending:
//!                                                                start (8 bytes) | end, exclusive (8 bytes)
//! ```
//!
//! Names hold no zero byte. The database keeps checksums itself.

use wharf_log::{LANES, LaneSet};

use crate::{Cursor, Cursors, MAX_RUNS, StateError};

/// The longest name of a receiver or topic, in bytes. The config allows less; this bounds what a key may be.
pub const MAX_NAME: usize = 255;

/// The format that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

const _: () = assert!(MAX_RUNS <= u16::MAX as usize, "the number of runs is written as two bytes");

/// The key of the cursors of a receiver and topic.
pub fn key(receiver: &str, topic: &str) -> Result<Vec<u8>, StateError> {
    for (what, name) in [("receiver", receiver), ("topic", topic)] {
        if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
            return Err(StateError::Name { what, name: name.to_owned() });
        }
    }
    Ok([receiver.as_bytes(), topic.as_bytes()].join(&0))
}

/// The receiver and topic of a key.
pub fn parse_key(key: &[u8]) -> Result<(&str, &str), StateError> {
    let names = str::from_utf8(key).ok().and_then(|key| key.split_once('\0'));
    names
        .filter(|(receiver, topic)| !receiver.is_empty() && !topic.is_empty() && !topic.contains('\0'))
        .ok_or_else(|| StateError::DamagedKey { key: key.escape_ascii().to_string() })
}

/// The value of cursors.
pub fn encode(cursors: &Cursors) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + LANES * 10);
    value.push(FORMAT);
    for (_, cursor) in cursors.iter() {
        value.extend_from_slice(&cursor.next().to_be_bytes());
        let [.., high, low] = cursor.runs().len().to_be_bytes();
        value.extend_from_slice(&[high, low]);
        for run in cursor.runs() {
            value.extend_from_slice(&run.start.to_be_bytes());
            value.extend_from_slice(&run.end.to_be_bytes());
        }
    }
    value
}

/// The cursors of a value, or what is wrong with the value.
pub fn decode(mut value: &[u8]) -> Result<Cursors, String> {
    let [format] = take(&mut value).ok_or("it is empty")?;
    if format != FORMAT {
        return Err(format!("its format is {format}, this version knows format {FORMAT}"));
    }
    let mut cursors = Cursors::at(0);
    for lane in LaneSet::ALL.iter() {
        let problem = |problem| format!("lane {} {problem}", lane.index());
        let cursor = take_cursor(&mut value).ok_or_else(|| problem("ends early"))?;
        *cursors.get_mut(lane) = cursor.ok_or_else(|| problem("has runs that no cursor can have"))?;
    }
    if !value.is_empty() {
        return Err(format!("it has {} bytes too many", value.len()));
    }
    Ok(cursors)
}

/// The next cursor, with `None` inside if no cursor can look like it, and outside if the value ends within it.
fn take_cursor(value: &mut &[u8]) -> Option<Option<Cursor>> {
    let next = u64::from_be_bytes(take(value)?);
    let runs = u16::from_be_bytes(take(value)?);
    let (runs, rest) = value.split_at_checked(usize::from(runs) * 16)?;
    *value = rest;
    let (runs, _) = runs.as_chunks::<8>();
    let (runs, _) = runs.as_chunks::<2>();
    let runs = runs.iter().map(|&[start, end]| u64::from_be_bytes(start)..u64::from_be_bytes(end));
    Some(Cursor::from_parts(next, runs))
}

/// The next bytes of a value.
pub fn take<const N: usize>(value: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = value.split_first_chunk()?;
    *value = rest;
    Some(*bytes)
}

/// Takes the format off a value, if it is the one that this version knows.
pub fn take_format(value: &mut &[u8], known: u8) -> Result<(), String> {
    match take(value) {
        Some([format]) if format == known => Ok(()),
        Some([format]) => Err(format!("its format is {format}, this version knows format {known}")),
        None => Err("it is empty".to_owned()),
    }
}

/// Adds a text to a value, after its length (4 bytes). What is beyond so many bytes is cut off.
pub fn put_text(value: &mut Vec<u8>, text: &str, max_bytes: usize) {
    let text = text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default();
    // No bound comes near to what four bytes can count.
    value.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    value.extend_from_slice(text.as_bytes());
}

/// The next text of a value; none if the value ends within it, or if it is not text.
pub fn take_text(value: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(u32::from_be_bytes(take(value)?)).ok()?;
    let (text, rest) = value.split_at_checked(length)?;
    *value = rest;
    str::from_utf8(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use wharf_log::Lane;

    use super::*;

    #[test]
    fn keys_come_back() {
        let key = key("dashboard", "system_metrics").unwrap();
        assert_eq!(key, b"dashboard\0system_metrics");
        assert_eq!(parse_key(&key).unwrap(), ("dashboard", "system_metrics"));
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        let long = "n".repeat(MAX_NAME + 1);
        for name in ["", "a\0b", long.as_str()] {
            assert!(matches!(key(name, "t"), Err(StateError::Name { what: "receiver", .. })), "{name:?}");
            assert!(matches!(key("r", name), Err(StateError::Name { what: "topic", .. })), "{name:?}");
        }
    }

    #[test]
    fn damaged_keys_are_named() {
        for key in [&b""[..], b"rt", b"\0t", b"r\0", b"r\0t\0u", b"\xff\0t"] {
            assert!(matches!(parse_key(key), Err(StateError::DamagedKey { .. })), "{key:?}");
        }
    }

    #[test]
    fn a_value_is_laid_out_as_documented() {
        let mut cursors = Cursors::at(0x0102);
        cursors.get_mut(Lane::new(0).unwrap()).finish_span(0x0200..0x0300).unwrap();
        let value = encode(&cursors);
        let first = b"\x01\0\0\0\0\0\0\x01\x02\0\x01\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0";
        let others = b"\0\0\0\0\0\0\x01\x02\0\0".repeat(63);
        assert_eq!(value, [&first[..], &others].concat());
        assert_eq!(decode(&value).unwrap(), cursors);
    }

    #[test]
    fn full_cursors_come_back() {
        let mut cursors = Cursors::at(0);
        let cursor = cursors.get_mut(Lane::new(63).unwrap());
        (1..=MAX_RUNS as u64).for_each(|run| cursor.finish(run * 2).unwrap());
        assert_eq!(cursor.room(), 0);
        assert_eq!(decode(&encode(&cursors)).unwrap(), cursors);
    }

    #[test]
    fn damaged_values_are_named() {
        let whole = encode(&Cursors::at(5));
        let with_first_lane = |runs: &[u64]| {
            let mut value = whole[..9].to_vec();
            value.extend(u16::try_from(runs.len() / 2).unwrap().to_be_bytes());
            value.extend(runs.iter().flat_map(|number| number.to_be_bytes()));
            value.extend(&whole[11..]);
            value
        };
        let too_many: Vec<u64> = (6..6 + 2 * (MAX_RUNS as u64 + 1)).collect();
        let mut format = whole.clone();
        format[0] = 9;
        for (value, problem) in [
            (vec![], "it is empty"),
            (format, "its format is 9, this version knows format 1"),
            (whole[..1].to_vec(), "lane 0 ends early"),
            (whole[..whole.len() - 1].to_vec(), "lane 63 ends early"),
            ([&whole[..], &[0]].concat(), "it has 1 bytes too many"),
            (with_first_lane(&too_many), "lane 0 has runs that no cursor can have"),
            (with_first_lane(&[5, 6]), "lane 0 has runs that no cursor can have"),
            (with_first_lane(&[7, 7]), "lane 0 has runs that no cursor can have"),
            (with_first_lane(&[9, 7]), "lane 0 has runs that no cursor can have"),
            (with_first_lane(&[7, 9, 9, 12]), "lane 0 has runs that no cursor can have"),
        ] {
            assert_eq!(decode(&value).unwrap_err(), problem);
        }
        assert!(decode(&with_first_lane(&[7, 9, 10, 12])).is_ok());
    }
}

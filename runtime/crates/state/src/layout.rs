//! How cursors are written in the database. Reading checks everything; what does not fit is an error, never a guess.
//!
//! Each cursor is one entry of the keyspace `cursors`. Numbers are big-endian.
//!
//! ```text
//! key    receiver | 0x00 | topic | 0x00 | lane (1 byte)
//! value  format (1 byte, 0x01) | next (8 bytes) | runs, ascending: start (8 bytes) | end, exclusive (8 bytes)
//! ```
//!
//! The entries of a receiver and topic begin with the same bytes and no others do, because names hold no zero byte. A pair
//! has either all lanes or none. The number of runs follows from the length. The database keeps checksums itself.

use wharf_log::Lane;

use crate::{Cursor, MAX_RUNS, StateError};

/// The longest name of a receiver or topic, in bytes. The config allows less; this bounds what a key may be.
pub const MAX_NAME: usize = 255;

/// The format that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

/// The bytes that begin all keys of a receiver and topic.
pub fn prefix(receiver: &str, topic: &str) -> Result<Vec<u8>, StateError> {
    let mut prefix = Vec::with_capacity(receiver.len() + topic.len() + 3);
    for (what, name) in [("receiver", receiver), ("topic", topic)] {
        if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
            return Err(StateError::Name { what, name: name.to_owned() });
        }
        prefix.extend_from_slice(name.as_bytes());
        prefix.push(0);
    }
    Ok(prefix)
}

/// The key of a lane's cursor, after [`prefix`].
pub fn key(prefix: &[u8], lane: Lane) -> Vec<u8> {
    let [.., number] = lane.index().to_be_bytes();
    [prefix, &[number]].concat()
}

/// What a key names: receiver, topic and lane.
pub fn parse_key(key: &[u8]) -> Result<(&str, &str, Lane), StateError> {
    let damaged = |problem| StateError::DamagedKey { key: key.escape_ascii().to_string(), problem };
    let (lane, names) = key.split_last().ok_or_else(|| damaged("it is empty"))?;
    let lane = Lane::new(*lane).ok_or_else(|| damaged("no lane has this number"))?;
    let names = names.strip_suffix(&[0]).ok_or_else(|| damaged("no zero byte before the lane"))?;
    let names = str::from_utf8(names).map_err(|_| damaged("the names are not UTF-8"))?;
    match names.split_once('\0') {
        Some((receiver, topic)) if !receiver.is_empty() && !topic.is_empty() && !topic.contains('\0') => {
            Ok((receiver, topic, lane))
        }
        _ => Err(damaged("it does not hold two names")),
    }
}

/// The value of a cursor.
pub fn encode(cursor: &Cursor) -> Vec<u8> {
    let mut value = vec![FORMAT];
    value.extend_from_slice(&cursor.next().to_be_bytes());
    for run in cursor.runs() {
        value.extend_from_slice(&run.start.to_be_bytes());
        value.extend_from_slice(&run.end.to_be_bytes());
    }
    value
}

/// The cursor of a value, or what is wrong with the value.
pub fn decode(value: &[u8]) -> Result<Cursor, String> {
    let (&format, numbers) = value.split_first().ok_or("it is empty")?;
    if format != FORMAT {
        return Err(format!("its format is {format}, this version knows format {FORMAT}"));
    }
    let (numbers, rest) = numbers.as_chunks::<8>();
    let (&next, runs) = numbers.split_first().ok_or("it ends within its watermark")?;
    let (runs, half) = runs.as_chunks::<2>();
    if !rest.is_empty() || !half.is_empty() {
        return Err(format!("its {} bytes end within a run", value.len()));
    }
    if runs.len() > MAX_RUNS {
        return Err(format!("it has {} runs, more than {MAX_RUNS}", runs.len()));
    }
    let runs = runs.iter().map(|&[start, end]| u64::from_be_bytes(start)..u64::from_be_bytes(end));
    Cursor::from_parts(u64::from_be_bytes(next), runs)
        .ok_or_else(|| "its runs do not ascend, touch, or lie below its watermark".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        let lane = Lane::new(63).unwrap();
        let key = key(&prefix("dashboard", "system_metrics").unwrap(), lane);
        assert_eq!(key, b"dashboard\0system_metrics\0\x3f");
        assert_eq!(parse_key(&key).unwrap(), ("dashboard", "system_metrics", lane));
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        let long = "n".repeat(MAX_NAME + 1);
        for name in ["", "a\0b", long.as_str()] {
            assert!(matches!(prefix(name, "t"), Err(StateError::Name { what: "receiver", .. })), "{name:?}");
            assert!(matches!(prefix("r", name), Err(StateError::Name { what: "topic", .. })), "{name:?}");
        }
    }

    #[test]
    fn damaged_keys_are_named() {
        for (key, problem) in [
            (&b""[..], "it is empty"),
            (b"r\0t\0\x40", "no lane has this number"),
            (b"r\0t\x01", "no zero byte before the lane"),
            (b"\xff\0t\0\x01", "the names are not UTF-8"),
            (b"rt\0\x01", "it does not hold two names"),
            (b"\0t\0\x01", "it does not hold two names"),
            (b"r\0t\0u\0\x01", "it does not hold two names"),
        ] {
            let error = parse_key(key).unwrap_err().to_string();
            assert!(error.ends_with(problem), "{error}");
        }
    }

    #[test]
    fn a_value_is_laid_out_as_documented() {
        let mut cursor = Cursor::at(0x0102);
        cursor.finish_span(0x0200..0x0300).unwrap();
        let value = encode(&cursor);
        assert_eq!(value, b"\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0");
        assert_eq!(decode(&value).unwrap(), cursor);
    }

    #[test]
    fn damaged_values_are_named() {
        let value = |numbers: &[u64]| {
            let mut value = vec![FORMAT];
            value.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
            value
        };
        let too_many: Vec<u64> = (0..=2 * (MAX_RUNS as u64 + 1)).collect();
        let mut cut = value(&[5, 7, 9]);
        cut.pop();
        for (value, problem) in [
            (vec![], "it is empty"),
            (vec![9], "its format is 9, this version knows format 1"),
            (vec![FORMAT], "it ends within its watermark"),
            (value(&[5, 7]), "its 17 bytes end within a run"),
            (cut, "its 24 bytes end within a run"),
            (value(&too_many), "it has 1025 runs, more than 1024"),
            (value(&[5, 5, 6]), "its runs do not ascend, touch, or lie below its watermark"),
            (value(&[5, 7, 7]), "its runs do not ascend, touch, or lie below its watermark"),
            (value(&[5, 9, 7]), "its runs do not ascend, touch, or lie below its watermark"),
            (value(&[5, 7, 9, 9, 12]), "its runs do not ascend, touch, or lie below its watermark"),
        ] {
            assert_eq!(decode(&value).unwrap_err(), problem);
        }
    }
}

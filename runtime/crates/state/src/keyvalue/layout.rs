//! How the values of receivers are written in the database. Reading checks everything; what does not fit is an error, never
//! a guess.
//!
//! All receivers share the keyspace `guests`, so that what a receiver uses is written in one batch with what it wrote.
//! Numbers are big-endian.
//!
//! ```text
//! of a receiver   key    'u' | receiver
//!                 value  format (1 byte, 0x01) | bytes in use (8 bytes) | number of writes so far (8 bytes)
//! of an entry     key    'e' | receiver | 0x00 | bucket | 0x00 | key
//!                 value  format (1 byte, 0x01) | number of the write that made it (8 bytes) | the receiver's value
//! ```
//!
//! Names of receivers and buckets hold no zero byte; a key may, since nothing comes after it. The bytes in use are the
//! sum of [`entry_bytes`] over the entries of a receiver. Writes are numbered for each receiver from 1, and no number is
//! given twice: an entry that still has its number has not been written since. The database keeps checksums itself.

use crate::{StateError, layout::MAX_NAME};

/// What an entry uses beside the bytes of its key, value and bucket's name: about what the database adds for its indexes,
/// checksums and the receiver's name. Without it, empty values would be had for nothing.
pub const ENTRY_OVERHEAD: u64 = 64;

/// The format that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

const USAGE: u8 = b'u';
const ENTRY: u8 = b'e';

/// What a receiver uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all of its entries, see [`entry_bytes`].
    pub bytes: u64,
    /// The number of its last write.
    pub writes: u64,
}

/// An entry as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The number of the write that made it.
    pub write: u64,
    /// The receiver's value.
    pub value: &'a [u8],
}

/// What an entry counts in bytes.
pub fn entry_bytes(bucket: &str, key: &str, value: usize) -> u64 {
    [bucket.len(), key.len(), value]
        .into_iter()
        .map(|length| u64::try_from(length).unwrap_or(u64::MAX))
        .fold(ENTRY_OVERHEAD, u64::saturating_add)
}

/// Checks that a key can hold the name of a receiver.
pub fn check_receiver(receiver: &str) -> Result<(), StateError> {
    if receiver.is_empty() || receiver.len() > MAX_NAME || receiver.contains('\0') {
        return Err(StateError::Name { what: "receiver", name: receiver.to_owned() });
    }
    Ok(())
}

/// The key of what a receiver uses.
pub fn usage_key(receiver: &str) -> Vec<u8> {
    [&[USAGE], receiver.as_bytes()].concat()
}

/// What the keys of all receivers' usage begin with.
pub fn usage_prefix() -> [u8; 1] {
    [USAGE]
}

/// The receiver of such a key.
pub fn parse_usage_key(key: &[u8]) -> Result<&str, StateError> {
    key.strip_prefix(&[USAGE])
        .and_then(|receiver| str::from_utf8(receiver).ok())
        .filter(|receiver| check_receiver(receiver).is_ok())
        .ok_or_else(|| damaged_key(key, "what a receiver uses"))
}

/// What all keys of a bucket begin with.
pub fn bucket_prefix(receiver: &str, bucket: &str) -> Vec<u8> {
    [&[ENTRY], receiver.as_bytes(), &[0], bucket.as_bytes(), &[0]].concat()
}

/// A key that is higher than all keys of a bucket, and not higher than any of the bucket after it.
pub fn bucket_end(receiver: &str, bucket: &str) -> Vec<u8> {
    [&[ENTRY], receiver.as_bytes(), &[0], bucket.as_bytes(), &[1]].concat()
}

/// The receiver's part of the key of an entry, whose beginning is the `prefix` of its bucket.
pub fn parse_entry_key<'a>(key: &'a [u8], prefix: &[u8]) -> Result<&'a str, StateError> {
    key.strip_prefix(prefix)
        .and_then(|key| str::from_utf8(key).ok())
        .ok_or_else(|| damaged_key(key, "an entry of a receiver"))
}

/// The receiver, the bucket and the receiver's part of the key of an entry; none if Wharf writes no such key.
pub fn parse_whole_key(key: &[u8]) -> Option<(&str, &str, &str)> {
    let (receiver, rest) = str::from_utf8(key.strip_prefix(&[ENTRY])?).ok()?.split_once('\0')?;
    let (bucket, key) = rest.split_once('\0')?;
    check_receiver(receiver).ok().map(|()| (receiver, bucket, key))
}

fn damaged_key(key: &[u8], expected: &'static str) -> StateError {
    StateError::DamagedGuestKey { key: key.escape_ascii().to_string(), expected }
}

impl Usage {
    /// The value of a usage.
    pub fn encode(self) -> Vec<u8> {
        [&[FORMAT][..], &self.bytes.to_be_bytes(), &self.writes.to_be_bytes()].concat()
    }

    /// The usage of a value, or what is wrong with the value.
    pub fn decode(value: &[u8]) -> Result<Self, String> {
        let rest = check_format(value)?;
        let ([bytes, writes], []) = rest.as_chunks::<8>() else {
            return Err(format!("what it uses has {} bytes, expected 17", value.len()));
        };
        Ok(Self { bytes: u64::from_be_bytes(*bytes), writes: u64::from_be_bytes(*writes) })
    }
}

impl<'a> Entry<'a> {
    /// The value of an entry.
    pub fn encode(self) -> Vec<u8> {
        [&[FORMAT][..], &self.write.to_be_bytes(), self.value].concat()
    }

    /// The entry of a value, or what is wrong with the value.
    pub fn decode(value: &'a [u8]) -> Result<Self, String> {
        let rest = check_format(value)?;
        let (write, value) = rest.split_first_chunk().ok_or("an entry ends early")?;
        Ok(Self { write: u64::from_be_bytes(*write), value })
    }
}

fn check_format(value: &[u8]) -> Result<&[u8], String> {
    match value.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        Some((format, _)) => Err(format!("its format is {format}, this version knows format {FORMAT}")),
        None => Err("it is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_out_as_documented() {
        assert_eq!(usage_key("alarms"), b"ualarms");
        assert_eq!(parse_usage_key(b"ualarms").unwrap(), "alarms");
        let prefix = bucket_prefix("alarms", "seen");
        assert_eq!(prefix, b"ealarms\0seen\0");
        assert_eq!(bucket_prefix("alarms", ""), b"ealarms\0\0");
        assert_eq!(parse_entry_key(b"ealarms\0seen\0a\0b", &prefix).unwrap(), "a\0b");
        assert!(bucket_end("alarms", "seen") > [&prefix[..], &[0xff; 9]].concat());
        assert!(bucket_end("alarms", "seen") <= bucket_prefix("alarms", "seen\u{1}"));
    }

    #[test]
    fn damaged_keys_are_named() {
        let long = [b"u", "r".repeat(MAX_NAME + 1).as_bytes()].concat();
        for key in [&b""[..], b"u", b"r", b"u\xff", b"ua\0b", &long] {
            assert!(matches!(parse_usage_key(key), Err(StateError::DamagedGuestKey { .. })), "{key:?}");
        }
        for key in [&b"er\0c\0k"[..], b"er\0b\0\xff"] {
            assert!(parse_entry_key(key, &bucket_prefix("r", "b")).is_err(), "{key:?}");
        }
    }

    #[test]
    fn values_are_laid_out_as_documented() {
        let usage = Usage { bytes: 0x0102, writes: 3 };
        assert_eq!(usage.encode(), b"\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03");
        assert_eq!(Usage::decode(&usage.encode()).unwrap(), usage);
        let entry = Entry { write: 0x0203, value: b"on" };
        assert_eq!(entry.encode(), b"\x01\0\0\0\0\0\0\x02\x03on");
        assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        assert_eq!(entry_bytes("seen", "key", 2), 73);
    }

    #[test]
    fn damaged_values_are_named() {
        let usage = Usage::default().encode();
        for (value, problem) in [
            (&b""[..], "it is empty"),
            (b"\x02", "its format is 2, this version knows format 1"),
            (&usage[..16], "what it uses has 16 bytes, expected 17"),
            (&[&usage[..], &[0]].concat(), "what it uses has 18 bytes, expected 17"),
        ] {
            assert_eq!(Usage::decode(value).unwrap_err(), problem);
        }
        for (value, problem) in [
            (&b""[..], "it is empty"),
            (b"\0", "its format is 0, this version knows format 1"),
            (b"\x01\0\0\0", "an entry ends early"),
        ] {
            assert_eq!(Entry::decode(value).unwrap_err(), problem);
        }
    }
}

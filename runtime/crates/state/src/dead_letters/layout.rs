//! How dead letters are written in the database. Reading checks everything; what does not fit is named, never guessed.
//!
//! All are in the keyspace `dead-letters`. What is known of a letter and its message are two entries, so that a listing reads
//! no messages. Numbers are big-endian.
//!
//! ```text
//! of a receiver  key    'u' | receiver
//!                value  format (1 byte, 0x01) | highest id so far (8 bytes) | number of letters (8 bytes) | their bytes (8 bytes)
//! of a letter    key    'h' | receiver | 0x00 | id (8 bytes)
//!                value  format (1 byte, 0x01) | kind (1 byte: 0 rejected, 1 faults, 2 too old, 3 unreadable) | lane (1 byte) |
//!                       offset (8 bytes) | received at (8 bytes) | died at (8 bytes) | attempts (4 bytes) |
//!                       length of the message (4 bytes) |
//!                       topic, agent, digest, reason, trap, backtrace, stderr: each its length (4 bytes) and text
//! its message    key    'm' | receiver | 0x00 | id (8 bytes)
//!                value  the bytes of the message's record in the log
//! ```
//!
//! Names of receivers hold no zero byte. A trap or a backtrace that is empty is none. The bytes of a letter are the sum of
//! both values and [`LETTER_OVERHEAD`]. The database keeps checksums itself.

use std::ops::RangeInclusive;

use wharf_log::Lane;

use super::letter::{Death, DeathKind, MAX_BACKTRACE, MAX_REASON, MAX_STDERR};
use crate::layout::{MAX_NAME, put_text, take, take_format, take_text};

/// What a dead letter counts beside the bytes of its two values: about what its keys take and what the database adds.
pub const LETTER_OVERHEAD: u64 = 128;

/// The format that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

/// The highest id. More than can ever be given, and far enough from the end of the numbers to count on from.
const MAX_ID: u64 = u64::MAX >> 1;

const USAGE: u8 = b'u';
const HEAD: u8 = b'h';
const MESSAGE: u8 = b'm';

/// What is stored of all letters of a receiver together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub last_id: u64,
    pub count: u64,
    pub bytes: u64,
}

/// What is stored of a letter beside its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub topic: String,
    pub death: Death,
    pub message_bytes: u32,
}

pub const USAGES: [u8; 1] = [USAGE];

pub fn usage_key(receiver: &str) -> Vec<u8> {
    [&[USAGE], receiver.as_bytes()].concat()
}

/// The receiver of the key of a usage, or what is wrong with the key.
pub fn parse_usage_key(key: &[u8]) -> Result<&str, String> {
    key.strip_prefix(&[USAGE])
        .and_then(|receiver| str::from_utf8(receiver).ok())
        .filter(|receiver| !receiver.is_empty() && !receiver.contains('\0'))
        .ok_or_else(|| format!("{:?} is not the key of a receiver", key.escape_ascii().to_string()))
}

pub fn head_key(receiver: &str, id: u64) -> Vec<u8> {
    letter_key(HEAD, receiver, id)
}

pub fn message_key(receiver: &str, id: u64) -> Vec<u8> {
    letter_key(MESSAGE, receiver, id)
}

/// The keys of all heads between two ids.
pub fn head_keys(receiver: &str, first: u64, last: u64) -> RangeInclusive<Vec<u8>> {
    head_key(receiver, first)..=head_key(receiver, last)
}

/// The id in the key of a head; none if Wharf writes no such key.
pub fn parse_head_key(receiver: &str, key: &[u8]) -> Option<u64> {
    let id = key.strip_prefix(&[HEAD])?.strip_prefix(receiver.as_bytes())?.strip_prefix(&[0])?;
    id.try_into().ok().map(u64::from_be_bytes).filter(|id| (1..=MAX_ID).contains(id))
}

/// What a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterKey {
    Head,
    Message,
}

/// What the key of a letter belongs to, its receiver and its id; none if Wharf writes no such key.
pub fn parse_letter_key(key: &[u8]) -> Option<(LetterKey, &str, u64)> {
    let (kind, rest) = key.split_first()?;
    let kind = match *kind {
        HEAD => LetterKey::Head,
        MESSAGE => LetterKey::Message,
        _ => return None,
    };
    let (rest, id) = rest.split_last_chunk()?;
    let receiver = str::from_utf8(rest.strip_suffix(&[0])?).ok()?;
    let id = u64::from_be_bytes(*id);
    (!receiver.is_empty() && !receiver.contains('\0') && (1..=MAX_ID).contains(&id))
        .then_some((kind, receiver, id))
}

fn letter_key(kind: u8, receiver: &str, id: u64) -> Vec<u8> {
    [&[kind], receiver.as_bytes(), &[0], &id.to_be_bytes()].concat()
}

/// What a letter counts in bytes.
pub fn letter_bytes(head: usize, message: u32) -> u64 {
    u64::try_from(head).unwrap_or(u64::MAX).saturating_add(message.into()).saturating_add(LETTER_OVERHEAD)
}

impl Usage {
    pub fn encode(self) -> Vec<u8> {
        let numbers = [self.last_id, self.count, self.bytes].map(u64::to_be_bytes);
        [&[FORMAT], numbers.as_flattened()].concat()
    }

    /// The usage of a value, or what is wrong with the value.
    pub fn decode(mut value: &[u8]) -> Result<Self, String> {
        let length = value.len();
        take_format(&mut value, FORMAT)?;
        let ([last_id, count, bytes], []) = value.as_chunks::<8>() else {
            return Err(format!("it has {length} bytes, expected 25"));
        };
        let [last_id, count, bytes] = [last_id, count, bytes].map(|number| u64::from_be_bytes(*number));
        if last_id > MAX_ID || count > last_id {
            return Err(format!("it has {count} letters, and the id {last_id} as the highest"));
        }
        Ok(Self { last_id, count, bytes })
    }
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        let Death { offset, lane, received_at, attempts, kind, died_at, .. } = self.death;
        let death = &self.death;
        let kind = match kind {
            DeathKind::Rejected => 0,
            DeathKind::Faults => 1,
            DeathKind::TooOld => 2,
            DeathKind::Unreadable => 3,
        };
        // The number of a lane fits by its type.
        let lane = u8::try_from(lane.index()).unwrap_or(u8::MAX);
        let mut value = vec![FORMAT, kind, lane];
        value.extend_from_slice([offset, received_at, died_at].map(u64::to_be_bytes).as_flattened());
        value.extend_from_slice([attempts, self.message_bytes].map(u32::to_be_bytes).as_flattened());
        for (text, most) in [
            (self.topic.as_str(), MAX_NAME),
            (&death.agent, MAX_NAME),
            (&death.digest, MAX_NAME),
            (&death.reason, MAX_REASON),
            (death.trap.as_deref().unwrap_or_default(), MAX_NAME),
            (death.backtrace.as_deref().unwrap_or_default(), MAX_BACKTRACE),
        ] {
            put_text(&mut value, text, most);
        }
        let from = death.stderr.ceil_char_boundary(death.stderr.len().saturating_sub(MAX_STDERR));
        put_text(&mut value, death.stderr.get(from..).unwrap_or_default(), MAX_STDERR);
        value
    }

    /// The head of a value, or what is wrong with the value.
    pub fn decode(mut value: &[u8]) -> Result<Self, String> {
        take_format(&mut value, FORMAT)?;
        let [kind, lane] = take(&mut value).ok_or("it ends early")?;
        let kind = match kind {
            0 => DeathKind::Rejected,
            1 => DeathKind::Faults,
            2 => DeathKind::TooOld,
            3 => DeathKind::Unreadable,
            other => return Err(format!("its kind is {other}, expected 0 to 3")),
        };
        let lane = Lane::new(lane).ok_or_else(|| format!("there is no lane {lane}"))?;
        let mut number = || take(&mut value).map(u64::from_be_bytes).ok_or("it ends early");
        let (offset, received_at, died_at) = (number()?, number()?, number()?);
        let mut number = || take(&mut value).map(u32::from_be_bytes).ok_or("it ends early");
        let (attempts, message_bytes) = (number()?, number()?);
        let mut text =
            |what| take_text(&mut value).ok_or_else(|| format!("its {what} ends early or is not text"));
        let topic = text("topic")?;
        let agent = text("agent")?;
        let digest = text("digest")?;
        let reason = text("reason")?;
        let trap = Some(text("trap")?).filter(|trap| !trap.is_empty());
        let backtrace = Some(text("backtrace")?).filter(|backtrace| !backtrace.is_empty());
        let stderr = text("stderr")?;
        if !value.is_empty() {
            return Err(format!("it has {} bytes too many", value.len()));
        }
        let death = Death {
            offset,
            lane,
            agent,
            received_at,
            attempts,
            kind,
            reason,
            trap,
            backtrace,
            stderr,
            digest,
            died_at,
        };
        Ok(Self { topic, death, message_bytes })
    }
}

#[cfg(test)]
mod tests;

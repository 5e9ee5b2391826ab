//! The payload of a log record: what is kept of a message between its acceptance and its last delivery.
//!
//! # Layout
//!
//! The first byte is the kind of the record and the version of its layout in one, so that records of other kinds, and
//! other layouts, can lie in the same log. Kind `1` is a message:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | kind, `1` |
//! | 1 | flags: bit 0 the body is MessagePack, not JSON; bits 1 to 4 there is a message id, a `sent_at`, a user, a traceparent; the others are zero |
//! | 8 | `received_at`, little-endian, Unix milliseconds |
//! | length and text | agent id |
//! | length and text | message id, if its flag is set |
//! | 8 | `sent_at`, little-endian, if its flag is set |
//! | length and text | user, if its flag is set |
//! | length and text | traceparent, if its flag is set |
//! | the rest | body |
//!
//! Kind `2` is a change of an agent's presence:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | kind, `2` |
//! | 1 | `1` if the agent became active, `0` if it became inactive |
//! | 8 | when, little-endian, Unix milliseconds |
//! | the rest | agent id, text |
//!
//! A length is an unsigned LEB128 number of bytes, text is UTF-8. The data type is not repeated: it is the topic's.
//! Checksums are the log's own; what is read here is taken to be what was written, and still nothing panics if it is
//! not.

use bytes::{Buf, Bytes};

use crate::agent::AgentId;
use crate::body::Body;
use crate::encoding::Encoding;

const MESSAGE: u8 = 1;
const PRESENCE: u8 = 2;

const BODY_IS_MSGPACK: u8 = 1;
const HAS_MESSAGE_ID: u8 = 1 << 1;
const HAS_SENT_AT: u8 = 1 << 2;
const HAS_USER: u8 = 1 << 3;
const HAS_TRACEPARENT: u8 = 1 << 4;
const ALL_FLAGS: u8 = BODY_IS_MSGPACK | HAS_MESSAGE_ID | HAS_SENT_AT | HAS_USER | HAS_TRACEPARENT;

/// What lies in the log under one offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A message that was accepted.
    Message(StoredMessage),
    /// An agent came or went.
    Presence(PresenceRecord),
}

/// An agent came or went. It lies in the topic of each data type that the agent has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRecord {
    /// Who.
    pub agent: AgentId,
    /// Whether it is active from here on.
    pub active: bool,
    /// When the server noticed, Unix milliseconds.
    pub at: u64,
}

/// A message as the log keeps it. Its data type is the topic that it lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Who sent it.
    pub agent: AgentId,
    /// When it was accepted, Unix milliseconds.
    pub received_at: u64,
    /// The agent's own id of the message.
    pub message_id: Option<String>,
    /// The agent's own time, Unix milliseconds.
    pub sent_at: Option<u64>,
    /// The account that sent it, where accounts are on.
    pub user: Option<String>,
    /// The W3C `traceparent` that came with it.
    pub traceparent: Option<String>,
    /// The `data` object.
    pub body: Body,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The kind is none that this version knows: a later one wrote it.
    #[error("read a record of the unknown kind {0}")]
    UnknownKind(u8),
    /// A flag is set that this version does not know.
    #[error("read a record with the unknown flags {0:#010b}")]
    UnknownFlags(u8),
    /// The bytes end within this part.
    #[error("read a record that ends within its {0}")]
    Truncated(&'static str),
    /// The length of this part is no number of 64 bits.
    #[error("read a record with an overlong length of its {0}")]
    BadLength(&'static str),
    /// This part is not UTF-8, or for the agent id, empty or too long.
    #[error("read a record whose {0} is not valid text")]
    BadText(&'static str),
}

impl Record {
    /// The bytes that the log keeps.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Record::Message(message) => message.encode(),
            Record::Presence(presence) => presence.encode(),
        }
    }

    /// Whether these bytes of a record are those of a message, without reading more than the kind.
    pub fn is_message(bytes: &[u8]) -> bool {
        bytes.first() == Some(&MESSAGE)
    }

    /// Whether these bytes of a record are those of a message with a [`message_id`](StoredMessage::message_id), without
    /// reading more than its flags.
    pub fn has_message_id(bytes: &[u8]) -> bool {
        matches!(bytes, [MESSAGE, flags, ..] if flags & HAS_MESSAGE_ID != 0)
    }

    /// Reads a record. The body stays a slice of the given bytes.
    ///
    /// # Errors
    ///
    /// A [`RecordError`] for bytes that [`Record::encode`] of this version does not write. The body is not looked at.
    pub fn decode(bytes: Bytes) -> Result<Record, RecordError> {
        let mut reader = Reader { rest: bytes };
        match reader.byte("kind")? {
            MESSAGE => StoredMessage::decode(reader).map(Record::Message),
            PRESENCE => PresenceRecord::decode(reader).map(Record::Presence),
            other => Err(RecordError::UnknownKind(other)),
        }
    }
}

impl PresenceRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![PRESENCE, u8::from(self.active)];
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(self.agent.as_str().as_bytes());
        out
    }

    /// Reads what follows the kind.
    fn decode(mut reader: Reader) -> Result<PresenceRecord, RecordError> {
        let active = match reader.byte("activity")? {
            0 => false,
            1 => true,
            other => return Err(RecordError::UnknownFlags(other)),
        };
        let at = reader.number("time")?;
        let agent = std::str::from_utf8(&reader.rest).map_err(|_| RecordError::BadText("agent id"))?;
        let agent = AgentId::new(agent).map_err(|_| RecordError::BadText("agent id"))?;
        Ok(PresenceRecord { agent, active, at })
    }
}

impl StoredMessage {
    fn encode(&self) -> Vec<u8> {
        let StoredMessage { agent, received_at, message_id, sent_at, user, traceparent, body } = self;
        let texts = [Some(agent.as_str()), message_id.as_deref(), user.as_deref(), traceparent.as_deref()];
        // Exactly what is needed: as shared bytes a record would else take an allocation more.
        let text_bytes: usize = texts.iter().flatten().map(|text| text_bytes(text)).sum();
        let sent_at_bytes = if sent_at.is_some() { 8 } else { 0 };
        let mut out = Vec::with_capacity(2 + 8 + sent_at_bytes + text_bytes + body.bytes().len());

        let mut flags = 0;
        for (flag, is_set) in [
            (BODY_IS_MSGPACK, body.encoding() == Encoding::Msgpack),
            (HAS_MESSAGE_ID, message_id.is_some()),
            (HAS_SENT_AT, sent_at.is_some()),
            (HAS_USER, user.is_some()),
            (HAS_TRACEPARENT, traceparent.is_some()),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        out.extend_from_slice(&[MESSAGE, flags]);
        out.extend_from_slice(&received_at.to_le_bytes());
        write_text(agent.as_str(), &mut out);
        if let Some(id) = message_id {
            write_text(id, &mut out);
        }
        if let Some(milliseconds) = sent_at {
            out.extend_from_slice(&milliseconds.to_le_bytes());
        }
        if let Some(user) = user {
            write_text(user, &mut out);
        }
        if let Some(trace) = traceparent {
            write_text(trace, &mut out);
        }
        out.extend_from_slice(body.bytes());
        out
    }

    /// Reads what follows the kind.
    fn decode(mut reader: Reader) -> Result<StoredMessage, RecordError> {
        let flags = reader.byte("flags")?;
        if flags & !ALL_FLAGS != 0 {
            return Err(RecordError::UnknownFlags(flags & !ALL_FLAGS));
        }
        let has = |flag: u8| flags & flag != 0;
        let received_at = reader.number("received_at")?;
        let agent =
            reader.text("agent id", |id| AgentId::new(id))?.map_err(|_| RecordError::BadText("agent id"))?;
        let message_id =
            if has(HAS_MESSAGE_ID) { Some(reader.text("message id", str::to_owned)?) } else { None };
        let sent_at = if has(HAS_SENT_AT) { Some(reader.number("sent_at")?) } else { None };
        let user = if has(HAS_USER) { Some(reader.text("user", str::to_owned)?) } else { None };
        let traceparent =
            if has(HAS_TRACEPARENT) { Some(reader.text("traceparent", str::to_owned)?) } else { None };
        let encoding = if has(BODY_IS_MSGPACK) { Encoding::Msgpack } else { Encoding::Json };
        let body = Body::trusted(encoding, reader.rest);
        Ok(StoredMessage { agent, received_at, message_id, sent_at, user, traceparent, body })
    }
}

/// How many bytes [`write_text`] writes: one for every seven bits of the length, at least one, and the text.
fn text_bytes(text: &str) -> usize {
    let more = std::iter::successors(Some(text.len() >> 7), |length| Some(length >> 7));
    1 + more.take_while(|length| *length > 0).count() + text.len()
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    let mut length = text.len();
    loop {
        let [low, ..] = length.to_le_bytes();
        length >>= 7;
        if length == 0 {
            out.push(low & 0x7f);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend_from_slice(text.as_bytes());
}

/// Takes parts off the front of a record; each is named for the error that says where it ended.
struct Reader {
    rest: Bytes,
}

impl Reader {
    fn byte(&mut self, part: &'static str) -> Result<u8, RecordError> {
        self.rest.try_get_u8().map_err(|_| RecordError::Truncated(part))
    }

    fn number(&mut self, part: &'static str) -> Result<u64, RecordError> {
        self.rest.try_get_u64_le().map_err(|_| RecordError::Truncated(part))
    }

    fn length(&mut self, part: &'static str) -> Result<usize, RecordError> {
        let mut length: u64 = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(part)?;
            let digits = u64::from(byte & 0x7f);
            if digits << shift >> shift != digits {
                return Err(RecordError::BadLength(part));
            }
            length |= digits << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(length).map_err(|_| RecordError::BadLength(part));
            }
        }
        Err(RecordError::BadLength(part))
    }

    /// Takes a text and gives what is made of it.
    fn text<T>(&mut self, part: &'static str, make: impl FnOnce(&str) -> T) -> Result<T, RecordError> {
        let length = self.length(part)?;
        let text = self.rest.get(..length).ok_or(RecordError::Truncated(part))?;
        let made = make(std::str::from_utf8(text).map_err(|_| RecordError::BadText(part))?);
        self.rest.advance(length);
        Ok(made)
    }
}

#[cfg(test)]
mod tests;

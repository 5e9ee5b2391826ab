//! The body of a message: bytes that are known to be one object, in the encoding that its agent chose. It is passed on
//! as it came; only a receiver or a client that wants the other encoding makes another copy of it.
//!
//! # What MessagePack becomes in JSON
//!
//! The mapping is total: whatever a [`Body`] holds has its JSON, so no receiver meets a message that cannot be given
//! to it.
//!
//! | MessagePack | JSON |
//! |---|---|
//! | nil, booleans, lists, text | the same |
//! | integers of 64 bits, signed or not | exactly the same number |
//! | floats of 32 and 64 bits | the shortest number that reads back as that float; NaN and infinities are `null` |
//! | binary | text: base64, standard alphabet, padded |
//! | timestamp (extension −1, of its 4, 8 or 12 bytes) | `{"$ext":-1,"seconds":…,"nanoseconds":…}` |
//! | any other extension | `{"$ext":type,"data":"base64"}` |
//! | maps | objects, the keys in their order |
//! | keys that are text | the same |
//! | keys that are binary | their base64 |
//! | any other key | the text of its JSON: `1`, `null`, `[1,2]` |
//!
//! What would have no faithful JSON is refused when the message comes in: keys of one map that read the same after the
//! mapping, text that is not UTF-8, nesting beyond the limit (an extension counts as the object that it becomes), and
//! a list, map or extension in a key that is itself inside such a key. The latter would double every quotation mark
//! once per level, so that a small frame could ask for gigabytes of backslashes.
//!
//! # What is checked in JSON
//!
//! Its syntax, its depth, and that no text holds half of a surrogate pair: `"\ud800"` is JSON by its grammar, but no
//! Unicode text, and parsers in receivers fail on it. Keys that occur twice in one object are left as they are. That
//! is valid JSON, parsers agree on the last one, and to find them would cost a set of keys for every object of every
//! message.

mod json;
mod mapping;
mod msgpack;

use std::borrow::Cow;

use bytes::Bytes;

use crate::encoding::{Encoding, Limits};
use crate::field;
use crate::msgpack::{Cursor, Malformed};
use crate::quote::Quoted;
use crate::refusal::Refusal;
use crate::value::{Raw, Value};

/// The `data` object of a message, in the encoding in which it came. Cloning it copies a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    encoding: Encoding,
    bytes: Bytes,
}

impl Body {
    /// A body of these bytes, which are one object.
    ///
    /// # Errors
    ///
    /// `invalid_field`, naming `data`, for bytes that are not one value of that encoding, or that the checks of the
    /// module refuse.
    pub fn new(encoding: Encoding, bytes: Bytes, limits: &Limits) -> Result<Body, Refusal> {
        let raw = match encoding {
            Encoding::Json => {
                let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("bytes that are not UTF-8"))?;
                let value: &serde_json::value::RawValue = serde_json::from_str(text)
                    .map_err(|error| unreadable(format_args!("no JSON: {error}")))?;
                Raw::Json(value.get())
            }
            Encoding::Msgpack => {
                let value = Cursor::only_value(&bytes)
                    .map_err(|error| unreadable(format_args!("no MessagePack: {error}")))?;
                Raw::Msgpack(value)
            }
        };
        Body::of_value(raw, &bytes, limits)
    }

    /// A body of one well-formed value that lies in these bytes, without a copy.
    pub(crate) fn of_value(raw: Raw<'_>, within: &Bytes, limits: &Limits) -> Result<Body, Refusal> {
        let found = raw.read();
        if found != Value::Object {
            return Err(field::mismatch("data", found, "an object"));
        }
        let checked = match raw {
            Raw::Json(text) => json::check(text, limits.depth()),
            Raw::Msgpack(bytes) => msgpack::check(bytes, limits.depth()),
        };
        checked.map_err(|problem| Refusal::invalid_field("data", problem))?;
        Ok(match raw {
            Raw::Json(text) => Body { encoding: Encoding::Json, bytes: within.slice_ref(text.as_bytes()) },
            Raw::Msgpack(bytes) => Body { encoding: Encoding::Msgpack, bytes: within.slice_ref(bytes) },
        })
    }

    /// A body whose bytes were checked before they were stored.
    pub(crate) fn trusted(encoding: Encoding, bytes: Bytes) -> Body {
        Body { encoding, bytes }
    }

    /// The encoding in which the agent sent it.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The object, as it was sent.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The body as JSON. It never fails: what could not be mapped was refused at the edge. Should stored bytes be
    /// damaged in spite of the checksums over them, so that they are no text or cannot be mapped, they read as `null`,
    /// which no receiver takes for a message.
    pub fn to_json(&self) -> Cow<'_, str> {
        match self.encoding {
            Encoding::Json => std::str::from_utf8(&self.bytes).map_or(Cow::Borrowed("null"), Cow::Borrowed),
            Encoding::Msgpack => mapping::to_json(&self.bytes).map_or(Cow::Borrowed("null"), Cow::Owned),
        }
    }

    /// The body as MessagePack, for clients that send what they have as JSON. Of keys that occur twice the last one
    /// stays; integers beyond 64 bits become floats, and floats beyond their range infinities.
    pub fn to_msgpack(&self) -> Cow<'_, [u8]> {
        match self.encoding {
            Encoding::Json => json::to_msgpack(&self.bytes).map_or(Cow::Borrowed(b"\xc0"), Cow::Owned),
            Encoding::Msgpack => Cow::Borrowed(&self.bytes),
        }
    }
}

fn unreadable(found: impl std::fmt::Display) -> Refusal {
    field::mismatch("data", found, "an object")
}

/// Why a well-formed object is no body.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("found nesting deeper than {limit} levels, expected at most {limit}")]
    TooDeep { limit: usize },
    #[error("found half of a surrogate pair in a text, expected Unicode text")]
    LoneSurrogate,
    #[error("found a text that is not UTF-8, expected UTF-8")]
    NotUtf8,
    #[error("found two keys {} in one object, expected keys that differ as JSON text", Quoted(.0))]
    SameKeys(String),
    #[error("found a list, object or extension as key within another such key, expected simpler keys")]
    KeyInKey,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

#[cfg(test)]
mod tests;

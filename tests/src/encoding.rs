//! The two encodings of everything that agents send.

use serde_json::Value;

/// JSON or MessagePack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Msgpack,
}

impl Encoding {
    /// Both.
    pub const ALL: [Encoding; 2] = [Encoding::Json, Encoding::Msgpack];

    /// Its content type over REST.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Msgpack => "application/msgpack",
        }
    }

    pub fn encode(self, value: &Value) -> Vec<u8> {
        match self {
            Encoding::Json => serde_json::to_vec(value).expect("a value is JSON"),
            Encoding::Msgpack => rmp_serde::to_vec_named(value).expect("a value has a form in MessagePack"),
        }
    }

    /// Reads exactly one value.
    pub fn decode(self, bytes: &[u8]) -> Value {
        let decoded = match self {
            Encoding::Json => serde_json::from_slice(bytes).map_err(anyhow::Error::from),
            Encoding::Msgpack => rmp_serde::from_slice(bytes).map_err(anyhow::Error::from),
        };
        decoded.unwrap_or_else(|error| panic!("{bytes:x?} is not {self:?}: {error}"))
    }
}

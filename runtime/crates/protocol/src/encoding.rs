//! The two encodings and the bounds that decoding obeys in both.

use serde::Serialize;

/// How a frame, a body or an answer is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON: the text frames of a WebSocket, `application/json` over REST.
    Json,
    /// MessagePack: the binary frames of a WebSocket, `application/msgpack` over REST.
    Msgpack,
}

impl Encoding {
    /// The encoding of a value of our own: maps are written with their field names in both.
    pub(crate) fn write(self, value: &impl Serialize) -> Vec<u8> {
        // Serializing fails when a writer does or when a map has keys that are no text; memory does not, and none of
        // our values has such keys.
        match self {
            Encoding::Json => serde_json::to_vec(value).unwrap_or_default(),
            Encoding::Msgpack => rmp_serde::to_vec_named(value).unwrap_or_default(),
        }
    }
}

/// How deep a body may be nested unless the operator says otherwise. Bodies of real agents are under ten levels deep;
/// 64 leaves guests half of what the strictest common JSON parser (128 levels, `serde_json`) can follow.
pub const DEFAULT_MAX_DEPTH: usize = 64;

/// The deepest nesting that any limit can allow: what `serde_json` with its default recursion limit reads in a guest.
/// It also is what bounds the stack of the walks in this crate.
pub const DEEPEST: usize = 127;

/// How many calls a batch may hold unless the operator says otherwise. Far above the batch size where sending faster
/// stops paying (some hundreds), and low enough that the decoded calls and the errors of one frame stay at a few MiB.
pub const DEFAULT_MAX_CALLS: usize = 10_000;

/// Bounds on what a frame may hold. The size of the frame itself is for whoever reads it to bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels of nesting in a body; the body object itself is the first. More than [`DEEPEST`] counts as [`DEEPEST`].
    pub max_depth: usize,
    /// Calls in one batch.
    pub max_calls: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_depth: DEFAULT_MAX_DEPTH, max_calls: DEFAULT_MAX_CALLS }
    }
}

impl Limits {
    /// The depth that holds: what was asked for, as far as it is allowed.
    pub(crate) fn depth(&self) -> usize {
        self.max_depth.min(DEEPEST)
    }
}

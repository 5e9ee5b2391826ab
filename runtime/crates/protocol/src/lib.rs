//! What agents and Wharf say to each other: calls, batches, answers and error codes, in JSON and MessagePack, and the
//! form in which an accepted message lies in the log.
//!
//! Bytes come in, typed and valid values come out, or a [`Refusal`] that says what was wrong. The crate does no I/O,
//! knows no sockets and no configuration: whether a data type exists or an account may speak is for others to decide.
//!
//! The body of a message (its `data`) is never parsed into a tree. It stays the bytes that came, a slice of the frame,
//! checked once to be an object that every receiver can read in either encoding; see [`Body`].

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod agent;
mod answer;
mod body;
mod call;
mod decode;
mod encode;
mod encoding;
mod field;
mod msgpack;
mod quote;
mod record;
mod refusal;
#[cfg(test)]
mod samples;
mod traceparent;
mod value;

pub use agent::{AgentId, MAX_AGENT_ID_BYTES};
pub use answer::{Answer, AnswerError};
pub use body::Body;
pub use call::{
    Call, CallKind, Frame, MAX_DATA_TYPE_BYTES, MAX_MESSAGE_ID_BYTES, MAX_PASSWORD_BYTES,
    MAX_REFERENCE_BYTES, MAX_TOKEN_BYTES, MAX_TRACEPARENT_BYTES, MAX_USER_BYTES, Message, Reference, Request,
};
pub use decode::{decode_body, decode_frame};
pub use encode::{encode_batch, encode_frame};
pub use encoding::{DEEPEST, DEFAULT_MAX_CALLS, DEFAULT_MAX_DEPTH, Encoding, Limits};
pub use record::{PresenceRecord, Record, RecordError, StoredMessage};
pub use refusal::{Code, Refusal};

//! The calls of the protocol as typed, valid values. How they are read and written is in `decode` and `encode`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent::AgentId;
use crate::body::Body;
use crate::record::StoredMessage;
use crate::refusal::Refusal;

/// The longest name of a data type. It names a folder of the log, and file systems end at 255.
pub const MAX_DATA_TYPE_BYTES: usize = 255;
/// The longest id of a message: room for two UUIDs and some more, and it is stored with every message.
pub const MAX_MESSAGE_ID_BYTES: usize = 128;
/// The longest text that a call can give as `ref`: room for a UUID with a prefix; it is echoed with every answer.
pub const MAX_REFERENCE_BYTES: usize = 128;
/// The longest `traceparent`. That of W3C's version 00 is 55 bytes, later versions may append.
pub const MAX_TRACEPARENT_BYTES: usize = 128;
/// The longest name of an account.
pub const MAX_USER_BYTES: usize = 255;
/// The longest password. It is hashed at some cost per byte before anybody is known to be who they claim.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// The longest token: room for a signed one with claims, as other systems make them.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// One message of a data type, as its agent sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub agent: AgentId,
    /// The data type: text of 1 to [`MAX_DATA_TYPE_BYTES`] bytes, not yet known to be configured.
    pub data_type: String,
    /// The agent's own id of the message: text of 1 to [`MAX_MESSAGE_ID_BYTES`] bytes.
    pub message_id: Option<String>,
    /// The agent's own time, Unix milliseconds.
    pub sent_at: Option<u64>,
    /// A W3C `traceparent`: text of at most [`MAX_TRACEPARENT_BYTES`] bytes in its shape.
    pub traceparent: Option<String>,
    /// The object that the agent gave as `data`.
    pub body: Body,
}

impl Message {
    /// The message as it goes into the log of its data type.
    ///
    /// `received_at` is the time of acceptance in Unix milliseconds, `user` the account that sent it, where accounts
    /// are on.
    pub fn into_stored(self, received_at: u64, user: Option<String>) -> StoredMessage {
        StoredMessage {
            agent: self.agent,
            received_at,
            message_id: self.message_id,
            sent_at: self.sent_at,
            user,
            traceparent: self.traceparent,
            body: self.body,
        }
    }
}

/// What an agent asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum Call {
    /// Gives a token for an account.
    Session {
        /// The name of the account.
        user: String,
        /// Its password. Not shown by `Debug`.
        password: String,
    },
    /// The agent is alive.
    Ping {
        /// Who says so.
        agent: AgentId,
    },
    /// One message.
    Data(Message),
    /// The agent leaves in an orderly way.
    Bye {
        /// Who leaves.
        agent: AgentId,
    },
}

impl Call {
    /// Which of the calls this is.
    pub fn kind(&self) -> CallKind {
        match self {
            Call::Session { .. } => CallKind::Session,
            Call::Ping { .. } => CallKind::Ping,
            Call::Data(_) => CallKind::Data,
            Call::Bye { .. } => CallKind::Bye,
        }
    }

    /// Whom the call gives a sign of life of; a `session` is of an account, not of an agent.
    pub fn agent(&self) -> Option<&AgentId> {
        match self {
            Call::Session { .. } => None,
            Call::Ping { agent } | Call::Bye { agent } => Some(agent),
            Call::Data(message) => Some(&message.agent),
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Session { user, .. } => {
                f.debug_struct("Session").field("user", user).finish_non_exhaustive()
            }
            Call::Ping { agent } => f.debug_struct("Ping").field("agent", agent).finish(),
            Call::Data(message) => f.debug_tuple("Data").field(message).finish(),
            Call::Bye { agent } => f.debug_struct("Bye").field("agent", agent).finish(),
        }
    }
}

/// The names of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// See [`Call::Session`].
    Session,
    /// See [`Call::Ping`].
    Ping,
    /// See [`Call::Data`].
    Data,
    /// See [`Call::Bye`].
    Bye,
}

impl CallKind {
    /// The name in the `call` field, in a REST path and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CallKind::Session => "session",
            CallKind::Ping => "ping",
            CallKind::Data => "data",
            CallKind::Bye => "bye",
        }
    }

    /// The call of this name, if there is one.
    pub fn from_name(name: &str) -> Option<CallKind> {
        match name {
            "session" => Some(CallKind::Session),
            "ping" => Some(CallKind::Ping),
            "data" => Some(CallKind::Data),
            "bye" => Some(CallKind::Bye),
            _ => None,
        }
    }
}

/// A call and the token that came in it, if one did.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub call: Call,
    /// Proof of who asks: text of 1 to [`MAX_TOKEN_BYTES`] bytes, not yet checked. Not shown by `Debug`.
    pub token: Option<String>,
}

impl From<Call> for Request {
    /// The call without a token, as on a connection that is already authorized.
    fn from(call: Call) -> Self {
        Request { call, token: None }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("Request").field("call", &self.call).field("token", &token).finish()
    }
}

/// The `ref` of a call, which its answer echoes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reference {
    /// An integer that is not below zero.
    Integer(u64),
    /// An integer below zero.
    Negative(i64),
    /// A text of at most [`MAX_REFERENCE_BYTES`] bytes.
    Text(String),
}

impl From<u64> for Reference {
    fn from(number: u64) -> Self {
        Reference::Integer(number)
    }
}

impl From<i64> for Reference {
    fn from(number: i64) -> Self {
        u64::try_from(number).map_or(Reference::Negative(number), Reference::Integer)
    }
}

impl From<&str> for Reference {
    fn from(text: &str) -> Self {
        Reference::Text(text.to_owned())
    }
}

/// What one frame of a WebSocket, or one body over REST, asks for. A call that is wrong by itself does not spoil its
/// frame: its refusal stands in its place, and the `ref` is still known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A single call.
    One {
        /// The `ref` of the call.
        reference: Option<Reference>,
        /// The call, or why it is refused.
        request: Result<Request, Refusal>,
    },
    /// A list of calls, possibly empty.
    Batch {
        /// The `ref` of the first call in the list that has one: a list has no place for one of its own.
        reference: Option<Reference>,
        /// Each call, or why it is refused, in the order of the list.
        requests: Vec<Result<Request, Refusal>>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secrets() {
        let call = Call::Session { user: "ops".into(), password: "swordfish".into() };
        let shown = format!("{:?}", Request { call, token: Some("swordfish".into()) });
        assert!(shown.contains("ops") && !shown.contains("swordfish"), "{shown}");
    }

    #[test]
    fn names_lead_back_to_their_calls() {
        for kind in [CallKind::Session, CallKind::Ping, CallKind::Data, CallKind::Bye] {
            assert_eq!(CallKind::from_name(kind.as_str()), Some(kind));
        }
        assert_eq!(CallKind::from_name("Ping"), None);
    }
}

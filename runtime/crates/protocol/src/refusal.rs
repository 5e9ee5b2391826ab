//! Why a call was not accepted: a code for programs, a message for people, and the status over REST.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::encoding::Encoding;
use crate::quote::Quoted;

/// The codes that agents can meet. Their names are part of the protocol and do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Neither a valid token nor valid credentials.
    Unauthorized,
    /// The token was valid once; a new `session` gives another.
    TokenExpired,
    /// The account may not speak for that agent or send that type.
    Forbidden,
    /// Not JSON, not MessagePack, or not an object where one is needed.
    BadFrame,
    /// No such call.
    UnknownCall,
    /// A field that the call needs is not there; the message names it.
    MissingField,
    /// A field does not hold what it should; the message names it.
    InvalidField,
    /// The data type is not configured; the message names those that are.
    UnknownType,
    /// The frame, or the list in it, is larger than the server takes.
    TooLarge,
    /// The server cannot take more right now; `retry_after_ms` says when to try again.
    Overloaded,
    /// The server is stopping; another one, or the same one later, will take the call.
    ShuttingDown,
    /// Something failed on the server's side; its log says what.
    Internal,
    /// A content type other than those of the two encodings. Only REST knows it.
    UnsupportedMediaType,
}

impl Code {
    /// Every code, in the order of the protocol's description.
    pub const ALL: [Code; 13] = [
        Code::Unauthorized,
        Code::TokenExpired,
        Code::Forbidden,
        Code::BadFrame,
        Code::UnknownCall,
        Code::MissingField,
        Code::InvalidField,
        Code::UnknownType,
        Code::TooLarge,
        Code::Overloaded,
        Code::ShuttingDown,
        Code::Internal,
        Code::UnsupportedMediaType,
    ];

    /// The name of the code in answers, and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Unauthorized => "unauthorized",
            Code::TokenExpired => "token_expired",
            Code::Forbidden => "forbidden",
            Code::BadFrame => "bad_frame",
            Code::UnknownCall => "unknown_call",
            Code::MissingField => "missing_field",
            Code::InvalidField => "invalid_field",
            Code::UnknownType => "unknown_type",
            Code::TooLarge => "too_large",
            Code::Overloaded => "overloaded",
            Code::ShuttingDown => "shutting_down",
            Code::Internal => "internal",
            Code::UnsupportedMediaType => "unsupported_media_type",
        }
    }

    /// The status that goes with the code over REST. A frontend that refuses because of a rate limit, not because the
    /// server is full, says 429 in place of the 503 of [`Code::Overloaded`].
    pub fn http_status(self) -> u16 {
        match self {
            Code::Unauthorized | Code::TokenExpired => 401,
            Code::Forbidden => 403,
            Code::BadFrame => 400,
            Code::UnknownCall => 404,
            Code::MissingField | Code::InvalidField | Code::UnknownType => 422,
            Code::TooLarge => 413,
            Code::UnsupportedMediaType => 415,
            Code::Overloaded | Code::ShuttingDown => 503,
            Code::Internal => 500,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call, or a whole frame, that is not accepted, and why. The message is meant for whoever runs the agent: it names
/// what was found and what was expected, and says nothing of the server's inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// What kind of refusal it is, for programs.
    pub code: Code,
    /// What was wrong, for people: a lowercase fragment.
    pub message: String,
    /// When it is worth trying again, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal with a code and a message of one's own; the other constructors word theirs alike everywhere.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), retry_after_ms: None }
    }

    /// Neither a valid token nor valid credentials came with the call.
    pub fn unauthorized(message: impl Into<String>) -> Refusal {
        Refusal::new(Code::Unauthorized, message)
    }

    /// The token is past its time.
    pub fn token_expired() -> Refusal {
        Refusal::new(Code::TokenExpired, "the token has expired, a new session gives another")
    }

    /// The account may not do that.
    pub fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal::new(Code::Forbidden, message)
    }

    /// The bytes are not what the encoding asks for, or not an object.
    pub fn bad_frame(message: impl Into<String>) -> Refusal {
        Refusal::new(Code::BadFrame, message)
    }

    /// No call of this name exists; the message lists those that do.
    pub fn unknown_call(found: &str) -> Refusal {
        let message = format!("unknown call {}, expected `session`, `ping`, `data` or `bye`", Quoted(found));
        Refusal::new(Code::UnknownCall, message)
    }

    /// The call lacks this field.
    pub fn missing_field(field: &str) -> Refusal {
        Refusal::new(Code::MissingField, format!("field `{field}` is missing"))
    }

    /// The field holds something else than it should; the detail says what was found and what was expected.
    pub fn invalid_field(field: &str, detail: impl fmt::Display) -> Refusal {
        Refusal::new(Code::InvalidField, format!("field `{field}` is invalid: {detail}"))
    }

    /// No data type of this name is configured; those that are get listed.
    pub fn unknown_type<'a>(found: &str, configured: impl IntoIterator<Item = &'a str>) -> Refusal {
        let mut message = format!("unknown type {}, expected one of", Quoted(found));
        for (position, name) in configured.into_iter().enumerate() {
            message.push_str(if position == 0 { " `" } else { ", `" });
            message.push_str(name);
            message.push('`');
        }
        Refusal::new(Code::UnknownType, message)
    }

    /// Something is larger than the server takes.
    pub fn too_large(message: impl Into<String>) -> Refusal {
        Refusal::new(Code::TooLarge, message)
    }

    /// The server cannot take more before so many milliseconds.
    pub fn overloaded(retry_after_ms: u64) -> Refusal {
        let message = format!("the server is overloaded, retry in {retry_after_ms} ms");
        Refusal { code: Code::Overloaded, message, retry_after_ms: Some(retry_after_ms) }
    }

    /// The server is stopping.
    pub fn shutting_down() -> Refusal {
        Refusal::new(Code::ShuttingDown, "the server is shutting down")
    }

    /// Something failed inside. What it was goes to the server's log, not to the agent.
    pub fn internal() -> Refusal {
        Refusal::new(Code::Internal, "the server failed to handle the call")
    }

    /// A content type that is none of the two encodings'.
    pub fn unsupported_media_type(found: Option<&str>) -> Refusal {
        let found = found.map_or_else(|| "no content type".to_owned(), |found| Quoted(found).to_string());
        let expected = "`application/json` or `application/msgpack`";
        Refusal::new(Code::UnsupportedMediaType, format!("found {found}, expected {expected}"))
    }

    /// The body of an answer over REST: `{"error":code,"message":…}`, with `retry_after_ms` where it is known.
    pub fn encode(&self, encoding: Encoding) -> Vec<u8> {
        encoding.write(&RestRefusal {
            error: self.code,
            message: &self.message,
            retry_after_ms: self.retry_after_ms,
        })
    }
}

#[derive(Serialize)]
struct RestRefusal<'a> {
    error: Code,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire_are_those_of_as_str() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn statuses_are_those_of_the_protocol() {
        let statuses = Code::ALL.map(Code::http_status);
        assert_eq!(statuses, [401, 401, 403, 400, 404, 422, 422, 422, 413, 503, 503, 500, 415]);
    }

    #[test]
    fn rest_bodies() {
        let json = |refusal: Refusal| String::from_utf8(refusal.encode(Encoding::Json)).unwrap();
        assert_eq!(
            json(Refusal::missing_field("id")),
            r#"{"error":"missing_field","message":"field `id` is missing"}"#
        );
        assert_eq!(
            json(Refusal::overloaded(250)),
            r#"{"error":"overloaded","message":"the server is overloaded, retry in 250 ms","retry_after_ms":250}"#
        );
        let packed = Refusal::shutting_down().encode(Encoding::Msgpack);
        let value: serde_json::Value = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"error": "shutting_down", "message": "the server is shutting down"})
        );
    }

    #[test]
    fn an_unknown_type_lists_the_configured_ones_and_is_cut_itself() {
        let refusal = Refusal::unknown_type(&"x".repeat(255), ["a", "b"]);
        assert_eq!(refusal.message, format!("unknown type `{}…`, expected one of `a`, `b`", "x".repeat(64)));
    }
}

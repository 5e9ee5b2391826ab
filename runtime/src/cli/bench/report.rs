//! The result of a run: for programs as one JSON object, whose fields `docs/capacity.md` describes; `render` has it for people.

use std::{collections::BTreeMap, time::Duration};

use serde::{Serialize, Serializer};
use tokio::time::Instant;
use wharf_protocol::Encoding;

use super::{latencies::Latencies, tally::Tally};
use crate::client::ClientError;

mod render;

/// The share of messages that may be sent late by the client before its latencies are said to be its own: with more of
/// them, p99 is one of theirs.
const LATE_SHARE: f64 = 0.01;

/// The share of the offered rate that counts as all of it: a run does not end on a message.
const ACHIEVED_SHARE: f64 = 0.99;

/// What was measured with.
#[derive(Debug, Clone, Serialize)]
pub struct Setup {
    /// Where to.
    pub url: String,
    /// Data type of the messages.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Encoding on the wire.
    #[serde(rename = "format", serialize_with = "encoding_name")]
    pub encoding: Encoding,
    /// Connections that sent at once.
    pub connections: u16,
    /// Agents that the messages were from.
    pub agents: u32,
    /// Messages in each frame.
    pub batch: u16,
    /// Bytes of each body, as JSON.
    pub size_bytes: u32,
    /// Frames that each connection had under way at most.
    pub window: u16,
    /// Messages a second that were offered, if not as many as the windows let through.
    pub rate: Option<u32>,
    /// Time before anything was counted.
    #[serde(rename = "warm_up_seconds", serialize_with = "as_seconds")]
    pub warm_up: Duration,
    /// Time to send and count.
    #[serde(rename = "duration_seconds", serialize_with = "as_seconds")]
    pub duration: Duration,
}

/// When a run began and ended, and what it cost.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// From when on messages counted.
    pub counted_from: Instant,
    /// When no more was sent, unless all connections had ended before.
    pub until: Instant,
    /// Whether that was earlier than it should have been, because someone stopped it.
    pub interrupted: bool,
    /// CPU time of this program while it counted.
    pub cpu: Duration,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    setup: Setup,
    interrupted: bool,
    seconds: f64,
    /// What was due in the time that counts, if there was a rate.
    offered: Option<u64>,
    sent: u64,
    accepted: u64,
    refused: BTreeMap<&'static str, u64>,
    unanswered: u64,
    unsent: u64,
    disconnects: u64,
    messages_per_second: f64,
    /// Bodies that were accepted, in millions of bytes.
    megabytes_per_second: f64,
    latency_ms: Latency,
    sent_late: u64,
    client_limited: bool,
    client_cpu_seconds: f64,
}

/// Time from when a frame was due, or without a rate from when it was sent, to its answer.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Report {
    /// Adds up what the connections saw. Gives the first failure too, if there was one.
    pub fn new(
        setup: Setup,
        span: Span,
        tallies: Vec<Tally>,
        latencies: &Latencies,
    ) -> (Self, Option<ClientError>) {
        let mut refused = BTreeMap::<_, u64>::new();
        let mut failure = None;
        let mut disconnects = 0_u64;
        let (mut sent, mut accepted, mut unanswered, mut unsent, mut late) =
            (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
        // A schedule has an end; without one the run ends with the last answer.
        let mut ended = if setup.rate.is_some() { span.until } else { span.counted_from };
        for tally in tallies {
            for (code, count) in tally.refused {
                let sum = refused.entry(code).or_default();
                *sum = sum.saturating_add(count);
            }
            sent = sent.saturating_add(tally.sent);
            accepted = accepted.saturating_add(tally.accepted);
            unanswered = unanswered.saturating_add(tally.unanswered);
            unsent = unsent.saturating_add(tally.unsent);
            late = late.saturating_add(tally.late);
            ended = tally.last_answer.map_or(ended, |answer| answer.max(ended));
            if let Some(broken) = tally.failure {
                disconnects = disconnects.saturating_add(1);
                failure.get_or_insert(broken);
            }
        }
        let seconds = ended.saturating_duration_since(span.counted_from).as_secs_f64();
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let report = Self {
            interrupted: span.interrupted,
            seconds: rounded(seconds, 1e3),
            offered: setup.rate.map(|_| sent.saturating_add(unsent)),
            sent,
            accepted,
            refused,
            unanswered,
            unsent,
            disconnects,
            messages_per_second: rounded(per_second(accepted as f64), 10.0),
            megabytes_per_second: rounded(
                per_second(accepted as f64 * f64::from(setup.size_bytes)) / 1e6,
                1e3,
            ),
            latency_ms: Latency::of(latencies),
            sent_late: late,
            client_limited: late as f64 > sent as f64 * LATE_SHARE,
            client_cpu_seconds: rounded(span.cpu.as_secs_f64(), 1e3),
            setup,
        };
        (report, failure)
    }

    /// Why the run counts as failed, if it does: everything that was sent should have been accepted.
    pub fn shortcomings(&self) -> Option<String> {
        let refused = self.refused.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let found = [
            (refused, "refused"),
            (self.unanswered, "not answered"),
            (self.disconnects, "connections broke"),
        ];
        let found: Vec<_> = found
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// Whether less was accepted than was offered, though nothing was refused.
    fn fell_behind(&self) -> bool {
        self.offered.is_some_and(|offered| (self.accepted as f64) < offered as f64 * ACHIEVED_SHARE)
    }
}

impl Latency {
    fn of(latencies: &Latencies) -> Self {
        let milliseconds = |microseconds: u64| microseconds as f64 / 1e3;
        let quantile = |quantile| milliseconds(latencies.value_at_quantile(quantile));
        Self {
            p50: quantile(0.50),
            p90: quantile(0.90),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: milliseconds(latencies.max()),
        }
    }
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "json",
        Encoding::Msgpack => "msgpack",
    }
}

fn encoding_name<S: Serializer>(encoding: &Encoding, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name(*encoding))
}

#[cfg(test)]
mod tests;

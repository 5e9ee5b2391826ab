//! The result of a run, for people in a few lines, for programs as JSON.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};
use tokio::time::Instant;
use wharf_protocol::Encoding;

use super::load::Outcome;
use crate::client::ClientError;

/// What was measured with.
#[derive(Debug, Clone, Serialize)]
pub struct Setup {
    /// Connections that sent at once.
    pub connections: u16,
    /// Agents that the messages were from.
    pub agents: u32,
    /// Messages in each frame.
    pub batch: u16,
    /// Bytes of each body, as JSON.
    pub size_bytes: u32,
    /// Frames that each connection had under way.
    pub window: u16,
    /// Encoding on the wire.
    #[serde(rename = "format", serialize_with = "encoding_name")]
    pub encoding: Encoding,
    /// Messages a second that were to be sent, if not as many as could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    setup: Setup,
    seconds: f64,
    acknowledged: u64,
    refused: BTreeMap<&'static str, u64>,
    messages_per_second: f64,
    latency_ms: Latency,
}

/// Time from sending a frame to its answer.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

/// Adds up what the connections saw: the report, and the first failure if there was one.
pub fn sum_up(
    setup: Setup,
    mut latency: Histogram<u64>,
    started: Instant,
    outcomes: Vec<Outcome>,
) -> (Report, Option<ClientError>) {
    let mut acknowledged = 0_u64;
    let mut refused = BTreeMap::<_, u64>::new();
    let mut ended = started;
    let mut failure = None;
    for outcome in outcomes {
        acknowledged = acknowledged.saturating_add(outcome.acknowledged);
        for (code, count) in outcome.refused {
            let sum = refused.entry(code).or_default();
            *sum = sum.saturating_add(count);
        }
        // All histograms have the same bounds, so nothing can fall out of this one.
        let _ = latency.add(&outcome.latency);
        ended = ended.max(outcome.ended);
        failure = failure.or(outcome.failure);
    }
    (Report::new(setup, ended.duration_since(started), acknowledged, refused, &latency), failure)
}

impl Report {
    fn new(
        setup: Setup,
        elapsed: Duration,
        acknowledged: u64,
        refused: BTreeMap<&'static str, u64>,
        latency: &Histogram<u64>,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let messages_per_second = if seconds > 0.0 { (acknowledged as f64 / seconds).round() } else { 0.0 };
        let milliseconds = |microseconds: u64| microseconds as f64 / 1e3;
        let latency_ms = Latency {
            p50: milliseconds(latency.value_at_quantile(0.50)),
            p99: milliseconds(latency.value_at_quantile(0.99)),
            max: milliseconds(latency.max()),
        };
        Self {
            setup,
            seconds: (seconds * 1e3).round() / 1e3,
            acknowledged,
            refused,
            messages_per_second,
            latency_ms,
        }
    }

    /// Messages that were refused, whatever for.
    pub fn refused(&self) -> u64 {
        self.refused.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { connections, agents, batch, size_bytes, window, encoding, rate } = &self.setup;
        let format = name(*encoding);
        writeln!(
            f,
            "{connections} connections, {agents} agents, batches of {batch}, bodies of {size_bytes} bytes, {format}, window {window}"
        )?;
        if let Some(rate) = rate {
            writeln!(f, "{rate} messages/s were to be sent")?;
        }
        writeln!(
            f,
            "acknowledged {} messages in {:.3} s: {:.0} messages/s",
            self.acknowledged, self.seconds, self.messages_per_second
        )?;
        let Latency { p50, p99, max } = &self.latency_ms;
        write!(f, "latency p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms")?;
        for (code, count) in &self.refused {
            write!(f, "\nrefused {count}: {code}")?;
        }
        Ok(())
    }
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
mod tests {
    use super::*;
    use crate::cli::bench::load::histogram;

    fn report(refused: BTreeMap<&'static str, u64>) -> Report {
        let setup = Setup {
            connections: 8,
            agents: 256,
            batch: 64,
            size_bytes: 300,
            window: 64,
            encoding: Encoding::Msgpack,
            rate: None,
        };
        let mut latency = histogram().unwrap();
        for microseconds in 1..=1_000 {
            latency.record(microseconds).unwrap();
        }
        Report::new(setup, Duration::from_millis(2_500), 1_000_000, refused, &latency)
    }

    #[test]
    fn people_get_lines() {
        insta::assert_snapshot!(report(BTreeMap::new()), @"
        8 connections, 256 agents, batches of 64, bodies of 300 bytes, msgpack, window 64
        acknowledged 1000000 messages in 2.500 s: 400000 messages/s
        latency p50 0.500 ms, p99 0.990 ms, max 1.000 ms
        ");
        let mut paced = report(BTreeMap::new());
        paced.setup.rate = Some(500_000);
        assert_eq!(paced.to_string().lines().nth(1), Some("500000 messages/s were to be sent"));
        insta::assert_snapshot!(report(BTreeMap::from([("overloaded", 64), ("unknown_type", 1)])), @"
        8 connections, 256 agents, batches of 64, bodies of 300 bytes, msgpack, window 64
        acknowledged 1000000 messages in 2.500 s: 400000 messages/s
        latency p50 0.500 ms, p99 0.990 ms, max 1.000 ms
        refused 64: overloaded
        refused 1: unknown_type
        ");
    }

    #[test]
    fn programs_get_json() {
        let json = serde_json::to_string(&report(BTreeMap::from([("overloaded", 64)]))).unwrap();
        insta::assert_snapshot!(json, @r#"{"connections":8,"agents":256,"batch":64,"size_bytes":300,"window":64,"format":"msgpack","seconds":2.5,"acknowledged":1000000,"refused":{"overloaded":64},"messages_per_second":400000.0,"latency_ms":{"p50":0.5,"p99":0.99,"max":1.0}}"#);
    }

    #[test]
    fn connections_add_up() {
        let started = Instant::now();
        let outcome = |acknowledged, microseconds, after| {
            let mut latency = histogram().unwrap();
            latency.record(microseconds).unwrap();
            Outcome {
                acknowledged,
                refused: BTreeMap::from([("overloaded", 2)]),
                latency,
                ended: started + Duration::from_secs(after),
                failure: None,
            }
        };
        let (report, failure) = sum_up(
            report(BTreeMap::new()).setup,
            histogram().unwrap(),
            started,
            vec![outcome(10, 100, 4), outcome(30, 9_000, 2)],
        );
        assert!(failure.is_none());
        assert_eq!((report.acknowledged, report.refused(), report.messages_per_second), (40, 4, 10.0));
        assert_eq!(report.latency_ms.max, 9.007);
    }
}

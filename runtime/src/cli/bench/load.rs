//! One connection of a run: sends as long as the window lets it, and takes the time of every answer.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use wharf_protocol::{Answer, Refusal};

use crate::client::{ClientError, Connection, Frame, is_transient};

/// Latencies between a microsecond and a minute are told apart to three digits; longer ones count as a minute.
const LONGEST_LATENCY_MICROSECONDS: u64 = 60_000_000;

/// Digits that the histogram keeps: more would be noise.
const LATENCY_DIGITS: u8 = 3;

/// The pause after an answer `overloaded` that does not ask for one, and the longest that is taken: long pauses would
/// measure the pauses.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// A connection with the frames that it sends in a circle.
pub struct Load {
    connection: Connection<Instant>,
    frames: Vec<Frame>,
    calls_per_frame: u64,
}

/// What became of one connection's messages.
pub struct Outcome {
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Messages that were refused, by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// Time from handing a frame to the socket to its answer, in microseconds.
    pub latency: Histogram<u64>,
    /// When the last answer came.
    pub ended: Instant,
    /// Why the connection ended early, if it did.
    pub failure: Option<ClientError>,
}

/// A histogram of latencies.
///
/// # Errors
///
/// None with these bounds; they are the crate's to check.
pub fn histogram() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, LONGEST_LATENCY_MICROSECONDS, LATENCY_DIGITS)
}

impl Load {
    /// A load that has not begun.
    pub fn new(connection: Connection<Instant>, frames: Vec<Frame>, calls_per_frame: u16) -> Self {
        Self { connection, frames, calls_per_frame: calls_per_frame.into() }
    }

    /// Sends until that moment or until told to stop, and hears all answers.
    pub async fn run(
        mut self,
        latency: Histogram<u64>,
        until: Instant,
        bar: &ProgressBar,
        shutdown: &CancellationToken,
    ) -> Outcome {
        let mut outcome = Outcome {
            acknowledged: 0,
            refused: BTreeMap::new(),
            latency,
            ended: Instant::now(),
            failure: None,
        };
        let mut frames = self.frames.iter().cycle();
        loop {
            let mut now = Instant::now();
            while now < until
                && self.connection.has_room()
                && !shutdown.is_cancelled()
                && let Some(frame) = frames.next()
            {
                self.connection.send(frame.clone(), now).await;
                now = Instant::now();
            }
            if self.connection.in_flight() == 0 {
                break;
            }
            match self.connection.answer().await {
                Ok((sent, answer)) => {
                    let before = outcome.acknowledged;
                    let pause = outcome.count(sent, answer, self.calls_per_frame);
                    bar.inc(outcome.acknowledged.saturating_sub(before));
                    if let Some(pause) = pause {
                        sleep(pause).await;
                    }
                }
                Err(failure) => {
                    outcome.failure = Some(failure);
                    return outcome;
                }
            }
        }
        self.connection.close().await;
        outcome
    }
}

impl Outcome {
    /// Counts an answer, and gives the pause that it asks for.
    fn count(&mut self, sent: Instant, answer: Answer, calls: u64) -> Option<Duration> {
        self.ended = Instant::now();
        let latency = self.ended.duration_since(sent).as_micros();
        self.latency.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
        let refusals: Vec<(u64, Refusal)> = match answer {
            Answer::Success { .. } => Vec::new(),
            Answer::Error { refusal, .. } => vec![(calls, refusal)],
            Answer::Batch { errors, .. } => errors.into_iter().map(|(_, refusal)| (1, refusal)).collect(),
        };
        let mut pause = None;
        let mut refused = 0_u64;
        for (count, refusal) in refusals {
            refused = refused.saturating_add(count);
            let of_code = self.refused.entry(refusal.code.as_str()).or_default();
            *of_code = of_code.saturating_add(count);
            if is_transient(refusal.code) {
                let asked_for = refusal.retry_after_ms.map_or(OVERLOAD_PAUSE, Duration::from_millis);
                pause = Some(asked_for.min(OVERLOAD_PAUSE));
            }
        }
        self.acknowledged = self.acknowledged.saturating_add(calls.saturating_sub(refused));
        pause
    }
}

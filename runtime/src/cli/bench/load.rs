//! One connection of a run: sends as long as the window lets it, and takes the time of every answer.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::time::{Instant, sleep, sleep_until};
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

/// When frames are sent that do not follow each other as fast as their answers come.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// When the next one is due.
    pub due: Instant,
    /// The time between two of them.
    pub pause: Duration,
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

    /// Sends until that moment or until told to stop, at a pace if there is one, and hears all answers.
    pub async fn run(
        mut self,
        latency: Histogram<u64>,
        mut pace: Option<Pace>,
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
                && pace.is_none_or(|pace| pace.due <= now)
                && let Some(frame) = frames.next()
            {
                self.connection.send(frame.clone(), now).await;
                // What is late is made up for, so that the pace holds on the whole.
                pace = pace.map(|Pace { due, pause }| Pace { due: due + pause, pause });
                now = Instant::now();
            }
            let more = now < until && self.connection.has_room() && !shutdown.is_cancelled();
            let next = pace.map(|pace| pace.due).filter(|due| more && *due < until);
            let unanswered = self.connection.in_flight() > 0;
            if !unanswered && next.is_none() {
                break;
            }
            let answer = tokio::select! {
                answer = self.connection.answer() => answer,
                () = sleep_until(next.unwrap_or(until)), if next.is_some() => continue,
            };
            match answer {
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

#[cfg(test)]
mod tests {
    use wharf_protocol::{AgentId, Call, Encoding, Request};

    use super::*;
    use crate::client::fake::Fake;

    /// Runs a load of pings for so long, at a pace, against a server that accepts all.
    async fn run(pace: Pace, until: Instant) -> Outcome {
        let fake = Fake::start().await;
        let endpoint = fake.endpoint();
        let (connection, mut served) = tokio::join!(Connection::open(&endpoint, 8), fake.accept());
        let ping = Request::from(Call::Ping { agent: AgentId::new("a").unwrap() });
        let load = Load::new(connection.unwrap(), vec![Frame::encode(&[ping], Encoding::Json)], 1);
        let serving = tokio::spawn(async move {
            while served.frame().await.is_some() {
                served.accept(1).await;
            }
        });
        let (bar, shutdown) = (ProgressBar::hidden(), CancellationToken::new());
        let outcome = load.run(histogram().unwrap(), Some(pace), until, &bar, &shutdown).await;
        serving.await.unwrap();
        outcome
    }

    #[tokio::test]
    async fn a_pace_is_not_exceeded() {
        let (due, pause) = (Instant::now(), Duration::from_secs(1));
        let outcome = run(Pace { due, pause }, due + pause).await;
        assert_eq!((outcome.acknowledged, outcome.latency.len()), (1, 1));
    }

    #[tokio::test]
    async fn what_is_late_is_not_sent_after_the_end() {
        let (until, pause) = (Instant::now(), Duration::from_millis(1));
        let outcome = run(Pace { due: until - Duration::from_secs(1), pause }, until).await;
        assert_eq!(outcome.acknowledged, 0);
    }
}

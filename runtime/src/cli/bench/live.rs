//! The line that a terminal shows while the load runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::ProgressBar;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often the line changes: fast enough to see a stall, slow enough to be read.
const INTERVAL: Duration = Duration::from_secs(1);

/// What connections tell while they run. Clones are the same counts.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    /// The longest latency since it was last shown, in microseconds.
    longest: AtomicU64,
}

impl Live {
    /// A frame was answered.
    pub fn answered(&self, accepted: u64, refused: u64, latency: Duration) {
        self.0.accepted.fetch_add(accepted, Ordering::Relaxed);
        self.0.refused.fetch_add(refused, Ordering::Relaxed);
        let latency = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.longest.fetch_max(latency, Ordering::Relaxed);
    }

    /// Shows the line each second until dropped.
    pub async fn show(self, bar: ProgressBar, started: Instant, whole: Duration) {
        let mut ticks = interval_at(started + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut last) = (0, started);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let accepted = self.0.accepted.load(Ordering::Relaxed);
            let seconds = now.saturating_duration_since(last).as_secs_f64().max(f64::EPSILON);
            let rate = accepted.saturating_sub(before) as f64 / seconds;
            bar.set_message(self.line(now.saturating_duration_since(started), whole, rate));
            (before, last) = (accepted, now);
        }
    }

    fn line(&self, elapsed: Duration, whole: Duration, rate: f64) -> String {
        let milliseconds = self.0.longest.swap(0, Ordering::Relaxed) as f64 / 1e3;
        let (elapsed, whole) = (elapsed.as_secs(), whole.as_secs_f64());
        let refused = self.0.refused.load(Ordering::Relaxed);
        format!(
            "{elapsed} of {whole} s: {rate:.0} messages/s, answered after {milliseconds:.1} ms at most, {refused} refused"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_of_the_last_second() {
        let live = Live::default();
        live.answered(64, 0, Duration::from_micros(900));
        live.answered(60, 4, Duration::from_micros(1_250));
        let line = |seconds| live.line(Duration::from_secs(seconds), Duration::from_millis(10_500), 124.0);
        assert_eq!(line(1), "1 of 10.5 s: 124 messages/s, answered after 1.2 ms at most, 4 refused");
        assert_eq!(line(2), "2 of 10.5 s: 124 messages/s, answered after 0.0 ms at most, 4 refused");
    }
}

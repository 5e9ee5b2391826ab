//! What a version of a receiver did in the last minutes, to compare another version with.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// One step: when the last minutes are over, it is forgotten whole.
const STEP: Duration = Duration::from_secs(10);
/// Steps that are kept: five minutes, long enough to have seen an ordinary load and short enough to be of now.
const STEPS: usize = 30;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Calls of `handle`.
    pub calls: u64,
    /// Messages that these were about.
    pub messages: u64,
    /// What they took together.
    pub time: Duration,
    /// Calls that ended in a fault, and messages that were rejected.
    pub failed: u64,
}

/// What was done lately.
#[derive(Debug, Default)]
pub struct Recent {
    /// By when a step began, the oldest first.
    steps: VecDeque<(Instant, Work)>,
}

impl Work {
    /// The share of what failed, in percent; nothing if nothing was done.
    pub fn failed_percent(&self) -> f64 {
        let done = self.messages.max(self.failed);
        // Exact up to 2^53 messages.
        if done == 0 { 0.0 } else { self.failed as f64 * 100.0 / done as f64 }
    }

    /// The time of calls for each message; nothing if there were none.
    pub fn time_per_message(&self) -> Option<Duration> {
        (self.messages > 0).then(|| {
            // Exact up to 2^53 messages.
            Duration::from_secs_f64(self.time.as_secs_f64() / self.messages as f64)
        })
    }
}

impl Recent {
    /// Adds something to what is being done now.
    pub fn add(&mut self, now: Instant, add: impl FnOnce(&mut Work)) {
        let is_current = |(began, _): &(Instant, Work)| now.saturating_duration_since(*began) < STEP;
        if !self.steps.back().is_some_and(is_current) {
            self.steps.push_back((now, Work::default()));
            while self.steps.len() > STEPS {
                self.steps.pop_front();
            }
        }
        if let Some((_, work)) = self.steps.back_mut() {
            add(work);
        }
    }

    /// All that is remembered.
    pub fn total(&self) -> Work {
        self.steps.iter().fold(Work::default(), |all, (_, step)| Work {
            calls: all.calls.saturating_add(step.calls),
            messages: all.messages.saturating_add(step.messages),
            time: all.time.saturating_add(step.time),
            failed: all.failed.saturating_add(step.failed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_past_is_forgotten() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        for step in 0..100 {
            for _ in 0..2 {
                recent.add(start + STEP * step, |work| work.messages += 1);
            }
        }
        assert_eq!(recent.total().messages, 60);
    }

    #[test]
    fn shares_and_times_are_by_message() {
        let work = Work { calls: 2, messages: 40, time: Duration::from_millis(80), failed: 2 };
        assert_eq!((work.failed_percent(), work.time_per_message()), (5.0, Some(Duration::from_millis(2))));
        let only_failed = Work { failed: 3, ..Work::default() };
        assert_eq!((only_failed.failed_percent(), only_failed.time_per_message()), (100.0, None));
        assert_eq!(Work::default().failed_percent(), 0.0);
    }
}

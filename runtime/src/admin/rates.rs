//! How many messages a second receivers have finished lately.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::delivery::Delivery;

/// How often it is looked, and so how much a rate can jump about.
const EVERY: Duration = Duration::from_secs(1);
/// Looks that are kept: a rate is over ten seconds, long enough to be steady and short enough to be of now.
const KEPT: usize = 10;

/// What was finished at the latest looks.
#[derive(Debug, Default)]
pub struct Rates {
    looks: Mutex<VecDeque<(Instant, HashMap<String, u64>)>>,
}

impl Rates {
    /// Looks at the receivers again and again, until `stop`.
    pub async fn watch(self: Arc<Self>, delivery: Arc<Delivery>, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                now = ticks.tick() => {
                    let statuses = delivery.statuses();
                    let finished = statuses.iter().map(|status| (status.name.clone(), status.handled.get()));
                    self.look(now, finished.collect());
                }
                () = stop.cancelled() => return,
            }
        }
    }

    fn look(&self, now: Instant, finished: HashMap<String, u64>) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.push_back((now, finished));
        while looks.len() > KEPT {
            looks.pop_front();
        }
    }

    /// Messages a second of the receiver of this name, which has finished so many now.
    pub fn per_second(&self, receiver: &str, now: Instant, finished: u64) -> f64 {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((at, before)) = looks.front() else { return 0.0 };
        let elapsed = now.saturating_duration_since(*at).as_secs_f64();
        let before = before.get(receiver).copied().unwrap_or(finished);
        // Exact up to 2^53 messages.
        if elapsed > 0.0 { finished.saturating_sub(before) as f64 / elapsed } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_the_looks_that_are_kept() {
        let (rates, start) = (Rates::default(), Instant::now());
        assert_eq!(rates.per_second("a", start, 7), 0.0);
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        for second in 0..20 {
            let finished =
                [("a", second * 100), ("b", 5)].map(|(name, finished)| (name.to_owned(), finished));
            rates.look(after(second), HashMap::from(finished));
        }
        // The oldest that is kept was taken after ten seconds.
        assert_eq!(rates.per_second("a", after(20), 2_000), 100.0);
        assert_eq!(rates.per_second("a", after(30), 3_500), 125.0);
        assert_eq!(rates.per_second("b", after(20), 5), 0.0);
        assert_eq!(rates.per_second("c", after(20), 5), 0.0);
    }
}

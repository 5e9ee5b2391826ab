//! How long to wait before trying again, wherever Wharf does. Only the arithmetic: whoever uses it sleeps.

use std::time::Duration;

/// Growing pauses with jitter, so that a fleet that lost its server at one moment does not come back at one moment.
///
/// The n-th pause is drawn evenly from the upper half of `first * 2^n`, and never from more than `longest`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Pauses that start at about `first` and grow to about `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, ceiling: first }
    }

    /// The next pause. Each is drawn from twice the range of the one before.
    pub fn next_pause(&mut self) -> Duration {
        let ceiling = self.ceiling.min(self.longest);
        self.ceiling = ceiling.saturating_mul(2);
        rand::random_range(ceiling / 2..=ceiling)
    }

    /// Starts from the shortest pause again, after something went well.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_keep_within_their_half() {
        for _ in 0..1_000 {
            let mut backoff = Backoff::new(FIRST, LONGEST);
            for ceiling in [100, 200, 400, 800, 1_000, 1_000, 1_000].map(Duration::from_millis) {
                let pause = backoff.next_pause();
                assert!(
                    pause >= ceiling / 2 && pause <= ceiling,
                    "{pause:?} outside the upper half of {ceiling:?}"
                );
            }
        }
    }

    #[test]
    fn pauses_differ() {
        let drawn: std::collections::BTreeSet<_> =
            (0..100).map(|_| Backoff::new(FIRST, LONGEST).next_pause()).collect();
        assert!(drawn.len() > 50, "only {} of 100 pauses differ", drawn.len());
    }

    #[test]
    fn a_reset_starts_over() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for _ in 0..5 {
            backoff.next_pause();
        }
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }

    #[test]
    fn the_longest_bounds_even_the_first() {
        assert!(Backoff::new(LONGEST, FIRST).next_pause() <= FIRST);
    }
}

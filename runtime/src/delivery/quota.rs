//! So many lines a second and no more, with a count of those that were not written.

use std::time::{Duration, Instant};

/// The time over which lines are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// A number of lines a second.
#[derive(Debug)]
pub struct Quota {
    per_second: u32,
    since: Instant,
    taken: u32,
    dropped: u64,
}

/// Whether a line may be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It may.
    One,
    /// It may, and so many before it were not.
    OneAfter {
        /// Lines that were not written.
        dropped: u64,
    },
    /// It may not.
    None,
}

impl Quota {
    /// A quota of which nothing is used.
    pub fn new(per_second: u32) -> Quota {
        Quota { per_second, since: Instant::now(), taken: 0, dropped: 0 }
    }

    /// Asks for a line.
    pub fn take(&mut self) -> Taken {
        if self.since.elapsed() >= WINDOW {
            self.since = Instant::now();
            self.taken = 0;
        }
        if self.taken >= self.per_second {
            self.dropped = self.dropped.saturating_add(1);
            return Taken::None;
        }
        self.taken = self.taken.saturating_add(1);
        match std::mem::take(&mut self.dropped) {
            0 => Taken::One,
            dropped => Taken::OneAfter { dropped },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_quota_are_counted_and_told_with_the_next() {
        let mut quota = Quota::new(2);
        assert_eq!(
            [quota.take(), quota.take(), quota.take(), quota.take()],
            [Taken::One, Taken::One, Taken::None, Taken::None]
        );
        quota.since = quota.since.checked_sub(WINDOW).unwrap();
        assert_eq!([quota.take(), quota.take()], [Taken::OneAfter { dropped: 2 }, Taken::One]);
    }
}

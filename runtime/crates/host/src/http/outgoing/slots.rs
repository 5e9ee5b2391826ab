//! Counts the requests of a receiver that are under way. The limit is given with each, because it can change while some are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places that are taken. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Slots {
    taken: Arc<AtomicUsize>,
}

/// A place that is taken until this is dropped.
pub(super) struct Slot {
    taken: Arc<AtomicUsize>,
}

impl Slots {
    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes one if fewer than `limit` are taken.
    pub(super) fn take(&self, limit: usize) -> Option<Slot> {
        let one_more = |taken| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Slot { taken: self.taken.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_limit_waits_for_those_that_were_taken_under_a_higher_one() {
        let slots = Slots::default();
        let (one, two) = (slots.take(2).unwrap(), slots.take(2).unwrap());
        assert!(slots.take(2).is_none());
        drop(one);
        assert!(slots.clone().take(1).is_none());
        drop(two);
        assert!(slots.take(1).is_some());
        assert_eq!(slots.taken(), 0);
    }
}

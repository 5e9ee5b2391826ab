//! The values of series, which instances on several threads change at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets of every histogram: 15 half decades, so that milliseconds and hours in seconds, small counts and
/// large ones all have some. A receiver has no say in them: then all of them can be added up.
const BOUNDS: [f64; 15] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0];

/// A value and its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricValue {
    /// What was counted since the receiver was loaded.
    Counter(u64),
    /// What it was set to last.
    Gauge(f64),
    /// What was observed since the receiver was loaded.
    Histogram {
        /// All values together.
        sum: f64,
        /// Upper bounds, the last of them infinite, and how many values were in the bucket that ends there and in no earlier
        /// one.
        buckets: Vec<(f64, u64)>,
    },
}

/// What kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A change of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Update {
    Count(u64),
    Set(f64),
    Observe(f64),
}

/// A value that can be changed through a shared reference. Numbers with a fraction are kept as their bits.
pub(super) enum Cell {
    Counter(AtomicU64),
    Gauge(AtomicU64),
    Histogram(Box<Histogram>),
}

#[derive(Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    above: AtomicU64,
    sum: AtomicU64,
}

impl Update {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Count(_) => Kind::Counter,
            Self::Set(_) => Kind::Gauge,
            Self::Observe(_) => Kind::Histogram,
        }
    }

    /// The value, if it is no number that can be recorded.
    pub(super) fn not_finite(self) -> Option<f64> {
        match self {
            Self::Count(_) => None,
            Self::Set(value) | Self::Observe(value) => (!value.is_finite()).then_some(value),
        }
    }
}

impl Cell {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter(AtomicU64::new(0)),
            Kind::Gauge => Self::Gauge(AtomicU64::new(0)),
            Kind::Histogram => Self::Histogram(Box::default()),
        }
    }

    /// Changes the value. The update is of the cell's kind, because the kind is part of the name that leads to it.
    pub(super) fn update(&self, update: Update) {
        match (self, update) {
            (Self::Counter(counter), Update::Count(by)) => {
                // One that began anew would look like a restart.
                let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
                    Some(value.saturating_add(by))
                });
            }
            (Self::Gauge(gauge), Update::Set(value)) => gauge.store(value.to_bits(), Ordering::Relaxed),
            (Self::Histogram(histogram), Update::Observe(value)) => histogram.observe(value),
            _ => {}
        }
    }

    pub(super) fn value(&self) -> MetricValue {
        match self {
            Self::Counter(counter) => MetricValue::Counter(counter.load(Ordering::Relaxed)),
            Self::Gauge(gauge) => MetricValue::Gauge(f64::from_bits(gauge.load(Ordering::Relaxed))),
            Self::Histogram(histogram) => histogram.value(),
        }
    }
}

impl Histogram {
    fn observe(&self, value: f64) {
        let fits = BOUNDS.iter().position(|bound| value <= *bound);
        let bucket = fits.and_then(|index| self.buckets.get(index)).unwrap_or(&self.above);
        bucket.fetch_add(1, Ordering::Relaxed);
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| {
            // Infinite sums would cancel out to no number at all.
            Some((f64::from_bits(sum) + value).clamp(f64::MIN, f64::MAX).to_bits())
        });
    }

    fn value(&self) -> MetricValue {
        let counts = self.buckets.iter().chain([&self.above]).map(|count| count.load(Ordering::Relaxed));
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        MetricValue::Histogram {
            buckets: bounds.zip(counts).collect(),
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
        }
    }
}

//! `wharf:receiver/metrics`: counters, gauges and histograms of a receiver, bounded in number and size. How guests reach them
//! is in `metrics/link.rs`; exporting them is others' work.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) use link::link;
use name::{Name, NameError};
pub use value::MetricValue;
use value::{Cell, Update};

mod link;
mod name;
mod value;

/// One series of a receiver's own metrics, as it was at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// The name that the receiver gave it.
    pub name: String,
    /// Names and values of its labels, in the order of the names.
    pub labels: Vec<(String, String)>,
    /// Its kind and its value. There can be one of each kind under the same name and labels.
    pub value: MetricValue,
}

/// The series of one receiver. The most that it makes the host hold is its number of series times about 2 KiB, which is what
/// the longest name with the most and longest labels takes.
pub(crate) struct GuestMetrics {
    max_series: usize,
    recorded: Arc<Recorded>,
}

#[derive(Default)]
struct Recorded {
    series: RwLock<HashMap<Name, Cell>>,
    refused: AtomicU64,
}

/// Why an update was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum MetricError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("record the metric {name:?}: found the value {value}, expected a finite number")]
    NotFinite { name: String, value: String },
    #[error(
        "record the metric {name:?}: it would be one more than the {limit} series that the receiver may have; use fewer \
         values of labels, or raise metric-series in the receiver's config"
    )]
    TooMany { name: String, limit: usize },
}

impl GuestMetrics {
    /// No series yet, and room for so many.
    pub(crate) fn new(max_series: usize) -> Self {
        Self { max_series, recorded: Arc::default() }
    }

    /// The same series, with room for another number of them. Those that there are stay.
    pub(crate) fn with_max_series(&self, max_series: usize) -> Self {
        Self { max_series, recorded: self.recorded.clone() }
    }

    /// All series, in no order.
    pub(crate) fn snapshot(&self) -> Vec<Metric> {
        let series = self.recorded.series.read().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|(name, cell)| name.metric(cell.value())).collect()
    }

    /// How many updates were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.recorded.refused.load(Ordering::Relaxed)
    }

    fn record(&self, name: String, labels: Vec<(String, String)>, update: Update) -> Result<(), MetricError> {
        let recorded = self.try_record(name, labels, update);
        if recorded.is_err() {
            self.recorded.refused.fetch_add(1, Ordering::Relaxed);
        }
        recorded
    }

    fn try_record(
        &self,
        name: String,
        labels: Vec<(String, String)>,
        update: Update,
    ) -> Result<(), MetricError> {
        let name = Name::new(update.kind(), name, labels)?;
        if let Some(value) = update.not_finite() {
            return Err(MetricError::NotFinite { name: name.text().to_owned(), value: value.to_string() });
        }
        // Nothing in here panics half way through a change, so what a panic elsewhere left is whole.
        let series = &self.recorded.series;
        if let Some(cell) = series.read().unwrap_or_else(PoisonError::into_inner).get(&name) {
            cell.update(update);
            return Ok(());
        }
        let mut series = series.write().unwrap_or_else(PoisonError::into_inner);
        if series.len() >= self.max_series && !series.contains_key(&name) {
            return Err(MetricError::TooMany { name: name.text().to_owned(), limit: self.max_series });
        }
        series.entry(name).or_insert_with(|| Cell::new(update.kind())).update(update);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

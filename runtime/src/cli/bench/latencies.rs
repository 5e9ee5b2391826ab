//! Latencies of all connections, in a few histograms: one for each connection would take a gigabyte for ten thousand.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::{CreationError, Histogram};

/// Latencies between a microsecond and an hour are told apart; longer ones count as an hour.
const LONGEST_MICROSECONDS: u64 = 3_600_000_000;

/// Digits to which they are told apart: more would be noise.
const DIGITS: u8 = 3;

/// Histograms at most, of some 180 KiB each. Far more than processors, so that two tasks seldom want the same one.
const MAX_HISTOGRAMS: usize = 32;

/// Latencies in microseconds.
pub type Latencies = Histogram<u64>;

/// A histogram that some connections share.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<Latencies>>);

/// All histograms of a run.
#[derive(Debug)]
pub struct Recorders(Vec<Recorder>);

/// An empty histogram.
///
/// # Errors
///
/// None with these bounds; they are the crate's to check.
pub fn empty() -> Result<Latencies, CreationError> {
    Histogram::new_with_bounds(1, LONGEST_MICROSECONDS, DIGITS)
}

impl Recorders {
    /// Histograms for so many connections.
    ///
    /// # Errors
    ///
    /// That of [`empty`].
    pub fn new(connections: u16) -> Result<Self, CreationError> {
        let count = usize::from(connections).clamp(1, MAX_HISTOGRAMS);
        let recorders = (0..count).map(|_| Ok(Recorder(Arc::new(Mutex::new(empty()?)))));
        recorders.collect::<Result<_, _>>().map(Self)
    }

    /// One for each connection, in turn.
    pub fn each(&self) -> impl Iterator<Item = &Recorder> {
        self.0.iter().cycle()
    }

    /// Everything that was recorded.
    ///
    /// # Errors
    ///
    /// That of [`empty`].
    pub fn sum(&self) -> Result<Latencies, CreationError> {
        let mut sum = empty()?;
        for recorder in &self.0 {
            // All have the same bounds, so nothing can fall out of this one.
            let _ = sum.add(&*recorder.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(sum)
    }
}

impl Recorder {
    /// Counts so many frames of one latency.
    pub fn record(&self, latency: Duration, frames: u64) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record_n(microseconds, frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_record_adds_up() {
        let recorders = Recorders::new(10_000).unwrap();
        for (recorder, milliseconds) in recorders.each().zip(1..=100) {
            recorder.record(Duration::from_millis(milliseconds), 2);
        }
        recorders.each().next().unwrap().record(Duration::from_secs(1_000_000), 1);
        let sum = recorders.sum().unwrap();
        assert_eq!(sum.len(), 201);
        assert_eq!(sum.value_at_quantile(0.5) / 1_000, 51);
        assert!(sum.max() >= LONGEST_MICROSECONDS);
    }
}

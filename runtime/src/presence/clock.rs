//! The clock of a connection: it runs while the server waits for the next call on the connection, and stands still while
//! the server does anything else, for then a call may lie unread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Set while a clock stands still. Microseconds since a start do not reach it in 290,000 years.
const STILL: u64 = 1 << 63;

/// How long a connection was being read. One task moves it, any may look.
#[derive(Debug)]
pub struct ReadClock {
    made: Instant,
    /// While it stands still, what it shows and [`STILL`]; while it runs, how long it has stood still so far. In microseconds
    /// since it was made.
    state: AtomicU64,
}

impl ReadClock {
    fn new(now: Instant) -> ReadClock {
        ReadClock { made: now, state: AtomicU64::new(STILL) }
    }

    fn since_made(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.made).as_micros()).unwrap_or(0) & !STILL
    }

    /// What the clock shows, and whether it runs.
    fn look(&self, now: Instant) -> (u64, bool) {
        match self.state.load(Ordering::Acquire) {
            shown if shown & STILL != 0 => (shown & !STILL, false),
            stood => (self.since_made(now).saturating_sub(stood), true),
        }
    }

    /// What it shows.
    pub fn shows(&self, now: Instant) -> Duration {
        Duration::from_micros(self.look(now).0)
    }

    /// What it shows, unless it stands still.
    pub fn running(&self, now: Instant) -> Option<Duration> {
        let (shown, runs) = self.look(now);
        runs.then(|| Duration::from_micros(shown))
    }
}

/// A connection's hold on its clock, which stands still at first. When the connection is gone the clock runs for good: nothing
/// can lie unread any more.
#[derive(Debug)]
pub struct Connection {
    clock: Arc<ReadClock>,
}

impl Connection {
    /// A connection on which nothing is read yet.
    pub fn new(now: Instant) -> Connection {
        Connection { clock: Arc::new(ReadClock::new(now)) }
    }

    /// From now on the server waits for the next call.
    pub fn reading(&self, now: Instant) {
        let (shown, _) = self.clock.look(now);
        self.clock.state.store(self.clock.since_made(now).saturating_sub(shown), Ordering::Release);
    }

    /// From now on the server does something else.
    pub fn busy(&self, now: Instant) {
        let (shown, _) = self.clock.look(now);
        self.clock.state.store(shown | STILL, Ordering::Release);
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<ReadClock> {
        &self.clock
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_only_the_time_in_which_the_server_reads() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let shown = Duration::from_secs;
        let connection = Connection::new(start);
        let clock = connection.clock().clone();
        assert_eq!((clock.shows(at(5)), clock.running(at(5))), (shown(0), None), "it stands still at first");
        connection.reading(at(10));
        assert_eq!((clock.shows(at(13)), clock.running(at(13))), (shown(3), Some(shown(3))));
        connection.reading(at(14));
        assert_eq!(clock.running(at(14)), Some(shown(4)), "to run on changes nothing");
        connection.busy(at(15));
        connection.busy(at(17));
        assert_eq!((clock.shows(at(90)), clock.running(at(90))), (shown(5), None));
        connection.reading(at(100));
        assert_eq!(clock.running(at(102)), Some(shown(7)));
    }

    #[test]
    fn it_runs_once_the_connection_is_gone() {
        let connection = Connection::new(Instant::now());
        let clock = connection.clock().clone();
        connection.busy(Instant::now());
        drop(connection);
        assert!(clock.running(Instant::now()).is_some());
    }
}

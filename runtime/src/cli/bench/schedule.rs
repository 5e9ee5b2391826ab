//! When frames are due that go out at a rate: at times that are fixed before the first is sent, whatever the server does
//! then. Pure: nothing waits here.

use std::time::Duration;

use tokio::time::Instant;

const NANOSECONDS: u128 = 1_000_000_000;

/// What all connections of a run have in common.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Messages a second, all connections together.
    pub messages_per_second: u32,
    /// Messages in each frame.
    pub batch: u16,
    /// Connections that take turns.
    pub connections: u16,
}

/// The frames of one connection: every so many-th of the run.
#[derive(Debug, Clone)]
pub struct Schedule {
    started: Instant,
    rate: Rate,
    /// The number of the connection's next frame among all of the run.
    next: u64,
}

impl Schedule {
    /// The frames of the connection with this number. The first frame of the run is due when it starts.
    pub fn new(started: Instant, rate: Rate, connection: u16) -> Self {
        Self { started, rate, next: connection.into() }
    }

    /// When the next frame is due.
    pub fn due(&self) -> Instant {
        let nanoseconds = u128::from(self.next)
            .saturating_mul(u128::from(self.rate.batch).saturating_mul(NANOSECONDS))
            / u128::from(self.rate.messages_per_second.max(1));
        // Enough for five centuries.
        self.started + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// So many frames are sent or given up.
    pub fn advance(&mut self, frames: u64) {
        self.next = self.next.saturating_add(frames.saturating_mul(self.rate.connections.into()));
    }

    /// How many of the connection's next frames are due before that moment.
    pub fn due_before(&self, moment: Instant) -> u64 {
        let messages = moment
            .saturating_duration_since(self.started)
            .as_nanos()
            .saturating_mul(self.rate.messages_per_second.into());
        // Of all connections, from the start of the run on.
        let frames = messages.div_ceil(u128::from(self.rate.batch.max(1)).saturating_mul(NANOSECONDS));
        let own = frames.saturating_sub(self.next.into()).div_ceil(u128::from(self.rate.connections.max(1)));
        u64::try_from(own).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(messages_per_second: u32, batch: u16, connections: u16, connection: u16) -> Schedule {
        let rate = Rate { messages_per_second, batch, connections };
        Schedule::new(Instant::now(), rate, connection)
    }

    fn next(schedule: &mut Schedule) -> Duration {
        let due = schedule.due() - schedule.started;
        schedule.advance(1);
        due
    }

    #[test]
    fn connections_take_turns() {
        for (connection, first) in [(0, 0), (1, 10), (3, 30)] {
            let mut schedule = schedule(1_000, 10, 4, connection);
            for turn in 0..3 {
                assert_eq!(next(&mut schedule), Duration::from_millis(first + 40 * turn));
            }
        }
    }

    #[test]
    fn a_rate_that_is_no_part_of_a_second_does_not_drift() {
        let mut schedule = schedule(3, 1, 1, 0);
        schedule.advance(3 * 24 * 60 * 60);
        assert_eq!(next(&mut schedule), Duration::from_secs(24 * 60 * 60));
    }

    #[test]
    fn what_is_due_before_a_moment_is_what_would_be_sent_before_it() {
        for (rate, batch, connections, connection) in [(1_000, 1, 1, 0), (7, 3, 2, 1), (1_000_000, 64, 8, 5)]
        {
            let mut schedule = schedule(rate, batch, connections, connection);
            for moment in [0, 1, 999_999, 1_000_000, 1_000_001, 2_571_428_571].map(Duration::from_nanos) {
                let moment = schedule.started + moment;
                let mut walking = schedule.clone();
                let mut counted = 0;
                while walking.due() < moment {
                    walking.advance(1);
                    counted += 1;
                }
                assert_eq!(schedule.due_before(moment), counted, "of {rate} before {moment:?}");
            }
            schedule.advance(2);
            let before = schedule.due();
            assert_eq!(schedule.due_before(before), 0);
            assert_eq!(schedule.due_before(before + Duration::from_nanos(1)), 1);
        }
    }
}

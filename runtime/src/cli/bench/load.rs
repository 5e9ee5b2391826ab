//! One connection of a run: sends what is due as long as the window lets it, and takes the time of every answer.

use std::{io, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{schedule::Schedule, tally::Tally, timer::Timer};
use crate::client::{Connection, Frame};

/// How long frames that were due are sent after the end, if the window was full until then. What is further behind than this
/// is left unsent: the server takes less than it is offered.
const LAST_SENDS: Duration = Duration::from_secs(1);

/// How long answers are waited for after ctrl-C: long enough for a server that works, short enough for whoever pressed it.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// When frames go out.
#[derive(Debug)]
pub enum Pace {
    /// As soon as the window has room, but not before this moment: the server may have asked for a pause.
    Windows {
        /// When the next frame may go out.
        not_before: Instant,
    },
    /// When they are due. What is late is made up for, and no answer slows it.
    Rate(Schedule),
}

/// A load that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Until when it sent, or would have.
    pub until: Instant,
    at: Instant,
    pace: Pace,
    tally: Tally,
}

/// A connection with the frames that it sends in a circle.
pub struct Load {
    connection: Connection<Instant>,
    frames: Vec<Frame>,
    pace: Pace,
    timer: Timer,
    tally: Tally,
}

impl Load {
    /// A load that has not begun.
    ///
    /// # Errors
    ///
    /// Those of [`Timer::new`].
    pub fn new(
        connection: Connection<Instant>,
        frames: Vec<Frame>,
        pace: Pace,
        tally: Tally,
    ) -> io::Result<Self> {
        Ok(Self { connection, frames, pace, timer: Timer::new()?, tally })
    }

    /// Sends what is due before `until`, or until told to stop, and hears all answers. What the server did not take of the
    /// warm-up in its time is passed over.
    ///
    /// # Errors
    ///
    /// Those of [`Timer::at`].
    pub async fn run(self, mut until: Instant, stop: CancellationToken) -> io::Result<Ended> {
        let Self { mut connection, frames, mut pace, mut timer, mut tally } = self;
        let counted_from = tally.counted_from();
        let mut warming_up = true;
        let mut frames = frames.iter().cycle();
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut give_up = None;
        // Since when the window and the socket let frames go, as far as the server is concerned.
        let mut open_since = Instant::now();
        loop {
            let mut now = Instant::now();
            let mut next = None;
            if warming_up && now >= counted_from {
                warming_up = false;
                pace.skip_before(counted_from);
            }
            while connection.has_room()
                && let Some(since) = pace.next(now, until)
            {
                if since > now {
                    next = Some(since);
                    break;
                }
                let Some(frame) = frames.next() else { break };
                tally.send(now, since, since.max(open_since));
                let waited = connection.send(frame.clone(), since).await;
                pace.sent();
                now = Instant::now();
                if waited {
                    open_since = now;
                }
            }
            if next.is_none() && connection.in_flight() == 0 {
                break;
            }
            let was_full = !connection.has_room();
            let answer = tokio::select! {
                biased;
                () = &mut stopped, if give_up.is_none() => {
                    until = until.min(Instant::now());
                    give_up = Some(Instant::now() + STOP_GRACE);
                    continue;
                }
                answer = connection.answer() => answer,
                set = timer.at(next.unwrap_or(until)), if next.is_some() => {
                    set?;
                    continue;
                }
                () = at(give_up) => break,
            };
            let now = Instant::now();
            if was_full {
                open_since = now;
            }
            match answer {
                Ok((since, answer)) => {
                    let pause = tally.answer(now, since, answer);
                    pace.pause(now, pause);
                }
                Err(failure) => {
                    tally.failure = Some(failure);
                    break;
                }
            }
        }
        let at = Instant::now();
        if tally.failure.is_none() && connection.in_flight() == 0 {
            connection.close().await;
        } else {
            tally.give_up(at, connection.into_unanswered());
        }
        Ok(Ended { until, at, pace, tally })
    }
}

impl Ended {
    /// What became of its messages in a run that lasted until then.
    pub fn settle(mut self, until: Instant) -> Tally {
        if let Pace::Rate(schedule) = self.pace {
            self.tally.leave_unsent(self.at, until, schedule);
        }
        self.tally
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Pace {
    /// When the next frame is to go out, which is also the moment from which its latency counts: now, or earlier if it is
    /// late, or later. None if no more are to go out.
    fn next(&self, now: Instant, until: Instant) -> Option<Instant> {
        match self {
            Self::Windows { not_before } => (now < until).then_some(now.max(*not_before)),
            Self::Rate(schedule) => {
                let due = schedule.due();
                (due < until && now < until + LAST_SENDS).then_some(due)
            }
        }
    }

    fn sent(&mut self) {
        if let Self::Rate(schedule) = self {
            schedule.advance(1);
        }
    }

    fn skip_before(&mut self, moment: Instant) {
        if let Self::Rate(schedule) = self {
            schedule.advance(schedule.due_before(moment));
        }
    }

    /// The server asks for a pause. A schedule does not depend on what the server asks for.
    fn pause(&mut self, now: Instant, pause: Option<Duration>) {
        if let (Self::Windows { not_before }, Some(pause)) = (self, pause) {
            *not_before = now + pause;
        }
    }
}

#[cfg(test)]
mod tests;

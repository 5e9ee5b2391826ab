//! A timer that is right to some microseconds. The runtime's own is right to a millisecond or two, which is about what a
//! server takes to answer: whoever measures from when a frame was due would measure the timer.

use std::io;

use tokio::time::Instant;

pub use precise::Timer;

#[cfg(target_os = "linux")]
mod precise {
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::{Interest, unix::AsyncFd};

    use super::{Instant, io};

    /// A timer of one task.
    #[derive(Debug)]
    pub struct Timer {
        file: AsyncFd<OwnedFd>,
        /// What it is set to, so that waiting on for the same moment costs nothing.
        set_to: Option<Instant>,
    }

    impl Timer {
        /// A timer that is not set.
        ///
        /// # Errors
        ///
        /// The system's, when it has no more files.
        pub fn new() -> io::Result<Self> {
            let file =
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "its successors are unsafe, because a type may close its file too early: an `OwnedFd` does not"
            )]
            let file = AsyncFd::with_interest(file, Interest::READABLE)?;
            Ok(Self { file, set_to: None })
        }

        /// Waits for the moment. May be dropped at any time.
        ///
        /// # Errors
        ///
        /// The system's.
        pub async fn at(&mut self, moment: Instant) -> io::Result<()> {
            if self.set_to != Some(moment) {
                let wait = moment.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    return Ok(());
                }
                let it_value = Timespec::try_from(wait).map_err(io::Error::other)?;
                let once = Itimerspec { it_interval: Timespec::default(), it_value };
                timerfd_settime(self.file.get_ref(), TimerfdTimerFlags::empty(), &once)?;
                self.set_to = Some(moment);
            }
            loop {
                // What is left of an earlier moment shows as readable, and as nothing to read.
                let mut ready = self.file.readable().await?;
                let read = ready.try_io(|file| Ok(rustix::io::read(file.get_ref(), &mut [0_u8; 8])?));
                if let Ok(read) = read {
                    self.set_to = None;
                    return read.map(drop);
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod precise {
    use super::{Instant, io};

    /// A timer of one task, as right as the runtime's.
    #[derive(Debug)]
    pub struct Timer;

    impl Timer {
        /// A timer that is not set.
        ///
        /// # Errors
        ///
        /// None.
        pub fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Waits for the moment. May be dropped at any time.
        ///
        /// # Errors
        ///
        /// None.
        pub async fn at(&mut self, moment: Instant) -> io::Result<()> {
            tokio::time::sleep_until(moment).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_waits_until_the_moment_also_after_a_wait_that_was_dropped() {
        let mut timer = Timer::new().unwrap();
        let moment = Instant::now() + Duration::from_secs(3_600);
        assert!(timeout(Duration::from_millis(1), timer.at(moment)).await.is_err());
        for _ in 0..3 {
            let moment = Instant::now() + Duration::from_millis(2);
            timer.at(moment).await.unwrap();
            assert!(Instant::now() >= moment);
        }
        timer.at(Instant::now() - Duration::from_secs(1)).await.unwrap();
    }
}

//! Where the lines of guests go: to tracing, target `guest`, under the receiver's name, and not faster than the receiver
//! may. All instances of a receiver share one. What a line is, and where it is cut, is decided in `wasi/output.rs`.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time over which lines are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
    /// Not the guest's own words, but the host's about something that the guest may do as often as it likes.
    Host,
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Host => "host",
        })
    }
}

/// The log of one receiver.
pub(crate) struct GuestLog {
    receiver: String,
    lines_per_second: u32,
    window: Mutex<Window>,
}

struct Window {
    start: Instant,
    lines: u32,
    dropped: u64,
}

impl GuestLog {
    pub(crate) fn new(receiver: String, lines_per_second: u32) -> Self {
        let window = Mutex::new(Window { start: Instant::now(), lines: 0, dropped: 0 });
        Self { receiver, lines_per_second, window }
    }

    /// Logs a line, or counts it as dropped.
    pub(crate) fn line(&self, stream: Stream, line: &str) {
        if self.admit() {
            if stream == Stream::Host {
                tracing::warn!(target: "guest", { receiver.name = %self.receiver, %stream }, "{line}");
            } else {
                tracing::info!(target: "guest", { receiver.name = %self.receiver, %stream }, "{line}");
            }
        }
    }

    /// Says how many lines were dropped, if the second in which that happened is over. Lines do that too, but a guest that
    /// flooded may say nothing more.
    pub(crate) fn settle(&self) {
        self.roll(&mut self.window());
    }

    fn admit(&self) -> bool {
        let mut window = self.window();
        self.roll(&mut window);
        if window.lines < self.lines_per_second {
            window.lines += 1;
            return true;
        }
        window.dropped += 1;
        false
    }

    fn roll(&self, window: &mut Window) {
        if window.start.elapsed() >= WINDOW {
            self.report(window.dropped);
            *window = Window { start: Instant::now(), lines: 0, dropped: 0 };
        }
    }

    fn report(&self, dropped: u64) {
        if dropped > 0 {
            tracing::warn!(
                target: "guest",
                { receiver.name = %self.receiver, dropped },
                "lines dropped: the receiver wrote more of them in a second than it may"
            );
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // A window is valid at any moment, so a panic elsewhere does not spoil it.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GuestLog {
    fn drop(&mut self) {
        self.report(self.window().dropped);
    }
}

//! Where the lines of guests go: to tracing, target `guest`, under the receiver's name, and not faster than the receiver
//! may. All instances of a receiver share one. What a printed line is, and where it is cut, is decided in `wasi/output.rs`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracing::Level;

use crate::fault::printable;

/// The longest line in bytes: several screens. What comes after it, up to the line's end, is dropped.
pub(crate) const MAX_LINE: usize = 8 * 1024;

/// How much of a context is shown, in bytes: it names a part of a program.
const MAX_CONTEXT: usize = 128;

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
    lines: AtomicU64,
    dropped: AtomicU64,
}

/// The lines since a moment.
struct Window {
    start: Instant,
    lines: u32,
    dropped: u64,
}

impl GuestLog {
    pub(crate) fn new(receiver: String, lines_per_second: u32) -> Self {
        Self {
            receiver,
            lines_per_second,
            window: Mutex::new(Window { start: Instant::now(), lines: 0, dropped: 0 }),
            lines: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Logs a line as it is, or counts it as dropped.
    pub(crate) fn line(self: &Arc<Self>, stream: Stream, line: &str) {
        if self.admit() {
            if stream == Stream::Host {
                tracing::warn!(target: "guest", { receiver.name = %self.receiver, %stream }, "{line}");
            } else {
                tracing::info!(target: "guest", { receiver.name = %self.receiver, %stream }, "{line}");
            }
        }
    }

    /// Logs a line that has a level and a context, cut and without control characters, or counts it as dropped. A level that
    /// is not shown costs the guest nothing.
    pub(crate) fn message(self: &Arc<Self>, level: Level, context: &str, message: &str) {
        // The level of an event is fixed where it is written.
        macro_rules! log {
            ($level:expr) => {
                if tracing::enabled!(target: "guest", $level) && self.admit() {
                    let line = printable(message, MAX_LINE, false);
                    let context = printable(context, MAX_CONTEXT, false);
                    tracing::event!(target: "guest", $level, { receiver.name = %self.receiver, %context }, "{line}");
                }
            };
        }
        match level {
            Level::TRACE => log!(Level::TRACE),
            Level::DEBUG => log!(Level::DEBUG),
            Level::INFO => log!(Level::INFO),
            Level::WARN => log!(Level::WARN),
            Level::ERROR => log!(Level::ERROR),
        }
    }

    /// How many lines were logged.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// How many lines were dropped, because there were more of them in a second than there may be.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn admit(self: &Arc<Self>) -> bool {
        let mut window = self.window();
        self.roll(&mut window);
        if window.lines < self.lines_per_second {
            window.lines += 1;
            self.lines.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        window.dropped += 1;
        if window.dropped == 1 {
            self.roll_after(WINDOW.saturating_sub(window.start.elapsed()));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Sees to it that what was dropped is told when the second is over, also if the guest says nothing more.
    fn roll_after(self: &Arc<Self>, rest: Duration) {
        // Without a runtime nobody runs guests.
        let Ok(runtime) = Handle::try_current() else { return };
        let log = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(rest).await;
            if let Some(log) = log.upgrade() {
                log.roll(&mut log.window());
            }
        });
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

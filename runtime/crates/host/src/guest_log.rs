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

/// The log of one receiver. Clones are the same.
#[derive(Clone)]
pub(crate) struct GuestLog {
    lines_per_second: u32,
    written: Arc<Written>,
}

/// What was written to the log of one receiver.
struct Written {
    receiver: String,
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
        let written = Written {
            receiver,
            window: Mutex::new(Window { start: Instant::now(), lines: 0, dropped: 0 }),
            lines: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        Self { lines_per_second, written: Arc::new(written) }
    }

    /// The same log, with another rate. Lines of both count together.
    pub(crate) fn with_rate(&self, lines_per_second: u32) -> Self {
        Self { lines_per_second, written: self.written.clone() }
    }

    /// Logs a line as it is, or counts it as dropped.
    pub(crate) fn line(&self, stream: Stream, line: &str) {
        if self.admit() {
            self.write(stream, line);
        }
    }

    /// Logs a line that was [admitted](Self::admit).
    pub(crate) fn write(&self, stream: Stream, line: &str) {
        let receiver = &self.written.receiver;
        if stream == Stream::Host {
            tracing::warn!(target: "guest", { receiver.name = %receiver, %stream }, "{line}");
        } else {
            tracing::info!(target: "guest", { receiver.name = %receiver, %stream }, "{line}");
        }
    }

    /// Logs a line that has a level and a context, cut and without control characters, or counts it as dropped. A level that
    /// is not shown costs the guest nothing.
    pub(crate) fn message(&self, level: Level, context: &str, message: &str) {
        let receiver = &self.written.receiver;
        // The level of an event is fixed where it is written.
        macro_rules! log {
            ($level:expr) => {
                if tracing::enabled!(target: "guest", $level) && self.admit() {
                    let line = printable(message, MAX_LINE, false);
                    let context = printable(context, MAX_CONTEXT, false);
                    tracing::event!(target: "guest", $level, { receiver.name = %receiver, %context }, "{line}");
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
        self.written.lines.load(Ordering::Relaxed)
    }

    /// How many lines were dropped, because there were more of them in a second than there may be.
    pub(crate) fn dropped(&self) -> u64 {
        self.written.dropped.load(Ordering::Relaxed)
    }

    /// Whether one more line may be logged; if not, it is counted as dropped.
    pub(crate) fn admit(&self) -> bool {
        let written = &self.written;
        let mut window = written.window();
        written.roll(&mut window);
        if window.lines < self.lines_per_second {
            window.lines += 1;
            written.lines.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        window.dropped += 1;
        if window.dropped == 1 {
            written.roll_after(WINDOW.saturating_sub(window.start.elapsed()));
        }
        written.dropped.fetch_add(1, Ordering::Relaxed);
        false
    }
}

impl Written {
    /// Sees to it that what was dropped is told when the second is over, also if the guest says nothing more.
    fn roll_after(self: &Arc<Self>, rest: Duration) {
        // Without a runtime nobody runs guests.
        let Ok(runtime) = Handle::try_current() else { return };
        let written = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(rest).await;
            if let Some(written) = written.upgrade() {
                written.roll(&mut written.window());
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
            let receiver = &self.receiver;
            tracing::warn!(
                target: "guest",
                { receiver.name = %receiver, dropped },
                "lines dropped: the receiver wrote more of them in a second than it may"
            );
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // A window is valid at any moment, so a panic elsewhere does not spoil it.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.report(self.window().dropped);
    }
}

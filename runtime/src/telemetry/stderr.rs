//! Standard error as the place of log lines: a server must neither end nor stand still because nobody can take them.
//!
//! A line that can't be written (the disk is full, the reader is gone) is dropped, and so is one for which a reader that
//! stands still makes no room in time. How many were dropped is said as soon as lines are taken again.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stderr;
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for a reader that has stood still for no longer than this. Long enough for a reader that is merely
/// slow; after it lines do not wait at all until one is taken.
const PATIENCE: Duration = Duration::from_millis(200);
/// What is written at once: a pipe that says it has room takes this much without blocking (`PIPE_BUF` of Linux).
const CHUNK_BYTES: usize = 4096;

/// Writes whole lines, one thread at a time.
#[derive(Debug, Default)]
pub struct Stderr {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    dropped: u64,
}

/// The right to write one line.
#[derive(Debug)]
pub struct Line<'a> {
    state: MutexGuard<'a, State>,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { state: self.state.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl io::Write for Line<'_> {
    /// Takes all of it, whatever becomes of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let patience = if self.state.dropped == 0 { PATIENCE } else { Duration::ZERO };
        if self.state.dropped > 0 {
            let told = format!("{} lines of the log were dropped: nobody took them\n", self.state.dropped);
            if write_within(told.as_bytes(), patience).is_ok() {
                self.state.dropped = 0;
            }
        }
        if self.state.dropped > 0 || write_within(line, patience).is_err() {
            self.state.dropped = self.state.dropped.saturating_add(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_within(line: &[u8], patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    for chunk in line.chunks(CHUNK_BYTES) {
        let mut rest = chunk;
        while !rest.is_empty() {
            wait_for_room(deadline.saturating_duration_since(Instant::now()))?;
            match rustix::io::write(stderr(), rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn wait_for_room(patience: Duration) -> io::Result<()> {
    let error = stderr();
    let mut watched = [PollFd::new(&error, PollFlags::OUT)];
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut watched, Some(&patience)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

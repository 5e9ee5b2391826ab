//! Standard output and error of a guest: cuts what it writes into lines and gives them to the receiver's log. Keeps the
//! last lines of the running call, because they say what went wrong if it fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::fault::printable;
use crate::guest_log::{GuestLog, MAX_LINE, Stream};

/// How many lines of the running call are kept: a Python traceback with its exception.
const LAST_LINES: usize = 20;

/// How much of each of them is kept, in bytes.
const MAX_LAST_LINE: usize = 1024;

/// What a guest may write at once, as elsewhere in WASI.
const WRITE_BUDGET: usize = 64 * 1024;

/// One of the two streams of one instance. Clones are the same stream.
#[derive(Clone)]
pub(crate) struct Output {
    stream: Stream,
    log: GuestLog,
    lines: Arc<Mutex<Lines>>,
}

#[derive(Default)]
struct Lines {
    /// The line that has no end yet.
    partial: Vec<u8>,
    /// How many bytes of it were dropped.
    cut: usize,
    last: VecDeque<String>,
}

impl Output {
    pub(crate) fn new(stream: Stream, log: GuestLog) -> Self {
        Self { stream, log, lines: Arc::default() }
    }

    /// Forgets the lines of the call before.
    pub(crate) fn start_call(&self) {
        self.lines().last.clear();
    }

    /// Logs what has no line end yet: the call is over.
    pub(crate) fn end_call(&self) {
        let mut lines = self.lines();
        if !lines.partial.is_empty() {
            self.end_line(&mut lines);
        }
    }

    /// The last lines of this call.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.lines().last.iter().cloned().collect()
    }

    /// Keeps a line that was logged by other means among the last ones.
    pub(crate) fn keep(&self, line: &str) {
        self.lines().keep(line);
    }

    fn take(&self, bytes: &[u8]) {
        let mut lines = self.lines();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = MAX_LINE.saturating_sub(lines.partial.len());
            let (kept, cut) = text.split_at_checked(room).unwrap_or((text, &[]));
            lines.partial.extend_from_slice(kept);
            lines.cut += cut.len();
            if ended {
                self.end_line(&mut lines);
            }
        }
    }

    fn end_line(&self, lines: &mut Lines) {
        let admitted = self.log.admit();
        let kept = self.stream == Stream::Stderr;
        // A flood of lines that nobody will see is not made readable first.
        if admitted || kept {
            let line = lines.readable();
            if admitted {
                self.log.write(self.stream, &line);
            }
            if kept {
                lines.keep(&line);
            }
        }
        lines.partial.clear();
        lines.cut = 0;
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Lines are valid at any moment, so a panic elsewhere does not spoil them.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// The line that ends here.
    fn readable(&self) -> String {
        let text = String::from_utf8_lossy(&self.partial);
        // Control characters could forge other lines, or act on a terminal.
        let mut line = printable(text.trim_end_matches('\r'), MAX_LINE, false);
        if self.cut > 0 {
            line.push_str(&format!("… ({} bytes more)", self.cut));
        }
        line
    }

    fn keep(&mut self, line: &str) {
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(printable(line, MAX_LAST_LINE, false));
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        // A C program that believes this flushes its output line by line, and not when it ends, which it never does. Its
        // standard error is not buffered anyway.
        self.stream == Stream::Stdout
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only for WASI 0.3, which is not linked.
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BUDGET)
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stderr() -> Output {
        Output::new(Stream::Stderr, GuestLog::new("test".into(), 100))
    }

    #[test]
    fn lines_are_cut_where_they_end_however_they_are_written() {
        let output = stderr();
        for part in ["one\ntw", "o\r\n", "\nthree"] {
            output.take(part.as_bytes());
        }
        assert_eq!(output.last_lines(), ["one", "two", ""]);
        output.end_call();
        output.end_call();
        assert_eq!(output.last_lines(), ["one", "two", "", "three"]);
        output.start_call();
        assert!(output.last_lines().is_empty());
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let output = stderr();
        for _ in 0..100 {
            output.take(&[b'x'; 1000]);
        }
        assert_eq!(output.lines().partial.len(), MAX_LINE);
        output.take(b"\n");
        let last = output.last_lines();
        assert!(last[0].starts_with("xxx") && last[0].len() <= MAX_LAST_LINE + '…'.len_utf8());
        assert_eq!(output.lines().cut, 0);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let output = stderr();
        for line in 0..100 {
            output.take(format!("{line}\n").as_bytes());
        }
        let last = output.last_lines();
        assert_eq!((last.len(), last[0].as_str(), last[LAST_LINES - 1].as_str()), (LAST_LINES, "80", "99"));
    }

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        let output = stderr();
        output.take(b"a\x1b[2Jb\xffc\td\n");
        assert_eq!(output.last_lines(), ["a\\u{1b}[2Jb\u{fffd}c\td"]);
    }
}

//! What a process says, line by line, kept for the whole test and waited for.

use std::io::{BufRead, BufReader, PipeReader};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::wait::within;

/// The lines of one output of one process. Clones are the same lines.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    length: watch::Receiver<usize>,
}

impl Log {
    /// Reads a pipe to its end, on a thread of its own: a process must never wait because its test is busy. A last line
    /// without an end is left out, because a process that was killed may have been in the middle of it.
    pub fn follow(pipe: PipeReader) -> Log {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, length) = watch::channel(0);
        let log = Log { lines: lines.clone(), length };
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) && line.pop() == Some(b'\n') {
                let mut lines = lines.lock().expect("no test panics while it holds the lines");
                lines.push(String::from_utf8_lossy(&line).into_owned());
                sender.send_replace(lines.len());
                line.clear();
            }
        });
        log
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.from(0)
    }

    /// The lines so far that contain all of these parts.
    pub fn matching(&self, parts: &[&str]) -> Vec<String> {
        self.lines().into_iter().filter(|line| contains(line, parts)).collect()
    }

    /// Waits for a line that contains all of these parts, and gives it.
    pub async fn wait_for(&self, parts: &[&str]) -> String {
        let what = format!("a line with {parts:?}");
        self.until(&what, |line| contains(line, parts).then(|| line.to_owned())).await
    }

    /// Shows each line once, from the first on, until one gives something.
    pub async fn until<T>(&self, what: &str, look: impl FnMut(&str) -> Option<T>) -> T {
        self.find(what, look).await.unwrap_or_else(|| panic!("the process ended without {what}"))
    }

    /// As [`Log::until`]; none if the output ends before.
    pub async fn find<T>(&self, what: &str, mut look: impl FnMut(&str) -> Option<T>) -> Option<T> {
        within(what, async {
            let mut length = self.length.clone();
            let mut next = 0;
            loop {
                for line in self.from(next) {
                    next += 1;
                    if let Some(found) = look(&line) {
                        return Some(found);
                    }
                }
                if length.wait_for(|length| *length > next).await.is_err() && self.from(next).is_empty() {
                    return None;
                }
            }
        })
        .await
    }

    /// Waits for the end of the output.
    pub async fn ended(&self) {
        let mut length = self.length.clone();
        within("the end of the output", async { while length.changed().await.is_ok() {} }).await;
    }

    fn from(&self, first: usize) -> Vec<String> {
        let lines = self.lines.lock().expect("no test panics while it holds the lines");
        lines.get(first..).unwrap_or_default().to_vec()
    }
}

fn contains(line: &str, parts: &[&str]) -> bool {
    parts.iter().all(|part| line.contains(part))
}

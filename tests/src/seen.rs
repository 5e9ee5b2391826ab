//! What guests saw, read back from the server's log, where their standard output goes.

use serde::Deserialize;
use serde_json::Value;

use crate::log::Log;

/// A message as one of the fixture guests `recorder` and `counter` printed it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Seen {
    pub r#type: String,
    pub offset: u64,
    pub agent: String,
    /// `none`, `again` or `redrive`.
    pub redelivery: String,
    pub id: Option<String>,
    /// The JSON, or the list of the bytes of MessagePack.
    pub body: Value,
    /// Which of its two components saw it, if it was a `counter`.
    pub version: Option<String>,
    /// The agent's messages so far, by the count of that instance and of those whose counts it took over, if it was a `counter`.
    pub count: Option<u64>,
}

/// What a guest wrote as one line, if `line` of the server's log is one of its lines.
pub fn guest_line<'a>(line: &'a str, receiver: &str, stream: &str) -> Option<&'a str> {
    let (_, text) = line.split_once(" guest: ")?;
    text.strip_suffix(&format!(" receiver.name={receiver} stream={stream}"))
}

impl Seen {
    /// The message that a line of the server's log tells of.
    pub fn of_line(line: &str, receiver: &str) -> Option<Seen> {
        let text = guest_line(line, receiver, "stdout")?;
        // The recorder also prints `init` and `terminate`.
        text.starts_with('{').then(|| serde_json::from_str(text).expect("the recorder prints JSON"))
    }
}

impl Log {
    /// What a guest has written to its standard output so far.
    pub fn guest_lines(&self, receiver: &str) -> Vec<String> {
        self.guest_stream(receiver, "stdout")
    }

    /// What a guest has written to its standard error so far.
    pub fn guest_errors(&self, receiver: &str) -> Vec<String> {
        self.guest_stream(receiver, "stderr")
    }

    fn guest_stream(&self, receiver: &str, stream: &str) -> Vec<String> {
        let lines = self.lines();
        lines.iter().filter_map(|line| guest_line(line, receiver, stream)).map(str::to_owned).collect()
    }

    /// What a recorder has seen so far.
    pub fn seen(&self, receiver: &str) -> Vec<Seen> {
        self.lines().iter().filter_map(|line| Seen::of_line(line, receiver)).collect()
    }

    /// Waits until a recorder has seen so many messages, redeliveries included, and gives them.
    pub async fn wait_seen(&self, receiver: &str, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        if count == 0 {
            return seen;
        }
        self.until(&format!("{count} messages seen by {receiver}"), |line| {
            seen.extend(Seen::of_line(line, receiver));
            (seen.len() == count).then(|| std::mem::take(&mut seen))
        })
        .await
    }
}

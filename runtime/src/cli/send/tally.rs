//! What became of the messages: counted, and summed up in one line for people or as JSON for programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

/// The name under which lines count that are no message and were never sent.
pub const BAD_LINE: &str = "bad_line";

/// Counts of one run.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    sent: u64,
    accepted: u64,
    refused: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Messages were handed to the connection for the first time.
    pub fn count_sent(&mut self, messages: usize) {
        self.sent = self.sent.saturating_add(widen(messages));
    }

    /// The server acknowledged messages.
    pub fn count_accepted(&mut self, messages: usize) {
        self.accepted = self.accepted.saturating_add(widen(messages));
    }

    /// A message or a line was refused for good.
    pub fn count_refused(&mut self, code: &'static str) {
        let count = self.refused.entry(code).or_default();
        *count = count.saturating_add(1);
    }

    /// Messages that the server acknowledged.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Messages and lines that were refused, whatever for.
    pub fn refused(&self) -> u64 {
        self.refused.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The sum of a run that took so long.
    pub fn summary(&self, elapsed: Duration) -> Summary {
        let seconds = elapsed.as_secs_f64();
        let bad_lines = self.refused.get(BAD_LINE).copied().unwrap_or_default();
        let refused_by_server = self.refused().saturating_sub(bad_lines);
        Summary {
            sent: self.sent,
            accepted: self.accepted,
            refused: self.refused.clone(),
            unanswered: self.sent.saturating_sub(self.accepted).saturating_sub(refused_by_server),
            seconds: (seconds * 1e3).round() / 1e3,
            messages_per_second: if seconds > 0.0 { (self.accepted as f64 / seconds).round() } else { 0.0 },
        }
    }
}

fn widen(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// What is printed at the end.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Messages that were sent, each counted once however often it was sent.
    sent: u64,
    /// Of these, acknowledged.
    accepted: u64,
    /// Of these, refused, and the lines that were no message, by code.
    refused: BTreeMap<&'static str, u64>,
    /// Messages whose fate is not known, because the run ended before they were answered.
    unanswered: u64,
    seconds: f64,
    /// Acknowledged messages per second.
    messages_per_second: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent {}, accepted {}", self.sent, self.accepted)?;
        let codes: Vec<_> = self.refused.iter().map(|(code, count)| format!("{code} {count}")).collect();
        if codes.is_empty() {
            write!(f, ", refused 0")?;
        } else {
            let total = self.refused.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
            write!(f, ", refused {total} ({})", codes.join(", "))?;
        }
        if self.unanswered > 0 {
            write!(f, ", unanswered {}", self.unanswered)?;
        }
        write!(f, " in {:.3} s, {:.0} messages/s", self.seconds, self.messages_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::default();
        tally.count_sent(10);
        tally.count_accepted(7);
        tally.count_refused("unknown_type");
        tally.count_refused(BAD_LINE);
        tally.count_refused(BAD_LINE);
        tally
    }

    #[test]
    fn people_get_a_line() {
        insta::assert_snapshot!(tally().summary(Duration::from_millis(3500)), @"sent 10, accepted 7, refused 3 (bad_line 2, unknown_type 1), unanswered 2 in 3.500 s, 2 messages/s");
        insta::assert_snapshot!(Tally::default().summary(Duration::ZERO), @"sent 0, accepted 0, refused 0 in 0.000 s, 0 messages/s");
    }

    #[test]
    fn programs_get_json() {
        let summary = serde_json::to_string(&tally().summary(Duration::from_millis(3500))).unwrap();
        insta::assert_snapshot!(summary, @r#"{"sent":10,"accepted":7,"refused":{"bad_line":2,"unknown_type":1},"unanswered":2,"seconds":3.5,"messages_per_second":2.0}"#);
    }
}

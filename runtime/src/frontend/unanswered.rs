//! Counts the bytes that wait for their answer, of a connection and of all of them.

use prometheus_client::metrics::gauge::Gauge;

/// The bytes of one connection: of its frames that are not answered yet, and of what is kept for their answers.
#[derive(Debug)]
pub struct Unanswered {
    bytes: usize,
    of_all: Gauge,
}

impl Unanswered {
    /// None yet. `of_all` shows the sum over all connections.
    pub fn new(of_all: Gauge) -> Unanswered {
        Unanswered { bytes: 0, of_all }
    }

    /// How many there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A frame came.
    pub fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.of_all.inc_by(number(bytes));
    }

    /// A frame was answered.
    pub fn answered(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.of_all.dec_by(number(bytes));
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.of_all.dec_by(number(self.bytes));
    }
}

fn number(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

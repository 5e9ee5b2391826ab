//! Records numbers that the server exports beside its own, at `/metrics` of its admin listener.

use crate::wharf::receiver::metrics::{Label, count, observe, set};

/// Counts a message of a data type and its size.
pub fn record(data_type: &str, bytes: usize) {
    // The value of a label must come from a small set: each makes a series of its own.
    let labels = [Label { name: "type".into(), value: data_type.into() }];
    count("messages", &labels, 1);
    set("last_bytes", &labels, bytes as f64);
    observe("bytes", &labels, bytes as f64);
}

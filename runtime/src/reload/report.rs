//! What a reload changed, as operators are told.

use std::fmt;

use serde::Serialize;

/// What was changed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Data types that are new.
    pub types: Vec<String>,
    /// Receivers that are new.
    pub added: Vec<String>,
    /// Receivers that are gone.
    pub removed: Vec<String>,
    /// Receivers that go on otherwise.
    pub changed: Vec<Changed>,
    /// Keys that are not those of a receiver.
    pub keys: Vec<String>,
    /// What may be a mistake in the config.
    pub warnings: Vec<String>,
}

/// How a receiver goes on.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Its name.
    pub receiver: String,
    /// The keys that differ.
    pub keys: Vec<String>,
    /// The SHA-256 of its component, in hexadecimal, if that is another one.
    pub component: Option<String>,
    /// The number of the receipt.
    pub receipt: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { types, added, removed, changed, keys, warnings: _ } = self;
        let changed: Vec<_> = changed.iter().map(|changed| changed.receiver.clone()).collect();
        let mut parts = Vec::new();
        let lists =
            [("types", types), ("added", added), ("removed", removed), ("changed", &changed), ("keys", keys)];
        for (what, names) in lists {
            if !names.is_empty() {
                parts.push(format!("{what} {}", names.join(", ")));
            }
        }
        if parts.is_empty() { write!(f, "none") } else { write!(f, "{}", parts.join("; ")) }
    }
}

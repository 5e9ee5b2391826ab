//! Reads the clock and random numbers. The standard libraries of most languages do that through WASI, and it needs no grant.

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// Says when this instance started, with a number that tells it from others.
pub fn announcement() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Two numbers from `wasi:random` are the keys of this hash.
    let run = RandomState::new().hash_one("run");
    format!("started at {} as run {run:016x}", since_1970.as_secs())
}

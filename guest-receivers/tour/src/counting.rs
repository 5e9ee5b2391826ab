//! Keeps counts in the receiver's key-value store, which outlives instances, swaps and restarts. Needs the grant
//! `keyvalue = true`.

use crate::wasi::keyvalue::store::{Bucket, Error, open};
use crate::wasi::keyvalue::{atomics, batch};

/// Counts a message of an agent, and gives that agent's count.
pub fn count(agent: &str) -> Result<i64, String> {
    let bucket = bucket()?;
    // In one step, so that several instances can count at a time.
    atomics::increment(&bucket, "total", 1).map_err(failed)?;
    let count = atomics::increment(&bucket, &format!("agent/{agent}"), 1).map_err(failed)?;
    // Several keys in one call, which is one write.
    let notes = [
        ("last-agent".to_owned(), agent.as_bytes().to_vec()),
        ("last-count".to_owned(), count.to_string().into()),
    ];
    batch::set_many(&bucket, &notes).map_err(failed)?;
    Ok(count)
}

/// How many messages were counted, by all instances, ever.
pub fn total() -> Result<i64, String> {
    // Adding nothing reads a number.
    atomics::increment(&bucket()?, "total", 0).map_err(failed)
}

/// The receiver's default bucket. A name instead of "" opens another one.
fn bucket() -> Result<Bucket, String> {
    open("").map_err(failed)
}

fn failed(error: Error) -> String {
    match error {
        // Says what to do, for example when the store is full.
        Error::Other(reason) => reason,
        other => format!("{other:?}"),
    }
}

//! Keeps a number in memory, and hands it to the version of the receiver that takes this one's place.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::wharf::receiver::types::SavedState;

/// A name and a version: a later version of this receiver may keep something else.
const FORMAT: &str = "tour/1";

/// The bytes that were handled, by this instance and by those whose state it took over.
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Adds the size of a message.
pub fn add(bytes: usize) {
    BYTES.fetch_add(bytes as u64, Relaxed);
}

/// All bytes so far.
pub fn bytes() -> u64 {
    BYTES.load(Relaxed)
}

/// What the next version is to know. The instance may have to go on after this.
pub fn snapshot() -> SavedState {
    SavedState { format: FORMAT.into(), payload: bytes().to_le_bytes().into() }
}

/// Takes over what an instance of another version knew. Adds, because several of them may hand on to this one.
pub fn restore(old: SavedState) -> Result<(), String> {
    if old.format != FORMAT {
        return Err(format!("found a state of the format {:?}, expected {FORMAT:?}", old.format));
    }
    let bytes = old.payload.try_into().map_err(|_| "expected a state of 8 bytes")?;
    BYTES.fetch_add(u64::from_le_bytes(bytes), Relaxed);
    Ok(())
}

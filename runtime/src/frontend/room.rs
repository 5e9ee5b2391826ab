//! Room in memory for frames and bodies while they arrive, over all connections. A connection may hold a little without
//! asking; what is larger asks for its room before it is read, so that many large frames at a time wait for each other in the
//! sockets and not in memory.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that need no room: what a connection's read buffer holds anyway.
pub const FREE_BYTES: usize = 8 * 1024;
/// Room is given in pieces of this size, because the semaphore counts in 32 bits.
const PIECE_BYTES: usize = 1024;

/// All the room there is.
#[derive(Clone, Debug)]
pub struct Room {
    pieces: Arc<Semaphore>,
    all: u32,
    taken: Gauge,
}

/// A part of it, given back when it is dropped.
#[derive(Debug)]
#[must_use = "room that is dropped is given back"]
pub struct Taken {
    _pieces: OwnedSemaphorePermit,
    bytes: i64,
    taken: Gauge,
}

impl Room {
    /// Room for this many bytes; `taken` shows how many of them are given out.
    pub fn new(bytes: usize, taken: Gauge) -> Room {
        let all = pieces(bytes);
        Room { pieces: Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(usize::MAX))), all, taken }
    }

    /// Waits for room for that many bytes, in turn. What is larger than all of it gets all of it, alone. Nobody may hold some
    /// while it waits for more.
    pub async fn take(&self, bytes: usize) -> Option<Taken> {
        let pieces = self.pieces.clone().acquire_many_owned(pieces(bytes).min(self.all)).await;
        // The semaphore is never closed.
        let pieces = pieces.ok()?;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.taken.inc_by(bytes);
        Some(Taken { _pieces: pieces, bytes, taken: self.taken.clone() })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.taken.dec_by(self.bytes);
    }
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn room_is_given_in_turn_and_given_back() {
        let gauge = Gauge::default();
        let room = Room::new(10 * 1024, gauge.clone());
        let first = room.take(8 * 1024).now_or_never().flatten().unwrap();
        assert_eq!(gauge.get(), 8 * 1024);
        // It is larger than what is left, and than what there is.
        let mut second = Box::pin(room.take(1 << 40));
        assert!((&mut second).now_or_never().is_none());
        let mut third = Box::pin(room.take(1));
        assert!((&mut third).now_or_never().is_none(), "it is not its turn");
        drop(first);
        let second = (&mut second).now_or_never().flatten().unwrap();
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        let third = (&mut third).now_or_never().flatten().unwrap();
        assert_eq!(gauge.get(), 1);
        drop(third);
        assert_eq!(gauge.get(), 0);
    }
}

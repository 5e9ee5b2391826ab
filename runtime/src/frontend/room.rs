//! Room in memory for frames and bodies while they arrive, over all connections. A connection may hold a little without
//! asking; what becomes larger takes room as it comes, before more of it is read, so that many large frames at a time wait for
//! each other in the sockets and not in memory.
//!
//! Nobody takes room for bytes that are merely announced. So everybody may hold some and wait for more; they do not wait for each
//! other for ever, because the room for one of the largest is set aside: who gets that needs no more, and comes to its end.

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
    /// One permit: for what is set aside.
    aside: Arc<Semaphore>,
    taken: Gauge,
}

/// A part of it, given back when it is dropped.
#[derive(Debug)]
#[must_use = "room that is dropped is given back"]
pub struct Taken {
    pieces: Option<OwnedSemaphorePermit>,
    aside: Option<OwnedSemaphorePermit>,
    bytes: usize,
    taken: Gauge,
}

impl Room {
    /// Room for this many bytes, of which `largest`, the bytes of the largest frame or body, are set aside. `taken` shows how many
    /// of them are given out.
    pub fn new(bytes: usize, largest: usize, taken: Gauge) -> Room {
        let shared = pieces(bytes.saturating_sub(largest));
        let pieces = Arc::new(Semaphore::new(usize::try_from(shared).unwrap_or(Semaphore::MAX_PERMITS)));
        Room { pieces, aside: Arc::new(Semaphore::new(1)), taken }
    }

    /// No room yet, to be grown.
    pub fn none(&self) -> Taken {
        Taken { pieces: None, aside: None, bytes: 0, taken: self.taken.clone() }
    }

    /// Waits until there is room for so many bytes in all, in turn.
    pub async fn grow(&self, mut held: Taken, bytes: usize) -> Taken {
        let more = pieces(bytes).saturating_sub(pieces(held.bytes));
        if more > 0 && held.aside.is_none() {
            // Neither is ever closed, so that neither fails.
            tokio::select! {
                biased;
                Ok(more) = self.pieces.clone().acquire_many_owned(more) => match &mut held.pieces {
                    Some(pieces) => pieces.merge(more),
                    none => *none = Some(more),
                },
                Ok(aside) = self.aside.clone().acquire_owned() => held.aside = Some(aside),
                else => {}
            }
        }
        held.count(bytes);
        held
    }
}

impl Taken {
    /// For how many bytes there is room.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&mut self, bytes: usize) {
        self.taken.inc_by(number(bytes).saturating_sub(number(self.bytes)));
        self.bytes = bytes;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.count(0);
    }
}

/// How much room to take when so many bytes are there and that is all there is room for: twice as much, so that it is asked for a
/// few times only, but not more than there can be.
pub fn next_step(arrived: usize, most: usize) -> usize {
    arrived.saturating_mul(2).min(most)
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX)
}

fn number(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn room_is_given_in_turn_and_given_back() {
        let gauge = Gauge::default();
        let room = Room::new(12 * KIB, 2 * KIB, gauge.clone());
        let grow = |held, bytes| Box::pin(room.grow(held, bytes));
        let first = grow(room.none(), 4 * KIB).now_or_never().unwrap();
        let first = grow(first, 8 * KIB).now_or_never().unwrap();
        assert_eq!((first.bytes(), gauge.get()), (8 * KIB, 8 * 1024));
        // What was set aside.
        let second = grow(room.none(), 4 * KIB).now_or_never().unwrap();
        let mut third = grow(room.none(), 4 * KIB);
        assert!((&mut third).now_or_never().is_none());
        let mut fourth = grow(room.none(), 1);
        assert!((&mut fourth).now_or_never().is_none(), "it is not its turn");
        drop(first);
        let third = (&mut third).now_or_never().unwrap();
        let fourth = (&mut fourth).now_or_never().unwrap();
        drop((second, third));
        assert_eq!(gauge.get(), 1);
        drop(fourth);
        assert_eq!(gauge.get(), 0);
        assert!(grow(room.none(), 10 * KIB).now_or_never().is_some());
    }

    #[test]
    fn those_that_wait_for_more_do_not_wait_for_each_other() {
        for shared in [0, 8, 20] {
            let room = Room::new((shared + 8) * KIB, 8 * KIB, Gauge::default());
            let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(room.grow(room.none(), 2 * KIB))).collect();
            let mut whole = 0;
            let mut is_stuck = false;
            while !std::mem::replace(&mut is_stuck, true) {
                for _ in 0..waiting.len() {
                    let mut one = waiting.remove(0);
                    let Some(taken) = (&mut one).now_or_never() else {
                        waiting.push(one);
                        continue;
                    };
                    is_stuck = false;
                    if taken.bytes() == 8 * KIB {
                        whole += 1;
                    } else {
                        let more = next_step(taken.bytes(), 8 * KIB);
                        waiting.push(Box::pin(room.grow(taken, more)));
                    }
                }
            }
            assert_eq!(whole, 10, "with {shared} KiB to be shared");
        }
    }
}

//! Makes the workers of a receiver leave their lanes for a moment, so that somebody else can move the cursors.
//!
//! A worker works in *turns*. When its turn is cancelled it ends what it can't leave half done, gives up the rest, arrives
//! here and waits for the next turn, which it begins at the cursors as they are then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long workers may take to leave their lanes beyond a running call: they have to be waited for by a disk at most.
const ARRIVAL_GRACE: Duration = Duration::from_secs(10);

/// Workers did not leave their lanes in time.
#[derive(Debug, Error)]
#[error("stop a receiver between two batches: it was still working after {waited:?}")]
pub struct HaltError {
    /// How long it was waited for.
    pub waited: Duration,
}

/// The turns of one receiver's workers.
#[derive(Debug)]
pub struct Halt {
    stop: CancellationToken,
    turn: Mutex<CancellationToken>,
    /// One halt at a time.
    one: Arc<tokio::sync::Mutex<()>>,
    /// How many workers there are.
    workers: usize,
    /// How many have arrived.
    arrived: watch::Sender<usize>,
    /// Longest time that a call may take.
    deadline: Duration,
}

impl Halt {
    /// The turns of so many workers, until `stop`. Their calls take `deadline` at most.
    pub fn new(workers: usize, deadline: Duration, stop: CancellationToken) -> Halt {
        let turn = Mutex::new(stop.child_token());
        let (one, arrived) = (Arc::default(), watch::Sender::new(0));
        Halt { stop, turn, one, workers, arrived, deadline }
    }

    /// The current turn.
    pub fn turn(&self) -> CancellationToken {
        self.lock().clone()
    }

    /// A worker has left its lanes. Waits for the next turn, unless the server stops.
    pub async fn arrive(&self) -> Option<CancellationToken> {
        let mut arrived = self.arrived.subscribe();
        self.arrived.send_modify(|arrived| *arrived += 1);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            // The sender lives as long as this.
            _ = arrived.wait_for(|arrived| *arrived == 0) => Some(self.turn()),
        }
    }

    /// Makes all workers leave their lanes, until the result is dropped.
    ///
    /// # Errors
    ///
    /// When a worker takes longer than a call may. All go on then.
    pub async fn halt(self: &Arc<Self>) -> Result<Halted, HaltError> {
        let one = self.one.clone().lock_owned().await;
        let halted = Halted { halt: self.clone(), _one: one };
        self.lock().cancel();
        let waited = self.deadline.saturating_add(ARRIVAL_GRACE);
        let mut arrived = self.arrived.subscribe();
        match timeout(waited, arrived.wait_for(|arrived| *arrived >= self.workers)).await {
            Ok(_) => Ok(halted),
            Err(_) => Err(HaltError { waited }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, CancellationToken> {
        // A token is replaced as a whole.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While this is there, the workers of a receiver are not in their lanes.
#[derive(Debug)]
pub struct Halted {
    halt: Arc<Halt>,
    _one: OwnedMutexGuard<()>,
}

impl Drop for Halted {
    fn drop(&mut self) {
        // The turn first: whoever sees that nobody has arrived any more asks for it.
        *self.halt.lock() = self.halt.stop.child_token();
        self.halt.arrived.send_replace(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn workers_are_out_of_their_lanes_while_it_is_halted_and_only_then() {
        let stop = CancellationToken::new();
        let halt = Arc::new(Halt::new(3, Duration::ZERO, stop.clone()));
        let working: Vec<_> = (0..3).map(|_| Arc::new(AtomicBool::new(false))).collect();
        let tasks: Vec<_> = working
            .iter()
            .map(|working| {
                let (halt, working) = (halt.clone(), working.clone());
                tokio::spawn(async move {
                    let mut turn = halt.turn();
                    loop {
                        working.store(true, Ordering::SeqCst);
                        turn.cancelled().await;
                        tokio::task::yield_now().await;
                        working.store(false, Ordering::SeqCst);
                        match halt.arrive().await {
                            Some(next) => turn = next,
                            None => return,
                        }
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            let halted = halt.halt().await.unwrap();
            tokio::task::yield_now().await;
            assert!(working.iter().all(|working| !working.load(Ordering::SeqCst)));
            drop(halted);
            while working.iter().any(|working| !working.load(Ordering::SeqCst)) {
                tokio::task::yield_now().await;
            }
        }
        stop.cancel();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

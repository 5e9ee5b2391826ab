//! Makes the workers of a receiver leave their lanes for a moment, so that somebody else can move the cursors.
//!
//! A worker works in *turns*. When its turn is cancelled it ends what it can't leave half done, gives up the rest, arrives
//! here and waits for the next turn, which it begins at the cursors as they are then.

use std::sync::Arc;
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
    turn: watch::Sender<Turn>,
    /// One halt at a time.
    one: Arc<tokio::sync::Mutex<()>>,
    /// How many workers there are.
    workers: usize,
    /// Longest time that a call may take.
    deadline: Duration,
}

#[derive(Debug)]
struct Turn {
    number: u64,
    /// Cancelled when the lanes are to be left.
    token: CancellationToken,
    /// How many workers have left them since.
    arrived: usize,
}

impl Halt {
    /// The turns of so many workers, until `stop`. Their calls take `deadline` at most.
    pub fn new(workers: usize, deadline: Duration, stop: CancellationToken) -> Halt {
        let turn = watch::Sender::new(Turn { number: 0, token: stop.child_token(), arrived: 0 });
        Halt { stop, turn, one: Arc::default(), workers, deadline }
    }

    /// The current turn.
    pub fn turn(&self) -> CancellationToken {
        self.turn.borrow().token.clone()
    }

    /// A worker has left its lanes. Waits for the next turn, unless the server stops. There is no wait for one that was too
    /// late for a halt: nobody counts on it any more.
    pub async fn arrive(&self) -> Option<CancellationToken> {
        let mut turns = self.turn.subscribe();
        let mut number = None;
        self.turn.send_if_modified(|turn| {
            if turn.token.is_cancelled() {
                turn.arrived += 1;
                number = Some(turn.number);
            }
            number.is_some()
        });
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            // By its number, because whoever looks late may see the next halt. The sender lives as long as this.
            _ = turns.wait_for(|turn| Some(turn.number) != number) => Some(self.turn()),
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
        self.turn().cancel();
        let waited = self.deadline.saturating_add(ARRIVAL_GRACE);
        let mut turns = self.turn.subscribe();
        match timeout(waited, turns.wait_for(|turn| turn.arrived >= self.workers)).await {
            Ok(_) => Ok(halted),
            Err(_) => Err(HaltError { waited }),
        }
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
        self.halt.turn.send_modify(|turn| {
            *turn =
                Turn { number: turn.number.wrapping_add(1), token: self.halt.stop.child_token(), arrived: 0 };
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt;

    use super::*;

    /// Workers that are in their lanes whenever they may be, and whether each of them is.
    fn workers(halt: &Arc<Halt>, count: usize) -> (Vec<Arc<AtomicBool>>, Vec<tokio::task::JoinHandle<()>>) {
        let working: Vec<_> = (0..count).map(|_| Arc::new(AtomicBool::new(false))).collect();
        let work = |working: &Arc<AtomicBool>| {
            let (halt, working) = (halt.clone(), working.clone());
            tokio::spawn(async move {
                let mut turn = halt.turn();
                loop {
                    working.store(true, Ordering::SeqCst);
                    turn.cancelled().await;
                    working.store(false, Ordering::SeqCst);
                    match halt.arrive().await {
                        Some(next) => turn = next,
                        None => return,
                    }
                }
            })
        };
        let tasks = working.iter().map(work).collect();
        (working, tasks)
    }

    #[tokio::test]
    async fn workers_are_out_of_their_lanes_while_it_is_halted_and_only_then() {
        let stop = CancellationToken::new();
        let halt = Arc::new(Halt::new(3, Duration::ZERO, stop.clone()));
        let (working, tasks) = workers(&halt, 3);
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

    #[tokio::test]
    async fn a_halt_may_follow_another_before_the_workers_have_gone_on() {
        let stop = CancellationToken::new();
        let halt = Arc::new(Halt::new(3, Duration::ZERO, stop.clone()));
        let (working, tasks) = workers(&halt, 3);
        for _ in 0..100 {
            let _halted = halt.halt().await.unwrap();
            assert!(working.iter().all(|working| !working.load(Ordering::SeqCst)));
        }
        stop.cancel();
        for task in tasks {
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_worker_that_is_late_for_a_halt_that_was_given_up_goes_on() {
        let halt = Arc::new(Halt::new(1, Duration::ZERO, CancellationToken::new()));
        let turn = halt.turn();
        assert!(halt.halt().now_or_never().is_none());
        assert!(turn.is_cancelled());
        let next = halt.arrive().now_or_never().expect("nobody waits for it").unwrap();
        assert!(!next.is_cancelled());
        // And it does not count for the next halt.
        assert!(halt.halt().now_or_never().is_none());
    }
}

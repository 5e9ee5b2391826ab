//! Makes the workers of a receiver leave their lanes for a moment, so that somebody else can move the cursors or take their
//! instances.
//!
//! A worker works in *turns*. When it is to leave, it ends what it can't leave half done, gives up the rest, arrives here,
//! lays its instance down and waits for the next turn, which it begins at the cursors as they are then.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use wharf_host::Instance;

/// How long workers may take to leave their lanes beyond a running call: they have to be waited for by a disk at most.
const ARRIVAL_GRACE: Duration = Duration::from_secs(10);

/// Workers did not leave their lanes in time.
#[derive(Debug, Error)]
#[error("stop a receiver between two batches: it was still working after {waited:?}")]
pub struct HaltError {
    /// How long it was waited for.
    pub waited: Duration,
}

/// What tells a worker to leave its lanes.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Cancelled when it is to leave them after the call that is running.
    pub leave: CancellationToken,
    /// Cancelled when it is to end that call as well.
    pub abandon: CancellationToken,
}

/// How long a call that is running is waited for, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it may take.
    UntilDone,
    /// So long; then nothing comes of the halt.
    Within(Duration),
    /// So long; then the call is ended, and its instance with it.
    ThenAbandon(Duration),
}

/// The turns of one receiver's workers.
pub struct Halt {
    stop: CancellationToken,
    turn: watch::Sender<Numbered>,
    /// One halt at a time.
    one: Arc<tokio::sync::Mutex<()>>,
    /// By worker, the instances of those that have arrived, and when they did.
    laid_down: Mutex<Vec<LaidDown>>,
    /// Longest time that a call may take.
    deadline: Duration,
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    turn: Turn,
    /// How many workers have left their lanes since.
    arrived: usize,
}

/// What a worker that has arrived leaves here.
struct LaidDown {
    instance: Option<Instance>,
    at: Instant,
    /// Whether the instance was made anew after a fault, so that it knows nothing of before.
    is_anew: bool,
}

impl Turn {
    fn begin(stop: &CancellationToken) -> Turn {
        // A server that stops waits for running calls.
        Turn { leave: stop.child_token(), abandon: CancellationToken::new() }
    }
}

impl Halt {
    /// The turns of so many workers, until `stop`. Their calls take `deadline` at most.
    pub fn new(workers: usize, deadline: Duration, stop: CancellationToken) -> Halt {
        let turn = watch::Sender::new(Numbered { number: 0, turn: Turn::begin(&stop), arrived: 0 });
        let nothing = || LaidDown { instance: None, at: Instant::now(), is_anew: false };
        let laid_down = Mutex::new((0..workers).map(|_| nothing()).collect());
        Halt { stop, turn, one: Arc::default(), laid_down, deadline }
    }

    /// The current turn.
    pub fn turn(&self) -> Turn {
        self.turn.borrow().turn.clone()
    }

    /// A worker has left its lanes, and lays its instance down, which may have been made anew after a fault. Gives the next turn, unless the receiver stops, and the instance
    /// if nobody took it. There is no wait for one that was too late for a halt: nobody counts on it any more.
    pub async fn arrive(
        &self,
        worker: usize,
        instance: Option<Instance>,
        is_anew: bool,
    ) -> (Option<Turn>, Option<Instance>) {
        let mut turns = self.turn.subscribe();
        let (mut number, mut instance) = (None, instance);
        self.turn.send_if_modified(|current| {
            if current.turn.leave.is_cancelled() {
                // Before it counts as arrived: whoever waits for that may take it at once.
                if let Some(place) = self.laid_down().get_mut(worker) {
                    *place = LaidDown { instance: instance.take(), at: Instant::now(), is_anew };
                }
                current.arrived += 1;
                number = Some(current.number);
            }
            number.is_some()
        });
        let turn = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            // By its number, because whoever looks late may see the next halt. The sender lives as long as this.
            _ = turns.wait_for(|current| Some(current.number) != number) => Some(self.turn()),
        };
        (turn, instance.or_else(|| self.laid_down().get_mut(worker).and_then(|place| place.instance.take())))
    }

    /// Makes all workers leave their lanes, until the result is dropped.
    ///
    /// # Errors
    ///
    /// When a worker takes longer than that. All go on then.
    pub async fn halt(self: &Arc<Self>, patience: Patience) -> Result<Halted, HaltError> {
        let one = self.one.clone().lock_owned().await;
        let halted = Halted { halt: self.clone(), _one: one };
        let turn = self.turn();
        turn.leave.cancel();
        let first = match patience {
            Patience::UntilDone => self.deadline.saturating_add(ARRIVAL_GRACE),
            Patience::Within(time) | Patience::ThenAbandon(time) => time,
        };
        if self.all_arrive_within(first).await {
            return Ok(halted);
        }
        if let Patience::ThenAbandon(_) = patience {
            turn.abandon.cancel();
            if self.all_arrive_within(ARRIVAL_GRACE).await {
                return Ok(halted);
            }
            return Err(HaltError { waited: first.saturating_add(ARRIVAL_GRACE) });
        }
        Err(HaltError { waited: first })
    }

    async fn all_arrive_within(&self, time: Duration) -> bool {
        let workers = self.laid_down().len();
        let mut turns = self.turn.subscribe();
        timeout(time, turns.wait_for(|turn| turn.arrived >= workers)).await.is_ok()
    }

    fn laid_down(&self) -> MutexGuard<'_, Vec<LaidDown>> {
        // Each place changes as one value.
        self.laid_down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halt").field("turn", &*self.turn.borrow()).finish_non_exhaustive()
    }
}

/// While this is there, the workers of a receiver are not in their lanes.
#[derive(Debug)]
pub struct Halted {
    halt: Arc<Halt>,
    _one: OwnedMutexGuard<()>,
}

impl Halted {
    /// Takes the instances of the workers, in order; none where there is none.
    pub fn take_instances(&self) -> Vec<Option<Instance>> {
        self.halt.laid_down().iter_mut().map(|place| place.instance.take()).collect()
    }

    /// Whose instances were made anew after a fault, by worker.
    pub fn made_anew(&self) -> Vec<bool> {
        self.halt.laid_down().iter().map(|place| place.is_anew).collect()
    }

    /// Gives them back.
    pub fn put_back(&self, instances: Vec<Option<Instance>>) {
        for (place, instance) in self.halt.laid_down().iter_mut().zip(instances) {
            place.instance = instance;
        }
    }

    /// When each worker arrived.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.halt.laid_down().iter().map(|place| place.at).collect()
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        self.halt.turn.send_modify(|current| {
            let number = current.number.wrapping_add(1);
            let mut turn = Turn::begin(&self.halt.stop);
            if !current.turn.abandon.is_cancelled() {
                // A worker that was too late is in its call still, and the next halt may end that.
                turn.abandon = current.turn.abandon.clone();
            }
            *current = Numbered { number, turn, arrived: 0 };
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
        let work = |(worker, working): (usize, &Arc<AtomicBool>)| {
            let (halt, working) = (halt.clone(), working.clone());
            tokio::spawn(async move {
                let mut turn = halt.turn();
                loop {
                    working.store(true, Ordering::SeqCst);
                    turn.leave.cancelled().await;
                    working.store(false, Ordering::SeqCst);
                    match halt.arrive(worker, None, false).await.0 {
                        Some(next) => turn = next,
                        None => return,
                    }
                }
            })
        };
        let tasks = working.iter().enumerate().map(work).collect();
        (working, tasks)
    }

    #[tokio::test]
    async fn workers_are_out_of_their_lanes_while_it_is_halted_and_only_then() {
        let stop = CancellationToken::new();
        let halt = Arc::new(Halt::new(3, Duration::ZERO, stop.clone()));
        let (working, tasks) = workers(&halt, 3);
        for _ in 0..100 {
            let halted = halt.halt(Patience::UntilDone).await.unwrap();
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
            let _halted = halt.halt(Patience::UntilDone).await.unwrap();
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
        assert!(halt.halt(Patience::UntilDone).now_or_never().is_none());
        assert!(turn.leave.is_cancelled());
        let next = halt.arrive(0, None, false).now_or_never().expect("nobody waits for it").0.unwrap();
        assert!(!next.leave.is_cancelled());
        // And it does not count for the next halt.
        assert!(halt.halt(Patience::UntilDone).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_abandoned_only_if_that_is_wanted() {
        let halt = Arc::new(Halt::new(1, Duration::from_secs(60), CancellationToken::new()));
        let stuck = tokio::spawn({
            let halt = halt.clone();
            async move {
                let mut turn = halt.turn();
                loop {
                    // A call that does not end.
                    turn.abandon.cancelled().await;
                    match halt.arrive(0, None, false).await.0 {
                        Some(next) => turn = next,
                        None => return,
                    }
                }
            }
        });
        let soon = Duration::from_millis(20);
        assert_eq!(
            halt.halt(Patience::ThenAbandon(soon)).await.map(drop).map_err(|error| error.waited),
            Ok(())
        );
        stuck.abort();
        let stuck = Halt::new(1, Duration::from_secs(60), CancellationToken::new());
        assert_eq!(Arc::new(stuck).halt(Patience::Within(soon)).await.unwrap_err().waited, soon);
    }
}

//! Which dead letters are to be given to their receiver again: numbers only, until a worker takes one and reads it.
//!
//! Nothing of this is kept over a restart: a letter whose redrive has not ended is a dead letter as before.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use wharf_log::{Lane, LaneSet};

/// Dead letters of one receiver that are to be given to it again, by worker; filled by operators, emptied by workers.
///
/// A number is in here once at most, so there are no more than a receiver has dead letters (`dead-letters`), and those that
/// were dropped are [forgotten](Redrives::forget).
#[derive(Debug)]
pub struct Redrives {
    workers: Vec<(LaneSet, Notify)>,
    queues: Mutex<Queues>,
}

#[derive(Debug)]
struct Queues {
    /// What waits for some worker, or is postponed.
    queued: HashSet<u64>,
    of_workers: Vec<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<u64>,
    /// What is to be tried again, and when.
    postponed: Vec<(Instant, u64)>,
    /// What the worker took last, until the redrive is over: it may not have begun yet.
    taken: Option<u64>,
}

impl Redrives {
    /// Empty queues for workers that own these lanes.
    pub fn new(lanes_of_workers: Vec<LaneSet>) -> Redrives {
        let of_workers = lanes_of_workers.iter().map(|_| Queue::default()).collect();
        Redrives {
            workers: lanes_of_workers.into_iter().map(|lanes| (lanes, Notify::new())).collect(),
            queues: Mutex::new(Queues { queued: HashSet::new(), of_workers }),
        }
    }

    /// Queues them, each once, for the worker that owns its lane; gives how many were not queued already.
    pub fn queue(&self, letters: impl IntoIterator<Item = (u64, Lane)>) -> usize {
        let mut added = 0_usize;
        let mut queues = self.lock();
        for (id, lane) in letters {
            let owner = self.workers.iter().position(|(lanes, _)| lanes.contains(lane));
            let Some((worker, (_, more))) = owner.and_then(|owner| Some((owner, self.workers.get(owner)?)))
            else {
                continue;
            };
            let Queues { queued, of_workers } = &mut *queues;
            let Some(queue) = of_workers.get_mut(worker) else { continue };
            if queue.taken != Some(id) && queued.insert(id) {
                queue.waiting.push_back(id);
                added = added.saturating_add(1);
                more.notify_one();
            }
        }
        added
    }

    /// The next for this worker, if its time has come. Whoever takes it begins the redrive at once, and asks for another only
    /// when that is over.
    pub fn take(&self, worker: usize) -> Option<u64> {
        let mut queues = self.lock();
        let Queues { queued, of_workers } = &mut *queues;
        let queue = of_workers.get_mut(worker)?;
        let now = Instant::now();
        queue.taken = match queue.postponed.iter().position(|(due, _)| *due <= now) {
            Some(due) => Some(queue.postponed.swap_remove(due).1),
            None => queue.waiting.pop_front(),
        };
        if let Some(id) = &queue.taken {
            queued.remove(id);
        }
        queue.taken
    }

    /// Waits for the next for this worker, and takes it. Dropping the future loses none.
    pub async fn next(&self, worker: usize) -> u64 {
        loop {
            if let Some(id) = self.take(worker) {
                return id;
            }
            self.ready(worker).await;
        }
    }

    /// The redrive that this worker took is over, whatever came of it.
    pub fn over(&self, worker: usize) {
        if let Some(queue) = self.lock().of_workers.get_mut(worker) {
            queue.taken = None;
        }
    }

    /// Puts back what this worker took: it is the worker's again after a pause.
    pub fn postpone(&self, worker: usize, id: u64, pause: Duration) {
        let mut queues = self.lock();
        let Queues { queued, of_workers } = &mut *queues;
        if let Some(queue) = of_workers.get_mut(worker)
            && queued.insert(id)
        {
            queue.postponed.push((Instant::now() + pause, id));
        }
    }

    /// Waits until there may be one for this worker.
    async fn ready(&self, worker: usize) {
        let Some((_, more)) = self.workers.get(worker) else { return std::future::pending().await };
        let due = {
            let queues = self.lock();
            let queue = queues.of_workers.get(worker);
            queue.and_then(|queue| queue.postponed.iter().map(|(due, _)| *due).min())
        };
        let due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A permit is kept for what was queued since it was last asked.
            () = more.notified() => {}
            () = due => {}
        }
    }

    /// Those that are waiting for a worker, or that one has just taken.
    pub fn queued(&self) -> HashSet<u64> {
        let queues = self.lock();
        // A copy of the table as it is takes milliseconds for a million, which is what a listing can afford for each page.
        let mut queued = queues.queued.clone();
        queued.extend(queues.of_workers.iter().filter_map(|queue| queue.taken));
        queued
    }

    /// Takes out those that are waiting and not dead letters any more.
    pub fn forget(&self, ids: &[u64]) {
        let mut queues = self.lock();
        let Queues { queued, of_workers } = &mut *queues;
        let forgotten: HashSet<u64> = ids.iter().copied().filter(|id| queued.remove(id)).collect();
        if !forgotten.is_empty() {
            for queue in of_workers {
                queue.waiting.retain(|id| !forgotten.contains(id));
                queue.postponed.retain(|(_, id)| !forgotten.contains(id));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Nothing here panics between two steps of one change.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use futures_util::FutureExt;

    use super::*;

    fn two_workers() -> Redrives {
        let two = NonZeroUsize::new(2).unwrap();
        Redrives::new((0..2).map(|index| LaneSet::owned_by(index, two)).collect())
    }

    fn lane(index: u8) -> Lane {
        Lane::new(index).unwrap()
    }

    #[test]
    fn each_is_queued_once_for_the_worker_that_owns_its_lane() {
        let redrives = two_workers();
        assert_eq!(redrives.queue([(7, lane(0)), (3, lane(1)), (7, lane(0)), (9, lane(62))]), 3);
        assert_eq!(redrives.queue([(9, lane(62)), (4, lane(63))]), 1);
        assert_eq!([redrives.take(0), redrives.take(0), redrives.take(0)], [Some(7), Some(9), None]);
        assert_eq!([redrives.take(1), redrives.take(1), redrives.take(1)], [Some(3), Some(4), None]);
        assert_eq!(redrives.take(2), None, "there is no such worker");
    }

    #[test]
    fn what_was_taken_can_be_queued_again_when_its_redrive_is_over() {
        let redrives = two_workers();
        redrives.queue([(7, lane(0))]);
        assert_eq!(redrives.take(0), Some(7));
        assert_eq!(redrives.queue([(7, lane(0))]), 0);
        redrives.over(0);
        assert_eq!(redrives.queue([(7, lane(0))]), 1);
        assert_eq!(redrives.take(0), Some(7));
    }

    #[test]
    fn one_that_was_just_taken_still_counts_until_its_worker_asks_again_or_it_is_over() {
        let redrives = two_workers();
        redrives.queue([(7, lane(0)), (8, lane(1))]);
        assert_eq!(redrives.take(0), Some(7));
        assert_eq!(redrives.queued(), HashSet::from([7, 8]));
        assert!(redrives.next(0).now_or_never().is_none());
        assert_eq!(redrives.queued(), HashSet::from([8]));
        assert_eq!(redrives.take(1), Some(8));
        redrives.over(1);
        assert_eq!(redrives.queued(), HashSet::new());
    }

    #[tokio::test]
    async fn what_is_postponed_comes_again_before_others_and_counts_meanwhile() {
        let redrives = two_workers();
        redrives.queue([(1, lane(0)), (2, lane(0)), (3, lane(0))]);
        assert_eq!(redrives.take(0), Some(1));
        redrives.postpone(0, 1, Duration::ZERO);
        assert_eq!([redrives.take(0), redrives.take(0)], [Some(1), Some(2)]);
        redrives.postpone(0, 2, Duration::from_secs(3600));
        assert_eq!(redrives.queue([(2, lane(0))]), 0);
        assert_eq!([redrives.take(0), redrives.take(0)], [Some(3), None]);
        assert_eq!(redrives.queued(), HashSet::from([2]));
        redrives.forget(&[2]);
        assert_eq!(redrives.queued(), HashSet::new());
        redrives.postpone(0, 3, Duration::from_millis(1));
        assert_eq!(redrives.next(0).await, 3);
    }

    #[test]
    fn one_that_was_dropped_is_not_given_to_a_worker() {
        let redrives = two_workers();
        redrives.queue([(1, lane(0)), (2, lane(0)), (3, lane(0))]);
        redrives.forget(&[2, 5]);
        assert_eq!(redrives.queued(), HashSet::from([1, 3]));
        assert_eq!([redrives.take(0), redrives.take(0), redrives.take(0)], [Some(1), Some(3), None]);
    }

    #[tokio::test]
    async fn a_worker_waits_for_its_own() {
        let redrives = two_workers();
        let mut first = Box::pin(redrives.next(0));
        let mut second = Box::pin(redrives.next(1));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        redrives.queue([(1, lane(1))]);
        assert_eq!(second.await, 1);
        assert!(first.as_mut().now_or_never().is_none());
        redrives.queue([(2, lane(0))]);
        drop(first);
        assert_eq!(redrives.next(0).await, 2, "nothing was lost with who waited");
    }
}

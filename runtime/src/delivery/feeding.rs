//! One receiver that is being fed by one version of its component: its workers, what bounds its backlogs, and what belongs to
//! both. Another version, or other settings, are another one of these, with the same cursors.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wharf_host::{Instance, Receiver};
use wharf_log::{LaneSet, Topic};
use wharf_state::{KeyValue, State};

use super::backlog::Backlog;
use super::breaker::Breaker;
use super::burial::Burials;
use super::controls::Steered;
use super::halt::Halt;
use super::progress::Progress;
use super::redrive::Redrives;
use super::source::Source;
use super::status::Status;
use super::worker::{Parts, Worker};
use super::{Feed, Mapped};
use crate::config;
use crate::telemetry::Metrics;

/// A receiver that is being fed.
pub struct Feeding {
    /// Which one of all receivers it is: each has a higher number than those before it.
    pub version: u64,
    /// Its settings.
    pub settings: config::Receiver,
    /// Its component, loaded.
    pub receiver: Receiver,
    /// What can be said of it.
    pub status: Arc<Status>,
    /// What an operator can steer.
    pub steered: Arc<Steered>,
    /// The data types mapped to it, and its cursors in them.
    pub mapped: Mapped,
    stop: CancellationToken,
    workers: TaskTracker,
    backlogs: TaskTracker,
}

/// One that is about to be fed.
pub struct Prepared {
    feeding: Feeding,
    workers: Vec<Worker>,
    backlogs: Vec<Backlog>,
}

/// What it takes to feed a receiver, whichever it is.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where cursors, dead letters and gaps are written down.
    pub state: State,
    /// What receivers keep, if one of them may.
    pub keyvalue: Option<KeyValue>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The number of the next version of any receiver.
    pub versions: Arc<AtomicU64>,
    /// Where guests run.
    pub guests: Handle,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

/// What one begins with.
#[derive(Default)]
pub struct Inherited<'a> {
    /// The one before it, whose numbers go on.
    pub before: Option<&'a Feeding>,
    /// The instances that are there already, by worker.
    pub instances: Vec<Instance>,
}

impl Feeding {
    /// Makes what feeds a receiver. Nothing is called and nothing is read yet.
    pub fn prepare(
        (settings, receiver): (config::Receiver, Receiver),
        mapped: Mapped,
        paused: bool,
        Inherited { before, instances }: Inherited,
        means: &Means,
    ) -> Prepared {
        let mut instances = instances.into_iter();
        let version = means.versions.fetch_add(1, Ordering::Relaxed);
        let stop = means.stop.child_token();
        let topics: Vec<(Topic, Arc<Progress>)> =
            mapped.iter().map(|(feed, progress)| (feed.topic.clone(), progress.clone())).collect();
        let workers = NonZeroUsize::new(settings.instances).unwrap_or(NonZeroUsize::MIN);
        let lanes_of_workers: Vec<_> =
            (0..workers.get()).map(|index| LaneSet::owned_by(index, workers)).collect();
        let breaker = Arc::new(Breaker::new(&settings, paused));
        let redrives = match before {
            // What is queued is queued by worker.
            Some(before) if before.settings.instances == settings.instances => {
                before.steered.redrives.clone()
            }
            _ => Arc::new(Redrives::new(lanes_of_workers.clone())),
        };
        let halt = Arc::new(Halt::new(workers.get(), settings.deadline, stop.clone()));
        let steered = Arc::new(Steered {
            breaker: breaker.clone(),
            redrives: redrives.clone(),
            halt: halt.clone(),
            topics: topics.clone(),
        });
        let status = Arc::new(Status::new(
            &settings,
            receiver.digest(),
            topics,
            breaker.clone(),
            &means.metrics,
            before.map(|before| &*before.status),
        ));
        let worker = |(index, lanes)| {
            let source = |(feed, progress): &(Feed, Arc<Progress>)| {
                Source::new(feed, lanes, progress.clone(), settings.retry_pause)
            };
            let parts = Parts {
                index,
                lanes,
                sources: mapped.iter().map(source).collect(),
                status: status.clone(),
                breaker: breaker.clone(),
                burials: Burials::new(
                    &settings,
                    receiver.digest(),
                    means.state.clone(),
                    means.keyvalue.clone(),
                    status.clone(),
                ),
                redrives: redrives.clone(),
                halt: halt.clone(),
                instance: instances.next(),
                version,
                stop: stop.clone(),
            };
            Worker::new(receiver.clone(), &settings, parts)
        };
        let workers = lanes_of_workers.into_iter().enumerate().map(worker).collect();
        let backlog = |(feed, progress): &(Feed, Arc<Progress>)| {
            Backlog::new(&settings, feed, progress.clone(), &means.metrics)
        };
        let backlogs = mapped.iter().map(backlog).collect();
        let feeding = Feeding {
            version,
            settings,
            receiver,
            status,
            steered,
            mapped,
            stop,
            workers: TaskTracker::new(),
            backlogs: TaskTracker::new(),
        };
        Prepared { feeding, workers, backlogs }
    }

    /// The lanes of one of its workers.
    pub fn lanes_of(&self, worker: usize) -> LaneSet {
        LaneSet::owned_by(worker, NonZeroUsize::new(self.settings.instances).unwrap_or(NonZeroUsize::MIN))
    }

    /// Makes it end between batches, and not read on. Those of its workers whose instance nobody took end it in an orderly way.
    pub fn end(&self) {
        self.stop.cancel();
    }

    /// Waits until its workers have ended.
    pub async fn workers_ended(&self) {
        self.workers.wait().await;
    }

    /// Waits until nothing bounds its backlogs any more.
    pub async fn backlogs_ended(&self) {
        self.backlogs.wait().await;
    }
}

impl Prepared {
    /// What it will be.
    pub fn feeding(&self) -> &Feeding {
        &self.feeding
    }

    /// Starts to feed.
    pub fn start(self, means: &Means) -> Arc<Feeding> {
        let Prepared { feeding, workers, backlogs } = self;
        for worker in workers {
            let status = worker.status();
            let fed = AssertUnwindSafe(worker.run()).catch_unwind();
            let watched = async move {
                // A defect of ours, which has said on standard error what it is: it must not look like work.
                if fed.await.is_err() {
                    status.broken();
                    tracing::error!(
                        receiver.name = status.name,
                        "a worker panicked; its receiver is not fed until the server is started again"
                    );
                }
            };
            feeding.workers.spawn_on(watched, &means.guests);
        }
        feeding.workers.close();
        for backlog in backlogs {
            let bounded = backlog.run(means.state.clone(), means.keyvalue.clone(), feeding.stop.clone());
            // Not where guests run, so that one that keeps its threads busy is bounded all the same.
            feeding.backlogs.spawn(bounded);
        }
        feeding.backlogs.close();
        Arc::new(feeding)
    }
}

impl fmt::Debug for Feeding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feeding").field("status", &self.status).finish_non_exhaustive()
    }
}

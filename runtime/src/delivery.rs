//! Feeds receivers: for each instance of each receiver one task that reads the lanes it owns, makes batches, calls the
//! component and moves the cursors.
//!
//! A receiver is fed at its own pace from the log; nothing here can delay an agent or another receiver. What a call gives
//! back decides what happens to each message of the batch:
//!
//! | `handle` gives | then |
//! |---|---|
//! | an empty list | every message is finished |
//! | failures | messages not listed are finished; a `retry` waits and is delivered again; a `reject` becomes a dead letter |
//! | a fault: trap, deadline, memory, an answer that can't be right | the instance is made anew and the messages are delivered again by halves, the left one first, until the one that faults is alone; it waits, and when it has failed alone `max-attempts` times it becomes a dead letter |
//! | a time-out in a host call | the instance is made anew and all of them are delivered again after a pause; nothing counts against them |
//!
//! While a message waits, later ones of its agent are parked: they wait behind it, so order per agent holds, and the other
//! agents go on. Changes of presence are delivered in the same way as messages, to components that want to know; ticks come
//! between batches. Before every call the receiver's [breaker] is asked.

mod backlog;
mod batch;
mod breaker;
mod burial;
mod caller;
mod controls;
mod halt;
mod progress;
mod quota;
mod redrive;
mod source;
mod status;
mod waiting;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wharf_log::{Durability, LaneSet, Topic};
use wharf_state::{KeyValue, State, StateError};

use crate::config;
use crate::data_dir::{DataDir, DataDirError};
use crate::gate::Gate;
use crate::telemetry::Metrics;
use backlog::Backlog;
use breaker::Breaker;
use burial::Burials;
use controls::Steered;
pub use controls::{
    ControlError, Controls, LetterState, Letters, Page, Queued, SeekTo, Shown, Sought, Which,
};
use halt::Halt;
use progress::{Keeper, Progress};
use redrive::Redrives;
use source::Source;
pub use status::{Lag, ReceiverState, Status};
use worker::{Parts, Worker};

/// The longest pause before a message or an instance is tried again on our own account.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The server stops: what is not finished stays in the log.
struct Stopped;

/// Does the work, unless the server stops first.
async fn or_stop<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Result<T, Stopped> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Stopped),
        done = work => Ok(done),
    }
}

/// Why deliveries can't start.
#[derive(Debug, Error)]
pub enum DeliveryError {
    /// The cursors can't be read or a first one can't be written.
    #[error("take up the cursors of receiver {receiver:?} in {topic:?}")]
    Cursors {
        /// The receiver.
        receiver: String,
        /// The data type.
        topic: String,
        /// What the state database said.
        #[source]
        source: Box<StateError>,
    },
    /// What is known of receivers can't be read or written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A cursor is where the log has never been.
    #[error(
        "take up the cursors: that of receiver {receiver:?} in {topic:?} stands at offset {next}, but the log has never given out an offset above {reserved}: the log and the state of this data directory do not belong together. Restore both from the same backup, or remove the folder `state` to let every receiver start at the end of the log"
    )]
    CursorBeyondLog {
        /// The receiver.
        receiver: String,
        /// The data type.
        topic: String,
        /// Where the cursor stands.
        next: u64,
        /// The bound of the log.
        reserved: u64,
    },
}

/// One receiver that is ready to be fed.
pub struct Fed {
    /// Its settings.
    pub settings: config::Receiver,
    /// Its component, loaded.
    pub receiver: wharf_host::Receiver,
}

/// A topic as deliveries need to know it.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The topic.
    pub topic: Topic,
    /// How durable its records, and so its cursors, are.
    pub durability: Durability,
    /// Shut while it is to take no new messages.
    pub gate: Gate,
    /// Messages below this offset may have been delivered by an earlier run that could not save its cursors.
    pub again_below: u64,
}

/// All deliveries of a server.
#[derive(Debug)]
pub struct Delivery {
    statuses: Vec<Arc<Status>>,
    controls: Arc<Controls>,
    progress: Vec<Arc<Progress>>,
    workers: TaskTracker,
    backlogs: TaskTracker,
    keeper: tokio::task::JoinHandle<bool>,
    stop: CancellationToken,
    saved: CancellationToken,
}

/// Receivers whose cursors are taken up, not yet fed.
pub struct Prepared {
    workers: Vec<Worker>,
    backlogs: Vec<Backlog>,
    statuses: Vec<Arc<Status>>,
    controls: Controls,
    progress: Vec<Arc<Progress>>,
    stop: CancellationToken,
}

impl Prepared {
    /// Takes up the cursors of every receiver. One that is new to a type starts at the end of its topic, and that is
    /// written down durably before any message can arrive: from then on nothing is skipped. Blocks on the disk.
    pub fn new(
        receivers: Vec<Fed>,
        feeds: &HashMap<String, Feed>,
        data_dir: &Arc<DataDir>,
        state: &State,
        keyvalue: Option<&KeyValue>,
        metrics: &Metrics,
    ) -> Result<Prepared, DeliveryError> {
        let mut prepared = Prepared {
            workers: Vec::new(),
            backlogs: Vec::new(),
            statuses: Vec::new(),
            controls: Controls::open(data_dir.clone(), state.clone(), keyvalue.cloned())?,
            progress: Vec::new(),
            stop: CancellationToken::new(),
        };
        let mut known: BTreeSet<(String, String)> = data_dir.known_receivers()?.into_iter().collect();
        let known_before = known.len();
        for Fed { settings, receiver } in receivers {
            let mut taken_up = Vec::new();
            for data_type in &settings.types {
                // The config has been checked: every mapped type is configured.
                if let Some(feed) = feeds.get(data_type) {
                    let pair = (settings.name.clone(), data_type.clone());
                    let is_known = known.contains(&pair);
                    let progress = Arc::new(Progress::take_up(&settings, data_type, feed, is_known, state)?);
                    if feed.durability != Durability::Memory {
                        known.insert(pair);
                    }
                    prepared.progress.push(progress.clone());
                    prepared.backlogs.push(Backlog::new(&settings, feed, progress.clone(), metrics));
                    taken_up.push((data_type.clone(), feed.clone(), progress));
                }
            }
            let topics: Vec<_> =
                taken_up.iter().map(|(_, feed, progress)| (feed.topic.clone(), progress.clone())).collect();
            let paused = prepared.controls.starts_paused(&settings.name);
            let breaker = Arc::new(Breaker::new(&settings, paused));
            let instances = NonZeroUsize::new(settings.instances).unwrap_or(NonZeroUsize::MIN);
            let lanes_of_workers: Vec<_> =
                (0..instances.get()).map(|index| LaneSet::owned_by(index, instances)).collect();
            let redrives = Arc::new(Redrives::new(lanes_of_workers.clone()));
            let halt = Arc::new(Halt::new(instances.get(), settings.deadline, prepared.stop.clone()));
            let steered = Steered {
                breaker: breaker.clone(),
                redrives: redrives.clone(),
                halt: halt.clone(),
                topics: topics.clone(),
            };
            prepared.controls.add(&settings.name, steered);
            let status =
                Arc::new(Status::new(&settings, receiver.digest(), topics, breaker.clone(), metrics));
            for (index, lanes) in lanes_of_workers.into_iter().enumerate() {
                let source = |(data_type, feed, progress): &(String, Feed, Arc<Progress>)| {
                    Source::new(data_type, feed, lanes, progress.clone(), settings.retry_pause)
                };
                let parts = Parts {
                    index,
                    lanes,
                    sources: taken_up.iter().map(source).collect(),
                    status: status.clone(),
                    breaker: breaker.clone(),
                    burials: Burials::new(
                        &settings,
                        receiver.digest(),
                        state.clone(),
                        keyvalue.cloned(),
                        status.clone(),
                    ),
                    redrives: redrives.clone(),
                    halt: halt.clone(),
                    stop: prepared.stop.clone(),
                };
                prepared.workers.push(Worker::new(receiver.clone(), &settings, parts));
            }
            prepared.statuses.push(status);
        }
        if known.len() > known_before {
            data_dir.know_receivers(&known.into_iter().collect::<Vec<_>>())?;
        }
        Ok(prepared)
    }

    /// Starts to feed: guests run on `guests`, cursors are saved every `cursor_interval` from the current runtime, after what
    /// receivers have put into `keyvalue`.
    pub fn start(
        self,
        guests: &Handle,
        state: State,
        keyvalue: Option<KeyValue>,
        cursor_interval: Duration,
    ) -> Delivery {
        let Prepared { workers, backlogs: bounded, statuses, controls, progress, stop } = self;
        let tasks = TaskTracker::new();
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
            tasks.spawn_on(watched, guests);
        }
        tasks.close();
        // Not where guests run, so that one that keeps its threads busy is bounded all the same.
        let backlogs = TaskTracker::new();
        for backlog in bounded {
            backlogs.spawn(backlog.run(state.clone(), keyvalue.clone(), stop.clone()));
        }
        backlogs.close();
        let saved = CancellationToken::new();
        let keeper = Keeper::new(progress.clone(), state, keyvalue, cursor_interval);
        let keeper = tokio::spawn(keeper.run(saved.clone()));
        Delivery {
            statuses,
            controls: Arc::new(controls),
            progress,
            workers: tasks,
            backlogs,
            keeper,
            stop,
            saved,
        }
    }
}

impl Delivery {
    /// What can be said of each receiver now.
    pub fn statuses(&self) -> &[Arc<Status>] {
        &self.statuses
    }

    /// Says at any moment from where on some receiver still needs a topic; nothing if none is mapped to it.
    pub fn needed_from(&self) -> impl Fn(&str) -> Option<u64> + Send + use<> {
        let progress = self.progress.clone();
        move |topic| {
            let mapped = progress.iter().filter(|progress| progress.topic() == topic);
            mapped.map(|progress| progress.saved_lowest()).min()
        }
    }

    /// What an operator can do with the receivers.
    pub fn controls(&self) -> &Arc<Controls> {
        &self.controls
    }

    /// Stops between batches, lets instances end in an orderly way, and saves the cursors. A call that is running is
    /// waited for, as long as its receiver's own deadline says and not beyond `deadline`.
    ///
    /// Says whether the saved cursors tell all: if not, messages were delivered and not finished, by this run or one before
    /// it, or a cursor could not be saved, and what comes again must be marked as a redelivery.
    pub async fn stop(self, deadline: Instant) -> bool {
        self.stop.cancel();
        let ended = timeout_at(deadline, self.workers.wait()).await.is_ok();
        if !ended {
            tracing::warn!("receivers were still working when the time to stop was over");
        }
        // They end at once, but for a write that has begun.
        self.backlogs.wait().await;
        self.saved.cancel();
        let saved = self.keeper.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the task that saves cursors ended early");
            false
        });
        let interrupted = self.statuses.iter().any(|status| status.is_interrupted());
        let repeating = self.progress.iter().any(|progress| progress.is_repeating());
        ended && saved && !interrupted && !repeating
    }
}

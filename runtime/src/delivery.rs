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
mod exchange;
mod feeding;
mod feeds;
mod halt;
mod membership;
mod progress;
mod quota;
mod recent;
mod redrive;
mod source;
mod status;
mod waiting;
mod window;
mod worker;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use wharf_log::{Durability, Topic};
use wharf_state::{KeyValue, State, StateError};

use crate::config;
use crate::data_dir::{DataDir, DataDirError};
use crate::gate::Gate;
pub use controls::{
    ControlError, Controls, LetterState, Letters, Page, Queued, SeekTo, Shown, Sought, Which,
};
pub use exchange::{ExchangeError, Exchanged, Handover, OpenWindow, Replacement, Terms};
use feeding::Inherited;
pub use feeding::{Feeding, Means};
pub use feeds::Feeds;
pub use membership::{TakenPlaces, leaving};
pub use progress::Progress;
use progress::{Keeper, Keeping, Places};
pub use recent::Work;
pub use status::{Lag, ReceiverState, Status};
pub use window::Counts;

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
    means: Means,
    fed: RwLock<Vec<Arc<Feeding>>>,
    controls: Arc<Controls>,
    places: Arc<Places>,
    keeper: Keeping,
    /// Whether a version that is not fed any more left messages given and not finished, and nobody knows which.
    interrupted: AtomicBool,
}

/// The data types of a receiver, and its cursors in them.
pub type Mapped = Vec<(Feed, Arc<Progress>)>;

/// Receivers whose cursors are taken up, not yet fed.
pub struct TakenUp {
    receivers: Vec<(Fed, Mapped)>,
    controls: Controls,
}

impl TakenUp {
    /// Takes up the cursors of every receiver. One that is new to a type starts at the end of its topic, and that is
    /// written down durably before any message can arrive: from then on nothing is skipped. Blocks on the disk.
    pub fn new(
        receivers: Vec<Fed>,
        feeds: &Feeds,
        data_dir: &Arc<DataDir>,
        state: &State,
        keyvalue: Option<&KeyValue>,
    ) -> Result<TakenUp, DeliveryError> {
        let controls = Controls::open(data_dir.clone(), state.clone(), keyvalue.cloned())?;
        let mut known: BTreeSet<(String, String)> = data_dir.known_receivers()?.into_iter().collect();
        let known_before = known.len();
        let mut taken_up = Vec::new();
        for fed in receivers {
            let mut mapped = Vec::new();
            for data_type in &fed.settings.types {
                // The config has been checked: every mapped type is configured.
                if let Some(feed) = feeds.get(data_type) {
                    let pair = (fed.settings.name.clone(), data_type.clone());
                    let is_known = known.contains(&pair);
                    let progress = Progress::take_up(&fed.settings, data_type, &feed, is_known, state)?;
                    if feed.durability != Durability::Memory {
                        known.insert(pair);
                    }
                    mapped.push((feed, Arc::new(progress)));
                }
            }
            taken_up.push((fed, mapped));
        }
        if known.len() > known_before {
            data_dir.know_receivers(&known.into_iter().collect::<Vec<_>>())?;
        }
        Ok(TakenUp { receivers: taken_up, controls })
    }

    /// Starts to feed. Cursors are saved every `cursor_interval` from the current runtime, after what receivers have put into their
    /// key-value store.
    pub fn start(self, means: Means, cursor_interval: Duration) -> Delivery {
        let TakenUp { receivers, controls } = self;
        let mut fed = Vec::new();
        let mut progress = Vec::new();
        for (Fed { settings, receiver }, mapped) in receivers {
            progress.extend(mapped.iter().map(|(_, progress)| progress.clone()));
            let paused = controls.starts_paused(&settings.name);
            let inherited = Inherited::default();
            let prepared = Feeding::prepare((settings, receiver), mapped, paused, inherited, &means);
            controls.put(&prepared.feeding().settings.name, prepared.feeding().steered.clone());
            fed.push(prepared.start(&means));
        }
        let places = Arc::new(Places::new(progress));
        let keeper =
            Keeper::new(places.clone(), means.state.clone(), means.keyvalue.clone(), cursor_interval);
        let keeper = Keeping::start(keeper);
        Delivery {
            means,
            fed: RwLock::new(fed),
            controls: Arc::new(controls),
            places,
            keeper,
            interrupted: AtomicBool::new(false),
        }
    }
}

impl Delivery {
    /// The receivers that are being fed now, in the order of the config.
    pub fn receivers(&self) -> Vec<Arc<Feeding>> {
        self.fed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one of that name.
    pub fn receiver(&self, name: &str) -> Option<Arc<Feeding>> {
        self.receivers().into_iter().find(|feeding| feeding.settings.name == name)
    }

    /// What can be said of each receiver now.
    pub fn statuses(&self) -> Vec<Arc<Status>> {
        self.receivers().iter().map(|feeding| feeding.status.clone()).collect()
    }

    /// Says at any moment from where on some receiver still needs a topic; nothing if none is mapped to it.
    pub fn needed_from(&self) -> impl Fn(&str) -> Option<u64> + Send + use<> {
        let places = self.places.clone();
        move |topic| places.needed_from(topic)
    }

    /// Cursors of a receiver as they are now, by data type.
    pub fn cursors(feeding: &Feeding) -> Vec<(String, wharf_state::Cursors)> {
        let cursors =
            |(feed, progress): &(Feed, Arc<Progress>)| (feed.topic.name().to_owned(), progress.cursors());
        feeding.mapped.iter().map(cursors).collect()
    }

    /// What must be known of a version when it is not fed any more.
    fn remember(&self, feeding: &Feeding) {
        self.interrupted.fetch_or(feeding.status.is_interrupted(), Ordering::AcqRel);
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
    pub async fn stop(&self, deadline: Instant) -> bool {
        self.means.stop.cancel();
        let receivers = self.receivers();
        let ending = async {
            for feeding in &receivers {
                feeding.workers_ended().await;
            }
        };
        let ended = timeout_at(deadline, ending).await.is_ok();
        if !ended {
            tracing::warn!("receivers were still working when the time to stop was over");
        }
        for feeding in &receivers {
            // They end at once, but for a write that has begun.
            feeding.backlogs_ended().await;
        }
        let saved = self.keeper.stop().await;
        receivers.iter().for_each(|feeding| self.remember(feeding));
        let interrupted = self.interrupted.load(Ordering::Acquire);
        let repeating = self.places.all().iter().any(|progress| progress.is_repeating());
        ended && saved && !interrupted && !repeating
    }
}

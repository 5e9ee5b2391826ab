//! Replaces receivers' components while messages flow, takes that back, and leaves a receipt of each: what becomes of a new
//! component from its file to its first message. How instances are exchanged is `delivery`'s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wharf_host::{Host, SavedState};
use wharf_state::{Cursors, State, StateError};

use crate::delivery::Delivery;
use crate::frontend::pages::PageReceivers;
use crate::telemetry::Metrics;
pub use carry_out::{Ready, chain};
use coming::AllComing;
pub use receipt::{Kind, Outcome, ProbationOutcome, Receipt};
pub use receipts::{Newest, Receipts};
pub use versions::{KeepError, Kept, Version, damaged};

mod carry_out;
mod coming;
mod probation;
mod receipt;
mod receipts;
pub mod renew;
mod settle;
pub mod start;
mod versions;
mod watch;

/// What an operator wants, or a part of the server.
#[derive(Clone, Debug)]
pub struct Order {
    /// Who.
    pub who: String,
    /// Whether the new component may import what needs a grant and what the old one does not import.
    pub allow_new_imports: bool,
    /// Whether the new version may begin without what the old one knows.
    pub drop_state: bool,
}

/// Why a swap did not take place.
#[derive(Debug, Error)]
pub enum SwapError {
    /// There is no such receiver.
    #[error("find the receiver {name:?}: the config has {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The component is the one that runs. Nothing is written down of that.
    #[error("swap the component of receiver {receiver:?}: it is {digest} already")]
    Unchanged {
        /// The receiver.
        receiver: String,
        /// The digest.
        digest: String,
    },
    /// There is none before.
    #[error(
        "roll back receiver {receiver:?}: there is no component before the one that runs, or it is not kept any more"
    )]
    NoneBefore {
        /// The receiver.
        receiver: String,
    },
    /// It was refused, which its receipt tells: the old version goes on.
    #[error("{} receiver {:?}: {}", .0.kind.what(), .0.receiver, .0.reason.as_deref().unwrap_or("refused"))]
    Refused(Box<Receipt>),
    /// The state database can't be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The server ends, or has a defect.
    #[error("wait for a task of the swap")]
    Task(#[from] tokio::task::JoinError),
}

/// What it takes to swap.
pub struct Parts {
    /// Loads components.
    pub host: Host,
    /// The largest file of a component.
    pub max_component_bytes: u64,
    /// What is fed.
    pub delivery: Arc<Delivery>,
    /// Where it is written down.
    pub state: State,
    /// The components that may be needed again.
    pub kept: Kept,
    /// Whose pages browsers see.
    pub pages: Arc<PageReceivers>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

/// The swaps of a server.
pub struct Swaps {
    parts: Parts,
    receipts: Arc<Receipts>,
    receivers: Mutex<HashMap<String, Arc<Place>>>,
    coming: AllComing,
    tasks: TaskTracker,
}

/// One receiver's swaps.
#[derive(Debug, Default)]
struct Place {
    /// Held by who exchanges it: one at a time.
    exchanging: Arc<tokio::sync::Mutex<()>>,
    /// What is being done.
    stage: Mutex<Option<&'static str>>,
    /// What the last exchange left.
    last: Mutex<Option<Last>>,
}

/// What an exchange leaves for the one after it.
#[derive(Debug)]
struct Last {
    /// The version that came, by its number.
    version: u64,
    /// What the one that went knew, by worker.
    snapshots: Vec<Option<SavedState>>,
    /// Where the cursors were.
    cursors: Vec<(String, Cursors)>,
    /// Ends its probation.
    probation: CancellationToken,
}

impl Swaps {
    /// No swap yet. Settles what an earlier run left unsettled. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the receipts can't be read or written.
    pub fn new(parts: Parts) -> Result<Arc<Swaps>, StateError> {
        let receipts = Arc::new(Receipts::open(parts.state.clone(), parts.metrics.clone())?);
        let (receivers, coming) = (Mutex::default(), AllComing::default());
        Ok(Arc::new(Swaps { parts, receipts, receivers, coming, tasks: TaskTracker::new() }))
    }

    /// The receipts.
    pub fn receipts(&self) -> &Arc<Receipts> {
        &self.receipts
    }

    /// What is being done with a receiver, if anything is: a stage of a swap, or its probation.
    pub fn stage(&self, receiver: &str) -> Option<&'static str> {
        let place = self.lock().get(receiver).cloned()?;
        let stage = *place.stage.lock().unwrap_or_else(PoisonError::into_inner);
        stage.or_else(|| place.last().as_ref().is_some_and(Last::is_on_probation).then_some(ON_PROBATION))
    }

    /// Waits until what is being settled has been given up. Called when the server stops.
    pub async fn stop(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn place(&self, receiver: &str) -> Arc<Place> {
        self.lock().entry(receiver.to_owned()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Place>>> {
        // Places are only added.
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage of a version that is compared with the one before it.
pub const ON_PROBATION: &str = "on probation";

impl Place {
    fn last(&self) -> MutexGuard<'_, Option<Last>> {
        // Replaced as a whole.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    fn is_on_probation(&self) -> bool {
        !self.probation.is_cancelled()
    }
}

impl std::fmt::Debug for Swaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swaps").finish_non_exhaustive()
    }
}

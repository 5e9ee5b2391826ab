//! Takes over a config that was changed while the server runs, without dropping a connection: receivers come, go, and go on with
//! other settings, other data types or another component.
//!
//! All or nothing: what can fail is done first, beside what works. Receivers are exchanged last, one after the other, as in a
//! swap and with a receipt each; if one of them fails there, those before it are exchanged back.

use std::collections::BTreeSet;
use std::sync::Arc;

use thiserror::Error;
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use wharf_host::{Fault, Host};
use wharf_log::OpenError;
use wharf_state::{State, StateError};

use crate::components::ComponentErrors;
use crate::config::{Config, ConfigError};
use crate::data_dir::DataDir;
use crate::dedup::Remembering;
use crate::delivery::{Delivery, DeliveryError, Feeds};
use crate::open_log::OpenLog;
use crate::presence::Presence;
use crate::retention::Retained;
use crate::router::Router;
use crate::swaps::start::StartError;
use crate::swaps::{Kept, Order, SwapError, Swaps, chain};
use crate::telemetry::Metrics;
pub use difference::Fixed;
pub use report::Report;

mod apply;
mod difference;
mod prepare;
mod report;
mod types;

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The config is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It changes what the server can't change while it runs.
    #[error("take over what needs a restart of the server: {}", .keys.join(", "))]
    NeedsRestart {
        /// The keys.
        keys: Vec<String>,
    },
    /// What the config names can't be used.
    #[error(transparent)]
    Components(#[from] ComponentErrors),
    /// The topic of a data type that is new can't be opened.
    #[error("open the log")]
    Log(#[source] OpenError),
    /// It can't be read from where on ids of messages are known.
    #[error("read from where on message ids are known")]
    MessageIds(#[source] StateError),
    /// A receiver that is new does not start.
    #[error("start receiver {receiver:?}")]
    Start {
        /// The receiver.
        receiver: String,
        /// What is wrong with it.
        #[source]
        fault: Fault,
    },
    /// A receiver that is there can't be changed.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// It is not known where receivers are, or it can't be written down.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// It is not known which components receivers had, or it can't be written down.
    #[error(transparent)]
    Versions(#[from] StartError),
    /// Not nothing: a receiver could not be changed, and others that were changed before it could not be changed back.
    #[error("change back {}, after this failed: {}", .left.join("; "), chain(.error))]
    Torn {
        /// What failed first.
        error: Box<ReloadError>,
        /// Which receivers are changed, and why they could not be changed back.
        left: Vec<String>,
    },
    /// The server stops.
    #[error("reload the config: the server stops")]
    Stopping,
    /// The server has a defect.
    #[error("wait for a task of the reload")]
    Task(#[from] JoinError),
}

impl ReloadError {
    /// As it is told to operators.
    pub fn told(&self) -> String {
        match self {
            ReloadError::Torn { .. } => format!("failed to {}", chain(self)),
            _ => format!("nothing was changed: failed to {}", chain(self)),
        }
    }
}

/// What it takes.
pub struct Parts {
    /// Loads components.
    pub host: Host,
    /// Exchanges receivers.
    pub swaps: Arc<Swaps>,
    /// What is fed.
    pub delivery: Arc<Delivery>,
    /// Where it is written down.
    pub state: State,
    /// What is known of receivers.
    pub data_dir: Arc<DataDir>,
    /// The components that may be needed again.
    pub kept: Kept,
    /// Where topics are opened.
    pub log: OpenLog,
    /// The data types.
    pub feeds: Feeds,
    /// Who is active.
    pub presence: Arc<Presence>,
    /// The data types that remember ids of messages.
    pub remembering: Remembering,
    /// The way of messages to their topics.
    pub router: Arc<Router>,
    /// What is kept of them.
    pub retained: Retained,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// What was fixed when the server was started.
    pub fixed: Fixed,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

/// Reloads the config of a server, one time after the other.
pub struct Reloads {
    parts: Parts,
    /// What the server runs by.
    current: Mutex<Config>,
}

impl Reloads {
    /// Of a server that runs by this config.
    pub fn new(parts: Parts, current: Config) -> Arc<Reloads> {
        Arc::new(Reloads { parts, current: Mutex::new(current) })
    }

    /// Reads the config's file again and takes over what it says. Whoever calls it lets it come to its end.
    ///
    /// # Errors
    ///
    /// See [`ReloadError`]: everything is as before, but for receipts of what was tried.
    pub async fn reload(&self, order: Order) -> Result<Report, ReloadError> {
        let outcome = self.reload_once(&order).await;
        match &outcome {
            Ok(report) => {
                tracing::info!(who = order.who, changes = %report, "the config was reloaded");
                for warning in &report.warnings {
                    tracing::warn!(warning, "the config can be improved");
                }
            }
            Err(error) => {
                tracing::error!(who = order.who, error = error.told(), "the config was not reloaded");
            }
        }
        outcome
    }

    async fn reload_once(&self, order: &Order) -> Result<Report, ReloadError> {
        let mut current = self.current.lock().await;
        if self.parts.stop.is_cancelled() {
            return Err(ReloadError::Stopping);
        }
        let file = current.file.clone();
        let config = tokio::task::spawn_blocking(move || Config::load(&file)).await??;
        let keys = difference::needing_restart(&current, &config, self.parts.fixed);
        if !keys.is_empty() {
            return Err(ReloadError::NeedsRestart { keys });
        }
        let names: BTreeSet<String> =
            current.receivers.iter().chain(&config.receivers).map(|receiver| receiver.name.clone()).collect();
        // Compiling may take minutes; whoever stops the server meanwhile need not wait for it.
        let prepared = async {
            let held = self.parts.swaps.hold(&names).await;
            Ok::<_, ReloadError>((held, self.prepare(&current, &config, order).await?))
        };
        let (_held, prepared) = tokio::select! {
            prepared = prepared => prepared?,
            () = self.parts.stop.cancelled() => return Err(ReloadError::Stopping),
        };
        let report = self.apply(prepared, &current, &config, order).await?;
        *current = config;
        Ok(report)
    }

    /// Reloads whenever the process gets this signal, until the server stops.
    pub async fn reload_at(self: Arc<Self>, mut signal: Signal) {
        loop {
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => return,
                _ = signal.recv() => {}
            }
            let order = Order { who: "SIGHUP".to_owned(), allow_new_imports: false, drop_state: false };
            // What came of it is logged.
            let _ = self.reload(order).await;
        }
    }

    /// Waits until none is under way. Called when the server stops, after which none begins.
    pub async fn stop(&self) {
        drop(self.current.lock().await);
    }
}

impl std::fmt::Debug for Reloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloads").finish_non_exhaustive()
    }
}

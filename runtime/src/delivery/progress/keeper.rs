//! The task that saves cursors that have moved.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharf_state::{KeyValue, Persist, State};

use super::{Changed, Places};

/// The task of a keeper.
#[derive(Debug)]
pub struct Keeping {
    stop: CancellationToken,
    /// Taken by who stops it.
    task: Mutex<Option<JoinHandle<bool>>>,
}

impl Keeping {
    /// Starts on the current runtime.
    pub fn start(keeper: Keeper) -> Keeping {
        let stop = CancellationToken::new();
        let task = Mutex::new(Some(tokio::spawn(keeper.run(stop.clone()))));
        Keeping { stop, task }
    }

    /// Saves once more, durably. Says whether that took everything in.
    pub async fn stop(&self) -> bool {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return false };
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the task that saves cursors ended early");
            false
        })
    }
}

/// Saves what has moved, again and again.
#[derive(Clone)]
pub struct Keeper {
    places: Arc<Places>,
    state: State,
    /// What receivers keep, if one of them may.
    keyvalue: Option<KeyValue>,
    interval: Duration,
    failing: bool,
    /// Whether what receivers keep could not be synced last.
    sync_failing: bool,
}

impl Keeper {
    /// A keeper of these cursors.
    pub fn new(places: Arc<Places>, state: State, keyvalue: Option<KeyValue>, interval: Duration) -> Keeper {
        Keeper { places, state, keyvalue, interval, failing: false, sync_failing: false }
    }

    /// Saves every interval until `stop`, then once more, durably. Says whether that last save took everything in.
    pub async fn run(mut self, stop: CancellationToken) -> bool {
        while tokio::time::timeout(self.interval, stop.cancelled()).await.is_err() {
            self = self.save(Persist::Buffered).await;
        }
        let keeper = self.save(Persist::Sync).await;
        !keeper.failing && !keeper.sync_failing
    }

    async fn save(self, persist: Persist) -> Keeper {
        let mut keeper = self;
        let mut again = keeper.clone();
        let saving = tokio::task::spawn_blocking(move || {
            keeper.save_all(persist);
            keeper
        });
        saving.await.unwrap_or_else(|error| {
            tracing::error!(%error, "saving cursors ended early");
            again.failing = true;
            again
        })
    }

    fn save_all(&mut self, persist: Persist) {
        let progress = self.places.all();
        let _writing: Vec<_> = progress.iter().map(|progress| progress.writing()).collect();
        // Before the sync: of what is finished during it, the values may not be among those that it makes durable.
        let changed: Vec<_> =
            progress.iter().map(|progress| (progress.clone(), progress.take_changed())).collect();
        self.sync_values();
        let mut failed = false;
        for (progress, Changed { cursors: changed, lowest }) in changed {
            if changed.is_empty() {
                progress.saved_lowest.store(lowest, Ordering::Release);
                continue;
            }
            if self.sync_failing && progress.keeps_values() {
                progress.put_back(changed.iter().map(|(lane, _)| *lane));
                continue;
            }
            let cursors = changed.iter().map(|(lane, cursor)| (*lane, cursor));
            if let Err(error) = self.state.save(&progress.receiver, &progress.topic, cursors, persist) {
                progress.put_back(changed.iter().map(|(lane, _)| *lane));
                // Said once, not ten times a second: nothing is lost while it lasts, only delivered again after a crash.
                if !self.failing && !failed {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(
                        error,
                        "failed to save cursors; after a crash messages would be delivered again"
                    );
                }
                failed = true;
                continue;
            }
            progress.saved_lowest.store(lowest, Ordering::Release);
        }
        if self.failing && !failed {
            tracing::info!("cursors are saved again");
        }
        self.failing = failed;
    }

    /// Makes durable what receivers keep.
    fn sync_values(&mut self) {
        let Some(keyvalue) = self.keyvalue.as_ref().filter(|keyvalue| keyvalue.is_dirty()) else { return };
        match keyvalue.sync() {
            Ok(()) if self.sync_failing => {
                self.sync_failing = false;
                tracing::info!("the key-value store of receivers is synced again");
            }
            Ok(()) => {}
            Err(error) if !self.sync_failing => {
                self.sync_failing = true;
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "failed to sync the key-value store of receivers; the cursors of those that use it are not saved meanwhile"
                );
            }
            Err(_) => {}
        }
    }
}

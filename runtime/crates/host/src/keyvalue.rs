//! `wasi:keyvalue`: a durable store that is private to a receiver and shared by its instances. What it does is in
//! `wharf-state`; how guests reach it is in `keyvalue/link.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;
use wharf_state::{Bucket, KeyValue, KeyValueError, KeyValueStore, Refusal};

use crate::component_file::blocking;
use crate::fault::Fault;

pub(crate) use link::link;

mod link;

/// How many operations of one receiver can be under way. Each waits on a thread of its own, also when the call of the guest
/// that began it was given up meanwhile; there are some hundreds of these threads for all receivers.
const MAX_OPERATIONS: usize = 16;

/// The grant of a key-value store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyValueGrant {
    /// The most bytes of keys and values together, with what is added for each entry.
    pub max_bytes: u64,
}

/// What the instances of a receiver reach their store through.
#[derive(Debug, Clone)]
pub(crate) struct KeyValueAccess {
    receiver: String,
    /// None if the host has no database, because nothing is to run.
    store: Option<KeyValueStore>,
    operations: Arc<Semaphore>,
    failing: Arc<AtomicBool>,
}

impl KeyValueAccess {
    pub(crate) fn new(receiver: &str, grant: KeyValueGrant, database: Option<&KeyValue>) -> Self {
        let store = database.and_then(|database| match database.store(receiver, grant.max_bytes) {
            Ok(store) => Some(store),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(receiver.name = receiver, error, "failed to open a key-value store");
                None
            }
        });
        Self {
            receiver: receiver.to_owned(),
            store,
            operations: Arc::new(Semaphore::new(MAX_OPERATIONS)),
            failing: Arc::new(AtomicBool::new(false)),
        }
    }

    /// The same store and the same operations under way, with another limit.
    pub(crate) fn with_grant(&self, grant: KeyValueGrant, database: Option<&KeyValue>) -> Self {
        // The database counts the bytes of a receiver once, whoever opens its store.
        let new = Self::new(&self.receiver, grant, database);
        Self { operations: self.operations.clone(), failing: self.failing.clone(), ..new }
    }

    /// Checks that an instance can have the store.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.store.is_none() {
            return Err(Fault::Init("its key-value store is not open".into()));
        }
        Ok(())
    }

    /// The bytes in use.
    pub(crate) fn used(&self) -> Option<u64> {
        self.store.as_ref().map(KeyValueStore::used)
    }

    /// A bucket, or what to tell the guest.
    fn bucket(&self, name: &str) -> Result<Bucket, String> {
        match &self.store {
            Some(store) => store.bucket(name).map_err(refused),
            None => Err("the store is not open".into()),
        }
    }

    /// Does something with the database, without keeping a guest's thread from others. Gives what came of it, or what to
    /// tell the guest.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, KeyValueError> + Send + 'static,
    ) -> Result<T, String> {
        let permit = self.operations.clone().acquire_owned().await;
        let outcome = blocking(move || {
            // Ends with the work, not with the guest's call.
            let _permit = permit;
            work()
        })
        .await;
        self.tell_operator(outcome.as_ref().err());
        outcome.map_err(|error| match error {
            KeyValueError::Refused(refusal) => refused(refusal),
            // What the disk or the system said is not for strangers.
            KeyValueError::Failed(_) => "the store failed; the server's log says why".into(),
        })
    }

    /// Logs the first of several failures of the database, and that they are over.
    fn tell_operator(&self, error: Option<&KeyValueError>) {
        match error {
            Some(KeyValueError::Failed(error)) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let error: &dyn std::error::Error = error;
                    tracing::error!(
                        receiver.name = self.receiver,
                        error,
                        "failed to use a key-value store; its receiver sees errors"
                    );
                }
            }
            Some(KeyValueError::Refused(_)) => {}
            None => {
                if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(receiver.name = self.receiver, "a key-value store works again");
                }
            }
        }
    }
}

fn refused(refusal: Refusal) -> String {
    format!("failed to {refusal}")
}

//! The log while the server runs: a reload may open more topics in it, until the server closes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_log::{Log, OpenError, Topic, TopicOptions};

/// A log that is open, until it is closed. Clones are the same.
#[derive(Clone, Debug)]
pub struct OpenLog {
    log: Arc<Mutex<Option<Log>>>,
}

impl OpenLog {
    /// This log.
    pub fn new(log: Log) -> OpenLog {
        OpenLog { log: Arc::new(Mutex::new(Some(log))) }
    }

    /// Opens one more topic; nothing if the log is closed. Blocks on the disk.
    pub fn add(&self, options: TopicOptions) -> Option<Result<Topic, OpenError>> {
        self.lock().as_mut().map(|log| log.add(options))
    }

    /// Closes a topic. Blocks on the disk.
    pub fn remove(&self, name: &str) {
        if let Some(log) = self.lock().as_mut() {
            log.remove(name);
        }
    }

    /// Closes it.
    pub async fn close(&self) {
        let log = self.lock().take();
        if let Some(log) = log {
            log.close().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Log>> {
        // A topic is opened whole or not at all.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Keeps ids over restarts: reads them back from the topics, and saves from where on that is to be done.
//!
//! Where the window is long and the flow is strong, far more lies in a topic than ids are remembered, or none of it may have an
//! id. So the offset of the oldest id that is remembered, or the end of the topic if none is, is saved now and then. It
//! only ever spares reading: what is remembered later lies above it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wharf_log::{Durability, LaneSet, ReadError};
use wharf_protocol::Record;
use wharf_state::{State, StateError};

use super::{Dedup, milliseconds};
use crate::unix_time::unix_milliseconds;

/// How often it is saved from where on ids are to be read back, and looked what has become of appends for which nobody waits any
/// more. A start reads so much more than it must, and so much more is remembered than is to be.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// Records that are read at once when the server starts, and their bytes.
const READ_RECORDS: usize = 4096;
const READ_BYTES: usize = 4 * 1024 * 1024;

/// The topics that remember ids. Clones are the same list.
#[derive(Clone, Debug)]
pub struct Remembering {
    topics: Arc<RwLock<Vec<Arc<Dedup>>>>,
}

impl Remembering {
    /// These.
    pub fn new(topics: Vec<Arc<Dedup>>) -> Remembering {
        Remembering { topics: Arc::new(RwLock::new(topics)) }
    }

    /// One more.
    pub fn add(&self, topic: Arc<Dedup>) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).push(topic);
    }

    fn all(&self) -> Vec<Arc<Dedup>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads back the ids of these topics. One that can't be read is logged: what was sent to it before may be stored twice.
///
/// # Errors
///
/// When the state database can't be read.
pub async fn restore(topics: &[Arc<Dedup>], state: &State) -> Result<(), StateError> {
    for dedup in topics.iter().filter(|dedup| dedup.durability != Durability::Memory) {
        let (database, name) = (state.clone(), dedup.topic.name().to_owned());
        let saved = tokio::task::spawn_blocking(move || database.message_ids_from(&name));
        // Blocking work is only given up when the runtime ends.
        let Ok(saved) = saved.await else { return Ok(()) };
        let (started, saved) = (Instant::now(), saved?);
        let restored = dedup.restore(saved.unwrap_or(0), unix_milliseconds()).await;
        let log_topic = dedup.topic.name();
        match restored {
            Ok(read) if read > 0 => tracing::info!(
                log.topic = log_topic,
                read,
                remembered = dedup.table().stored(),
                elapsed = ?started.elapsed(),
                "message ids read back"
            ),
            Ok(_) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    log.topic = log_topic,
                    error,
                    "failed to read message ids back; what is sent again may be stored twice"
                );
            }
        }
    }
    Ok(())
}

/// Saves from where on ids are to be read back, forgets what is out of the window and counts the rest, until `stop`.
pub async fn keep(remembering: Remembering, state: State, stop: CancellationToken) {
    let mut saved: Vec<(String, u64)> = Vec::new();
    let mut failing = false;
    while tokio::time::timeout(SAVE_INTERVAL, stop.cancelled()).await.is_err() {
        let topics = remembering.all();
        let from: Vec<(String, u64)> =
            topics.iter().map(|dedup| (dedup.topic.name().to_owned(), dedup.settled_from())).collect();
        if from == saved {
            continue;
        }
        let kept = topics.iter().zip(&from).filter(|(dedup, _)| dedup.durability != Durability::Memory);
        let kept: Vec<(String, u64)> = kept.map(|(_, from)| from.clone()).collect();
        let database = state.clone();
        let written = tokio::task::spawn_blocking(move || database.save_message_ids_from(&kept));
        match written.await {
            Ok(Ok(())) => {
                saved = from;
                failing = false;
            }
            Ok(Err(error)) => {
                // Only changes are logged. Nothing depends on it but how long the next start takes.
                if !std::mem::replace(&mut failing, true) {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "failed to save where message ids are to be read back");
                }
            }
            Err(_) => return,
        }
    }
}

impl Dedup {
    /// Reads ids back from an offset on, as far as they are within the window at this time (Unix milliseconds), and gives how
    /// many records were read.
    pub(super) async fn restore(&self, from: u64, now: u64) -> Result<usize, ReadError> {
        let end = self.topic.end();
        let window = milliseconds(self.window);
        let oldest = self.topic.offset_at(now.saturating_sub(window)).await?;
        let mut reader = self.topic.reader(LaneSet::ALL, from.max(oldest).max(self.topic.start()));
        let mut read: usize = 0;
        while reader.position() < end {
            let entries = reader.next(READ_RECORDS, READ_BYTES).await?.entries;
            read = read.saturating_add(entries.len());
            let mut table = self.table();
            for entry in entries.into_iter().filter(|entry| Record::has_message_id(&entry.payload)) {
                // Delivery tells of a record that it can't read.
                let Ok(Record::Message(message)) = Record::decode(entry.payload) else { continue };
                let Some(id) = &message.message_id else { continue };
                // A whole window ago is zero on the table's clock. What is older may be read as well, and its id may have been
                // used again since.
                let Some(at) = window.checked_sub(now.saturating_sub(message.received_at)) else { continue };
                table.restore(self.key(&message.agent, id), at, entry.offset);
            }
        }
        self.settle(&mut self.table());
        Ok(read)
    }

    /// An offset below which there is no message whose id is remembered, or will be.
    pub(super) fn settled_from(&self) -> u64 {
        // In this order: what is put into the queue from here on comes behind the end.
        let end = self.topic.end();
        let mut table = self.table();
        self.settle(&mut table);
        table.from().unwrap_or(end)
    }
}

//! Deletes what nobody needs any more: the messages of each topic that every receiver has finished, after they were kept for
//! as long as the config says.
//!
//! A receiver that left the config, or is not mapped to the type any more, still counts for `log.absent-grace`: it may come
//! back, and then gets what it missed. The time runs from the first start or reload without it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_log::{Retention, Topic};
use wharf_state::{State, StateError};

use crate::config::{Config, DataType};
use crate::data_dir::{Absences, DataDir, DataDirError};
use crate::unix_time::unix_milliseconds;

#[cfg(test)]
mod tests;

/// How often it is looked: at the highest rates a topic grows by a few segments meanwhile. Looking costs next to nothing.
const INTERVAL: Duration = Duration::from_secs(1);

/// A topic, what is kept of it, and for whom who is not fed.
#[derive(Debug)]
pub struct Kept {
    /// The topic.
    pub topic: Topic,
    /// What is kept although nobody needs it.
    pub retention: Retention,
    /// The receivers that are not mapped to it any more.
    pub absent: Vec<Absent>,
}

/// A receiver that the config does not map to a topic any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its name.
    pub receiver: String,
    /// The topic's name.
    pub topic: String,
    /// From where on it has not finished the topic.
    pub from: u64,
    /// When nothing is kept for it any longer; `None`: later than there is time.
    pub until: Option<Instant>,
}

impl Kept {
    /// A topic of this data type, and those of the absent receivers that are not mapped to it any more.
    pub fn new(topic: Topic, data_type: &DataType, absent: &[Absent]) -> Kept {
        let mut kept = Kept { topic, retention: Retention::default(), absent: Vec::new() };
        kept.set(data_type, absent);
        kept
    }

    fn set(&mut self, data_type: &DataType, absent: &[Absent]) {
        self.retention =
            Retention { retain: Some(data_type.retain), retain_bytes: Some(data_type.retain_bytes) };
        self.absent = absent.iter().filter(|absent| absent.topic == data_type.name).cloned().collect();
    }
}

/// What is kept of each topic, as it is now. Clones are the same.
#[derive(Clone, Debug)]
pub struct Retained {
    topics: Arc<Mutex<Vec<Kept>>>,
}

impl Retained {
    /// These topics.
    pub fn new(topics: Vec<Kept>) -> Retained {
        Retained { topics: Arc::new(Mutex::new(topics)) }
    }

    /// From now on as a config says, with these absent receivers. Whoever calls it lets receivers that left hold nothing back only
    /// after that, and those that came hold back theirs before.
    pub fn set(&self, config: &Config, absent: &[Absent]) {
        for kept in self.lock().iter_mut() {
            let data_type = config.types.iter().find(|data_type| data_type.name == kept.topic.name());
            if let Some(data_type) = data_type {
                kept.set(data_type, absent);
            }
        }
    }

    /// One more topic.
    pub fn add(&self, kept: Kept) {
        self.lock().push(kept);
    }

    /// For each topic what is kept of it, and below which offset nobody needs it. Both ways of needing it are looked at under one
    /// lock, so that a receiver that goes from one to the other is seen in one of them at least.
    fn due(&self, needed_from: impl Fn(&str) -> Option<u64>) -> Vec<(Topic, Retention, u64)> {
        let due = |kept: &mut Kept| {
            let Kept { topic, retention, absent } = kept;
            absent.retain(Absent::is_waited_for);
            let held = absent.iter().map(|absent| absent.from);
            let below = needed_from(topic.name()).into_iter().chain(held).min().unwrap_or(u64::MAX);
            (topic.clone(), *retention, below)
        };
        self.lock().iter_mut().map(due).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        // What is set is set topic by topic, each of which is whole.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why it is not known which receivers are absent.
#[derive(Debug, Error)]
pub enum AbsenceError {
    /// The cursors can't be read.
    #[error("read which receivers are not in the config any more")]
    State(#[from] StateError),
    /// What is written down of it can't be read or written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// The receivers that have cursors and that the config does not map to their topic any more. Since when is written down here,
/// and forgotten when they are back. Blocks on the disk.
///
/// # Errors
///
/// See [`AbsenceError`].
pub fn absent(state: &State, data_dir: &DataDir, config: &Config) -> Result<Vec<Absent>, AbsenceError> {
    let (now, now_unix) = (Instant::now(), unix_milliseconds());
    let known = data_dir.absent_receivers()?;
    let mut absences = Absences::new();
    let mut absent = Vec::new();
    for (receiver, topic) in state.list()? {
        let is_mapped = config
            .receivers
            .iter()
            .any(|configured| configured.name == receiver && configured.types.contains(&topic));
        if is_mapped {
            continue;
        }
        let Some(cursors) = state.cursors(&receiver, &topic)? else { continue };
        let pair = (receiver, topic);
        let since = known.get(&pair).copied().unwrap_or(now_unix);
        // A clock that was set back makes it longer, never shorter.
        let absent_for = Duration::from_millis(now_unix.saturating_sub(since));
        let left = config.log.absent_grace.saturating_sub(absent_for);
        let from = cursors.min_next();
        let (receiver, topic) = pair.clone();
        if !left.is_zero() {
            tracing::warn!(
                receiver.name = receiver,
                log.topic = topic,
                from,
                ?left,
                "this receiver is not mapped to this data type any more; what it has not finished is kept for a while in case it comes back"
            );
        }
        absent.push(Absent { receiver, topic, from, until: now.checked_add(left) });
        absences.insert(pair, since);
    }
    if absences != known {
        data_dir.note_absent(&absences)?;
    }
    Ok(absent)
}

/// Deletes again and again, until `stop`. `needed_from` says where the slowest receiver of a topic is; nothing if none is mapped
/// to it.
pub async fn run(retained: Retained, needed_from: impl Fn(&str) -> Option<u64>, stop: CancellationToken) {
    // Said when it begins and when it is over, not every second.
    let mut failing = BTreeSet::new();
    while tokio::time::timeout(INTERVAL, stop.cancelled()).await.is_err() {
        for (topic, retention, below) in retained.due(&needed_from) {
            match topic.trim(below, retention).await {
                Ok(trimmed) => {
                    if failing.remove(topic.name()) {
                        tracing::info!(log.topic = topic.name(), "finished messages can be deleted again");
                    }
                    if trimmed.segments > 0 {
                        tracing::info!(
                            log.topic = topic.name(),
                            segments = trimmed.segments,
                            bytes = trimmed.bytes,
                            "deleted messages that no receiver needs"
                        );
                    }
                }
                Err(error) => {
                    if failing.insert(topic.name().to_owned()) {
                        let error: &dyn std::error::Error = &error;
                        tracing::error!(
                            log.topic = topic.name(),
                            error,
                            "failed to delete finished messages, which is tried again every second"
                        );
                    }
                }
            }
        }
    }
}

impl Absent {
    /// Whether it holds back what it has not finished. Said once when that ends.
    fn is_waited_for(&self) -> bool {
        let waits = self.until.is_none_or(|until| Instant::now() < until);
        if !waits {
            tracing::warn!(
                receiver.name = self.receiver,
                log.topic = self.topic,
                from = self.from,
                "this receiver was not mapped to this data type for `log.absent-grace`; nothing is kept for it any longer"
            );
        }
        waits
    }
}

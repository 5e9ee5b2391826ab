//! Deletes what nobody needs any more: the messages of each topic that every receiver has finished, after they were kept for
//! as long as the config says.
//!
//! A receiver that has cursors and is not in the config any more still counts: it may come back, and then gets what it missed.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wharf_log::{Retention, Topic};
use wharf_state::{State, StateError};

use crate::config::Config;

/// How often it is looked: a topic grows by less than a few segments meanwhile.
const INTERVAL: Duration = Duration::from_secs(5);

/// A topic, what is kept of it, and from where on somebody needs it who is not fed.
#[derive(Debug)]
pub struct Kept {
    /// The topic.
    pub topic: Topic,
    /// What is kept although nobody needs it.
    pub retention: Retention,
    /// The lowest cursor of the receivers that are not in the config any more, if there are any.
    pub held_from: Option<u64>,
}

/// The lowest cursor in each topic of receivers that the config does not map to it any more. Blocks on the disk.
///
/// # Errors
///
/// When the state database can't be read.
pub fn held_by_others(state: &State, config: &Config) -> Result<HashMap<String, u64>, StateError> {
    let mut held = HashMap::new();
    for (receiver, topic) in state.list()? {
        let is_mapped = config
            .receivers
            .iter()
            .any(|configured| configured.name == receiver && configured.types.contains(&topic));
        if is_mapped {
            continue;
        }
        if let Some(cursors) = state.cursors(&receiver, &topic)? {
            let from = cursors.min_next();
            tracing::warn!(
                receiver.name = receiver,
                log.topic = topic,
                from,
                "this receiver is not mapped to this data type any more; what it has not finished is kept in case it comes back"
            );
            held.entry(topic).and_modify(|lowest: &mut u64| *lowest = from.min(*lowest)).or_insert(from);
        }
    }
    Ok(held)
}

/// Deletes again and again, until `stop`. `needed_from` says where the slowest receiver of a topic is; nothing if none is mapped
/// to it.
pub async fn run(topics: Vec<Kept>, needed_from: impl Fn(&str) -> Option<u64>, stop: CancellationToken) {
    while tokio::time::timeout(INTERVAL, stop.cancelled()).await.is_err() {
        for Kept { topic, retention, held_from } in &topics {
            let needed = [needed_from(topic.name()), *held_from];
            let below = needed.into_iter().flatten().min().unwrap_or(u64::MAX);
            match topic.trim(below, *retention).await {
                Ok(trimmed) if trimmed.segments > 0 => tracing::info!(
                    log.topic = topic.name(),
                    segments = trimmed.segments,
                    bytes = trimmed.bytes,
                    "deleted messages that every receiver has finished"
                ),
                Ok(_) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(log.topic = topic.name(), error, "failed to delete finished messages");
                }
            }
        }
    }
}

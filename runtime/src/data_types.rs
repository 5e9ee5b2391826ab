//! What a data type of the config becomes: a topic of the log, what receivers know of it, and the ids that it remembers.

use std::sync::Arc;

use wharf_log::{Topic, TopicOptions};

use crate::config::{self, DataType};
use crate::data_dir::DataDir;
use crate::dedup::Dedup;
use crate::delivery::Feed;
use crate::gate::Gate;
use crate::telemetry::{Metrics, TypeLabel};

/// How its topic is opened.
pub fn topic_options(data_type: &DataType, log: &config::Log, metrics: &Metrics) -> TopicOptions {
    let usize_of = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    TopicOptions {
        name: data_type.name.clone(),
        durability: data_type.durability,
        segment_bytes: log.segment_size,
        queue_bytes: usize_of(log.queue_size),
        tail_bytes: usize_of(log.tail_size),
        observer: Some(metrics.log.observer(&data_type.name)),
    }
}

/// What receivers know of it.
pub fn feed(data_type: &DataType, topic: Topic, data_dir: &DataDir) -> Feed {
    // A clean stop saved the cursors as they were.
    let again_below = if data_dir.stopped_cleanly() { 0 } else { topic.end() };
    Feed { durability: data_type.durability, gate: Gate::new(), again_below, topic }
}

/// The ids of its messages, if it remembers any. None is known yet.
pub fn message_ids(data_type: &DataType, feed: &Feed, metrics: &Metrics) -> Option<Arc<Dedup>> {
    let label = TypeLabel { r#type: data_type.name.clone() };
    (!data_type.dedup_window.is_zero()).then(|| {
        Arc::new(Dedup::new(
            feed.topic.clone(),
            feed.durability,
            data_type.dedup_window,
            data_type.dedup_messages,
            metrics.message_ids.get_or_create_owned(&label),
        ))
    })
}

//! What the writers of topics do, told by them, and what topics take, asked for when the numbers are.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use wharf_log::{Group, Observer, Outcome, Topic};

use super::{BYTES, COUNTS, RefusedAppendLabel, TypeLabel, family, histograms, seconds};

/// The numbers of all topics.
#[derive(Debug)]
pub struct LogNumbers {
    append_seconds: Family<TypeLabel, Histogram>,
    write_seconds: Family<TypeLabel, Histogram>,
    sync_seconds: Family<TypeLabel, Histogram>,
    group_records: Family<TypeLabel, Histogram>,
    group_bytes: Family<TypeLabel, Histogram>,
    refused: Family<RefusedAppendLabel, Counter>,
    abandoned: Family<TypeLabel, Counter>,
    topics: Topics,
}

impl LogNumbers {
    pub(super) fn new(new: &mut Registry) -> LogNumbers {
        let topics = Topics::default();
        new.register_collector(Box::new(topics.clone()));
        LogNumbers {
            append_seconds: seconds(
                new,
                "log_append_seconds",
                "Time from when an append was queued until it was answered",
            ),
            write_seconds: seconds(
                new,
                "log_write_seconds",
                "How long the write of each group of appends took",
            ),
            sync_seconds: seconds(new, "log_sync_seconds", "How long the sync of each group of appends took"),
            group_records: histograms(
                new,
                "log_group_records",
                "Records of each group of appends that was stored, messages and changes of presence",
                || Histogram::new(COUNTS),
            ),
            group_bytes: histograms(
                new,
                "log_group_bytes",
                "Bytes of the records of each group of appends that was stored",
                || Histogram::new(BYTES),
            ),
            refused: family(
                new,
                "log_appends_refused",
                "Appends that were queued and then refused, for want of free space or because the disk failed",
            ),
            abandoned: family(
                new,
                "log_blocks_abandoned",
                "Blocks that were given up because their write or their sync failed",
            ),
            topics,
        }
    }

    /// What the writer of this data type's topic is to tell.
    pub fn observer(&self, data_type: &str) -> Observer {
        let label = TypeLabel { r#type: data_type.to_owned() };
        let refused = |reason| {
            let label = RefusedAppendLabel { r#type: data_type.to_owned(), reason };
            self.refused.get_or_create_owned(&label)
        };
        let append_seconds = self.append_seconds.get_or_create_owned(&label);
        let write_seconds = self.write_seconds.get_or_create_owned(&label);
        let sync_seconds = self.sync_seconds.get_or_create_owned(&label);
        let group_records = self.group_records.get_or_create_owned(&label);
        let group_bytes = self.group_bytes.get_or_create_owned(&label);
        let abandoned = self.abandoned.get_or_create_owned(&label);
        let (no_space, failed) = (refused("no-space"), refused("failed"));
        Observer::new(move |group: Group| {
            let appends = u64::try_from(group.appends.len()).unwrap_or(u64::MAX);
            match group.outcome {
                Outcome::Stored { write, sync } => {
                    let observe =
                        |histogram: &Histogram, took: Duration| histogram.observe(took.as_secs_f64());
                    group.appends.iter().for_each(|took| observe(&append_seconds, *took));
                    write.into_iter().for_each(|took| observe(&write_seconds, took));
                    sync.into_iter().for_each(|took| observe(&sync_seconds, took));
                    // Both are far below what the numbers of a histogram hold exactly.
                    group_records.observe(group.records as f64);
                    group_bytes.observe(group.bytes as f64);
                }
                Outcome::NoSpace => drop(no_space.inc_by(appends)),
                Outcome::Failed => drop(failed.inc_by(appends)),
                Outcome::Abandoned => {
                    failed.inc_by(appends);
                    abandoned.inc();
                }
            }
        })
    }

    /// Exports what these topics take from now on, and no others.
    pub fn set_topics(&self, topics: Vec<Topic>) {
        *self.topics.0.lock().unwrap_or_else(PoisonError::into_inner) = topics;
    }
}

/// The topics whose numbers are exported. Clones are the same list.
#[derive(Debug, Clone, Default)]
struct Topics(Arc<Mutex<Vec<Topic>>>);

/// A name, its help, and where the number of a topic comes from.
type OfTopic = (&'static str, &'static str, fn(&Topic) -> u64);

/// What is asked of each topic.
const OF_TOPICS: [OfTopic; 5] = [
    ("log_queued_bytes", "Bytes of appends that wait for the writer of a data type's log.", |topic| {
        u64::try_from(topic.queued_bytes()).unwrap_or(u64::MAX)
    }),
    ("log_disk_bytes", "Bytes that a data type's log takes on the disk.", Topic::bytes),
    ("log_segments", "Files that a data type's log consists of.", |topic| {
        u64::try_from(topic.segments()).unwrap_or(u64::MAX)
    }),
    ("log_start_offset", "The lowest offset of a data type's log that is kept.", Topic::start),
    ("log_end_offset", "The next offset that a data type's log will give.", Topic::end),
];

impl Collector for Topics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, help, of) in OF_TOPICS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for topic in &topics {
                let label = TypeLabel { r#type: topic.name().to_owned() };
                ConstGauge::new(of(topic)).encode(family.encode_family(&label)?)?;
            }
        }
        Ok(())
    }
}

//! Keeps what a receiver has not finished of a data type within its bound: at the bound, either the topic is shut to new
//! messages until the receiver has worked some off, or the receiver loses its oldest ones, which a gap record tells.
//!
//! A backlog is what lies on the disk from the receiver's first unfinished message on, and is looked at every [`LOOK_EVERY`]:
//! what arrives between two looks, and what waits in the topic's queue when it is shut, comes on top of the bound. Nothing
//! here asks the receiver or its worker: it works in the same way for one that is paused, quarantined or hangs.

mod shed;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wharf_log::Topic;
use wharf_state::{KeyValue, State};

use super::Feed;
use super::progress::Progress;
use crate::config::{self, OnOverflow};
use crate::gate::{Gate, Hold};
use crate::telemetry::{DroppedLabel, Metrics, ReceiverTypeLabel};
use shed::Shedding;

/// How often a backlog is looked at: often enough that at the highest rates some ten megabytes come in between, seldom enough
/// that a thousand of them cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A topic that was shut opens below this part of the bound, so that it does not open and shut with every batch.
const OPENS_BELOW_PERCENT: u64 = 95;
/// Messages are shed down to this part of the bound, so that it is done in portions and not with every message.
const SHED_TO_PERCENT: u64 = 90;

/// The backlog of one receiver in one data type.
#[derive(Debug)]
pub struct Backlog {
    topic: Topic,
    progress: Arc<Progress>,
    gate: Gate,
    max_bytes: u64,
    on_overflow: OnOverflow,
    bytes: Gauge,
    /// 1 while the topic is shut because of this backlog.
    blocks: Gauge,
    dropped: Family<DroppedLabel, Counter>,
}

/// What is done at the bound.
enum Overflow {
    Block(Gate),
    Shed(Shedding),
}

impl Backlog {
    /// The backlog of a receiver in the topic that its cursors are in.
    pub fn new(
        settings: &config::Receiver,
        feed: &Feed,
        progress: Arc<Progress>,
        metrics: &Metrics,
    ) -> Backlog {
        let label =
            ReceiverTypeLabel { receiver: settings.name.clone(), r#type: feed.topic.name().to_owned() };
        Backlog {
            topic: feed.topic.clone(),
            progress,
            gate: feed.gate.clone(),
            max_bytes: settings.max_backlog,
            on_overflow: settings.on_overflow,
            bytes: metrics.backlog_bytes.get_or_create_owned(&label),
            blocks: metrics.blocks.get_or_create_owned(&label),
            dropped: metrics.dropped.clone(),
        }
    }

    /// Looks after it until `stop`. What the receiver keeps in `keyvalue` is made durable before a cursor is written.
    pub async fn run(self, state: State, keyvalue: Option<KeyValue>, stop: CancellationToken) {
        let Backlog { topic, progress, gate, max_bytes, on_overflow, bytes, blocks, dropped } = self;
        let mut overflow = match on_overflow {
            OnOverflow::Block => Overflow::Block(gate),
            OnOverflow::Shed => {
                Overflow::Shed(Shedding::new(topic.clone(), progress.clone(), state, keyvalue, dropped))
            }
        };
        let mut hold: Option<Hold> = None;
        loop {
            let backlog = topic.bytes_from(progress.lowest());
            bytes.set(i64::try_from(backlog).unwrap_or(i64::MAX));
            match &mut overflow {
                Overflow::Block(gate) => {
                    if hold.is_none() && backlog >= max_bytes {
                        hold = Some(gate.shut());
                        tracing::error!(
                            receiver.name = progress.receiver(),
                            log.topic = progress.topic(),
                            backlog,
                            max_bytes,
                            "the backlog of a receiver is at its bound: messages of this data type are refused until it has worked some off"
                        );
                    } else if hold.is_some() && backlog < percent(max_bytes, OPENS_BELOW_PERCENT) {
                        hold = None;
                        tracing::info!(
                            receiver.name = progress.receiver(),
                            log.topic = progress.topic(),
                            backlog,
                            "the backlog of a receiver is below its bound again"
                        );
                    }
                    blocks.set(hold.is_some().into());
                }
                Overflow::Shed(shedding) if backlog >= max_bytes => {
                    shedding.shed_to(percent(max_bytes, SHED_TO_PERCENT), &stop).await;
                    bytes.set(i64::try_from(topic.bytes_from(progress.lowest())).unwrap_or(i64::MAX));
                }
                Overflow::Shed(_) => {}
            }
            let stopping = timeout(LOOK_EVERY, stop.cancelled()).await.is_ok();
            if let Overflow::Shed(shedding) = &mut overflow {
                shedding.tell(stopping);
            }
            if stopping {
                return;
            }
        }
    }
}

fn percent(bytes: u64, percent: u64) -> u64 {
    (bytes / 100).saturating_mul(percent)
}

//! Counts what becomes of the messages around a swap until none of them is pending any more.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wharf_log::Lane;

use super::receipt::{LaneReport, Outcome, Receipt, WindowReport};
use super::{Receipts, Swaps};
use crate::delivery::{Counts, OpenWindow};
use crate::unix_time::unix_milliseconds;

/// How soon after a swap it is counted again, and how often at last: most swaps settle with the next batch, those of a paused
/// receiver with its resumption.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// A window and the messages that it is about.
type Counted = (OpenWindow, Vec<(Lane, u64)>);

impl Swaps {
    /// Takes the counts of now into a receipt that is written down, and goes on counting until nothing is pending.
    pub(super) async fn settle_soon(&self, mut receipt: Receipt, windows: Vec<OpenWindow>) -> Receipt {
        let mut counted: Vec<Counted> = Vec::new();
        for window in windows {
            match window.accepted().await {
                Ok(accepted) => counted.push((window, accepted)),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(
                        receiver.name = receipt.receiver,
                        log.topic = window.topic.name(),
                        receipt.id = receipt.id,
                        error,
                        "failed to see which messages a receipt is about"
                    );
                }
            }
        }
        take_counts(&mut receipt, &counted);
        write(self.receipts.clone(), receipt.clone()).await;
        if receipt.outcome != Outcome::Settled {
            let (receipts, stop) = (self.receipts.clone(), self.parts.stop.clone());
            self.tasks.spawn(settle(receipts, receipt.clone(), counted, stop));
        }
        receipt
    }
}

/// Counts again and again. Gives up when the server stops: the next run says so in the receipt.
async fn settle(
    receipts: Arc<Receipts>,
    mut receipt: Receipt,
    counted: Vec<Counted>,
    stop: CancellationToken,
) {
    let mut pause = PAUSES.0;
    while receipt.outcome != Outcome::Settled {
        if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
            break;
        }
        pause = pause.saturating_mul(2).min(PAUSES.1);
        take_counts(&mut receipt, &counted);
    }
    write(receipts, receipt).await;
}

/// Writes the counts into the receipt as it is by now.
async fn write(receipts: Arc<Receipts>, receipt: Receipt) {
    let id = receipt.id;
    let writing = tokio::task::spawn_blocking(move || {
        receipts.amend(id, |written| {
            written.outcome = receipt.outcome;
            written.settled_at = receipt.settled_at;
            written.pause_ms = receipt.pause_ms;
            written.counts = receipt.counts;
            written.lanes = receipt.lanes;
            written.windows = receipt.windows;
        })
    });
    match writing.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(receipt.id = id, error, "failed to write the counts of a receipt");
        }
        Err(error) => tracing::error!(receipt.id = id, %error, "failed to write the counts of a receipt"),
    }
}

fn take_counts(receipt: &mut Receipt, counted: &[Counted]) {
    let mut all = Counts::default();
    receipt.lanes.clear();
    receipt.windows.clear();
    for (window, accepted) in counted {
        let data_type = window.topic.name();
        let (from, to) = (window.offsets.start, window.offsets.end);
        receipt.windows.push(WindowReport { r#type: data_type.to_owned(), from, to });
        for (lane, count) in window.count(accepted) {
            all.add(&count.counts);
            receipt.lanes.push(LaneReport {
                r#type: data_type.to_owned(),
                lane: lane.index(),
                from: count.from,
                last_by_old: count.last_by_old,
                first_by_new: count.first_by_new,
                counts: count.counts,
            });
        }
    }
    receipt.counts = all;
    if all.pending == 0 {
        receipt.outcome = Outcome::Settled;
        receipt.settled_at = Some(unix_milliseconds());
        if all.lost > 0 {
            tracing::error!(
                receiver.name = receipt.receiver,
                receipt.id = receipt.id,
                lost = all.lost,
                "messages around a swap are finished and nobody knows how; this is a defect of the server"
            );
        }
    }
}

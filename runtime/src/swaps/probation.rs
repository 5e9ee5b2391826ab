//! Compares a version that was swapped in with the one before it for a while, and brings that one back if the new one is worse.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::carry_out::{Task, chain};
use super::receipt::{Kind, ProbationOutcome, ProbationReport};
use super::{Order, SwapError, Swaps};
use crate::config;
use crate::delivery::{Feeding, ReceiverState, Which, Work};
use crate::unix_time::unix_milliseconds;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Failures below this number prove nothing.
const FEW_FAILURES: u64 = 3;
/// Calls below this number say nothing of how long they take.
const FEW_CALLS: u64 = 20;
/// Times for each message below this are noise, whatever they are compared with.
const SLOW: Duration = Duration::from_micros(100);
/// Dead letters that are looked at in one go.
const PAGE: usize = 100;

impl Swaps {
    /// Lets a version prove itself that has just come in the place of one that did `before` in its last minutes. Until `ended`.
    pub(super) fn prove(
        self: &Arc<Self>,
        feeding: Arc<Feeding>,
        before: Work,
        receipt: u64,
        ended: CancellationToken,
    ) {
        let swaps = self.clone();
        let since = unix_milliseconds();
        self.tasks.spawn(async move {
            let (outcome, reason) = swaps.compare(&feeding, before, since, &ended).await;
            ended.cancel();
            swaps.parts.metrics.swaps.proved(&feeding.settings.name, outcome.word());
            let report = ProbationReport { outcome, reason };
            let receipts = swaps.receipts.clone();
            let writing = move || receipts.amend(receipt, |written| written.probation = Some(report));
            match tokio::task::spawn_blocking(writing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(receipt.id = receipt, error, "failed to write what came of a probation");
                }
                Err(error) => {
                    tracing::error!(receipt.id = receipt, %error, "failed to write what came of a probation");
                }
            }
        });
    }

    async fn compare(
        self: &Arc<Self>,
        feeding: &Feeding,
        before: Work,
        since: u64,
        ended: &CancellationToken,
    ) -> (ProbationOutcome, Option<String>) {
        let until = Instant::now() + feeding.settings.probation;
        while Instant::now() < until {
            if timeout(LOOK_EVERY, ended.cancelled()).await.is_ok() {
                return (ProbationOutcome::Ended, None);
            }
            let quarantined = feeding.status.state() == ReceiverState::Quarantined;
            let Some(worse) = worse(&feeding.settings, &before, &feeding.status.recent(), quarantined) else {
                continue;
            };
            return self.take_back(feeding, worse, since).await;
        }
        (ProbationOutcome::Passed, None)
    }

    async fn take_back(
        self: &Arc<Self>,
        feeding: &Feeding,
        worse: String,
        since: u64,
    ) -> (ProbationOutcome, Option<String>) {
        let receiver = feeding.settings.name.as_str();
        tracing::error!(
            receiver.name = receiver,
            reason = worse,
            "a version on probation is worse than the one before it and is rolled back"
        );
        // Whatever became of its state: a version that fails may not stay because it can give none.
        let order = Order { who: "probation".to_owned(), allow_new_imports: true, drop_state: true };
        let task = Task { reason: Some(worse.clone()), ..Task::new(Kind::Rollback, order) };
        match self.roll_back_from(receiver, Some(feeding.version), task).await {
            Ok(_) => {
                if feeding.settings.probation_redrive {
                    self.redrive_dead_of(feeding, since).await;
                }
                (ProbationOutcome::RolledBack, Some(worse))
            }
            // Another swap came first.
            Err(SwapError::NoneBefore { .. }) => (ProbationOutcome::Ended, Some(worse)),
            Err(error) => {
                let text = chain(&error);
                tracing::error!(
                    receiver.name = receiver,
                    error = text,
                    "failed to roll back a version on probation"
                );
                (ProbationOutcome::Failed, Some(format!("{worse}; failed to roll it back: {text}")))
            }
        }
    }

    /// Gives the dead letters that a version caused since then to the one that is there now.
    async fn redrive_dead_of(&self, feeding: &Feeding, since: u64) {
        let (controls, receiver) = (self.parts.delivery.controls().clone(), feeding.settings.name.clone());
        let digest = feeding.receiver.digest().to_owned();
        let redriving = tokio::task::spawn_blocking(move || {
            let mut from = Some(0);
            while let Some(first) = from {
                let page = controls.letters(&receiver, first..=u64::MAX, PAGE)?;
                let caused = page
                    .entries
                    .iter()
                    .filter(|(entry, _)| entry.death.digest == digest && entry.death.died_at >= since);
                let ids: Vec<_> = caused.map(|(entry, _)| entry.id..=entry.id).collect();
                if !ids.is_empty() {
                    controls.redrive(&receiver, Which::Ids(ids))?;
                }
                from = page.next;
            }
            Ok::<_, crate::delivery::ControlError>(())
        });
        match redriving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "failed to redrive the dead letters of a version that was rolled back"
                );
            }
            Err(error) => {
                tracing::error!(%error, "failed to redrive the dead letters of a version that was rolled back");
            }
        }
    }
}

/// In what a version is worse than the one before it, if it is, by what both did.
fn worse(settings: &config::Receiver, before: &Work, now: &Work, quarantined: bool) -> Option<String> {
    if quarantined {
        return Some("it was quarantined".to_owned());
    }
    let (was, is) = (before.failed_percent(), now.failed_percent());
    if now.failed >= FEW_FAILURES && is > was + f64::from(settings.probation_failed_percent) {
        return Some(format!(
            "{is:.1} % of its messages failed or were rejected, of the version before {was:.1} % (probation-failed-percent = {})",
            settings.probation_failed_percent
        ));
    }
    let (was, is) = (before.time_per_message()?, now.time_per_message()?);
    let slower = before.calls >= FEW_CALLS
        && now.calls >= FEW_CALLS
        && is > SLOW
        && is > was.saturating_mul(settings.probation_slowdown);
    slower.then(|| {
        format!(
            "its calls take {is:?} for each message, those of the version before {was:?} (probation-slowdown = {})",
            settings.probation_slowdown
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> config::Receiver {
        config::Receiver::new("r".to_owned(), "r.wasm".into(), vec!["t".to_owned()])
    }

    fn work(calls: u64, messages: u64, milliseconds: u64, failed: u64) -> Work {
        Work { calls, messages, time: Duration::from_millis(milliseconds), failed }
    }

    #[test]
    fn a_version_is_judged_by_what_the_one_before_it_did() {
        let good = work(100, 1000, 100, 0);
        let judged = |before: &Work, now: &Work| worse(&settings(), before, now, false).is_some();
        assert!(!judged(&good, &good));
        assert!(!judged(&good, &work(100, 1000, 100, 50)), "5 % are allowed");
        assert!(judged(&good, &work(100, 1000, 100, 51)));
        assert!(
            !judged(&work(100, 1000, 100, 100), &work(100, 1000, 100, 100)),
            "the one before was no better"
        );
        assert!(!judged(&good, &work(2, 2, 0, 2)), "two failures prove nothing");
        assert!(judged(&Work::default(), &work(0, 0, 0, 3)), "nothing is known of the one before");
        assert!(judged(&good, &work(100, 1000, 1001, 0)), "ten times as slow");
        assert!(!judged(&good, &work(19, 1000, 100_000, 0)), "too few calls");
        assert!(!judged(&work(100, 1000, 1, 0), &work(100, 1000, 90, 0)), "too fast to matter");
        assert!(!judged(&Work::default(), &work(100, 1000, 100_000, 0)), "nothing to compare with");
        assert!(worse(&settings(), &good, &good, true).is_some());
    }
}

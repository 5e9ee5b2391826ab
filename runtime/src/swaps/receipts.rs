//! The receipts as they are written down, with the numbers that follow from them, and the newest of each receiver, which is looked
//! at too often to be read each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use wharf_state::{State, StateError};

use super::receipt::{Kind, Outcome, ProbationOutcome, Receipt};
use super::versions::Version;
use crate::telemetry::Metrics;

/// The receipts of a server.
#[derive(Debug)]
pub struct Receipts {
    state: State,
    metrics: Arc<Metrics>,
    /// Held while one is changed, so that what is remembered of it is what was written last.
    changing: Mutex<()>,
    newest: Mutex<HashMap<String, Newest>>,
}

/// What the newest receipt of a receiver says in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Newest {
    /// Its number.
    pub id: u64,
    /// What was to be done.
    pub kind: Kind,
    /// What came of it.
    pub outcome: Outcome,
    /// When, in Unix milliseconds.
    pub at: u64,
    /// How the new version proved itself, if it was to.
    pub probation: Option<ProbationOutcome>,
}

impl Receipts {
    /// Those that are kept. Says in those of an earlier run that it ended before they were settled. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When they can't be read or written.
    pub fn open(state: State, metrics: Arc<Metrics>) -> Result<Receipts, StateError> {
        let receipts = Receipts { state, metrics, changing: Mutex::default(), newest: Mutex::default() };
        for receipt in receipts.all()? {
            receipts.remember(&receipt);
            if receipt.is_open() {
                receipts.amend(receipt.id, Receipt::interrupt)?;
            }
        }
        Ok(receipts)
    }

    /// All of them, the oldest first. Those that can't be understood are left out, which is logged. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When they can't be read.
    pub fn all(&self) -> Result<Vec<Receipt>, StateError> {
        let kept = self.state.receipts()?.into_iter();
        Ok(kept
            .filter_map(|kept| {
                let decoded = kept
                    .text
                    .and_then(|text| Receipt::decode(kept.id, &text).map_err(|error| error.to_string()));
                decoded
                    .inspect_err(|problem| {
                        tracing::error!(receipt.id = kept.id, problem, "a receipt is damaged")
                    })
                    .ok()
            })
            .collect())
    }

    /// The newest of a receiver, if it has any.
    pub fn newest(&self, receiver: &str) -> Option<Newest> {
        self.lock().get(receiver).copied()
    }

    /// Writes one down, durably, with the version that the receiver has from now on if that changes, and gives its number. Blocks on
    /// the disk.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub fn add(&self, receipt: &Receipt, version: Option<&Version>) -> Result<u64, StateError> {
        let version = version.map(Version::encode);
        let id = self.state.add_receipt(&receipt.receiver, &receipt.encode(), version.as_deref())?;
        self.metrics.swaps.done(&receipt.receiver, receipt.kind.word(), receipt.outcome.word());
        self.remember(&Receipt { id, ..receipt.clone() });
        Ok(id)
    }

    /// Changes one that is written down. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When it can't be read or written.
    pub fn amend(&self, id: u64, change: impl FnOnce(&mut Receipt)) -> Result<(), StateError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut amended, mut was_settled) = (None, false);
        self.state.amend_receipt(id, |text| {
            let mut receipt = Receipt::decode(id, text)
                .inspect_err(|error| tracing::error!(receipt.id = id, %error, "a receipt is damaged"))
                .ok()?;
            was_settled = receipt.outcome == Outcome::Settled;
            change(&mut receipt);
            let text = receipt.encode();
            amended = Some(receipt);
            Some(text)
        })?;
        if let Some(receipt) = amended {
            if !was_settled && receipt.outcome == Outcome::Settled {
                self.metrics.swaps.lost(&receipt.receiver, receipt.counts.lost);
            }
            self.remember(&receipt);
        }
        Ok(())
    }

    /// Lets the numbers of a receiver begin at 0, where they have not begun.
    pub fn begin_numbers(&self, receiver: &str) {
        let done = Kind::ALL
            .into_iter()
            .flat_map(|kind| Outcome::FIRST.map(|outcome| (kind.word(), outcome.word())));
        self.metrics.swaps.begin(receiver, done, ProbationOutcome::LAST.map(ProbationOutcome::word));
    }

    fn remember(&self, receipt: &Receipt) {
        let Receipt { id, kind, outcome, at, ref probation, .. } = *receipt;
        let probation = probation.as_ref().map(|probation| probation.outcome);
        let mut newest = self.lock();
        if newest.get(&receipt.receiver).is_none_or(|newest| newest.id <= id) {
            newest.insert(receipt.receiver.clone(), Newest { id, kind, outcome, at, probation });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Newest>> {
        // Each is replaced as a whole.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swaps::receipt::ProbationReport;

    #[test]
    fn the_newest_is_what_was_written_last_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        let open = || Receipts::open(state.clone(), Arc::new(Metrics::new())).unwrap();
        let receipts = open();
        assert_eq!(receipts.newest("r"), None);
        let running = Some(ProbationReport { outcome: ProbationOutcome::Running, reason: None });
        let first = Receipt { probation: running, ..Receipt::new("r", Kind::Swap, "me", "aa") };
        let id = receipts.add(&first, None).unwrap();
        let newest = Newest {
            id,
            kind: Kind::Swap,
            outcome: Outcome::Switched,
            at: first.at,
            probation: Some(ProbationOutcome::Running),
        };
        assert_eq!(receipts.newest("r"), Some(newest));
        let second = receipts.add(&Receipt::new("s", Kind::Rollback, "me", "bb"), None).unwrap();
        receipts.amend(id, |receipt| receipt.outcome = Outcome::Settled).unwrap();
        receipts.amend(second, |receipt| receipt.outcome = Outcome::Settled).unwrap();
        assert_eq!(receipts.newest("r"), Some(Newest { outcome: Outcome::Settled, ..newest }));
        // The run ends before the probation does.
        let receipts = open();
        let ended = Some(ProbationOutcome::Ended);
        assert_eq!(
            receipts.newest("r"),
            Some(Newest { outcome: Outcome::Settled, probation: ended, ..newest })
        );
        let third = Receipt { outcome: Outcome::Refused, ..Receipt::new("r", Kind::Swap, "me", "aa") };
        let third = receipts.add(&third, None).unwrap();
        receipts.amend(id, |receipt| receipt.reason = Some("late".to_owned())).unwrap();
        assert_eq!(receipts.newest("r").map(|newest| newest.id), Some(third));
        assert_eq!(receipts.newest("s").map(|newest| newest.id), Some(second));
    }
}

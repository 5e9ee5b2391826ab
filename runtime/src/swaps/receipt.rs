//! What is written down of an exchange of a receiver's component, and told to operators.

use serde::{Deserialize, Serialize};

use crate::delivery::Counts;
use crate::unix_time::unix_milliseconds;

/// The most characters that are kept of who wants a swap.
const MAX_WHO: usize = 256;

/// A receipt: of a swap, a rollback, or one that was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// Its number.
    #[serde(default)]
    pub id: u64,
    /// The receiver.
    pub receiver: String,
    /// What was to be done.
    pub kind: Kind,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was refused, or why it was done without an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who wanted it: an operator, or a part of the server.
    pub who: String,
    /// When it was done or refused, in Unix milliseconds.
    pub at: u64,
    /// When nothing of its window was pending any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<u64>,
    /// The SHA-256 of the component before, in hexadecimal.
    pub old: String,
    /// That of the component that was to come; nothing if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
    /// Imports that the new one has and the old one had not, and the other way round.
    #[serde(default)]
    pub imports_gained: Vec<String>,
    /// See `imports_gained`.
    #[serde(default)]
    pub imports_lost: Vec<String>,
    /// How long it took until the component was ready to run, in milliseconds: next to nothing if it was compiled before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile_ms: Option<f64>,
    /// How long each instance did not work, in milliseconds.
    #[serde(default)]
    pub pause_ms: Vec<f64>,
    /// What was handed over.
    #[serde(default)]
    pub state: StateReport,
    /// What became of the messages around it.
    #[serde(default)]
    pub counts: Counts,
    /// The same by data type and lane, as far as lanes have any.
    #[serde(default)]
    pub lanes: Vec<LaneReport>,
    /// Which messages these are.
    #[serde(default)]
    pub windows: Vec<WindowReport>,
    /// How the new version proved itself, if it was to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation: Option<ProbationReport>,
}

/// What was to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Another component.
    Swap,
    /// Back to the component before.
    Rollback,
    /// The same or another component with other settings.
    Reload,
}

impl Kind {
    /// In words that come before whose component it is.
    pub fn what(self) -> &'static str {
        match self {
            Kind::Swap => "swap the component of",
            Kind::Rollback => "roll back",
            Kind::Reload => "change",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new version works; of some messages it is not known yet what becomes of them.
    Switched,
    /// And nothing is pending any more.
    Settled,
    /// The new version works; the server ended before it was known what becomes of all messages.
    Interrupted,
    /// The old version works as before.
    Refused,
}

/// What was handed over from instance to instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StateReport {
    /// Snapshots that were restored, their formats, and their bytes together.
    pub snapshots: usize,
    /// See `snapshots`.
    pub formats: Vec<String>,
    /// See `snapshots`.
    pub bytes: u64,
    /// Why the state of some instances was not handed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// What was handled since the older snapshots were taken that instances got instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingReport>,
}

/// Messages that a state does not contain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingReport {
    /// The data type.
    pub r#type: String,
    /// The first offset, and the one behind the last.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// The lanes of the instance whose state it is; nothing if it has all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<Vec<usize>>,
}

/// What became of the messages of a lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaneReport {
    /// The data type.
    pub r#type: String,
    /// The lane.
    pub lane: usize,
    /// Everything of the lane below was finished when the swap began.
    pub from: u64,
    /// The last offset that the old version handled, and the first that the new one did.
    pub last_by_old: Option<u64>,
    /// See `last_by_old`.
    pub first_by_new: Option<u64>,
    /// How many of what.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The offsets of a data type that a receipt is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowReport {
    /// The data type.
    pub r#type: String,
    /// The first offset, and the one behind the last.
    pub from: u64,
    /// See `from`.
    pub to: u64,
}

/// How a version proved itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbationReport {
    /// What came of it.
    pub outcome: ProbationOutcome,
    /// Why it was rolled back, or why it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of a probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbationOutcome {
    /// It lasts.
    Running,
    /// The version stays.
    Passed,
    /// The one before is back, as a receipt of its own tells.
    RolledBack,
    /// The version stays although it failed, because the one before could not be brought back.
    Failed,
    /// Another swap, or the end of the server, came before it was over.
    Ended,
}

impl Kind {
    /// Every one of them.
    pub const ALL: [Kind; 3] = [Kind::Swap, Kind::Rollback, Kind::Reload];

    /// As operators read it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Swap => "swap",
            Kind::Rollback => "rollback",
            Kind::Reload => "reload",
        }
    }
}

impl Outcome {
    /// What a receipt can say at first.
    pub const FIRST: [Outcome; 2] = [Outcome::Switched, Outcome::Refused];

    /// As operators read it.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Switched => "switched",
            Outcome::Settled => "settled",
            Outcome::Interrupted => "interrupted",
            Outcome::Refused => "refused",
        }
    }
}

impl ProbationOutcome {
    /// How a probation can end.
    pub const LAST: [ProbationOutcome; 4] = [
        ProbationOutcome::Passed,
        ProbationOutcome::RolledBack,
        ProbationOutcome::Failed,
        ProbationOutcome::Ended,
    ];

    /// As operators read it.
    pub fn word(self) -> &'static str {
        match self {
            ProbationOutcome::Running => "running",
            ProbationOutcome::Passed => "passed",
            ProbationOutcome::RolledBack => "rolled-back",
            ProbationOutcome::Failed => "failed",
            ProbationOutcome::Ended => "ended",
        }
    }
}

impl Receipt {
    /// Of something that is done now with a receiver whose component is `old`.
    pub fn new(receiver: &str, kind: Kind, who: &str, old: &str) -> Receipt {
        Receipt {
            id: 0,
            receiver: receiver.to_owned(),
            kind,
            outcome: Outcome::Switched,
            reason: None,
            who: who.chars().take(MAX_WHO).collect(),
            at: unix_milliseconds(),
            settled_at: None,
            old: old.to_owned(),
            new: None,
            imports_gained: Vec::new(),
            imports_lost: Vec::new(),
            compile_ms: None,
            pause_ms: Vec::new(),
            state: StateReport::default(),
            counts: Counts::default(),
            lanes: Vec::new(),
            windows: Vec::new(),
            probation: None,
        }
    }

    /// Whether it says that something is still to come of it.
    pub fn is_open(&self) -> bool {
        let proving = self.probation.as_ref().is_some_and(|of| of.outcome == ProbationOutcome::Running);
        self.outcome == Outcome::Switched || proving
    }

    /// The server ended before that came.
    pub fn interrupt(&mut self) {
        if self.outcome == Outcome::Switched {
            self.outcome = Outcome::Interrupted;
        }
        if let Some(probation) = &mut self.probation
            && probation.outcome == ProbationOutcome::Running
        {
            probation.outcome = ProbationOutcome::Ended;
        }
    }

    /// As it is written down.
    pub fn encode(&self) -> String {
        // Texts and numbers, with keys that are texts: that can't fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// One that was written down under this number.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn decode(id: u64, text: &str) -> Result<Receipt, serde_json::Error> {
        let mut receipt: Receipt = serde_json::from_str(text)?;
        receipt.id = id;
        Ok(receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_that_are_written_down() {
        fn written(value: impl Serialize) -> String {
            serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
        }
        for kind in Kind::ALL {
            assert_eq!(written(kind), kind.word());
        }
        for outcome in Outcome::FIRST.into_iter().chain([Outcome::Settled, Outcome::Interrupted]) {
            assert_eq!(written(outcome), outcome.word());
        }
        for outcome in ProbationOutcome::LAST.into_iter().chain([ProbationOutcome::Running]) {
            assert_eq!(written(outcome), outcome.word());
        }
    }
}

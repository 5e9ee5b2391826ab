//! The labels of the numbers. Each has a bounded number of values: they come from the config or from the code, never from an
//! agent.

use prometheus_client::encoding::EncodeLabelSet;

/// Which listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ListenerLabel {
    /// `agents` or `admin`.
    pub listener: &'static str,
}

/// What was waited for in vain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TimeoutLabel {
    /// `frame` or `write`.
    waited_for: &'static str,
}

impl TimeoutLabel {
    /// The rest of a frame that had begun.
    pub const FRAME: TimeoutLabel = TimeoutLabel { waited_for: "frame" };
    /// That the client takes what it is sent.
    pub const WRITE: TimeoutLabel = TimeoutLabel { waited_for: "write" };
}

/// Which data type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    /// The name of a configured data type.
    pub r#type: String,
}

/// Which error code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    /// A code of the protocol.
    pub code: &'static str,
}

/// Which receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReceiverLabel {
    /// The name of a configured receiver.
    pub receiver: String,
}

/// A state of which receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// One of the states of a receiver.
    pub state: &'static str,
}

/// Which kind of fault of which receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// What kind of fault, see [`wharf_host::Fault::kind`].
    pub kind: &'static str,
}

impl ReceiverLabel {
    /// The label of one receiver.
    pub fn new(receiver: &str) -> ReceiverLabel {
        ReceiverLabel { receiver: receiver.to_owned() }
    }
}

/// Which receiver and data type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReceiverTypeLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// The name of a configured data type.
    pub r#type: String,
}

/// Which kind of dead letter of which receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeadLetterLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// Why the message is dead, see [`wharf_state::DeathKind::word`].
    pub kind: &'static str,
}

/// Why messages were dropped for which receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DroppedLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// Why there is a gap record, see [`wharf_state::GapReason::word`].
    pub reason: &'static str,
}

/// What kind of swap of which receiver, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SwapLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// What was to be done, see [`crate::swaps::Kind::word`].
    pub kind: &'static str,
    /// What came of it, see [`crate::swaps::Outcome::word`].
    pub outcome: &'static str,
}

/// How a probation of which receiver ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProbationLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// How it ended, see [`crate::swaps::ProbationOutcome::word`].
    pub outcome: &'static str,
}

/// Why appends to the log of which data type were refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedAppendLabel {
    /// The name of a configured data type.
    pub r#type: String,
    /// `no-space` or `failed`.
    pub reason: &'static str,
}

/// Which program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BuildLabel {
    /// Its version.
    pub version: &'static str,
}

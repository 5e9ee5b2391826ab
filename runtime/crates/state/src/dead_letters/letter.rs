//! What a dead letter is: the message, and what is known of its death.

use wharf_log::Lane;

/// The longest reason that is kept, in bytes: a few sentences, or the message of a panic.
pub const MAX_REASON: usize = 4 * 1024;

/// The longest backtrace that is kept, in bytes: some hundred frames.
pub const MAX_BACKTRACE: usize = 16 * 1024;

/// The most that is kept of what the guest wrote to standard error, in bytes.
pub const MAX_STDERR: usize = 16 * 1024;

/// Why a message is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeathKind {
    /// The receiver rejected it.
    Rejected,
    /// The receiver failed with it alone, as often as it may.
    Faults,
    /// It was older than its receiver allows.
    TooOld,
    /// Its record could not be understood, so that no receiver could be given it.
    Unreadable,
}

impl DeathKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Faults, Self::TooOld, Self::Unreadable];

    /// One word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Faults => "faults",
            Self::TooOld => "too-old",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What is known of the death of a message. Texts that are too long to be kept are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The position of the message in its topic.
    pub offset: u64,
    /// The lane of its agent.
    pub lane: Lane,
    /// Its agent; empty if that could not be read.
    pub agent: String,
    /// When it was accepted, Unix milliseconds.
    pub received_at: u64,
    /// How often it was given to the receiver alone, or rejected.
    pub attempts: u32,
    /// Why it is dead.
    pub kind: DeathKind,
    /// The reason, in the receiver's words or the server's. At most [`MAX_REASON`] bytes are kept.
    pub reason: String,
    /// One word for the fault of the guest, if it was one.
    pub trap: Option<String>,
    /// The guest's stack, if there was one. At most [`MAX_BACKTRACE`] bytes are kept.
    pub backtrace: Option<String>,
    /// The last lines that the guest wrote to standard error. At most [`MAX_STDERR`] bytes are kept, the last.
    pub stderr: String,
    /// The digest of the component that could not handle it.
    pub digest: String,
    /// When it died, Unix milliseconds.
    pub died_at: u64,
}

/// A dead letter, to be buried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// What is known of its death.
    pub death: Death,
    /// The message: the bytes of its record in the log, so that it can be given to the receiver when the log has deleted it.
    pub message: &'a [u8],
}

/// A dead letter that is kept, without its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterEntry {
    /// Its number, which no other dead letter of the receiver has or had.
    pub id: u64,
    /// Where its message was.
    pub topic: String,
    /// What is known of its death.
    pub death: Death,
    /// How many bytes its message has.
    pub message_bytes: u64,
    /// Whether it is being redriven.
    pub redriving: bool,
}

/// An entry that is not one that Wharf writes. It counts, and can be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedDeadLetter {
    /// Its number.
    pub id: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// Some of the dead letters of a receiver, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// Those that could be understood, the oldest first.
    pub entries: Vec<DeadLetterEntry>,
    /// Those that could not.
    pub damaged: Vec<DamagedDeadLetter>,
    /// Where the next page begins, if there is more.
    pub next: Option<u64>,
}

/// How much a receiver's dead letters may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterLimits {
    /// How many there may be.
    pub count: u64,
    /// How many bytes they may have, with their messages and [`LETTER_OVERHEAD`](crate::LETTER_OVERHEAD) for each.
    pub bytes: u64,
}

/// How much a receiver's dead letters take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterUsage {
    /// How many there are.
    pub count: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// What came of burying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burial {
    /// The number of each letter, in their order; `None` for one that fell out at once, because there was no room for it.
    pub ids: Vec<Option<u64>>,
    /// How many letters fell out, with those that did at once. Each is in a gap record, unless its entry was damaged.
    pub fallen: u64,
}

/// What came of the beginning of a redrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redrive {
    /// The letter is being redriven from now on.
    Begun {
        /// What is known of it.
        entry: Box<DeadLetterEntry>,
        /// Its message.
        message: Vec<u8>,
    },
    /// It is being redriven already.
    UnderWay,
    /// There is no such letter.
    Missing,
}

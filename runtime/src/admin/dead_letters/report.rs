//! Dead letters as JSON.

use serde::Serialize;
use serde_json::value::RawValue;
use wharf_protocol::{Encoding, PresenceRecord, Record, StoredMessage};
use wharf_state::{DamagedDeadLetter, DeadLetterEntry, Death};

use crate::delivery::{LetterState, Shown};

/// A letter without its message.
#[derive(Serialize)]
pub struct LetterReport {
    id: u64,
    r#type: String,
    offset: u64,
    agent: String,
    /// When the message was accepted, Unix milliseconds.
    received_at: u64,
    /// When it died, Unix milliseconds.
    died_at: u64,
    /// `dead`, `queued` or `redriving`.
    state: &'static str,
    kind: &'static str,
    attempts: u32,
    reason: String,
    trap: Option<String>,
    backtrace: Option<String>,
    /// The last that the guest wrote to standard error.
    stderr: String,
    /// That of the component.
    digest: String,
    message_bytes: u64,
}

/// A letter that is none.
#[derive(Serialize)]
pub struct DamagedReport {
    id: u64,
    problem: String,
}

/// A letter with its message.
#[derive(Serialize)]
pub struct ShownReport {
    #[serde(flatten)]
    letter: LetterReport,
    record: RecordReport,
}

/// What lay in the log.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum RecordReport {
    Message(Box<MessageReport>),
    Presence { agent: String, active: bool, at: u64 },
    Unreadable { problem: String },
}

#[derive(Serialize)]
struct MessageReport {
    agent: String,
    received_at: u64,
    message_id: Option<String>,
    sent_at: Option<u64>,
    user: Option<String>,
    traceparent: Option<String>,
    /// How the agent sent it.
    encoding: &'static str,
    /// Its `data`, as JSON whatever the encoding.
    data: Box<RawValue>,
}

impl LetterReport {
    /// What is known of a letter.
    pub fn new(entry: DeadLetterEntry, state: LetterState) -> LetterReport {
        let DeadLetterEntry { id, topic, death, message_bytes, redriving: _ } = entry;
        let Death {
            offset,
            lane: _,
            agent,
            received_at,
            attempts,
            kind,
            reason,
            trap,
            backtrace,
            stderr,
            digest,
            died_at,
        } = death;
        LetterReport {
            id,
            r#type: topic,
            offset,
            agent,
            received_at,
            died_at,
            state: state.word(),
            kind: kind.word(),
            attempts,
            reason,
            trap,
            backtrace,
            stderr,
            digest,
            message_bytes,
        }
    }
}

impl From<DamagedDeadLetter> for DamagedReport {
    fn from(damaged: DamagedDeadLetter) -> DamagedReport {
        DamagedReport { id: damaged.id, problem: damaged.problem }
    }
}

impl From<Shown> for ShownReport {
    fn from(shown: Shown) -> ShownReport {
        let Shown { entry, state, record } = shown;
        let record = match Record::decode(record.into()) {
            Ok(Record::Message(message)) => RecordReport::message(message),
            Ok(Record::Presence(PresenceRecord { agent, active, at })) => {
                RecordReport::Presence { agent: agent.as_str().to_owned(), active, at }
            }
            Err(error) => RecordReport::Unreadable { problem: error.to_string() },
        };
        ShownReport { letter: LetterReport::new(entry, state), record }
    }
}

impl RecordReport {
    fn message(message: StoredMessage) -> RecordReport {
        let StoredMessage { agent, received_at, message_id, sent_at, user, traceparent, body } = message;
        // What is stored was checked when it came in; this checks it once more, so that the answer is JSON in any case.
        let data = match RawValue::from_string(body.to_json().into_owned()) {
            Ok(data) => data,
            Err(error) => {
                return RecordReport::Unreadable { problem: format!("its body is no JSON: {error}") };
            }
        };
        let encoding = match body.encoding() {
            Encoding::Json => "json",
            Encoding::Msgpack => "msgpack",
        };
        let agent = agent.as_str().to_owned();
        let message =
            MessageReport { agent, received_at, message_id, sent_at, user, traceparent, encoding, data };
        RecordReport::Message(Box::new(message))
    }
}

//! From log records to what a component is handed, and what it says about it.

use std::collections::{HashMap, HashSet};

use thiserror::Error;
use wharf_host::{Body, Failure, FailureAction, Message, Redelivery};
use wharf_log::{Entry, Lane};
use wharf_protocol::{Encoding, Record, RecordError};

use crate::config;

/// Messages of one data type that are handed to a component together.
#[derive(Debug)]
pub struct Batch {
    /// Which source of the worker they come from.
    pub source: usize,
    /// What the component gets.
    pub given: wharf_host::Batch,
    /// The lane of each message.
    pub lanes: Vec<Lane>,
    /// When the batch is finished, everything of its lanes below is.
    pub end: u64,
}

impl Batch {
    /// A batch without messages yet.
    pub fn new(source: usize, data_type: &str, end: u64) -> Batch {
        let given = wharf_host::Batch { data_type: data_type.to_owned(), messages: Vec::new() };
        Batch { source, given, lanes: Vec::new(), end }
    }

    /// Adds the next message.
    pub fn push(&mut self, lane: Lane, message: Message) {
        self.lanes.push(lane);
        self.given.messages.push(message);
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Takes the messages out, each as a batch of its own, to be delivered again.
    pub fn take_singles(&mut self) -> Vec<Single> {
        let messages = std::mem::take(&mut self.given.messages);
        let lanes = std::mem::take(&mut self.lanes);
        let single = |(lane, mut message): (Lane, Message)| {
            message.redelivery = Redelivery::Again;
            let offset = message.offset;
            let agent = message.agent.clone();
            let given =
                wharf_host::Batch { data_type: self.given.data_type.clone(), messages: vec![message] };
            Single { source: self.source, lane, offset, agent, given }
        };
        lanes.into_iter().zip(messages).map(single).collect()
    }
}

/// One message that is delivered alone.
#[derive(Debug)]
pub struct Single {
    /// Which source of the worker it comes from.
    pub source: usize,
    /// The lane of its agent.
    pub lane: Lane,
    /// Its offset.
    pub offset: u64,
    /// Its agent.
    pub agent: String,
    /// What the component gets: a batch of this message.
    pub given: wharf_host::Batch,
}

/// Makes the message that a component gets of a record of the log.
pub fn message(
    entry: Entry,
    encoding: config::Encoding,
    redelivery: Redelivery,
) -> Result<Option<Message>, RecordError> {
    let Record::Message(stored) = Record::decode(entry.payload)? else { return Ok(None) };
    let body = match (encoding, stored.body.encoding()) {
        (config::Encoding::AsSent, Encoding::Msgpack) => Body::Msgpack(stored.body.bytes().to_vec()),
        (config::Encoding::AsSent, Encoding::Json) | (config::Encoding::Json, _) => {
            Body::Json(stored.body.to_json().into_owned())
        }
    };
    Ok(Some(Message {
        offset: entry.offset,
        agent: stored.agent.as_str().to_owned(),
        received_at: stored.received_at,
        redelivery,
        id: stored.message_id,
        sent_at: stored.sent_at,
        user: stored.user,
        trace: stored.traceparent,
        body,
    }))
}

/// What a component says of messages that it did not handle, by offset.
pub type Said = HashMap<u64, (FailureAction, String)>;

/// An answer of `handle` that can't be right.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WrongAnswer {
    /// It names a message that it was not given.
    #[error("handle listed offset {0}, which is not in the batch")]
    UnknownOffset(u64),
    /// It names a message twice.
    #[error("handle listed offset {0} twice")]
    DoubledOffset(u64),
}

/// Checks that each failure is about a message of the batch, and about each message once.
pub fn said(given: &wharf_host::Batch, failures: Vec<Failure>) -> Result<Said, WrongAnswer> {
    if failures.is_empty() {
        return Ok(Said::new());
    }
    let offsets: HashSet<u64> = given.messages.iter().map(|message| message.offset).collect();
    let mut said = Said::new();
    for Failure { offset, action, reason } in failures {
        if !offsets.contains(&offset) {
            return Err(WrongAnswer::UnknownOffset(offset));
        }
        if said.insert(offset, (action, reason)).is_some() {
            return Err(WrongAnswer::DoubledOffset(offset));
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(offsets: &[u64]) -> Batch {
        let mut batch = Batch::new(0, "t", 10);
        for &offset in offsets {
            let message = Message {
                offset,
                agent: "a".to_owned(),
                received_at: 0,
                redelivery: Redelivery::None,
                id: None,
                sent_at: None,
                user: None,
                trace: None,
                body: Body::Json("{}".to_owned()),
            };
            batch.push(Lane::of("a"), message);
        }
        batch
    }

    fn failure(offset: u64) -> Failure {
        Failure { offset, action: FailureAction::Reject, reason: "no".to_owned() }
    }

    #[test]
    fn failures_are_found_by_offset() {
        let given = batch(&[1, 2, 5, 9]).given;
        assert!(said(&given, Vec::new()).unwrap().is_empty());
        let said = said(&given, vec![failure(9), failure(2)]).unwrap();
        assert!(said.contains_key(&2) && said.contains_key(&9) && said.len() == 2);
    }

    #[test]
    fn an_answer_about_other_messages_is_wrong() {
        let given = batch(&[1, 2]).given;
        assert_eq!(said(&given, vec![failure(3)]).unwrap_err(), WrongAnswer::UnknownOffset(3));
        assert_eq!(said(&given, vec![failure(2), failure(2)]).unwrap_err(), WrongAnswer::DoubledOffset(2));
    }

    #[test]
    fn singles_keep_the_order_and_are_marked_as_delivered_before() {
        let mut batch = batch(&[1, 2, 5]);
        let singles = batch.take_singles();
        assert_eq!(singles.iter().map(|single| single.offset).collect::<Vec<_>>(), [1, 2, 5]);
        assert!(singles.iter().all(|single| single.given.messages[0].redelivery == Redelivery::Again));
        assert_eq!(batch.len(), 0);
    }
}

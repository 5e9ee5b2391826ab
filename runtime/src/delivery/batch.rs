//! From log records to what a component is handed, and what it says about it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use wharf_host::{Body, Failure, FailureAction, Message, PresenceChange, Redelivery};
use wharf_log::Lane;
use wharf_protocol::{Encoding, Record};

use crate::config;

/// What a component is called with.
#[derive(Debug)]
pub enum Given {
    /// Messages, for `handle`.
    Messages(wharf_host::Batch),
    /// Changes of presence, for `agents-changed`.
    Changes(Vec<PresenceChange>),
}

/// What a record of the log is to a receiver.
#[derive(Debug)]
pub enum Item {
    /// A message.
    Message(Message),
    /// An agent came or went.
    Change(PresenceChange),
}

/// Messages of one data type that are handed to a component together, and the changes of presence that come before them.
#[derive(Debug)]
pub struct Batch {
    /// Which source of the worker they come from.
    pub source: usize,
    /// The messages, as the component gets them.
    pub given: Given,
    data_type: Arc<str>,
    /// Of each message its lane and its record.
    kept: Vec<(Lane, Bytes)>,
    changes: Vec<(Lane, Bytes, PresenceChange)>,
}

impl Batch {
    /// A batch without messages yet.
    pub fn new(source: usize, data_type: &Arc<str>) -> Batch {
        let given = Given::of(data_type, Vec::new());
        Batch { source, given, data_type: data_type.clone(), kept: Vec::new(), changes: Vec::new() }
    }

    /// Adds the next message, with its record.
    pub fn push(&mut self, lane: Lane, record: Bytes, message: Message) {
        self.kept.push((lane, record));
        if let Given::Messages(batch) = &mut self.given {
            batch.messages.push(message);
        }
    }

    /// Adds the next change. It comes before every message of the batch, so there must be none of its agent yet.
    pub fn push_change(&mut self, lane: Lane, record: Bytes, change: PresenceChange) {
        self.changes.push((lane, record, change));
    }

    /// Whether one of the messages is of this agent.
    pub fn has_message_of(&self, agent: &str) -> bool {
        self.messages().any(|message| message.agent == agent)
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// How many changes come before them.
    pub fn changes_len(&self) -> usize {
        self.changes.len()
    }

    /// The lane and the offset of every message and change.
    pub fn places(&self) -> impl Iterator<Item = (Lane, u64)> {
        let changes = self.changes.iter().map(|(lane, _, change)| (*lane, change.offset));
        changes
            .chain(self.kept.iter().zip(self.messages()).map(|((lane, _), message)| (*lane, message.offset)))
    }

    /// The changes as the component gets them, if there are any.
    pub fn changes(&self) -> Option<Given> {
        let changes: Vec<_> = self.changes.iter().map(|(_, _, change)| change.clone()).collect();
        (!changes.is_empty()).then_some(Given::Changes(changes))
    }

    /// Takes the changes out, each to be delivered alone.
    pub fn take_changes(&mut self) -> Vec<Single> {
        let changes = std::mem::take(&mut self.changes);
        let single = |(lane, record, change): (Lane, Bytes, PresenceChange)| Single {
            key: Key {
                lane,
                offset: change.offset,
                agent: change.agent.clone(),
                received_at: change.at,
                record,
            },
            given: Given::Changes(vec![change]),
        };
        changes.into_iter().map(single).collect()
    }

    /// Takes the messages out as a batch that is delivered again.
    pub fn take_again(&mut self) -> Batch {
        let mut again = Batch::new(self.source, &self.data_type);
        std::mem::swap(&mut again.given, &mut self.given);
        std::mem::swap(&mut again.kept, &mut self.kept);
        again.given.mark_again();
        again
    }

    /// Leaves the first half of the messages and gives the others, which are at least as many.
    pub fn split_off_half(&mut self) -> Batch {
        let mut right = Batch::new(self.source, &self.data_type);
        let half = self.kept.len() / 2;
        right.kept = self.kept.split_off(half);
        if let Given::Messages(batch) = &mut self.given {
            right.given = Given::of(&self.data_type, batch.messages.split_off(half));
        }
        right
    }

    /// Takes out the messages of which `which` is true.
    pub fn take_if(&mut self, which: impl Fn(&Message) -> bool) -> Vec<Single> {
        if !self.messages().any(&which) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        let (source, data_type) = (self.source, self.data_type.clone());
        let mut rest = Batch::new(source, &data_type);
        let kept = std::mem::take(&mut self.kept);
        for ((lane, record), message) in kept.into_iter().zip(self.take_messages()) {
            if which(&message) {
                taken.push(Single::of(&data_type, lane, record, message));
            } else {
                rest.push(lane, record, message);
            }
        }
        (self.given, self.kept) = (rest.given, rest.kept);
        taken
    }

    /// Takes the messages out, each as a batch of its own, to be delivered again.
    pub fn take_singles(&mut self) -> Vec<Single> {
        let messages = self.take_messages();
        let kept = std::mem::take(&mut self.kept);
        let single = |((lane, record), mut message): ((Lane, Bytes), Message)| {
            message.redelivery = Redelivery::Again;
            Single::of(&self.data_type, lane, record, message)
        };
        kept.into_iter().zip(messages).map(single).collect()
    }

    fn messages(&self) -> impl Iterator<Item = &Message> {
        let messages = match &self.given {
            Given::Messages(batch) => batch.messages.as_slice(),
            Given::Changes(_) => &[],
        };
        messages.iter()
    }

    fn take_messages(&mut self) -> Vec<Message> {
        match std::mem::replace(&mut self.given, Given::of(&self.data_type, Vec::new())) {
            Given::Messages(batch) => batch.messages,
            Given::Changes(_) => Vec::new(),
        }
    }
}

impl Given {
    fn of(data_type: &Arc<str>, messages: Vec<Message>) -> Given {
        Given::Messages(wharf_host::Batch { data_type: data_type.to_string(), messages })
    }

    /// Marks what was given before.
    pub fn mark_again(&mut self) {
        if let Given::Messages(batch) = self {
            for message in &mut batch.messages {
                message.redelivery = Redelivery::Again;
            }
        }
    }
}

/// One message or change that is delivered alone.
#[derive(Debug)]
pub struct Single {
    /// What it is.
    pub key: Key,
    /// What the component gets: this one alone.
    pub given: Given,
}

impl Single {
    fn of(data_type: &Arc<str>, lane: Lane, record: Bytes, message: Message) -> Single {
        let key = Key {
            lane,
            offset: message.offset,
            agent: message.agent.clone(),
            received_at: message.received_at,
            record,
        };
        Single { key, given: Given::of(data_type, vec![message]) }
    }
}

/// What a record of the log is, whoever gets it.
#[derive(Clone, Debug)]
pub struct Key {
    /// The lane of its agent.
    pub lane: Lane,
    /// Its offset.
    pub offset: u64,
    /// Its agent; empty if that can't be read.
    pub agent: String,
    /// When it was accepted, Unix milliseconds; 0 if that can't be read.
    pub received_at: u64,
    /// Its bytes in the log.
    pub record: Bytes,
}

/// Makes what a component gets of a record of the log.
pub fn item(
    record: Record,
    offset: u64,
    data_type: &str,
    encoding: config::Encoding,
    redelivery: Redelivery,
) -> Item {
    let stored = match record {
        Record::Message(stored) => stored,
        Record::Presence(change) => {
            return Item::Change(PresenceChange {
                data_type: data_type.to_owned(),
                offset,
                agent: change.agent.as_str().to_owned(),
                active: change.active,
                at: change.at,
            });
        }
    };
    let body = match (encoding, stored.body.encoding()) {
        (config::Encoding::AsSent, Encoding::Msgpack) => Body::Msgpack(stored.body.bytes().to_vec()),
        (config::Encoding::AsSent, Encoding::Json) | (config::Encoding::Json, _) => {
            Body::Json(stored.body.to_json().into_owned())
        }
    };
    Item::Message(Message {
        offset,
        agent: stored.agent.as_str().to_owned(),
        received_at: stored.received_at,
        redelivery,
        id: stored.message_id,
        sent_at: stored.sent_at,
        user: stored.user,
        trace: stored.traceparent,
        body,
    })
}

/// The agent of a record.
pub fn agent_of(record: &Record) -> &str {
    match record {
        Record::Message(stored) => stored.agent.as_str(),
        Record::Presence(change) => change.agent.as_str(),
    }
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
        let mut batch = Batch::new(0, &"t".into());
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
            batch.push(Lane::of("a"), Bytes::from(vec![1, 2, 3]), message);
        }
        batch
    }

    fn given(offsets: &[u64]) -> wharf_host::Batch {
        match batch(offsets).given {
            Given::Messages(given) => given,
            Given::Changes(_) => panic!("a batch gives messages"),
        }
    }

    fn failure(offset: u64) -> Failure {
        Failure { offset, action: FailureAction::Reject, reason: "no".to_owned() }
    }

    #[test]
    fn failures_are_found_by_offset() {
        let given = given(&[1, 2, 5, 9]);
        assert!(said(&given, Vec::new()).unwrap().is_empty());
        let said = said(&given, vec![failure(9), failure(2)]).unwrap();
        assert!(said.contains_key(&2) && said.contains_key(&9) && said.len() == 2);
    }

    #[test]
    fn an_answer_about_other_messages_is_wrong() {
        let given = given(&[1, 2]);
        assert_eq!(said(&given, vec![failure(3)]).unwrap_err(), WrongAnswer::UnknownOffset(3));
        assert_eq!(said(&given, vec![failure(2), failure(2)]).unwrap_err(), WrongAnswer::DoubledOffset(2));
    }

    #[test]
    fn halves_keep_the_order_and_every_message() {
        let mut whole = batch(&[1, 2, 5, 9, 12]).take_again();
        let mut right = whole.split_off_half();
        let offsets = |batch: &mut Batch| {
            batch.take_singles().iter().map(|single| single.key.offset).collect::<Vec<_>>()
        };
        assert_eq!((offsets(&mut whole), offsets(&mut right)), (vec![1, 2], vec![5, 9, 12]));
        assert_eq!((whole.len(), right.len()), (0, 0));
    }

    #[test]
    fn singles_keep_the_order_and_are_marked_as_delivered_before() {
        let mut batch = batch(&[1, 2, 5]);
        let singles = batch.take_singles();
        assert_eq!(singles.iter().map(|single| single.key.offset).collect::<Vec<_>>(), [1, 2, 5]);
        let again = |single: &Single| matches!(&single.given, Given::Messages(given) if given.messages[0].redelivery == Redelivery::Again);
        assert!(singles.iter().all(again));
        assert_eq!(batch.len(), 0);
    }
}

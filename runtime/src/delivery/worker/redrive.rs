//! Gives dead letters to their receiver again, one at a time and each once, because an operator wants it. They are not in
//! order with other messages, and marked.

use std::time::Duration;

use bytes::Bytes;
use wharf_host::{FailureAction, Redelivery};
use wharf_protocol::Record;
use wharf_state::{DeadLetterEntry, Redrive};

use super::Worker;
use super::deliver::pause_of;
use crate::delivery::Stopped;
use crate::delivery::batch::{self, Batch, Given, Item, Key};
use crate::delivery::burial::{Dead, Why};

impl Worker {
    /// Gives a dead letter to the receiver again.
    pub(super) async fn redrive(&mut self, id: u64) -> Result<(), Stopped> {
        let redriven = self.redrive_once(id).await;
        if redriven.is_err() {
            // It stays a dead letter; in this run it is still to be given again.
            self.burials.give_up_redrive(id);
            self.redrives.postpone(self.index, id, Duration::ZERO);
        }
        self.redrives.over(self.index);
        redriven
    }

    async fn redrive_once(&mut self, id: u64) -> Result<(), Stopped> {
        let (entry, message) = match self.burials.begin_redrive(id, &self.turn).await? {
            Redrive::Begun { entry, message } => (entry, Bytes::from(message)),
            Redrive::UnderWay | Redrive::Missing => return Ok(()),
        };
        let DeadLetterEntry { topic, death, .. } = *entry;
        let key = Key {
            lane: death.lane,
            offset: death.offset,
            agent: death.agent,
            received_at: death.received_at,
            record: message.clone(),
        };
        let attempts = death.attempts.saturating_add(1);
        let again = |key, why| Dead { key, why, attempts };
        let record = match Record::decode(message.clone()) {
            Ok(record) => record,
            Err(error) => {
                let dead = again(key, Why::Unreadable(error.to_string()));
                return self.burials.rebury(id, &topic, &dead, &self.turn).await;
            }
        };
        let data_type = topic.as_str().into();
        let mut batch = Batch::new(0, &data_type);
        let mut given =
            match batch::item(record, key.offset, &topic, self.settings.encoding, Redelivery::Redrive) {
                Item::Message(message_again) => {
                    batch.push(key.lane, message, message_again);
                    batch.given
                }
                Item::Change(change) if self.hears_presence => Given::Changes(vec![change]),
                // The component was replaced by one that does not want to know of it.
                Item::Change(_) => return self.burials.end_redrive(id, &self.turn).await,
            };
        let why = match self.call(None, &mut given).await? {
            Ok(said) => match said.into_values().next() {
                None => {
                    if matches!(given, Given::Messages(_)) {
                        self.status.handled.inc();
                    }
                    return self.burials.end_redrive(id, &self.turn).await;
                }
                Some((FailureAction::Reject, reason)) => Why::Rejected(reason),
                Some((FailureAction::Retry(_), reason)) if self.is_too_old(&key) => Why::TooOld(reason),
                Some((FailureAction::Retry(after), _)) => {
                    self.status.retried.inc();
                    self.burials.give_up_redrive(id);
                    let pause = pause_of(after).max(self.settings.retry_pause);
                    self.redrives.postpone(self.index, id, pause);
                    return Ok(());
                }
            },
            Err(evidence) => {
                self.breaker.failure();
                Why::Failed(evidence)
            }
        };
        self.burials.rebury(id, &topic, &again(key, why), &self.turn).await
    }
}

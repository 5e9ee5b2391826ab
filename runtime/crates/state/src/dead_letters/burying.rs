//! A change of the dead letters of one receiver, as part of a batch: letters that come and go, and what falls out for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fjall::OwnedWriteBatch;

use super::{
    layout::{self, Head, Usage, letter_bytes},
    ledger::letter_bytes_of,
    letter::{DeadLetter, DeadLetterLimits, Death},
};
use crate::{Gap, GapReason, State, StateError, store::open::Open};

pub struct Burying<'a> {
    state: &'a State,
    open: &'a Open,
    receiver: &'a str,
    limits: DeadLetterLimits,
    usage: Usage,
    /// The letters that are being redriven.
    held: BTreeSet<u64>,
    held_bytes: u64,
    /// What has gone in this change.
    gone: BTreeSet<u64>,
    fallen: u64,
    gaps: BTreeMap<String, Vec<Gap>>,
}

/// A letter that is to be written if it need not fall out at once.
struct New<'a> {
    head: Vec<u8>,
    bytes: u64,
    letter: &'a DeadLetter<'a>,
    /// Its place in the order in which the letters were given.
    place: usize,
}

impl<'a> Burying<'a> {
    /// Begins a change. Nobody else may write meanwhile.
    pub fn begin(state: &'a State, open: &'a Open, receiver: &'a str, limits: DeadLetterLimits) -> Self {
        let ledger = state.ledger();
        let (held, held_bytes) = ledger.held(receiver);
        let usage = ledger.usage(receiver);
        drop(ledger);
        let (gone, gaps) = Default::default();
        Self { state, open, receiver, limits, usage, held, held_bytes, gone, fallen: 0, gaps }
    }

    /// Adds letters after making room for them, and gives the id of each that did not fall out at once.
    pub fn add(
        &mut self,
        batch: &mut OwnedWriteBatch,
        topic: &str,
        letters: &[DeadLetter<'_>],
    ) -> Result<Vec<Option<u64>>, StateError> {
        let Some(now) = letters.iter().map(|letter| letter.death.died_at).max() else {
            return Ok(Vec::new());
        };
        // What redrives leave of the bounds. A letter beyond it would push out all the others and stay out itself.
        let most_bytes = self.limits.bytes.saturating_sub(self.held_bytes);
        let held = u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        let mut new = VecDeque::with_capacity(letters.len());
        for (place, letter) in letters.iter().enumerate() {
            let message_bytes = u32::try_from(letter.message.len())
                .map_err(|_| StateError::Burial { found: letter.message.len() })?;
            let head = Head { topic: topic.to_owned(), death: letter.death.clone(), message_bytes }.encode();
            let bytes = letter_bytes(head.len(), message_bytes);
            if bytes > most_bytes || held >= self.limits.count {
                self.fall(topic, &letter.death, now);
            } else {
                self.usage.count = self.usage.count.saturating_add(1);
                self.usage.bytes = self.usage.bytes.saturating_add(bytes);
                new.push_back(New { head, bytes, letter, place });
            }
        }
        self.make_room(batch, now)?;
        while self.is_over()
            && let Some(New { bytes, letter, .. }) = new.pop_front()
        {
            self.discount(bytes);
            self.fall(topic, &letter.death, now);
        }
        let mut ids = vec![None; letters.len()];
        for New { head, letter, place, .. } in new {
            // Ids end so far below the end of the numbers that this never meets it.
            self.usage.last_id = self.usage.last_id.saturating_add(1);
            let id = self.usage.last_id;
            if let Some(place) = ids.get_mut(place) {
                *place = Some(id);
            }
            let area = &self.open.dead_letters;
            area.put(batch, layout::head_key(self.receiver, id), head);
            area.put(batch, layout::message_key(self.receiver, id), letter.message);
        }
        Ok(ids)
    }

    /// Writes anew what is known of a letter's death, if it is there, and makes room for that.
    pub fn replace(
        &mut self,
        batch: &mut OwnedWriteBatch,
        id: u64,
        death: Death,
    ) -> Result<bool, StateError> {
        let key = layout::head_key(self.receiver, id);
        let Some(stored) = self.get(&key)? else { return Ok(false) };
        let head = Head::decode(&stored).map_err(|problem| StateError::DamagedDeadLetter {
            receiver: self.receiver.to_owned(),
            id,
            problem,
        })?;
        let now = death.died_at;
        let Head { topic, message_bytes, .. } = head;
        let head = Head { topic, death, message_bytes }.encode();
        self.discount_bytes(letter_bytes(stored.len(), message_bytes));
        self.usage.bytes = self.usage.bytes.saturating_add(letter_bytes(head.len(), message_bytes));
        self.open.dead_letters.put(batch, key, head);
        // It stays, whether its redrive is still known or not.
        self.held.insert(id);
        self.make_room(batch, now)?;
        Ok(true)
    }

    /// Removes letters, and says how many there were.
    pub fn remove(&mut self, batch: &mut OwnedWriteBatch, ids: &[u64]) -> Result<u64, StateError> {
        let mut removed = 0;
        for &id in ids {
            if self.gone.contains(&id) {
                continue;
            }
            let Some(head) = self.get(&layout::head_key(self.receiver, id))? else { continue };
            self.remove_one(batch, id, &head)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Adds to the batch what goes with the letters: how much they take, and the gaps of those that fell out. Gives how
    /// much they take, and how many fell out.
    pub fn finish(self, batch: &mut OwnedWriteBatch) -> Result<(Usage, u64), StateError> {
        for (topic, gaps) in &self.gaps {
            self.state.add_gaps(self.open, batch, self.receiver, topic, gaps)?;
        }
        self.open.dead_letters.put(batch, layout::usage_key(self.receiver), self.usage.encode());
        Ok((self.usage, self.fallen))
    }

    /// Lets the oldest letters fall out until the others are within the limits, or until only those are left that are being
    /// redriven.
    fn make_room(&mut self, batch: &mut OwnedWriteBatch, now: u64) -> Result<(), StateError> {
        if !self.is_over() {
            return Ok(());
        }
        let open = self.open;
        for entry in open.dead_letters.keyspace.range(layout::head_keys(self.receiver, 0, u64::MAX)) {
            if !self.is_over() {
                break;
            }
            let (key, value) = entry.into_inner().map_err(|error| self.state.read_error(error))?;
            let Some(id) = layout::parse_head_key(self.receiver, &key) else { continue };
            if self.held.contains(&id) || self.gone.contains(&id) {
                continue;
            }
            self.remove_one(batch, id, &value)?;
            match Head::decode(&value) {
                Ok(head) => self.fall(&head.topic, &head.death, now),
                Err(problem) => {
                    self.fallen += 1;
                    tracing::error!(
                        receiver.name = self.receiver,
                        dead_letter.id = id,
                        problem,
                        "a dead letter that can't be understood fell out; which message it was is not known"
                    );
                }
            }
        }
        Ok(())
    }

    fn remove_one(&mut self, batch: &mut OwnedWriteBatch, id: u64, head: &[u8]) -> Result<(), StateError> {
        let bytes = letter_bytes_of(self.open, self.receiver, id, head)
            .map_err(|error| self.state.read_error(error))?;
        self.discount(bytes);
        self.gone.insert(id);
        self.open.dead_letters.remove(batch, layout::head_key(self.receiver, id));
        self.open.dead_letters.remove(batch, layout::message_key(self.receiver, id));
        Ok(())
    }

    fn fall(&mut self, topic: &str, death: &Death, now: u64) {
        self.fallen += 1;
        let offsets = death.offset..death.offset.saturating_add(1);
        let gap = Gap::new(offsets, Some(1), GapReason::DeadLettersFull, now);
        self.gaps.entry(topic.to_owned()).or_default().push(gap);
    }

    fn is_over(&self) -> bool {
        self.usage.count > self.limits.count || self.usage.bytes > self.limits.bytes
    }

    fn discount(&mut self, bytes: u64) {
        self.usage.count = self.usage.count.saturating_sub(1);
        self.discount_bytes(bytes);
    }

    fn discount_bytes(&mut self, bytes: u64) {
        self.usage.bytes = self.usage.bytes.saturating_sub(bytes);
    }

    fn get(&self, key: &[u8]) -> Result<Option<fjall::Slice>, StateError> {
        self.open.dead_letters.keyspace.get(key).map_err(|error| self.state.read_error(error))
    }
}

//! One change of what a receiver keeps: collects what is to be written, reckons what the receiver will use then, and writes
//! both in one piece. Whoever has a transaction is the only one who writes.

use std::collections::BTreeMap;

use fjall::Slice;

use super::{
    KeyValueError, Refusal,
    bucket::Place,
    layout::{self, Entry, Usage, entry_bytes},
    open::{Open, damaged},
};
use crate::StateError;

/// A change that is not written yet. Reads give what was there before it.
pub struct Transaction<'a> {
    open: &'a Open,
    receiver: &'a str,
    before: Usage,
    /// What each place gets, and what it counts before and after.
    changes: BTreeMap<Vec<u8>, Change>,
}

struct Change {
    value: Option<Vec<u8>>,
    old_bytes: u64,
    new_bytes: u64,
}

/// An entry as it was found.
pub struct Found {
    stored: Slice,
    /// The number of the write that made it.
    pub write: u64,
}

impl Found {
    /// Reads what lies at a place.
    pub fn read(open: &Open, place: &Place<'_>) -> Result<Option<Self>, StateError> {
        let Some(stored) = open.get(&place.key())? else { return Ok(None) };
        let write = Entry::decode(&stored).map_err(|problem| place.damaged(&problem))?.write;
        Ok(Some(Self { stored, write }))
    }

    /// The receiver's value.
    pub fn value(&self) -> &[u8] {
        // It was understood when it was read.
        Entry::decode(&self.stored).map_or(&[], |entry| entry.value)
    }
}

impl<'a> Transaction<'a> {
    pub fn begin(open: &'a Open, receiver: &'a str) -> Result<Self, StateError> {
        let before = match open.get(&layout::usage_key(receiver))? {
            Some(stored) => Usage::decode(&stored).map_err(|problem| damaged(receiver, problem))?,
            None => Usage::default(),
        };
        Ok(Self { open, receiver, before, changes: BTreeMap::new() })
    }

    /// What lies at a place.
    pub fn get(&self, place: &Place<'_>) -> Result<Option<Found>, StateError> {
        let found = Found::read(self.open, place)?;
        if let Some(found) = &found
            && found.write > self.before.writes
        {
            let Usage { writes, .. } = self.before;
            return Err(place
                .damaged(&format!("it is of write {}, and there were only {writes} writes", found.write)));
        }
        Ok(found)
    }

    /// Puts a value at a place, whatever is there.
    pub fn put(&mut self, place: &Place<'_>, value: &[u8]) -> Result<(), StateError> {
        let old_bytes = self.bytes_at(place)?;
        let new_bytes = entry_bytes(place.bucket, place.key, value.len());
        let value = Some(Entry { write: self.next_write()?, value }.encode());
        self.changes.insert(place.key(), Change { value, old_bytes, new_bytes });
        Ok(())
    }

    /// Removes what is at a place, if anything is.
    pub fn remove(&mut self, place: &Place<'_>) -> Result<(), StateError> {
        let old_bytes = self.bytes_at(place)?;
        if old_bytes > 0 {
            self.changes.insert(place.key(), Change { value: None, old_bytes, new_bytes: 0 });
        }
        Ok(())
    }

    /// Writes the change, and gives what the receiver uses then; nothing if nothing changes.
    pub fn commit(self, limit: u64) -> Result<Option<Usage>, KeyValueError> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        let sum =
            |bytes: fn(&Change) -> u64| self.changes.values().map(bytes).fold(0_u64, u64::saturating_add);
        let (freed, asked) = (sum(|change| change.old_bytes), sum(|change| change.new_bytes));
        let used = self.before.bytes;
        let kept = used.checked_sub(freed).ok_or_else(|| {
            damaged(self.receiver, format!("it says that {used} bytes are in use, but {freed} were found"))
        })?;
        let bytes = kept.saturating_add(asked);
        // What makes less of it is always possible: there may be more than the limit since that was lowered.
        if bytes > limit && bytes > used {
            return Err(Refusal::Quota { asked: bytes - used, used, limit }.into());
        }
        let usage = Usage { bytes, writes: self.next_write()? };
        let changes = self.changes.into_iter().map(|(key, change)| (key, change.value));
        self.open.write(changes.chain([(layout::usage_key(self.receiver), Some(usage.encode()))]))?;
        Ok(Some(usage))
    }

    /// The number that this change gets.
    pub fn next_write(&self) -> Result<u64, StateError> {
        self.before
            .writes
            .checked_add(1)
            .ok_or_else(|| damaged(self.receiver, "its writes can't be counted any further".to_owned()))
    }

    fn bytes_at(&self, place: &Place<'_>) -> Result<u64, StateError> {
        let found = self.get(place)?;
        Ok(found.map_or(0, |found| entry_bytes(place.bucket, place.key, found.value().len())))
    }
}

//! What was put in the place of which receiver's component: which version each has, and a receipt of every exchange. What they
//! say is text to this crate.
//!
//! ```text
//! keyspace  key                         value
//! versions  receiver                    format (1 byte, 0x01) | text
//! receipts  number (8 bytes, big-endian)  format (1 byte, 0x01) | text
//! ```

use crate::agents::name_key;
use crate::layout::{take, take_format};
use crate::{Persist, State, StateError};

/// The format that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

/// Receipts that are kept. The oldest go when there are more: a receiver that is swapped every hour fills this in a month.
pub const MAX_RECEIPTS: usize = 1_000;

/// A receipt that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptReceipt {
    /// Its number: a later one has a higher number.
    pub id: u64,
    /// What it says, or what is wrong with it.
    pub text: Result<String, String>,
}

impl State {
    /// What was written down of the version that a receiver has; none if nothing was.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], [`StateError::Read`], [`StateError::DamagedVersion`], or a failure to open the database again.
    pub fn version(&self, receiver: &str) -> Result<Option<String>, StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let value = open.versions.keyspace.get(name_key("receiver", receiver)?);
        let Some(value) = value.map_err(|error| self.read_error(error))? else { return Ok(None) };
        let damaged = |problem| StateError::DamagedVersion { receiver: receiver.to_owned(), problem };
        decode(&value).map(Some).map_err(damaged)
    }

    /// The version of every receiver of which one was written down, in order; those that are damaged are left out and logged.
    ///
    /// # Errors
    ///
    /// [`StateError::Read`], or a failure to open the database again.
    pub fn versions(&self) -> Result<Vec<(String, String)>, StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let mut versions = Vec::new();
        for entry in open.versions.keyspace.iter() {
            let (key, value) = entry.into_inner().map_err(|error| self.read_error(error))?;
            match (str::from_utf8(&key), decode(&value)) {
                (Ok(receiver), Ok(text)) => versions.push((receiver.to_owned(), text)),
                (_, problem) => {
                    let key = key.escape_ascii().to_string();
                    tracing::error!(
                        key,
                        ?problem,
                        "the version of a receiver in the state database is damaged"
                    );
                }
            }
        }
        Ok(versions)
    }

    /// Adds a receipt, and the version that the receiver has from now on if that changes, in one write that survives a power loss.
    /// Gives the receipt's number. The oldest receipt goes if there are [`MAX_RECEIPTS`].
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], [`StateError::Read`], or [`StateError::Write`]: then nobody knows whether it took place.
    pub fn add_receipt(
        &self,
        receiver: &str,
        receipt: &str,
        version: Option<&str>,
    ) -> Result<u64, StateError> {
        self.write(Persist::Sync, |open, batch| {
            let mut ids = Vec::new();
            for entry in open.receipts.keyspace.iter() {
                ids.push(entry.key().map_err(|error| self.read_error(error))?);
            }
            let last = ids.last().and_then(|key| id_of(key)).unwrap_or(0);
            let id = last.saturating_add(1);
            let excess = ids.len().saturating_add(1).saturating_sub(MAX_RECEIPTS);
            for old in ids.iter().take(excess) {
                batch.remove(&open.receipts.keyspace, old.clone());
            }
            open.receipts.put(batch, id.to_be_bytes().to_vec(), encode(receipt));
            if let Some(version) = version {
                open.versions.put(batch, name_key("receiver", receiver)?.to_vec(), encode(version));
            }
            Ok(id)
        })
    }

    /// Writes down the version that a receiver has, in a write that survives a power loss.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], or [`StateError::Write`]: then nobody knows whether it took place.
    pub fn set_version(&self, receiver: &str, version: &str) -> Result<(), StateError> {
        self.write(Persist::Sync, |open, batch| {
            open.versions.put(batch, name_key("receiver", receiver)?.to_vec(), encode(version));
            Ok(())
        })
    }

    /// Lets a receipt that is kept say what `change` makes of it, if that is anything; nothing happens if it is not kept any more, or
    /// damaged.
    ///
    /// # Errors
    ///
    /// [`StateError::Read`], or [`StateError::Write`]: then nobody knows whether it took place.
    pub fn amend_receipt(
        &self,
        id: u64,
        change: impl FnOnce(&str) -> Option<String>,
    ) -> Result<(), StateError> {
        self.write(Persist::Sync, |open, batch| {
            let key = id.to_be_bytes();
            let value = open.receipts.keyspace.get(key).map_err(|error| self.read_error(error))?;
            let text = value.and_then(|value| decode(&value).ok());
            if let Some(changed) = text.and_then(|text| change(&text)) {
                open.receipts.put(batch, key.to_vec(), encode(&changed));
            }
            Ok(())
        })
    }

    /// The receipts that are kept, the oldest first.
    ///
    /// # Errors
    ///
    /// [`StateError::Read`], or a failure to open the database again.
    pub fn receipts(&self) -> Result<Vec<KeptReceipt>, StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let mut receipts = Vec::new();
        for entry in open.receipts.keyspace.iter() {
            let (key, value) = entry.into_inner().map_err(|error| self.read_error(error))?;
            let Some(id) = id_of(&key) else { continue };
            receipts.push(KeptReceipt { id, text: decode(&value) });
        }
        Ok(receipts)
    }
}

fn id_of(mut key: &[u8]) -> Option<u64> {
    let id = u64::from_be_bytes(take(&mut key)?);
    key.is_empty().then_some(id)
}

fn encode(text: &str) -> Vec<u8> {
    [&[FORMAT][..], text.as_bytes()].concat()
}

pub(crate) fn decode(mut value: &[u8]) -> Result<String, String> {
    take_format(&mut value, FORMAT)?;
    str::from_utf8(value).map(str::to_owned).map_err(|_| "it is not text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let state = State::open(&dir).unwrap();
        assert_eq!(state.version("r").unwrap(), None);
        assert_eq!(state.add_receipt("r", "first", Some("a")).unwrap(), 1);
        assert_eq!(state.add_receipt("r", "refused", None).unwrap(), 2);
        state.set_version("s", "b").unwrap();
        state.amend_receipt(1, |text| Some(format!("{text}, settled"))).unwrap();
        state.amend_receipt(2, |_| None).unwrap();
        state.amend_receipt(7, |_| Some("never was".to_owned())).unwrap();
        drop(state);
        let state = State::open(&dir).unwrap();
        assert_eq!(state.version("r").unwrap().as_deref(), Some("a"));
        let versions = [("r", "a"), ("s", "b")].map(|(r, v)| (r.to_owned(), v.to_owned()));
        assert_eq!(state.versions().unwrap(), versions);
        let kept = |(id, text): (u64, &str)| KeptReceipt { id, text: Ok(text.to_owned()) };
        assert_eq!(state.receipts().unwrap(), [(1, "first, settled"), (2, "refused")].map(kept));
    }

    #[test]
    fn the_oldest_receipts_go() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        // As if they had been written, which takes a sync each.
        {
            let mut guard = state.lock();
            let open = state.opened(&mut guard).unwrap();
            for id in 1..=MAX_RECEIPTS as u64 {
                open.receipts.keyspace.insert(id.to_be_bytes(), encode("x")).unwrap();
            }
        }
        assert_eq!(state.add_receipt("r", "next", None).unwrap(), MAX_RECEIPTS as u64 + 1);
        let receipts = state.receipts().unwrap();
        assert_eq!((receipts.len(), receipts[0].id), (MAX_RECEIPTS, 2));
    }

    #[test]
    fn what_is_damaged_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        state.lock().as_ref().unwrap().versions.keyspace.insert("r", b"\x01\xff").unwrap();
        state.lock().as_ref().unwrap().receipts.keyspace.insert(1_u64.to_be_bytes(), b"\x02x").unwrap();
        let refused = state.version("r").unwrap_err();
        assert!(matches!(refused, StateError::DamagedVersion { .. }), "{refused}");
        assert_eq!(state.versions().unwrap(), []);
        let problem = "its format is 2, this version knows format 1".to_owned();
        assert_eq!(state.receipts().unwrap(), [KeptReceipt { id: 1, text: Err(problem) }]);
    }
}

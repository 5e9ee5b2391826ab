//! From which offset of a topic on the ids of messages are to be read back when the server starts.
//!
//! The keyspace `message-ids` has one entry for each topic:
//!
//! ```text
//! key    topic
//! value  format (1 byte, 0x01) | offset (8 bytes, big-endian)
//! ```

use crate::agents::name_key;
use crate::layout::take_format;
use crate::{Persist, State, StateError};

/// The format that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

impl State {
    /// What was saved of a topic; none if nothing was, or if it is damaged, which is logged.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], [`StateError::Read`], or a failure to open the database again.
    pub fn message_ids_from(&self, topic: &str) -> Result<Option<u64>, StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let value = open.message_ids.keyspace.get(name_key("topic", topic)?);
        let Some(value) = value.map_err(|error| self.read_error(error))? else { return Ok(None) };
        match decode(&value) {
            Ok(offset) => Ok(Some(offset)),
            Err(damage) => {
                tracing::error!(
                    log.topic = topic,
                    damage,
                    "an entry of the state database is damaged; more is read back than is needed"
                );
                Ok(None)
            }
        }
    }

    /// Saves an offset for each of these topics, in one atomic write that survives the end of this process, but not a
    /// power loss.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], or [`StateError::Write`]: then nobody knows whether the save took place.
    pub fn save_message_ids_from(&self, topics: &[(String, u64)]) -> Result<(), StateError> {
        if topics.is_empty() {
            return Ok(());
        }
        self.write(Persist::Buffered, |open, batch| {
            for (topic, offset) in topics {
                let value = [&[FORMAT][..], &offset.to_be_bytes()].concat();
                open.message_ids.put(batch, name_key("topic", topic)?.to_vec(), value);
            }
            Ok(())
        })
    }
}

pub(crate) fn decode(mut value: &[u8]) -> Result<u64, String> {
    take_format(&mut value, FORMAT)?;
    let offset = value.try_into().map_err(|_| format!("its offset has {} bytes, expected 8", value.len()))?;
    Ok(u64::from_be_bytes(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let state = State::open(&dir).unwrap();
        assert_eq!(state.message_ids_from("t").unwrap(), None);
        state.save_message_ids_from(&[("t".to_owned(), 7), ("u".to_owned(), 8)]).unwrap();
        state.save_message_ids_from(&[("t".to_owned(), 9)]).unwrap();
        drop(state);
        let state = State::open(&dir).unwrap();
        let saved = |topic| state.message_ids_from(topic).unwrap();
        assert_eq!((saved("t"), saved("u"), saved("v")), (Some(9), Some(8), None));
        let refused = state.save_message_ids_from(&[(String::new(), 1)]).unwrap_err();
        assert!(matches!(refused, StateError::Name { what: "topic", .. }), "{refused}");
    }

    #[test]
    fn what_is_damaged_is_as_if_it_had_not_been_saved() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        for (value, problem) in [
            (&b""[..], "it is empty"),
            (b"\x02\0\0\0\0\0\0\0\x07", "its format is 2, this version knows format 1"),
            (b"\x01\x07", "its offset has 1 bytes, expected 8"),
        ] {
            assert_eq!(decode(value).unwrap_err(), problem);
            state.lock().as_ref().unwrap().message_ids.keyspace.insert("t", value).unwrap();
            assert_eq!(state.message_ids_from("t").unwrap(), None);
        }
        assert_eq!(decode(b"\x01\0\0\0\0\0\0\x01\x07").unwrap(), 0x107);
    }
}

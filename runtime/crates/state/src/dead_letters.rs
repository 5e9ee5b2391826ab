//! Dead letters: messages that a receiver rejected or could not handle, kept with the reason, up to a bound.
//!
//! A dead letter is written in one piece with the cursors that pass its message, and is on the disk when the call returns:
//! from then on the log may forget the message, because its record is kept here. Each receiver numbers its letters from 1
//! and gives no number twice, so that an id names a letter for ever. How they are written is described in
//! `dead_letters/layout.rs`.
//!
//! At the bound the oldest letters fall out, and a gap record of their topic says so in the same write. A letter that is being
//! redriven does not fall out: its message may be finished any moment, and a gap record would call it lost. It counts all the
//! same, so the next oldest fall out instead, and where nothing else is left, the new ones. Which letters are being redriven
//! is known in memory only: a server that starts again has begun no redrive.

use std::ops::{Bound, RangeBounds};

use wharf_log::{Lane, MAX_APPEND_BYTES};

use crate::{Cursor, Persist, State, StateError, store::open::Open};
use burying::Burying;
use layout::Head;

mod burying;
pub(crate) mod layout;
mod ledger;
mod letter;

#[cfg(test)]
mod model;
#[cfg(test)]
mod processes;
#[cfg(test)]
pub(crate) mod tests;

pub use layout::LETTER_OVERHEAD;
pub(crate) use ledger::Ledger;
pub use letter::{
    Burial, DamagedDeadLetter, DeadLetter, DeadLetterEntry, DeadLetterLimits, DeadLetterPage,
    DeadLetterUsage, Death, DeathKind, MAX_BACKTRACE, MAX_REASON, MAX_STDERR, Redrive,
};

/// The most bytes of messages in one write. The largest message of a log fits alone, and a write is never larger than it.
pub const MAX_BURIAL_BYTES: usize = MAX_APPEND_BYTES;

/// The most entries of a page.
pub const MAX_PAGE: usize = 1000;

/// How many bytes of entries a page has before it ends, roughly: what an answer of the admin interface may be.
const PAGE_BYTES: usize = 1024 * 1024;

impl State {
    /// Buries messages of `topic` that `receiver` rejected or could not handle, and saves the `changed` cursors that pass them,
    /// in one atomic write that survives a power loss. Without cursors, only the letters are written.
    ///
    /// What is beyond the `limits` then falls out. A letter that is too large for them falls out at once, and no other for its
    /// sake.
    ///
    /// # Errors
    ///
    /// [`StateError::Burial`] if the messages have more than [`MAX_BURIAL_BYTES`] together, [`StateError::Busy`] if the disk
    /// does not keep up, or those of [`save`](Self::save). If a write is repeated that took place after all, its letters are
    /// there twice. The cursors must not be saved by anybody else before they have been saved by this call.
    pub fn bury<'a>(
        &self,
        receiver: &str,
        topic: &str,
        letters: &[DeadLetter<'_>],
        limits: DeadLetterLimits,
        changed: impl IntoIterator<Item = (Lane, &'a Cursor)>,
    ) -> Result<Burial, StateError> {
        crate::layout::key(receiver, topic)?;
        let found = letters.iter().map(|letter| letter.message.len()).fold(0, usize::saturating_add);
        if found > MAX_BURIAL_BYTES {
            return Err(StateError::Burial { found });
        }
        let change = |open: &Open, batch: &mut _| {
            open.make_room()?;
            let mut burying = Burying::begin(self, open, receiver, limits);
            let ids = burying.add(batch, topic, letters)?;
            self.move_cursors(open, batch, receiver, topic, changed)?;
            let (usage, fallen) = burying.finish(batch)?;
            Ok((usage, Burial { ids, fallen }))
        };
        let (_, burial) =
            self.write_and(Persist::Sync, change, |ledger, (usage, _)| ledger.set_usage(receiver, *usage))?;
        Ok(burial)
    }

    /// How much the dead letters of `receiver` take. Does not wait for the disk.
    #[must_use]
    pub fn dead_letter_usage(&self, receiver: &str) -> DeadLetterUsage {
        let layout::Usage { count, bytes, .. } = self.ledger().usage(receiver);
        DeadLetterUsage { count, bytes }
    }

    /// The receivers that have dead letters, in order, whether they are still configured or not. Does not wait for the disk.
    #[must_use]
    pub fn receivers_with_dead_letters(&self) -> Vec<String> {
        self.ledger().receivers_with_letters()
    }

    /// The dead letters of `receiver` with these `ids`, without their messages, the oldest first: at most `limit` of them, and
    /// at most [`MAX_PAGE`] or some 1 MiB. A page has at least one, if there is one.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], [`StateError::Read`], or a failure to open the database again.
    pub fn dead_letters(
        &self,
        receiver: &str,
        ids: impl RangeBounds<u64>,
        limit: usize,
    ) -> Result<DeadLetterPage, StateError> {
        check_receiver(receiver)?;
        let first = match ids.start_bound() {
            Bound::Included(&id) => Some(id),
            Bound::Excluded(&id) => id.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let last = match ids.end_bound() {
            Bound::Included(&id) => Some(id),
            Bound::Excluded(&id) => id.checked_sub(1),
            Bound::Unbounded => Some(u64::MAX),
        };
        let mut page = DeadLetterPage::default();
        let (Some(first), Some(last)) = (first, last) else { return Ok(page) };
        if first > last {
            return Ok(page);
        }
        let limit = limit.clamp(1, MAX_PAGE);
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let (mut letters, mut bytes) = (0, 0_usize);
        for entry in open.dead_letters.keyspace.range(layout::head_keys(receiver, first, last)) {
            let (key, value) = entry.into_inner().map_err(|error| self.read_error(error))?;
            let Some(id) = layout::parse_head_key(receiver, &key) else { continue };
            if letters == limit || bytes >= PAGE_BYTES {
                page.next = Some(id);
                break;
            }
            letters += 1;
            bytes = bytes.saturating_add(value.len());
            match Head::decode(&value) {
                Ok(head) => page.entries.push(self.entry(receiver, id, head)),
                Err(problem) => page.damaged.push(DamagedDeadLetter { id, problem }),
            }
        }
        Ok(page)
    }

    /// A dead letter of `receiver` with its message, if there is one with that `id`.
    ///
    /// # Errors
    ///
    /// [`StateError::DamagedDeadLetter`], [`StateError::Name`], [`StateError::Read`], or a failure to open the database
    /// again.
    pub fn dead_letter(
        &self,
        receiver: &str,
        id: u64,
    ) -> Result<Option<(DeadLetterEntry, Vec<u8>)>, StateError> {
        check_receiver(receiver)?;
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        Ok(self.read_letter(open, receiver, id)?.map(|(entry, message, _)| (entry, message)))
    }

    /// Removes dead letters of `receiver`, also such as can't be understood or are being redriven, in one atomic write. Says
    /// how many of the `ids` there were.
    ///
    /// An operator's wish is to survive a power loss; of a redrive that is finished, only that it is done once more is lost.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`], [`StateError::Read`], [`StateError::Write`], or a failure to open the database again.
    pub fn drop_dead_letters(
        &self,
        receiver: &str,
        ids: &[u64],
        persist: Persist,
    ) -> Result<u64, StateError> {
        check_receiver(receiver)?;
        let change = |open: &Open, batch: &mut _| {
            let mut burying = Burying::begin(self, open, receiver, NO_LIMITS);
            let dropped = burying.remove(batch, ids)?;
            if dropped == 0 {
                return Ok(None);
            }
            let (usage, _) = burying.finish(batch)?;
            Ok(Some((usage, dropped)))
        };
        let dropped = self.write_and(persist, change, |ledger, dropped| {
            if let Some((usage, _)) = dropped {
                ledger.set_usage(receiver, *usage);
            }
            ids.iter().for_each(|id| ledger.release(receiver, *id));
        })?;
        Ok(dropped.map_or(0, |(_, dropped)| dropped))
    }

    /// Begins to redrive a dead letter of `receiver`: until [`drop_dead_letters`](Self::drop_dead_letters) because its message is
    /// finished, [`rebury`](Self::rebury) because it is dead again, or [`give_up_redrive`](Self::give_up_redrive), it does
    /// not fall out.
    ///
    /// # Errors
    ///
    /// As for [`dead_letter`](Self::dead_letter).
    pub fn begin_redrive(&self, receiver: &str, id: u64) -> Result<Redrive, StateError> {
        check_receiver(receiver)?;
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let Some((mut entry, message, bytes)) = self.read_letter(open, receiver, id)? else {
            return Ok(Redrive::Missing);
        };
        if entry.redriving {
            return Ok(Redrive::UnderWay);
        }
        self.ledger().hold(receiver, id, bytes);
        entry.redriving = true;
        Ok(Redrive::Begun { entry: Box::new(entry), message })
    }

    /// Ends the redrive of a dead letter of `receiver` without a result: it stays as it is. Does not wait for the disk.
    pub fn give_up_redrive(&self, receiver: &str, id: u64) {
        self.ledger().release(receiver, id);
    }

    /// Ends the redrive of a dead letter of `receiver` because its message is dead again: the letter stays, with its `death` as
    /// it is now, in one write that survives a power loss. Says whether there was such a letter: one that was dropped
    /// meanwhile does not come back.
    ///
    /// # Errors
    ///
    /// As for [`bury`](Self::bury).
    pub fn rebury(
        &self,
        receiver: &str,
        id: u64,
        death: Death,
        limits: DeadLetterLimits,
    ) -> Result<bool, StateError> {
        check_receiver(receiver)?;
        let change = |open: &Open, batch: &mut _| {
            open.make_room()?;
            let mut burying = Burying::begin(self, open, receiver, limits);
            if !burying.replace(batch, id, death)? {
                return Ok(None);
            }
            let (usage, _) = burying.finish(batch)?;
            Ok(Some(usage))
        };
        let usage = self.write_and(Persist::Sync, change, |ledger, usage| {
            if let Some(usage) = usage {
                ledger.set_usage(receiver, *usage);
            }
            ledger.release(receiver, id);
        })?;
        Ok(usage.is_some())
    }

    /// A letter, its message, and what it counts in bytes.
    fn read_letter(
        &self,
        open: &Open,
        receiver: &str,
        id: u64,
    ) -> Result<Option<(DeadLetterEntry, Vec<u8>, u64)>, StateError> {
        let read = |key| open.dead_letters.keyspace.get(key).map_err(|error| self.read_error(error));
        let Some(stored) = read(layout::head_key(receiver, id))? else { return Ok(None) };
        let damaged = |problem| StateError::DamagedDeadLetter { receiver: receiver.to_owned(), id, problem };
        let head = Head::decode(&stored).map_err(damaged)?;
        let message = read(layout::message_key(receiver, id))?
            .ok_or_else(|| damaged("its message is not there".to_owned()))?;
        let expected = head.message_bytes;
        if u32::try_from(message.len()) != Ok(expected) {
            return Err(damaged(format!("its message has {} bytes, expected {expected}", message.len())));
        }
        let bytes = layout::letter_bytes(stored.len(), expected);
        Ok(Some((self.entry(receiver, id, head), message.to_vec(), bytes)))
    }

    fn entry(&self, receiver: &str, id: u64, head: Head) -> DeadLetterEntry {
        let Head { topic, death, message_bytes } = head;
        let redriving = self.ledger().is_held(receiver, id);
        DeadLetterEntry { id, topic, death, message_bytes: message_bytes.into(), redriving }
    }
}

/// Of what only removes letters: nothing has to fall out for it.
const NO_LIMITS: DeadLetterLimits = DeadLetterLimits { count: u64::MAX, bytes: u64::MAX };

fn check_receiver(receiver: &str) -> Result<(), StateError> {
    crate::layout::key(receiver, "t").map(drop)
}

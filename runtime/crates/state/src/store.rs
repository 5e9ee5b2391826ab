//! The database: opened once, shared by clones, opened again by itself after a failed write.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fjall::OwnedWriteBatch;
use wharf_log::{Lane, LaneSet};

use crate::{Cursor, Cursors, StateError, database, dead_letters::Ledger, journal, layout};
use open::Open;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod model;
pub(crate) mod open;
#[cfg(test)]
pub(crate) mod processes;
#[cfg(test)]
mod tests;

/// How safe a save is when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// Handed to the operating system: survives the end of this process, however it ends, but not a power loss.
    Buffered,
    /// On the disk: survives a power loss, together with all saves before it.
    Sync,
}

/// What Wharf remembers beside the log. Clones share one database.
///
/// Every call may wait for the disk, and so may dropping the last clone, which closes the database: run them off the
/// async threads. The database locks its folder against a second server.
#[derive(Clone, Debug)]
pub struct State {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// `None` after a failed write. One lock for all is no loss: the database has one writer at a time as well.
    open: Mutex<Option<Open>>,
    /// What is known of each receiver's dead letters without reading them. Locked after `open`, and only for a moment.
    ledger: Mutex<Ledger>,
}

impl State {
    /// Opens the database in the folder `dir`, creating it if there is none.
    ///
    /// # Errors
    ///
    /// [`StateError::Prepare`] or [`StateError::Open`], also when another process has it open.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        database::create(dir, |dir| Open::at(dir).map(drop))?;
        let open = Open::at(dir)?;
        let mut ledger = Ledger::default();
        ledger.read(&open).map_err(|error| read_error(dir, error))?;
        let (dir, open, ledger) = (dir.to_owned(), Mutex::new(Some(open)), Mutex::new(ledger));
        Ok(Self { shared: Arc::new(Shared { dir, open, ledger }) })
    }

    /// Copies the database into the folder `to`, where nothing is, as it is at one moment. Others can go on writing.
    ///
    /// # Errors
    ///
    /// [`StateError::Read`], [`StateError::Write`] or [`StateError::Busy`], or a failure to make the copy's folder or to open the
    /// database again.
    pub fn back_up(&self, to: &Path) -> Result<(), StateError> {
        let database = self.opened(&mut self.lock())?.database.clone();
        database::create(to, |to| {
            let copy = Open::at(to)?;
            database::copy((&database, &self.shared.dir), (&copy.database, to))
        })
    }

    /// The cursors of `receiver` in `topic`, or `None` if none were ever saved.
    ///
    /// # Errors
    ///
    /// [`StateError::DamagedCursors`], [`StateError::Read`], or a failure to open the database again.
    pub fn cursors(&self, receiver: &str, topic: &str) -> Result<Option<Cursors>, StateError> {
        self.read(self.opened(&mut self.lock())?, receiver, topic)
    }

    /// Saves the `changed` cursors of `receiver` in `topic` in one atomic write.
    ///
    /// The first save of a pair must hold all lanes (see [`Cursors::iter`]). A save without lanes does nothing.
    ///
    /// # Errors
    ///
    /// [`StateError::FirstSave`], or [`StateError::Write`]: then nobody knows whether the save took place, and it is to be
    /// repeated with the cursors as they are by then. The next call opens the database anew, because after one failed
    /// write it would accept no other.
    pub fn save<'a>(
        &self,
        receiver: &str,
        topic: &str,
        changed: impl IntoIterator<Item = (Lane, &'a Cursor)>,
        persist: Persist,
    ) -> Result<(), StateError> {
        layout::key(receiver, topic)?;
        let mut changed = changed.into_iter().peekable();
        if changed.peek().is_none() {
            return Ok(());
        }
        self.write(persist, |open, batch| self.move_cursors(open, batch, receiver, topic, changed))
    }

    /// Removes the cursors of `receiver` in `topic`, as if none were ever saved, in a write that survives a power loss.
    ///
    /// # Errors
    ///
    /// [`StateError::Write`]: then nobody knows whether it took place.
    pub fn forget_cursors(&self, receiver: &str, topic: &str) -> Result<(), StateError> {
        let key = layout::key(receiver, topic)?;
        self.write(Persist::Sync, |open, batch| {
            open.cursors.remove(batch, key);
            Ok(())
        })
    }

    /// Every receiver and topic that has cursors, in order, whether it is still configured or not.
    ///
    /// # Errors
    ///
    /// [`StateError::DamagedKey`], [`StateError::Read`], or a failure to open the database again.
    pub fn list(&self) -> Result<Vec<(String, String)>, StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let pair = |entry: fjall::Guard| {
            let key = entry.key().map_err(|error| self.read_error(error))?;
            let (receiver, topic) = layout::parse_key(&key)?;
            Ok((receiver.to_owned(), topic.to_owned()))
        };
        open.cursors.keyspace.iter().map(pair).collect()
    }

    pub(crate) fn read(
        &self,
        open: &Open,
        receiver: &str,
        topic: &str,
    ) -> Result<Option<Cursors>, StateError> {
        let key = layout::key(receiver, topic)?;
        let value = open.cursors.keyspace.get(key).map_err(|error| self.read_error(error))?;
        value.map(|value| layout::decode(&value)).transpose().map_err(|problem| StateError::DamagedCursors {
            receiver: receiver.to_owned(),
            topic: topic.to_owned(),
            problem,
        })
    }

    /// Adds the `changed` cursors to a batch, together with those of the lanes that stay where they are.
    pub(crate) fn move_cursors<'a>(
        &self,
        open: &Open,
        batch: &mut OwnedWriteBatch,
        receiver: &str,
        topic: &str,
        changed: impl IntoIterator<Item = (Lane, &'a Cursor)>,
    ) -> Result<(), StateError> {
        let mut cursors = Cursors::at(0);
        let mut lanes = LaneSet::EMPTY;
        for (lane, cursor) in changed {
            cursors.get_mut(lane).clone_from(cursor);
            lanes.insert(lane);
        }
        if lanes.is_empty() {
            return Ok(());
        }
        if lanes != LaneSet::ALL {
            let stored = self.read(open, receiver, topic)?.ok_or_else(|| StateError::FirstSave {
                receiver: receiver.to_owned(),
                topic: topic.to_owned(),
                found: lanes.len(),
            })?;
            for (lane, cursor) in stored.iter().filter(|(lane, _)| !lanes.contains(*lane)) {
                cursors.get_mut(lane).clone_from(cursor);
            }
        }
        open.cursors.put(batch, layout::key(receiver, topic)?, layout::encode(&cursors));
        Ok(())
    }

    /// Writes what `change` puts into a batch, in one piece or not at all.
    pub(crate) fn write<T>(
        &self,
        persist: Persist,
        change: impl FnOnce(&Open, &mut OwnedWriteBatch) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.write_and(persist, change, |_, _| {})
    }

    /// Like [`write`](Self::write), and tells the ledger before anybody else can write.
    pub(crate) fn write_and<T>(
        &self,
        persist: Persist,
        change: impl FnOnce(&Open, &mut OwnedWriteBatch) -> Result<T, StateError>,
        then: impl FnOnce(&mut Ledger, &T),
    ) -> Result<T, StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let mut batch = open.batch(persist);
        let changed = change(open, &mut batch);
        let written = changed.and_then(|value| {
            open.commit(batch).map_err(|error| self.write_error(error))?;
            Ok(value)
        });
        match &written {
            Ok(value) => then(&mut self.ledger(), value),
            Err(StateError::Write { .. }) => self.close(&mut guard),
            Err(_) => {}
        }
        written
    }

    /// What came of a write. After a failed one the database is closed, and opened anew by the next call.
    pub(crate) fn settle(
        &self,
        mut guard: MutexGuard<'_, Option<Open>>,
        written: fjall::Result<()>,
    ) -> Result<(), StateError> {
        written.map_err(|error| {
            self.close(&mut guard);
            self.write_error(error)
        })
    }

    fn close(&self, open: &mut Option<Open>) {
        *open = None;
        tracing::warn!(dir = ?self.shared.dir, "state database closed after a failed write");
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // A panic while the lock was held leaves the handles whole: they change only as one value.
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open database, opened again if a write has failed before.
    pub(crate) fn opened<'a>(&self, guard: &'a mut Option<Open>) -> Result<&'a Open, StateError> {
        match guard {
            Some(open) => Ok(open),
            None => {
                let dir = &self.shared.dir;
                journal::rewrite(dir).map_err(|source| StateError::Prepare { dir: dir.clone(), source })?;
                let open = Open::at(dir)?;
                // Whether the failed write took place shows only now.
                self.ledger().read(&open).map_err(|error| self.read_error(error))?;
                tracing::info!(?dir, "state database opened again");
                Ok(guard.insert(open))
            }
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Every change is a single step, so what a panicking thread left behind is whole.
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read_error(&self, error: fjall::Error) -> StateError {
        read_error(&self.shared.dir, error)
    }

    pub(crate) fn write_error(&self, error: fjall::Error) -> StateError {
        StateError::Write { dir: self.shared.dir.clone(), source: Box::new(error) }
    }
}

fn read_error(dir: &Path, error: fjall::Error) -> StateError {
    StateError::Read { dir: dir.to_owned(), source: Box::new(error) }
}

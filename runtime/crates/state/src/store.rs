//! The database: opened once, shared by clones, opened again by itself after a failed write.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use wharf_log::{Lane, LaneSet};

use crate::{Cursor, Cursors, StateError, database, journal, layout};

#[cfg(test)]
pub(crate) mod processes;
#[cfg(test)]
mod tests;

/// The keyspace that holds the cursors. The layout of its entries is described in the module `layout`.
const CURSORS: &str = "cursors";

/// The keyspaces of presence. The layout of their entries is described in the module `agents`.
const AGENTS: &str = "agents";
const PRESENCE: &str = "presence";

/// What the database may cache of its files. All is read when the server starts and never after, so the least will do.
const CACHE_BYTES: u64 = 1024 * 1024;

/// How many files the database may keep open. Cursors and agents fill a handful.
const OPEN_FILES: usize = 16;

/// How much of what was written may wait in memory before it goes to a sorted file: some minutes of cursors under load.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;

/// The size of the journals together, the smallest that the database accepts.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// One thread for all keyspaces suffices to write sorted files and to merge them.
const WORKER_THREADS: usize = 1;

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
}

pub(crate) struct Open {
    pub(crate) database: Database,
    pub(crate) cursors: Keyspace,
    pub(crate) agents: Keyspace,
    pub(crate) presence: Keyspace,
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
        Ok(Self { shared: Arc::new(Shared { dir: dir.to_owned(), open: Mutex::new(Some(open)) }) })
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
        let key = layout::key(receiver, topic)?;
        let mut cursors = Cursors::at(0);
        let mut lanes = LaneSet::EMPTY;
        for (lane, cursor) in changed {
            cursors.get_mut(lane).clone_from(cursor);
            lanes.insert(lane);
        }
        if lanes.is_empty() {
            return Ok(());
        }

        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
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

        let mode = match persist {
            Persist::Buffered => PersistMode::Buffer,
            Persist::Sync => PersistMode::SyncData,
        };
        let mut batch = open.database.batch().durability(Some(mode));
        batch.insert(&open.cursors, key, layout::encode(&cursors));
        let written = batch.commit();
        self.settle(guard, written)
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
        open.cursors.iter().map(pair).collect()
    }

    fn read(&self, open: &Open, receiver: &str, topic: &str) -> Result<Option<Cursors>, StateError> {
        let key = layout::key(receiver, topic)?;
        let value = open.cursors.get(key).map_err(|error| self.read_error(error))?;
        value.map(|value| layout::decode(&value)).transpose().map_err(|problem| StateError::DamagedCursors {
            receiver: receiver.to_owned(),
            topic: topic.to_owned(),
            problem,
        })
    }

    /// What came of a write. After a failed one the database is closed, and opened anew by the next call.
    pub(crate) fn settle(
        &self,
        mut guard: MutexGuard<'_, Option<Open>>,
        written: fjall::Result<()>,
    ) -> Result<(), StateError> {
        written.map_err(|error| {
            *guard = None;
            tracing::warn!(dir = ?self.shared.dir, "state database closed after a failed write");
            StateError::Write { dir: self.shared.dir.clone(), source: Box::new(error) }
        })
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
                tracing::info!(?dir, "state database opened again");
                Ok(guard.insert(open))
            }
        }
    }

    pub(crate) fn read_error(&self, error: fjall::Error) -> StateError {
        StateError::Read { dir: self.shared.dir.clone(), source: Box::new(error) }
    }
}

impl Open {
    fn at(dir: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Open { dir: dir.to_owned(), source: Box::new(error) };
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKER_THREADS)
            .open()
            .map_err(failed)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let cursors = database.keyspace(CURSORS, options).map_err(failed)?;
        let agents = database.keyspace(AGENTS, options).map_err(failed)?;
        let presence = database.keyspace(PRESENCE, options).map_err(failed)?;
        Ok(Self { database, cursors, agents, presence })
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Open").finish_non_exhaustive()
    }
}

//! The open database, and how much of what was written may wait in memory.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::{Persist, StateError};

/// The keyspace that holds the cursors. The layout of its entries is described in the module `layout`.
const CURSORS: &str = "cursors";

/// The keyspaces of presence. The layout of their entries is described in the module `agents`.
const AGENTS: &str = "agents";
const PRESENCE: &str = "presence";

/// The keyspace of dead letters. The layout of its entries is described in `dead_letters/layout.rs`.
const DEAD_LETTERS: &str = "dead-letters";

/// The keyspace of gap records. The layout of its entries is described in `gaps/layout.rs`.
const GAPS: &str = "gaps";

/// What the database may cache of its files. Nearly all is read when the server starts and never after, so the least will do.
const CACHE_BYTES: u64 = 1024 * 1024;

/// How many files the database may keep open. Cursors and agents fill a handful, dead letters one for some tens of megabytes.
const OPEN_FILES: usize = 32;

/// How much of what was written may wait in memory before it goes to a sorted file: some minutes of cursors under load.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;

/// How many such portions of a keyspace may wait for the disk before another one is made.
const MAX_WAITING: usize = 2;

/// The longest that dead letters wait for the disk. The receivers' lanes wait as long, and then ask again.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How often they look meanwhile.
const WAIT_STEP: Duration = Duration::from_millis(10);

/// What a write takes in memory beside its bytes, roughly.
const WRITE_OVERHEAD: u64 = 64;

/// The size of the journals together, the smallest that the database accepts.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// One thread for all keyspaces suffices to write sorted files and to merge them.
const WORKER_THREADS: usize = 1;

pub(crate) struct Open {
    dir: PathBuf,
    pub(crate) database: Database,
    pub(crate) cursors: Area,
    pub(crate) dead_letters: Area,
    pub(crate) gaps: Area,
    pub(crate) agents: Keyspace,
    pub(crate) presence: Keyspace,
}

/// A keyspace that is written often or with large values, so that portions go to the worker only when it has time for
/// them.
///
/// Left to itself, the database asks its worker for a portion with each write beyond the limit until the worker gets to
/// it. While that merges files of dead letters, the cursors of many receivers could fill the worker's queue with requests,
/// and the worker, which puts its own tasks into the same queue and waits for room there, would wait for itself.
pub(crate) struct Area {
    pub(crate) keyspace: Keyspace,
    /// Bytes that were written since a portion was last handed to the worker.
    unflushed: Cell<u64>,
}

impl Open {
    /// Opens the database in `dir`, creating it there if there is none.
    pub(crate) fn at(dir: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Open { dir: dir.to_owned(), source: Box::new(error) };
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKER_THREADS)
            .open()
            .map_err(failed)?;
        let area = |name| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX);
            let keyspace = database.keyspace(name, options)?;
            // What the journal brought back is a portion, however small: many short runs must not add up.
            keyspace.rotate_memtable()?;
            Ok(Area { keyspace, unflushed: Cell::new(0) })
        };
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let agents = database.keyspace(AGENTS, options).map_err(failed)?;
        let presence = database.keyspace(PRESENCE, options).map_err(failed)?;
        Ok(Self {
            dir: dir.to_owned(),
            cursors: area(CURSORS).map_err(failed)?,
            dead_letters: area(DEAD_LETTERS).map_err(failed)?,
            gaps: area(GAPS).map_err(failed)?,
            agents,
            presence,
            database,
        })
    }

    /// A batch that is to be as safe as that once it is committed.
    pub(crate) fn batch(&self, persist: Persist) -> OwnedWriteBatch {
        let mode = match persist {
            Persist::Buffered => PersistMode::Buffer,
            Persist::Sync => PersistMode::SyncData,
        };
        self.database.batch().durability(Some(mode))
    }

    /// Writes a batch, and hands over to the worker what is due.
    pub(crate) fn commit(&self, batch: OwnedWriteBatch) -> fjall::Result<()> {
        batch.commit()?;
        [&self.cursors, &self.dead_letters, &self.gaps].into_iter().try_for_each(Area::hand_over)
    }

    /// Waits until the disk has taken in enough of the dead letters that were written before. Without that, letters of a
    /// receiver that rejects everything would pile up in memory.
    pub(crate) fn make_room(&self) -> Result<(), StateError> {
        let area = &self.dead_letters;
        let mut waited = Duration::ZERO;
        while area.is_due() && area.keyspace.sealed_memtable_count() >= MAX_WAITING {
            if waited >= MAX_WAIT {
                let dir = || self.dir.clone();
                // Says whether the worker has failed: then it will take in nothing any more.
                self.database
                    .persist(PersistMode::Buffer)
                    .map_err(|error| StateError::Write { dir: dir(), source: Box::new(error) })?;
                return Err(StateError::Busy { dir: dir(), waited });
            }
            thread::sleep(WAIT_STEP);
            waited += WAIT_STEP;
        }
        Ok(())
    }
}

impl Area {
    /// Adds a value to a batch.
    pub(crate) fn put(&self, batch: &mut OwnedWriteBatch, key: Vec<u8>, value: impl Into<fjall::Slice>) {
        let value = value.into();
        self.count(key.len().saturating_add(value.len()));
        batch.insert(&self.keyspace, key, value);
    }

    /// Adds the removal of a value to a batch.
    pub(crate) fn remove(&self, batch: &mut OwnedWriteBatch, key: Vec<u8>) {
        self.count(key.len());
        batch.remove(&self.keyspace, key);
    }

    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(WRITE_OVERHEAD);
        self.unflushed.set(self.unflushed.get().saturating_add(bytes));
    }

    fn is_due(&self) -> bool {
        self.unflushed.get() >= MEMTABLE_BYTES
    }

    /// Hands a portion to the worker if there is enough for one. While it is behind, the portion grows.
    fn hand_over(&self) -> fjall::Result<()> {
        if self.is_due() && self.keyspace.sealed_memtable_count() < MAX_WAITING {
            self.keyspace.rotate_memtable()?;
            self.unflushed.set(0);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Open").field("dir", &self.dir).finish_non_exhaustive()
    }
}

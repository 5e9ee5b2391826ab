//! The open database, and how much of what was written may wait in memory.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};

use super::layout::{self, Usage};
use crate::StateError;

/// The keyspace that holds everything. The layout of its entries is described in the module `layout`.
const GUESTS: &str = "guests";

/// What the database may cache of its files: the values that receivers read again and again.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How many files the database may keep open. Each has tens of megabytes, so this is some gigabytes of values.
const OPEN_FILES: usize = 64;

/// How much of what was written may be in memory before it goes to a sorted file, two values of the largest kind.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;

/// How many such portions may wait for the disk before writes do. The database itself would let them grow.
const MAX_WAITING: usize = 2;

/// The longest that a write waits for the disk, well below the deadline of a receiver's call.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How often it looks meanwhile.
const WAIT_STEP: Duration = Duration::from_millis(10);

/// What a write takes in memory beside its bytes, roughly.
const WRITE_OVERHEAD: u64 = 64;

/// The size of the journals together, the smallest that the database accepts.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// One thread suffices to write sorted files and to merge them.
const WORKER_THREADS: usize = 1;

/// The open database.
pub struct Open {
    dir: PathBuf,
    database: Database,
    guests: Keyspace,
    /// Bytes that were written since a portion was last handed to the worker. Only who writes touches it.
    unflushed: AtomicU64,
}

impl Open {
    /// Opens the database in `dir`, creating it there if there is none.
    pub fn at(dir: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Open { dir: dir.to_owned(), source: Box::new(error) };
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKER_THREADS)
            .open()
            .map_err(failed)?;
        // Left to itself, the database asks its worker for a portion with each write beyond the limit until the worker gets
        // to it. A receiver that writes without pause can fill the worker's queue with that, and the worker, which puts its
        // own tasks into the same queue and waits for room there, would wait for itself.
        let options = || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX);
        let guests = database.keyspace(GUESTS, options).map_err(failed)?;
        // What the journal brought back is a portion, however small: many short runs must not add up.
        guests.rotate_memtable().map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), database, guests, unflushed: AtomicU64::new(0) })
    }

    /// What each receiver uses.
    pub fn usages(&self) -> Result<Vec<(String, Usage)>, StateError> {
        let usage = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(|error| self.read_error(error))?;
            let receiver = layout::parse_usage_key(&key)?;
            let usage = Usage::decode(&value).map_err(|problem| damaged(receiver, problem))?;
            Ok((receiver.to_owned(), usage))
        };
        self.guests.prefix(layout::usage_prefix()).map(usage).collect()
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>, StateError> {
        self.guests.get(key).map_err(|error| self.read_error(error))
    }

    /// The keys between `start` and `end`, in order.
    pub fn keys(
        &self,
        range: impl std::ops::RangeBounds<Vec<u8>>,
    ) -> impl Iterator<Item = Result<Slice, StateError>> {
        self.guests.range(range).map(|entry| entry.key().map_err(|error| self.read_error(error)))
    }

    /// Writes values, or removes what has none, in one piece. No key may come twice.
    pub fn write(
        &self,
        changes: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), StateError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        let mut written = 0_u64;
        for (key, value) in changes {
            let bytes = key.len().saturating_add(value.as_ref().map_or(0, Vec::len));
            written = written.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            written = written.saturating_add(WRITE_OVERHEAD);
            match value {
                Some(value) => batch.insert(&self.guests, key, value),
                None => batch.remove(&self.guests, key),
            }
        }
        batch.commit().map_err(|error| self.write_error(error))?;
        self.unflushed.fetch_add(written, Ordering::Relaxed);
        Ok(())
    }

    pub fn persist(&self, mode: PersistMode) -> Result<(), StateError> {
        self.database.persist(mode).map_err(|error| self.write_error(error))
    }

    /// Hands a portion to the worker if there is enough for one, after the worker has taken in earlier ones.
    pub fn make_room(&self) -> Result<(), StateError> {
        if self.unflushed.load(Ordering::Relaxed) < MEMTABLE_BYTES {
            return Ok(());
        }
        let mut waited = Duration::ZERO;
        while self.guests.sealed_memtable_count() >= MAX_WAITING {
            if waited >= MAX_WAIT {
                // Says whether the worker has failed: then it will take in nothing any more.
                self.persist(PersistMode::Buffer)?;
                return Err(StateError::Busy { dir: self.dir.clone(), waited });
            }
            thread::sleep(WAIT_STEP);
            waited += WAIT_STEP;
        }
        self.guests.rotate_memtable().map_err(|error| self.write_error(error))?;
        self.unflushed.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn read_error(&self, error: fjall::Error) -> StateError {
        StateError::Read { dir: self.dir.clone(), source: Box::new(error) }
    }

    fn write_error(&self, error: fjall::Error) -> StateError {
        StateError::Write { dir: self.dir.clone(), source: Box::new(error) }
    }
}

/// The error of something that is stored for `receiver` and can't be understood.
pub fn damaged(receiver: &str, problem: String) -> StateError {
    StateError::DamagedValues { receiver: receiver.to_owned(), problem }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Open").field("dir", &self.dir).finish_non_exhaustive()
    }
}

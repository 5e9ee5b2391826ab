//! The open database of what receivers keep.

use std::path::{Path, PathBuf};

use fjall::{Database, PersistMode, Slice};

use super::layout::{self, Usage};
use crate::StateError;
use crate::database::{self, Area};

/// The keyspace that holds everything. The layout of its entries is described in the module `layout`.
const GUESTS: &str = "guests";

/// What the database may cache of its files: the values that receivers read again and again.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How many files the database may keep open. Each has tens of megabytes, so this is some gigabytes of values.
const OPEN_FILES: usize = 64;

/// How much of what was written may be in memory before it goes to a sorted file, two values of the largest kind.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;

/// What follows if the database is given up.
pub const IF_LOST: &str = "what receivers keep under keys is then gone";

/// The open database.
pub struct Open {
    dir: PathBuf,
    database: Database,
    pub(super) guests: Area,
}

impl Open {
    /// Opens the database in `dir`, creating it there if there is none.
    pub fn at(dir: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Open { dir: dir.to_owned(), source: Box::new(error) };
        let database = database::open(dir, CACHE_BYTES, OPEN_FILES, IF_LOST)?;
        let guests = Area::open(&database, GUESTS, MEMTABLE_BYTES).map_err(failed)?;
        database::sync_keyspaces(dir).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), database, guests })
    }

    /// What each receiver uses.
    pub fn usages(&self) -> Result<Vec<(String, Usage)>, StateError> {
        let usage = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(|error| self.read_error(error))?;
            let receiver = layout::parse_usage_key(&key)?;
            let usage = Usage::decode(&value).map_err(|problem| damaged(receiver, problem))?;
            Ok((receiver.to_owned(), usage))
        };
        self.guests.keyspace.prefix(layout::usage_prefix()).map(usage).collect()
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Everything that is stored.
    pub fn all(&self) -> fjall::Iter {
        self.guests.keyspace.iter()
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>, StateError> {
        self.guests.keyspace.get(key).map_err(|error| self.read_error(error))
    }

    /// The keys between `start` and `end`, in order.
    pub fn keys(
        &self,
        range: impl std::ops::RangeBounds<Vec<u8>>,
    ) -> impl Iterator<Item = Result<Slice, StateError>> {
        self.guests.keyspace.range(range).map(|entry| entry.key().map_err(|error| self.read_error(error)))
    }

    /// Writes values, or removes what has none, in one piece. No key may come twice.
    pub fn write(
        &self,
        changes: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), StateError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for (key, value) in changes {
            match value {
                Some(value) => self.guests.put(&mut batch, key, value),
                None => self.guests.remove(&mut batch, key),
            }
        }
        batch.commit().map_err(|error| self.write_error(error))
    }

    pub fn persist(&self, mode: PersistMode) -> Result<(), StateError> {
        self.database.persist(mode).map_err(|error| self.write_error(error))
    }

    /// Hands a portion to the worker if there is enough for one, after the worker has taken in earlier ones.
    pub fn make_room(&self) -> Result<(), StateError> {
        self.guests.wait_for_room(&self.database, &self.dir)?;
        self.guests.hand_over().map_err(|error| self.write_error(error))
    }

    fn read_error(&self, error: fjall::Error) -> StateError {
        StateError::Read { dir: self.dir.clone(), source: Box::new(error) }
    }

    pub(super) fn write_error(&self, error: fjall::Error) -> StateError {
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

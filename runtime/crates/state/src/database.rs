//! What the databases of this crate have in common: how one is made, so that one whose creation was cut short is never taken for
//! a whole one; how it is opened; and how much of what was written may wait in memory.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Slice};

use crate::StateError;

/// The size of the journals together, the smallest that the database accepts.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// One thread for all keyspaces suffices to write sorted files and to merge them.
const WORKER_THREADS: usize = 1;

/// How many portions of a keyspace may wait for the disk before another one is made.
const MAX_WAITING: usize = 2;

/// The longest that a write waits for the disk, well below the deadline of a receiver's call.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How often it looks meanwhile.
const WAIT_STEP: Duration = Duration::from_millis(10);

/// What a write takes in memory beside its bytes, roughly.
const WRITE_OVERHEAD: u64 = 64;

/// Opens the database in `dir`, making it if there is none. It may cache so many bytes of its files and keep so many open.
pub fn open(dir: &Path, cache_bytes: u64, open_files: usize) -> fjall::Result<Database> {
    Database::builder(dir)
        .cache_size(cache_bytes)
        .max_cached_files(Some(open_files))
        .max_journaling_size(JOURNAL_BYTES)
        .worker_threads(WORKER_THREADS)
        .open()
}

/// A keyspace that is written often or with large values, so that portions go to the worker only when it has time for
/// them.
///
/// Left to itself, the database asks its worker for a portion with each write beyond the limit until the worker gets to it.
/// Whoever writes without pause can fill the worker's queue with that, and the worker, which puts its own tasks into the
/// same queue and waits for room there, would wait for itself.
pub struct Area {
    pub keyspace: Keyspace,
    /// Bytes that are a portion.
    portion: u64,
    /// Bytes that were written since a portion was last handed to the worker. Only who writes touches it.
    unflushed: AtomicU64,
}

impl Area {
    /// Opens a keyspace, making it if there is none.
    pub fn open(database: &Database, name: &str, portion: u64) -> fjall::Result<Self> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX);
        let keyspace = database.keyspace(name, options)?;
        // What the journal brought back is a portion, however small: many short runs must not add up.
        keyspace.rotate_memtable()?;
        Ok(Self { keyspace, portion, unflushed: AtomicU64::new(0) })
    }

    /// Adds a value to a batch.
    pub fn put(&self, batch: &mut OwnedWriteBatch, key: Vec<u8>, value: impl Into<Slice>) {
        let value = value.into();
        self.count(key.len().saturating_add(value.len()));
        batch.insert(&self.keyspace, key, value);
    }

    /// Adds the removal of a value to a batch.
    pub fn remove(&self, batch: &mut OwnedWriteBatch, key: Vec<u8>) {
        self.count(key.len());
        batch.remove(&self.keyspace, key);
    }

    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(WRITE_OVERHEAD);
        self.unflushed.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_due(&self) -> bool {
        self.unflushed.load(Ordering::Relaxed) >= self.portion
    }

    fn is_behind(&self) -> bool {
        self.keyspace.sealed_memtable_count() >= MAX_WAITING
    }

    /// Hands a portion to the worker if there is enough for one. While it is behind, the portion grows.
    pub fn hand_over(&self) -> fjall::Result<()> {
        if self.is_due() && !self.is_behind() {
            self.keyspace.rotate_memtable()?;
            self.unflushed.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until the disk has taken in enough of what was written before. `dir` is that of the database, for errors.
    pub fn wait_for_room(&self, database: &Database, dir: &Path) -> Result<(), StateError> {
        let mut waited = Duration::ZERO;
        while self.is_due() && self.is_behind() {
            if waited >= MAX_WAIT {
                // Says whether the worker has failed: then it will take in nothing any more.
                database
                    .persist(PersistMode::Buffer)
                    .map_err(|error| StateError::Write { dir: dir.to_owned(), source: Box::new(error) })?;
                return Err(StateError::Busy { dir: dir.to_owned(), waited });
            }
            thread::sleep(WAIT_STEP);
            waited += WAIT_STEP;
        }
        Ok(())
    }
}

/// Makes an empty database in `dir` if there is none. `open` opens the one in a folder, making it, and closes it again.
///
/// The database cannot be opened when its creation was cut short, so it is created beside its place and moved there whole.
pub fn create(dir: &Path, open: impl FnOnce(&Path) -> Result<(), StateError>) -> Result<(), StateError> {
    let prepare = |source| StateError::Prepare { dir: dir.to_owned(), source };
    // An empty folder is as good as none: the finished database replaces it.
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(prepare(error)),
    }
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(prepare(io::Error::new(io::ErrorKind::InvalidInput, "this is not a folder's name")));
    };
    let mut unfinished = name.to_owned();
    unfinished.push(".unfinished");
    let unfinished = parent.join(unfinished);
    if unfinished.try_exists().map_err(prepare)? {
        fs::remove_dir_all(&unfinished).map_err(prepare)?;
    }
    fs::create_dir_all(&unfinished).map_err(prepare)?;
    open(&unfinished)?;
    fs::rename(&unfinished, dir).map_err(prepare)?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(prepare)
}

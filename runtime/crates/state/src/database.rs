//! What the databases of this crate have in common: how one is made, so that one whose creation was cut short is never taken for
//! a whole one; how it is opened; and how much of what was written may wait in memory.

use std::{
    fs::{self, File},
    io,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable as _, Slice};

use crate::{
    StateError,
    files::{self, Kind, Problem},
};

/// The size of the journals together, the smallest that the database accepts.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// The folder in which the database keeps its keyspaces.
const KEYSPACES: &str = "keyspaces";

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
/// `if_lost` says what follows if it is given up, for whoever has to decide that.
///
/// # Errors
///
/// [`StateError::Damaged`], [`StateError::Open`] or [`StateError::Prepare`].
pub fn open(
    dir: &Path,
    cache_bytes: u64,
    open_files: usize,
    if_lost: &'static str,
) -> Result<Database, StateError> {
    let damaged = |path: &Path, found| StateError::Damaged {
        path: path.to_owned(),
        found,
        dir: dir.to_owned(),
        if_lost,
    };
    prepare(dir, damaged)?;
    let open = || {
        Database::builder(dir)
            .cache_size(cache_bytes)
            .max_cached_files(Some(open_files))
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKER_THREADS)
            .open()
    };
    // It takes some things for granted that damage makes untrue. What it had begun to make is dropped, and never used.
    match panic::catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) if is_damage(&error) => Err(damaged(dir, format!("it can't be opened: {error}"))),
        Ok(Err(error)) => Err(StateError::Open { dir: dir.to_owned(), source: Box::new(error) }),
        Err(_) => Err(damaged(dir, "it can't be opened: the database panicked".to_owned())),
    }
}

/// How much is copied in one write.
const COPY_BYTES: u64 = 1024 * 1024;

/// Copies what is in the database `from`, which may be written to meanwhile, into `to`, which has nothing: as it is at one
/// moment, durably. Each is given with its folder.
pub fn copy(
    (from, from_dir): (&Database, &Path),
    (to, to_dir): (&Database, &Path),
) -> Result<(), StateError> {
    let unread = |error| StateError::Read { dir: from_dir.to_owned(), source: Box::new(error) };
    let unwritten = |error| StateError::Write { dir: to_dir.to_owned(), source: Box::new(error) };
    let snapshot = from.snapshot();
    for name in from.list_keyspace_names() {
        let source = from.keyspace(&name, KeyspaceCreateOptions::default).map_err(unread)?;
        let target = Area::open(to, &name, COPY_BYTES).map_err(unwritten)?;
        let mut entries = snapshot.iter(&source).peekable();
        while entries.peek().is_some() {
            let mut batch = to.batch();
            let before = target.unflushed.load(Ordering::Relaxed);
            for entry in entries.by_ref() {
                let (key, value) = entry.into_inner().map_err(unread)?;
                target.put(&mut batch, key.to_vec(), value);
                if target.unflushed.load(Ordering::Relaxed).saturating_sub(before) >= COPY_BYTES {
                    break;
                }
            }
            batch.commit().map_err(unwritten)?;
            target.wait_for_room(to, to_dir)?;
            target.hand_over().map_err(unwritten)?;
        }
    }
    to.persist(PersistMode::SyncAll).map_err(unwritten)
}

/// What to do about a database in `dir` that is damaged.
pub fn advice(dir: &Path, if_lost: &str) -> String {
    format!(
        "the start is refused; restore the data directory from a backup, or move the folder {} out of it to go on without: \
         {if_lost}",
        dir.display()
    )
}

/// Looks at the files of a database that is there already, and cuts off what a crash left half-written.
fn prepare(dir: &Path, damaged: impl Fn(&Path, String) -> StateError) -> Result<(), StateError> {
    let failed = |source| StateError::Prepare { dir: dir.to_owned(), source };
    // Whoever makes one makes it in an empty folder.
    if files::names_in(dir).map_err(failed)?.is_empty() {
        return Ok(());
    }
    for Problem { path, found, kind } in files::problems(dir).map_err(failed)? {
        match kind {
            Kind::Damage => return Err(damaged(&path, found)),
            Kind::Torn { position } => {
                tracing::warn!(path = %path.display(), found, "what a crash left half-written is cut off a journal");
                let cut = File::options().write(true).open(&path).and_then(|journal| {
                    journal.set_len(position)?;
                    journal.sync_all()
                });
                cut.map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Whether an error of the database tells of its files, and not of the system.
fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
        }
        fjall::Error::Locked | fjall::Error::Poisoned => false,
        _ => true,
    }
}

/// Makes the folders of the keyspaces in `dir` durable. To be called when all were opened, before anything is written to them:
/// the database syncs what is in them, but not the folder that they are in, and without that a power loss may take away
/// whole keyspaces.
pub fn sync_keyspaces(dir: &Path) -> fjall::Result<()> {
    Ok(File::open(dir.join(KEYSPACES))?.sync_all()?)
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

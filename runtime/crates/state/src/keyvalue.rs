//! Values that receivers keep under keys: one database for all, opened once, shared by clones, opened again by itself after
//! a failed write. What a receiver can do is in `keyvalue/bucket.rs`, what it costs in `keyvalue/layout.rs`.
//!
//! A write is handed to the operating system before the call returns: it survives the end of this process, however it
//! ends. [`KeyValue::sync`] makes everything survive a power loss. It is called before cursors are saved, so that a
//! message is never remembered as finished while what came of it is forgotten.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fjall::PersistMode;

use crate::{StateError, database, journal};
use layout::Usage;
pub(crate) use open::{IF_LOST, Open};
use transaction::Transaction;

pub use bucket::{Bucket, KeyPage, KeyValueStore, Seen, Swap};
pub use error::{KeyValueError, Refusal};

mod bucket;
mod error;
pub(crate) mod layout;
mod open;
mod transaction;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod model;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod tests;

/// The longest name of a bucket in bytes. It is part of every key of the bucket.
pub const MAX_BUCKET_NAME: usize = 64;

/// The longest key in bytes: room for a path or a URL. Keys are kept in indexes, which are to stay small.
pub const MAX_KEY: usize = 1024;

/// The largest value in bytes: one message of the largest kind, sixteen times over. More belongs in files.
pub const MAX_VALUE: usize = 4 << 20;

/// The most keys in one call: some tens of milliseconds of work.
pub const MAX_KEYS: usize = 10_000;

/// The most bytes of values that one call gives back, twice the largest value.
pub const MAX_READ: usize = 8 << 20;

/// How long a database that failed is left alone before it is opened again, which copies its journals. Otherwise receivers
/// would keep a full disk busy with that.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// The values of all receivers. Clones share one database.
///
/// Opening, syncing and dropping the last clone wait for the disk: run them off the async threads. The database locks its
/// folder against a second server.
#[derive(Clone, Debug)]
pub struct KeyValue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Whoever reads or writes shares it; whoever closes or opens the database has it alone.
    place: RwLock<Place>,
    /// Held by whoever writes, from the first read to the end of the write: what is decided on is what is there.
    writing: Mutex<()>,
    accounts: Mutex<HashMap<String, Arc<Account>>>,
    /// How many writes there were, and how many of them are on the disk for certain.
    written: AtomicU64,
    synced: AtomicU64,
}

/// What all stores of one receiver share.
#[derive(Debug, Default)]
struct Account {
    /// The bytes in use as of its last write.
    used: AtomicU64,
    /// Held by the one of the receiver's writes that is next: so many that wait would leave others no turn.
    turn: Mutex<()>,
}

#[derive(Debug)]
enum Place {
    Open(Open),
    /// After a failure, until some call finds that enough time has passed.
    Closed {
        until: Instant,
    },
    /// For good.
    Ended,
}

impl KeyValue {
    /// Opens the database in the folder `dir`, creating it if there is none.
    ///
    /// # Errors
    ///
    /// [`StateError::Prepare`] or [`StateError::Open`], also when another process has it open, or
    /// [`StateError::DamagedValues`] and [`StateError::DamagedGuestKey`] if what it says of a receiver can't be understood.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        database::create(dir, |dir| Open::at(dir).map(drop))?;
        let open = Open::at(dir)?;
        let account = |usage: Usage| Account { used: usage.bytes.into(), ..Account::default() };
        let accounts =
            open.usages()?.into_iter().map(|(receiver, usage)| (receiver, Arc::new(account(usage))));
        let shared = Shared {
            dir: dir.to_owned(),
            accounts: Mutex::new(accounts.collect()),
            place: RwLock::new(Place::Open(open)),
            writing: Mutex::new(()),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What `receiver` keeps, which may be up to `max_bytes`. Does not wait for the disk.
    ///
    /// If there is more than that already, everything can still be read and deleted.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`].
    pub fn store(&self, receiver: &str, max_bytes: u64) -> Result<KeyValueStore, StateError> {
        layout::check_receiver(receiver)?;
        let mut accounts = self.shared.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(receiver.to_owned()).or_default().clone();
        Ok(KeyValueStore::new(self.clone(), receiver.into(), max_bytes, account))
    }

    /// Whether something was written that a power loss could take back.
    pub fn is_dirty(&self) -> bool {
        self.shared.synced.load(Ordering::Acquire) < self.shared.written.load(Ordering::Acquire)
    }

    /// Makes everything that was written before durable.
    ///
    /// # Errors
    ///
    /// [`StateError::Write`]: the database is closed and opened again by a later call. Or a failure to do that.
    pub fn sync(&self) -> Result<(), StateError> {
        let written = self.shared.written.load(Ordering::Acquire);
        let outcome = self.shared.with(|open| open.persist(PersistMode::SyncData));
        self.shared.close_if_failed(outcome.as_ref().err());
        outcome?;
        self.shared.synced.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }

    /// Copies the database into the folder `to`, where nothing is, as it is at one moment. Others can go on writing.
    ///
    /// # Errors
    ///
    /// [`StateError::Read`], [`StateError::Write`] or [`StateError::Busy`], or a failure to make the copy's folder or to open the
    /// database again.
    pub fn back_up(&self, to: &Path) -> Result<(), StateError> {
        let database = self.shared.with(|open| Ok::<_, StateError>(open.database().clone()))?;
        database::create(to, |to| {
            let copy = Open::at(to)?;
            database::copy((&database, &self.shared.dir), (copy.database(), to))
        })
    }

    /// Syncs and closes the database for good: every later call of a clone or a bucket fails. Waits for those that have begun.
    ///
    /// # Errors
    ///
    /// Those of [`sync`](Self::sync). It is closed all the same.
    pub fn close(&self) -> Result<(), StateError> {
        let synced = if self.is_dirty() { self.sync() } else { Ok(()) };
        *self.shared.place.write().unwrap_or_else(PoisonError::into_inner) = Place::Ended;
        synced
    }

    /// Does `work` with the open database, opening it again if that is due.
    fn read<T>(&self, work: impl FnOnce(&Open) -> Result<T, KeyValueError>) -> Result<T, KeyValueError> {
        self.shared.with(work)
    }

    /// Makes a `change` of what `receiver` keeps, which is written in one piece or not at all.
    fn write<T>(
        &self,
        receiver: &str,
        limit: u64,
        account: &Account,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, KeyValueError>,
    ) -> Result<T, KeyValueError> {
        let shared = &self.shared;
        let _turn = account.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _writing = shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = shared.with(|open| {
            open.make_room()?;
            let mut transaction = Transaction::begin(open, receiver)?;
            let value = change(&mut transaction)?;
            Ok::<_, KeyValueError>((value, transaction.commit(limit)?))
        });
        if let Err(KeyValueError::Failed(error)) = &outcome {
            shared.close_if_failed(Some(error));
        }
        let (value, usage) = outcome?;
        if let Some(Usage { bytes, .. }) = usage {
            // Only now: a sync that began before the write must not count for it.
            shared.written.fetch_add(1, Ordering::AcqRel);
            account.used.store(bytes, Ordering::Release);
        }
        Ok(value)
    }
}

impl Shared {
    fn with<T, E: From<StateError>>(&self, work: impl FnOnce(&Open) -> Result<T, E>) -> Result<T, E> {
        // A panic while the lock was held leaves the handles whole: they change only as one value.
        let mut place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::Closed { .. }) {
            drop(place);
            let mut alone = self.place.write().unwrap_or_else(PoisonError::into_inner);
            self.open_again(&mut alone)?;
            place = RwLockWriteGuard::downgrade(alone);
        }
        match &*place {
            Place::Open(open) => work(open),
            Place::Closed { .. } => Err(StateError::Resting { dir: self.dir.clone() }.into()),
            Place::Ended => Err(StateError::Closed { dir: self.dir.clone() }.into()),
        }
    }

    fn open_again(&self, place: &mut Place) -> Result<(), StateError> {
        let Place::Closed { until } = place else { return Ok(()) };
        let now = Instant::now();
        if now < *until {
            return Err(StateError::Resting { dir: self.dir.clone() });
        }
        *until = now + REOPEN_PAUSE;
        journal::rewrite(&self.dir)
            .map_err(|source| StateError::Prepare { dir: self.dir.clone(), source })?;
        *place = Place::Open(Open::at(&self.dir)?);
        tracing::info!(dir = ?self.dir, "database of receivers' values opened again");
        Ok(())
    }

    /// Closes the database after a failed write or sync, because it would accept no other.
    fn close_if_failed(&self, error: Option<&StateError>) {
        if let Some(StateError::Write { .. }) = error {
            let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
            if matches!(*place, Place::Ended) {
                return;
            }
            *place = Place::Closed { until: Instant::now() + REOPEN_PAUSE };
            tracing::warn!(dir = ?self.dir, "database of receivers' values closed after a failed write");
        }
    }
}

//! The open database of the server's own state.

use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::database::{self, Area};
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

/// The keyspace of what message ids are read back from. The layout of its entries is described in the module `message_ids`.
const MESSAGE_IDS: &str = "message-ids";

/// The keyspaces of what was swapped. The layout of their entries is described in the module `swaps`.
const VERSIONS: &str = "versions";
const RECEIPTS: &str = "receipts";

/// What the database may cache of its files. Nearly all is read when the server starts and never after, so the least will do.
const CACHE_BYTES: u64 = 1024 * 1024;

/// How many files the database may keep open. Cursors and agents fill a handful, dead letters one for some tens of megabytes.
const OPEN_FILES: usize = 32;

/// How much of what was written may wait in memory before it goes to a sorted file: some minutes of cursors under load.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;

/// What follows if the database is given up.
pub(crate) const IF_LOST: &str = "receivers are then given everything again that the log keeps, and their dead letters and gap records are gone";

pub(crate) struct Open {
    dir: PathBuf,
    pub(crate) database: Database,
    pub(crate) cursors: Area,
    pub(crate) dead_letters: Area,
    pub(crate) gaps: Area,
    pub(crate) message_ids: Area,
    pub(crate) versions: Area,
    pub(crate) receipts: Area,
    pub(crate) agents: Keyspace,
    pub(crate) presence: Keyspace,
}

impl Open {
    /// Opens the database in `dir`, creating it there if there is none.
    pub(crate) fn at(dir: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Open { dir: dir.to_owned(), source: Box::new(error) };
        let database = database::open(dir, CACHE_BYTES, OPEN_FILES, IF_LOST)?;
        let area = |name| Area::open(&database, name, MEMTABLE_BYTES).map_err(failed);
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let agents = database.keyspace(AGENTS, options).map_err(failed)?;
        let presence = database.keyspace(PRESENCE, options).map_err(failed)?;
        let [cursors, dead_letters, gaps] = [area(CURSORS)?, area(DEAD_LETTERS)?, area(GAPS)?];
        let [message_ids, versions, receipts] = [area(MESSAGE_IDS)?, area(VERSIONS)?, area(RECEIPTS)?];
        database::sync_keyspaces(dir).map_err(failed)?;
        let dir = dir.to_owned();
        Ok(Self {
            dir,
            cursors,
            dead_letters,
            gaps,
            message_ids,
            versions,
            receipts,
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
        let Self { cursors, dead_letters, gaps, message_ids, versions, receipts, .. } = self;
        [cursors, dead_letters, gaps, message_ids, versions, receipts]
            .into_iter()
            .try_for_each(Area::hand_over)
    }

    /// Waits until the disk has taken in enough of the dead letters that were written before. Without that, letters of a
    /// receiver that rejects everything would pile up in memory.
    pub(crate) fn make_room(&self) -> Result<(), StateError> {
        self.dead_letters.wait_for_room(&self.database, &self.dir)
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Open").field("dir", &self.dir).finish_non_exhaustive()
    }
}

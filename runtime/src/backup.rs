//! Makes a copy of the data directory while the server runs, from which a server can be started: `backup` in the data directory
//! itself, from where any tool can take it elsewhere.
//!
//! The order is what makes it one: first the cursors, then what receivers keep, then the messages. So a cursor never stands
//! behind the end of its topic, and of what was done for a message after its cursor was copied there is too much rather than
//! too little: the message is delivered again. Nothing is trimmed meanwhile.
//!
//! Full segments get a second name and are not copied, where the file system can do that. As long as the copy is there, they
//! take room also when the original is deleted.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use wharf_log::Topic;
use wharf_state::{KeyValue, State, StateError};

use crate::data_dir::{self, DataDir, DataDirError};
use crate::delivery::Feeds;

/// What can be copied, and where.
#[derive(Debug)]
pub struct Backups {
    data_dir: Arc<DataDir>,
    feeds: Feeds,
    state: State,
    /// What receivers keep, if one of them may.
    keyvalue: Option<KeyValue>,
    stop: CancellationToken,
    /// There is one place, so there is one at a time.
    turn: Mutex<()>,
}

/// Why there is no copy.
#[derive(Debug, Error)]
pub enum BackupError {
    /// Somebody else is at it.
    #[error("make or remove a backup: another one is being made just now")]
    Busy,
    /// The server stops.
    #[error("make a backup: the server stops")]
    Stopping,
    /// A file can't be copied.
    #[error("make a backup: {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state can't be copied.
    #[error("make a backup")]
    State(#[from] StateError),
    /// What is known of receivers can't be copied.
    #[error("make a backup")]
    DataDir(#[from] DataDirError),
}

impl Backups {
    /// Of these parts of a data directory.
    pub fn new(
        data_dir: Arc<DataDir>,
        feeds: Feeds,
        state: State,
        keyvalue: Option<KeyValue>,
        stop: CancellationToken,
    ) -> Backups {
        Backups { data_dir, feeds, state, keyvalue, stop, turn: Mutex::new(()) }
    }

    /// Makes a copy in place of one that may be there, and gives its folder. Everything that was acknowledged before is in it.
    /// Blocks on the disk.
    pub fn make(&self) -> Result<PathBuf, BackupError> {
        let _turn = self.turn()?;
        let (place, unfinished) = (self.place(), self.data_dir.unfinished_backup());
        remove(&unfinished)?;
        let made = self.make_in(&unfinished, &place);
        if made.is_err()
            && let Err(error) = remove(&unfinished)
        {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                "what there is of a backup that could not be made stays until the next one"
            );
        }
        made?;
        tracing::info!(path = %place.display(), "made a backup");
        Ok(place)
    }

    /// Makes it in the folder `unfinished`, and moves it to its place.
    fn make_in(&self, unfinished: &Path, place: &Path) -> Result<(), BackupError> {
        // Nobody else may read what the original may keep from them.
        DirBuilder::new().mode(0o700).create(unfinished).map_err(at(unfinished))?;
        // Each before the cursors are copied that say what is not finished yet.
        let topics = self.feeds.topics();
        let _held: Vec<_> = topics.iter().map(Topic::hold).collect();
        // Before the state says which component a receiver has and after it, because it may be swapped meanwhile.
        self.versions(&data_dir::versions(unfinished))?;
        self.state.back_up(&data_dir::state(unfinished))?;
        self.versions(&data_dir::versions(unfinished))?;
        self.values(&data_dir::guests(unfinished))?;
        self.log(&topics, &data_dir::log(unfinished))?;
        self.data_dir.copy_marks(unfinished)?;
        sync(unfinished)?;
        remove(place)?;
        fs::rename(unfinished, place).map_err(at(place))?;
        sync(place.parent().unwrap_or(place))
    }

    /// Removes the copy, if there is one, and gives its folder. Blocks on the disk.
    pub fn remove(&self) -> Result<PathBuf, BackupError> {
        let _turn = self.turn()?;
        let place = self.place();
        remove(&place)?;
        remove(&self.data_dir.unfinished_backup())?;
        Ok(place)
    }

    /// As whoever asks must know it, who may be in another folder.
    fn place(&self) -> PathBuf {
        let place = self.data_dir.backup();
        std::path::absolute(&place).unwrap_or(place)
    }

    fn turn(&self) -> Result<std::sync::MutexGuard<'_, ()>, BackupError> {
        match self.turn.try_lock() {
            Ok(turn) => Ok(turn),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(BackupError::Busy),
        }
    }

    /// Copies the components of receivers that are not copied yet. One that goes meanwhile is not needed.
    fn versions(&self, to: &Path) -> Result<(), BackupError> {
        let from = self.data_dir.versions();
        fs::create_dir_all(to).map_err(at(to))?;
        for entry in fs::read_dir(&from).map_err(at(&from))? {
            let from = entry.map_err(at(&from))?.path();
            let Some(name) = from.file_name() else { continue };
            let to = to.join(name);
            if to.try_exists().map_err(at(&to))? {
                continue;
            }
            match fs::copy(&from, &to) {
                Ok(_) => sync(&to)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&from)(error)),
            }
        }
        sync(to)
    }

    fn values(&self, to: &Path) -> Result<(), BackupError> {
        if let Some(keyvalue) = &self.keyvalue {
            return Ok(keyvalue.back_up(to)?);
        }
        // No receiver may keep anything any more, so that nobody has it open.
        let from = self.data_dir.guests();
        if from.is_dir() { copy_folder(&from, to) } else { Ok(()) }
    }

    fn log(&self, topics: &[Topic], to: &Path) -> Result<(), BackupError> {
        fs::create_dir(to).map_err(at(to))?;
        for topic in topics {
            if self.stop.is_cancelled() {
                return Err(BackupError::Stopping);
            }
            let to = to.join(topic.name());
            topic.back_up(&to).map_err(at(&to))?;
        }
        // Data types that the config does not have any more: nobody writes to them.
        let log = self.data_dir.log();
        for entry in fs::read_dir(&log).map_err(at(&log))? {
            let from = entry.map_err(at(&log))?.path();
            let Some(name) = from.file_name() else { continue };
            let to = to.join(name);
            if from.is_dir() && !to.try_exists().map_err(at(&to))? {
                copy_folder(&from, &to)?;
            }
        }
        sync(to)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { path, source }
}

fn remove(folder: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::create_dir(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let from = entry.map_err(at(from))?.path();
        let Some(name) = from.file_name() else { continue };
        let to = to.join(name);
        if from.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(at(&from))?;
            sync(&to)?;
        }
    }
    sync(to)
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

//! A data directory that no server runs on, to be looked at. Nothing in it is made or changed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::ballast::BALLAST;
use super::{BACKUP, DataDirError, FORMAT, UNFINISHED_BACKUP, known_receivers, marks, quotable, read_mark};

/// What a data directory of any age has in it, by name.
const NAMES: [&str; 16] = [
    "FORMAT",
    "LOCK",
    "RUNNING",
    BALLAST,
    "PAUSED",
    "RECEIVERS",
    "ABSENT",
    "log",
    "state",
    "guests",
    "components",
    "versions",
    BACKUP,
    UNFINISHED_BACKUP,
    "state.unfinished",
    "guests.unfinished",
];

/// A data directory that no server can begin to use for as long as the value lives.
#[derive(Debug)]
pub struct Offline {
    path: PathBuf,
    _lock: Option<File>,
}

/// Why a data directory can't be looked at.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// There is none.
    #[error("look at {path}: there is no data directory; expected a file FORMAT or a folder `log` in it")]
    NotOne {
        /// The folder.
        path: PathBuf,
    },
    /// A server runs on it.
    #[error(
        "look at {path}: it is locked, because a server runs on it; stop the server, or look at a copy that `wharf backup` made"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file or folder in it can't be read.
    #[error("look at {path}")]
    Io {
        /// What was being read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What the file FORMAT says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// The version that this program reads and writes.
    Ours,
    /// Something else, or nothing.
    Other(String),
    /// It is not there.
    Missing,
}

impl Offline {
    /// Keeps servers away, as far as there is a file to be locked. Others that only look are not kept away.
    pub fn open(path: &Path) -> Result<Offline, OfflineError> {
        let has = |name| path.join(name).try_exists().unwrap_or(false);
        if !has("FORMAT") && !has("log") {
            return Err(OfflineError::NotOne { path: path.to_owned() });
        }
        let lock_path = path.join("LOCK");
        let failed = |source| OfflineError::Io { path: lock_path.clone(), source };
        let lock = match File::open(&lock_path) {
            Ok(lock) => lock,
            // A copy may be without it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Offline { path: path.to_owned(), _lock: None });
            }
            Err(error) => return Err(failed(error)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Offline { path: path.to_owned(), _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(OfflineError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which format it says to have.
    pub fn format(&self) -> Result<Format, OfflineError> {
        let path = self.path.join("FORMAT");
        match fs::read(&path) {
            Ok(found) if found.trim_ascii() == FORMAT.as_bytes() => Ok(Format::Ours),
            Ok(found) => Ok(Format::Other(quotable(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Format::Missing),
            Err(source) => Err(OfflineError::Io { path, source }),
        }
    }

    /// The format that is expected.
    pub fn expected_format(&self) -> &'static str {
        FORMAT
    }

    /// Whether the last run ended without saying that nothing was left half done.
    pub fn was_running(&self) -> bool {
        self.path.join("RUNNING").exists()
    }

    /// The lists in it that can't be used: the file, what is wrong with it, and what to do about it.
    pub fn damaged_marks(&self) -> Vec<(PathBuf, String, &'static str)> {
        let damaged = marks::ALL.into_iter().filter_map(|mark| match read_mark(&self.path, mark) {
            Ok(_) => None,
            Err(DataDirError::Mark { path, found, advice }) => Some((path, found, advice)),
            Err(error) => {
                Some((self.path.join(mark.name), format!("{:#}", anyhow::Error::new(error)), mark.advice))
            }
        });
        damaged.collect()
    }

    /// Receivers and data types that were written down as known; none if that can't be read.
    pub fn known_receivers(&self) -> Vec<(String, String)> {
        known_receivers(&self.path).unwrap_or_default()
    }

    /// What is in it that no server put there.
    pub fn strangers(&self) -> Result<Vec<PathBuf>, OfflineError> {
        let failed = |source| OfflineError::Io { path: self.path.clone(), source };
        let mut strangers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
                // Files are made beside their place and moved there.
                NAMES.contains(&name) || NAMES.iter().any(|ours| name == format!("{ours}.new"))
            });
            if !is_ours {
                strangers.push(path);
            }
        }
        strangers.sort();
        Ok(strangers)
    }
}

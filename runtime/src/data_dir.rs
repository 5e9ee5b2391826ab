//! The data directory: who may use it, and where in it each part keeps its files.
//!
//! ```text
//! data/
//!   FORMAT          the version of this layout, as text
//!   LOCK            locked by the server that uses the directory
//!   RUNNING         there from the moment that receivers are fed until a stop that left nothing half done
//!   BALLAST         nothing, to be removed when the disk is full
//!   PAUSED          the receivers that an operator paused
//!   RECEIVERS       every receiver and data type that ever had a cursor
//!   ABSENT          those of them that the config does not map any more, and since when
//!   log/            topics (wharf-log)
//!   state/          cursors (wharf-state)
//!   guests/         what receivers keep under keys (wharf-state)
//!   components/     compiled components (wharf-host)
//!   versions/       the components that receivers have, and those before them
//!   backup/         a copy of all this but the ballast and the components, if an operator had one made
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use marks::{ABSENT, Mark, PAUSED, RECEIVERS};

pub mod ballast;
mod marks;
pub mod offline;

/// The layout that this version reads and writes.
const FORMAT: &str = "1";

/// The folder of a backup, and the one in which it is made.
const BACKUP: &str = "backup";
const UNFINISHED_BACKUP: &str = "backup.unfinished";

/// Receivers and data types that the config does not map any more, and since when, Unix milliseconds.
pub type Absences = BTreeMap<(String, String), u64>;

/// A data directory that this process has to itself for as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    stopped_cleanly: bool,
    // The lock ends when the file is closed, also when the process is killed.
    _lock: File,
}

/// Why a data directory can't be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// A file or folder in it can't be made, read or locked.
    #[error("use the data directory: {path}")]
    Io {
        /// What was being used.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another server runs on it, or it is being looked at.
    #[error(
        "use the data directory {path}: another server runs on it, or `wharf doctor` looks at it; stop that one, or give this one a `data-dir` of its own"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Another version of Wharf wrote it.
    #[error(
        "use the data directory {path}: found format {found:?} in its file FORMAT, expected {FORMAT:?}, which this version of wharf reads; run the version that wrote it, write {FORMAT} into that file if no other ever did, or give this version a `data-dir` of its own"
    )]
    Format {
        /// The directory.
        path: PathBuf,
        /// What its FORMAT file holds.
        found: String,
    },
    /// A list in it is damaged.
    #[error("read {path}: {found}; {advice}")]
    Mark {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What to do about it.
        advice: &'static str,
    },
}

impl DataDir {
    /// Makes the directory if there is none, checks its format and locks it.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(at(path))?;
        let lock_path = path.join("LOCK");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(at(&lock_path)(source)),
        }
        // Before anything is written.
        ballast::trim(path);
        remove_unfinished_backup(path);
        let format_path = path.join("FORMAT");
        match fs::read(&format_path) {
            Ok(found) if found.trim_ascii() == FORMAT.as_bytes() => {}
            Ok(found) => {
                return Err(DataDirError::Format { path: path.to_owned(), found: quotable(&found) });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_durably(&format_path, format!("{FORMAT}\n")).map_err(at(&format_path))?;
            }
            Err(error) => return Err(at(&format_path)(error)),
        }
        let running = path.join("RUNNING");
        let stopped_cleanly = !running.try_exists().map_err(at(&running))?;
        Ok(DataDir { path: path.to_owned(), stopped_cleanly, _lock: lock })
    }

    /// Whether the last run, if there was one, left no message delivered and not finished.
    pub fn stopped_cleanly(&self) -> bool {
        self.stopped_cleanly
    }

    /// Writes down, durably, that receivers are being fed.
    pub fn mark_running(&self) -> Result<(), DataDirError> {
        if !self.stopped_cleanly {
            // It is there, and need not be written, which a full disk would not let us.
            let path = self.path.clone();
            return sync_folder(&path).map_err(|source| DataDirError::Io { path, source });
        }
        let path = self.path.join("RUNNING");
        write_durably(&path, "\n").map_err(|source| DataDirError::Io { path, source })
    }

    /// Writes down that nothing was left half done.
    pub fn mark_stopped(&self) -> Result<(), DataDirError> {
        let path = self.path.join("RUNNING");
        fs::remove_file(&path).map_err(|source| DataDirError::Io { path, source })
    }

    /// Receivers and data types that were written down as known, each once.
    pub fn known_receivers(&self) -> Result<Vec<(String, String)>, DataDirError> {
        known_receivers(&self.path)
    }

    /// Writes these down as known, durably. Their names have no spaces, by the config's own rule.
    pub fn know_receivers(&self, pairs: &[(String, String)]) -> Result<(), DataDirError> {
        self.write(RECEIVERS, pairs.iter().map(|(receiver, topic)| format!("{receiver} {topic}")))
    }

    /// Receivers and data types that were written down as absent, and since when, Unix milliseconds.
    pub fn absent_receivers(&self) -> Result<Absences, DataDirError> {
        let absence = |line: &String| {
            let mut words = line.split(' ');
            let (receiver, topic, since) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
            Some((owned((receiver, topic)), since))
        };
        Ok(read_mark(&self.path, ABSENT)?.iter().filter_map(absence).collect())
    }

    /// Writes these and no others down as absent, durably.
    pub fn note_absent(&self, absences: &Absences) -> Result<(), DataDirError> {
        let line =
            |((receiver, topic), since): (&(String, String), &u64)| format!("{receiver} {topic} {since}");
        self.write(ABSENT, absences.iter().map(line))
    }

    /// The receivers that were written down as paused.
    pub fn paused_receivers(&self) -> Result<Vec<String>, DataDirError> {
        read_mark(&self.path, PAUSED)
    }

    /// Writes these and no others down as paused, durably.
    pub fn pause_receivers<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), DataDirError> {
        self.write(PAUSED, names.map(str::to_owned))
    }

    fn write(&self, mark: Mark, lines: impl Iterator<Item = String>) -> Result<(), DataDirError> {
        let path = self.path.join(mark.name);
        let text = Mark::encode(&lines.collect::<Vec<_>>().join("\n"));
        write_durably(&path, text).map_err(|source| DataDirError::Io { path, source })
    }

    /// Writes into the folder `to` what else a copy of the directory needs, durably. A server that starts from it was not stopped,
    /// so that what it delivers again is marked.
    pub fn copy_marks(&self, to: &Path) -> Result<(), DataDirError> {
        for Mark { name, .. } in marks::ALL {
            let (from, to) = (self.path.join(name), to.join(name));
            match fs::read(&from) {
                Ok(text) => {
                    write_durably(&to, &text).map_err(|source| DataDirError::Io { path: to, source })?
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(DataDirError::Io { path: from, source }),
            }
        }
        for (name, text) in [("RUNNING", "\n".to_owned()), ("FORMAT", format!("{FORMAT}\n"))] {
            let path = to.join(name);
            write_durably(&path, text).map_err(|source| DataDirError::Io { path, source })?;
        }
        Ok(())
    }

    /// Where a backup is made.
    pub fn backup(&self) -> PathBuf {
        self.path.join(BACKUP)
    }

    /// Where it is until it is finished.
    pub fn unfinished_backup(&self) -> PathBuf {
        self.path.join(UNFINISHED_BACKUP)
    }

    /// Where the components of receivers are kept.
    pub fn versions(&self) -> PathBuf {
        versions(&self.path)
    }

    /// Where topics are kept.
    pub fn log(&self) -> PathBuf {
        log(&self.path)
    }

    /// Where cursors are kept.
    pub fn state(&self) -> PathBuf {
        state(&self.path)
    }

    /// Where what receivers keep under keys is kept.
    pub fn guests(&self) -> PathBuf {
        guests(&self.path)
    }
}

/// Where the components of the receivers of a data directory are kept.
pub fn versions(data_dir: &Path) -> PathBuf {
    data_dir.join("versions")
}

/// Where the topics of a data directory are kept.
pub fn log(data_dir: &Path) -> PathBuf {
    data_dir.join("log")
}

/// Where the cursors of a data directory are kept.
pub fn state(data_dir: &Path) -> PathBuf {
    data_dir.join("state")
}

/// Where a data directory has what receivers keep under keys.
pub fn guests(data_dir: &Path) -> PathBuf {
    data_dir.join("guests")
}

/// Where the compiled components of a data directory are kept. Usable without the lock: files in it appear whole or not
/// at all.
pub fn components(data_dir: &Path) -> PathBuf {
    data_dir.join("components")
}

/// Removes what a server that was killed has left of a backup: it keeps segments on the disk that were deleted.
fn remove_unfinished_backup(data_dir: &Path) {
    let path = data_dir.join(UNFINISHED_BACKUP);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(path = %path.display(), error, "a backup that was not finished can't be removed");
        }
        _ => {}
    }
}

/// What a file FORMAT holds, as far as it can be shown.
fn quotable(found: &[u8]) -> String {
    String::from_utf8_lossy(found).trim().chars().take(20).collect()
}

fn known_receivers(data_dir: &Path) -> Result<Vec<(String, String)>, DataDirError> {
    let lines = read_mark(data_dir, RECEIVERS)?;
    Ok(lines.iter().filter_map(|line| line.split_once(' ')).map(owned).collect())
}

/// The lines of a list; none if it was never written.
fn read_mark(data_dir: &Path, mark: Mark) -> Result<Vec<String>, DataDirError> {
    let path = data_dir.join(mark.name);
    match fs::read(&path) {
        Ok(text) => {
            mark.decode(&text).map_err(|found| DataDirError::Mark { path, found, advice: mark.advice })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(DataDirError::Io { path, source }),
    }
}

fn owned((receiver, topic): (&str, &str)) -> (String, String) {
    (receiver.to_owned(), topic.to_owned())
}

fn write_durably(path: &Path, text: impl AsRef<[u8]>) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text)?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_refused_while_the_first_runs() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let refusal = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(refusal, DataDirError::InUse { .. }), "{refusal}");
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_run_that_did_not_end_shows() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        assert!(first.stopped_cleanly());
        first.mark_running().unwrap();
        drop(first);
        let second = DataDir::open(folder.path()).unwrap();
        assert!(!second.stopped_cleanly());
        second.mark_stopped().unwrap();
        drop(second);
        assert!(DataDir::open(folder.path()).unwrap().stopped_cleanly());
    }

    #[test]
    fn what_is_left_of_a_backup_goes() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, unfinished] = [BACKUP, UNFINISHED_BACKUP].map(|name| folder.path().join(name));
        for place in [&whole, &unfinished] {
            fs::create_dir_all(place.join("log")).unwrap();
        }
        DataDir::open(folder.path()).unwrap();
        assert_eq!((whole.is_dir(), unfinished.exists()), (true, false));
    }

    #[test]
    fn known_receivers_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        assert_eq!(data_dir.known_receivers().unwrap(), []);
        let pairs = [("journal", "system_metrics"), ("dashboard", "system_metrics")].map(owned);
        data_dir.know_receivers(&pairs).unwrap();
        assert_eq!(data_dir.known_receivers().unwrap(), pairs);
    }

    #[test]
    fn absent_receivers_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        assert_eq!(data_dir.absent_receivers().unwrap(), Absences::new());
        let absent = Absences::from([(owned(("journal", "metrics")), 17), (owned(("other", "metrics")), 3)]);
        data_dir.note_absent(&absent).unwrap();
        assert_eq!(data_dir.absent_receivers().unwrap(), absent);
        data_dir.note_absent(&Absences::new()).unwrap();
        assert_eq!(data_dir.absent_receivers().unwrap(), Absences::new());
        fs::write(folder.path().join("ABSENT"), "journal metrics\nother metrics 3\n\n").unwrap();
        let refusal = data_dir.absent_receivers().unwrap_err().to_string();
        assert!(refusal.contains("ABSENT: a line of it is not one"), "{refusal}");
    }

    #[test]
    fn a_directory_of_another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataDir::open(folder.path()).unwrap());
        fs::write(folder.path().join("FORMAT"), "2\n").unwrap();
        let refusal = DataDir::open(folder.path()).unwrap_err().to_string();
        assert!(refusal.contains("found format \"2\" in its file FORMAT"), "{refusal}");
    }
}

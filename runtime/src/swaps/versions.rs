//! Which component each receiver has, and the components that may be needed again: kept in the data directory by digest, so
//! that a swap outlasts a restart and can be taken back.
//!
//! What was swapped in stays until the configured file changes: then the file wins.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wharf_host::ComponentFile;
use wharf_state::{State, StateError};

/// The end of the name of a kept component.
const EXTENSION: &str = "wasm";
/// The start of the name of one that is not whole yet.
const UNFINISHED: &str = ".new-";

/// The version that a receiver has, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The digest of the component that is to run.
    pub running: String,
    /// The digest that the configured file had when that was decided.
    pub file: String,
    /// The one before, which a rollback brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Since when it runs, in Unix milliseconds.
    pub since: u64,
}

/// The kept components can't be used.
#[derive(Debug, Error)]
#[error("keep the components of receivers in {path}")]
pub struct KeepError {
    /// What was being used.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl Version {
    /// What is written down of a receiver. One that is damaged counts as none, which is logged: the configured file runs then.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub fn of(receiver: &str, state: &State) -> Result<Option<Version>, StateError> {
        let text = match state.version(receiver) {
            Err(error @ StateError::DamagedVersion { .. }) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(receiver.name = receiver, error, "the component of the config is used");
                None
            }
            text => text?,
        };
        Ok(text.and_then(|text| match serde_json::from_str(&text) {
            Ok(version) => Some(version),
            Err(error) => {
                tracing::error!(
                    receiver.name = receiver,
                    %error,
                    "failed to understand which version of a receiver is stored; the component of the config is used"
                );
                None
            }
        }))
    }

    /// Writes down that the configured file is this one by now, which changes nothing of what runs. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the database can't be read or written.
    pub fn set_file(receiver: &str, digest: String, state: &State) -> Result<(), StateError> {
        match Version::of(receiver, state)? {
            Some(version) => state.set_version(receiver, &Version { file: digest, ..version }.encode()),
            None => Ok(()),
        }
    }

    /// As it is written down.
    pub fn encode(&self) -> String {
        // Texts and a number: that can't fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The folder of kept components. Whatever is in it is there whole.
#[derive(Clone, Debug)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Those in this folder, which is made if it is missing. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When it can't be made.
    pub fn open(folder: PathBuf) -> Result<Kept, KeepError> {
        fs::create_dir_all(&folder).map_err(|source| KeepError { path: folder.clone(), source })?;
        Ok(Kept { folder })
    }

    /// Where the component of this digest is kept, if it is.
    pub fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.{EXTENSION}"))
    }

    /// Whether the component of this digest is kept.
    pub fn has(&self, digest: &str) -> bool {
        self.path(digest).is_file()
    }

    /// Keeps a component, durably, and gives its path. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When it can't be written. Nothing is kept then.
    pub fn keep(&self, digest: &str, bytes: &[u8]) -> Result<PathBuf, KeepError> {
        let path = self.path(digest);
        // One that is there may have been damaged.
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(path);
        }
        let failed = |source| KeepError { path: path.clone(), source };
        let unfinished = self.folder.join(format!("{UNFINISHED}{digest}"));
        let written = write_durably(&self.folder, &unfinished, &path, bytes);
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written.map_err(failed)?;
        Ok(path)
    }

    /// Removes all but those of these digests. What can't be removed stays, which is logged. Blocks on the disk.
    pub fn keep_only(&self, digests: &BTreeSet<String>) {
        if let Err(error) = self.remove_others(digests) {
            tracing::warn!(folder = %self.folder.display(), %error, "failed to remove components that are not needed any more");
        }
    }

    fn remove_others(&self, digests: &BTreeSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_needed = path.extension().is_some_and(|extension| extension == EXTENSION)
                && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| digests.contains(stem));
            if !is_needed {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The kept components of a data directory that are not what their names say, to be looked at offline. Blocks on the disk.
///
/// # Errors
///
/// When the folder or a file can't be read.
pub fn damaged(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut damaged = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let found = ComponentFile::of(&path, fs::read(&path)?);
        let is_whole =
            found.is_ok_and(|found| path.file_stem().is_some_and(|stem| stem == found.digest.as_str()));
        if !is_whole {
            damaged.push(path);
        }
    }
    damaged.sort();
    Ok(damaged)
}

/// The digests that some receiver may need again, whether the config has it or not.
///
/// # Errors
///
/// When the database can't be read.
pub fn needed(state: &State) -> Result<BTreeSet<String>, StateError> {
    let versions = state.versions()?.into_iter();
    let versions = versions.filter_map(|(_, text)| serde_json::from_str::<Version>(&text).ok());
    Ok(versions.flat_map(|version| [Some(version.running), version.previous]).flatten().collect())
}

fn write_durably(folder: &Path, unfinished: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_and_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path().join("versions")).unwrap();
        for digest in ["aa", "bb", "cc"] {
            assert!(!kept.has(digest));
            kept.keep(digest, digest.as_bytes()).unwrap();
        }
        assert_eq!(fs::read(kept.path("bb")).unwrap(), b"bb");
        let state = State::open(&folder.path().join("state")).unwrap();
        let version = Version {
            running: "aa".to_owned(),
            file: "dd".to_owned(),
            previous: Some("cc".to_owned()),
            since: 7,
        };
        state.set_version("r", &version.encode()).unwrap();
        assert_eq!(Version::of("r", &state).unwrap(), Some(version));
        kept.keep_only(&needed(&state).unwrap());
        assert_eq!(["aa", "bb", "cc"].map(|digest| kept.has(digest)), [true, false, true]);
    }

    #[test]
    fn a_version_that_makes_no_sense_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        state.set_version("r", "{}").unwrap();
        assert_eq!(Version::of("r", &state).unwrap(), None);
        assert_eq!(Version::of("s", &state).unwrap(), None);
    }
}

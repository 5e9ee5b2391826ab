//! With which component each receiver begins when the server starts: that of the config, or one that was swapped in and whose
//! place the config has not changed since.

use std::collections::BTreeMap;
use std::path::PathBuf;

use thiserror::Error;
use wharf_host::ComponentFile;
use wharf_state::{State, StateError};

use super::receipt::{Kind, Outcome, Receipt};
use super::versions::{KeepError, Kept, Version, needed};
use crate::config::Config;
use crate::unix_time::unix_milliseconds;

/// Who is said to have done what follows from a changed file.
const WHO: &str = "server start";

/// Why it is not known.
#[derive(Debug, Error)]
pub enum StartError {
    /// What was swapped can't be read or written.
    #[error("see which versions receivers have")]
    State(#[from] StateError),
    /// The components can't be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// With what receivers begin.
pub struct Beginning {
    /// By receiver, the file of another component than that of the config.
    pub instead: BTreeMap<String, PathBuf>,
    changes: Vec<Change>,
    kept: Kept,
}

/// What is to be written down of a receiver once its component is loaded.
struct Change {
    receiver: String,
    file: ComponentFile,
    version: Option<Version>,
    /// The component that ran before, and why it does not any more.
    instead_of: Option<(String, &'static str)>,
}

/// Looks at the files of the config and at what was swapped in. A file that can't be read is left to who loads it.
///
/// # Errors
///
/// See [`StartError`].
pub async fn look(config: &Config, state: &State, kept: Kept) -> Result<Beginning, StartError> {
    let mut beginning = Beginning { instead: BTreeMap::new(), changes: Vec::new(), kept };
    for settings in &config.receivers {
        let Ok(file) = ComponentFile::read(&settings.component, config.host.max_component).await else {
            continue;
        };
        let (state, receiver) = (state.clone(), settings.name.clone());
        let name = receiver.clone();
        let known = match tokio::task::spawn_blocking(move || Version::of(&name, &state)).await {
            Ok(known) => known?,
            Err(_) => None,
        };
        beginning.decide(receiver, file, known, config.host.max_component).await;
    }
    Ok(beginning)
}

impl Beginning {
    async fn decide(&mut self, receiver: String, file: ComponentFile, known: Option<Version>, limit: u64) {
        let version = |previous| Version {
            running: file.digest.clone(),
            file: file.digest.clone(),
            previous,
            since: unix_milliseconds(),
        };
        let (version, instead_of) = match known {
            None => (Some(version(None)), None),
            Some(known) if known.file == file.digest && known.running == file.digest => (None, None),
            Some(known) if known.file == file.digest => {
                let path = self.kept.path(&known.running);
                // Whatever happened to the file, what runs is what was swapped in.
                let is_whole = match ComponentFile::read(&path, limit).await {
                    Ok(kept) => kept.digest == known.running,
                    Err(_) => false,
                };
                if is_whole {
                    self.instead.insert(receiver.clone(), path);
                    (None, None)
                } else {
                    let why = "the component that was swapped in is not whole in the data directory any more";
                    (Some(version(known.previous)), Some((known.running, why)))
                }
            }
            // The operator has put what was swapped in into its place.
            Some(known) if known.running == file.digest => {
                (Some(Version { file: file.digest.clone(), ..known }), None)
            }
            Some(known) => {
                let why = "the file of the config changed while the server did not run";
                (Some(version(Some(known.running.clone()))), Some((known.running, why)))
            }
        };
        self.changes.push(Change { receiver, file, version, instead_of });
    }

    /// Writes it down, once every component is loaded, and gives the components that are kept. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn write_down(self, state: &State) -> Result<Kept, StartError> {
        let Beginning { changes, kept, .. } = self;
        for Change { receiver, file, version, instead_of } in changes {
            kept.keep(&file.digest, &file.bytes)?;
            let Some(version) = version else { continue };
            let Some((old, why)) = instead_of else {
                state.set_version(&receiver, &version.encode())?;
                continue;
            };
            tracing::warn!(
                receiver.name = receiver,
                old,
                new = file.digest,
                why,
                "a receiver has another component"
            );
            let receipt = Receipt {
                outcome: Outcome::Settled,
                reason: Some(why.to_owned()),
                settled_at: Some(unix_milliseconds()),
                new: Some(file.digest.clone()),
                ..Receipt::new(&receiver, Kind::Swap, WHO, &old)
            };
            state.add_receipt(&receiver, &receipt.encode(), Some(&version.encode()))?;
        }
        kept.keep_only(&needed(state)?);
        Ok(kept)
    }
}

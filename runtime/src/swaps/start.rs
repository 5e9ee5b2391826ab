//! With which component each receiver begins when the server starts: that of the config, or one that was swapped in and whose
//! place the config has not changed since.

use std::collections::BTreeMap;
use std::path::PathBuf;

use thiserror::Error;
use wharf_host::ComponentFile;
use wharf_state::{State, StateError};

use super::receipt::{Kind, Outcome, Receipt};
use super::versions::{KeepError, Kept, Version, needed};
use crate::config;
use crate::unix_time::unix_milliseconds;

/// When a receiver begins.
#[derive(Clone, Copy, Debug)]
pub enum Occasion {
    /// The server is started.
    Start,
    /// The receiver is new in a config that was reloaded.
    Reload,
}

impl Occasion {
    /// Who is said to have done what follows from a changed file.
    fn who(self) -> &'static str {
        match self {
            Occasion::Start => "server start",
            Occasion::Reload => "reload",
        }
    }

    /// Why that follows.
    fn why(self) -> &'static str {
        match self {
            Occasion::Start => "the file of the config changed while the server did not run",
            Occasion::Reload => "the file of the config changed while the receiver was not in it",
        }
    }
}

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
    occasion: Occasion,
}

/// What is to be written down of a receiver once its component is loaded.
struct Change {
    receiver: String,
    file: ComponentFile,
    version: Option<Version>,
    /// The component that ran before, and why it does not any more.
    instead_of: Option<(String, &'static str)>,
}

/// Looks at the files of receivers and at what was swapped in. A file that can't be read is left to who loads it.
///
/// # Errors
///
/// See [`StartError`].
pub async fn look(
    receivers: &[config::Receiver],
    max_component_bytes: u64,
    state: &State,
    kept: Kept,
    occasion: Occasion,
) -> Result<Beginning, StartError> {
    let mut beginning = Beginning { instead: BTreeMap::new(), changes: Vec::new(), kept, occasion };
    for settings in receivers {
        let Ok(file) = ComponentFile::read(&settings.component, max_component_bytes).await else {
            continue;
        };
        let (state, receiver) = (state.clone(), settings.name.clone());
        let name = receiver.clone();
        let known = match tokio::task::spawn_blocking(move || Version::of(&name, &state)).await {
            Ok(known) => known?,
            Err(_) => None,
        };
        beginning.decide(receiver, file, known, max_component_bytes).await;
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
                (Some(version(Some(known.running.clone()))), Some((known.running, self.occasion.why())))
            }
        };
        self.changes.push(Change { receiver, file, version, instead_of });
    }

    /// Writes it down, once every component is loaded, each receipt by `add`, and gives the components that are kept: those that are needed, and these
    /// `coming` ones. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn write_down(
        self,
        state: &State,
        add: impl Fn(&Receipt, &Version) -> Result<(), StateError>,
        coming: &[String],
    ) -> Result<Kept, StartError> {
        let Beginning { changes, kept, occasion, .. } = self;
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
                ..Receipt::new(&receiver, Kind::Swap, occasion.who(), &old)
            };
            add(&receipt, &version)?;
        }
        let mut needed = needed(state)?;
        needed.extend(coming.iter().cloned());
        kept.keep_only(&needed);
        Ok(kept)
    }
}

//! A host for commands that look at components without a server and its config. What it compiles goes to the cache of
//! whoever calls the command.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;
use thiserror::Error;
use wharf_host::{Compiler, Host, HostOptions};

use crate::cli::Usage;
use crate::components::COMPILE_COMMAND;

/// As much as a guest can address: which receiver gets how much is for a config to say.
const MAX_MEMORY: u64 = 4 << 30;

/// Enough to look at components one after the other.
const MAX_INSTANCES: u32 = 1;

/// The bits of a folder's mode with which somebody else can write to it.
const OTHERS_WRITE: u32 = 0o022;

/// Which cache to use.
#[derive(Debug, clap::Args)]
pub struct Cache {
    /// Folder for compiled components [default: wharf/components in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// A host, and the folder of its cache if that is to go with it.
pub struct Offline {
    /// The host. It can load components, and run one instance at a time.
    pub host: Host,
    // After the host, so that it is dropped after it.
    _temporary: Option<TempDir>,
}

/// Why a folder can't be the cache: what is in it runs with the rights of whoever calls the command.
#[derive(Debug, Error)]
enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it belongs to another user; choose one of your own with --cache")]
    Foreign,
    #[error("others may write to it; run `chmod go-w` on it, or choose another with --cache")]
    Shared,
}

impl Cache {
    /// Starts a host.
    ///
    /// # Errors
    ///
    /// [`Usage`] for a folder that can't be used, or that others may write to. The user's own cache folder, where it can't
    /// be made, is replaced by a temporary one.
    pub fn host(&self) -> anyhow::Result<Offline> {
        let (folder, temporary) = self.folder()?;
        let program = env::current_exe().context("failed to find the program to compile components with")?;
        let compiler = Compiler { program, args: vec![COMPILE_COMMAND.into()] };
        let options = HostOptions {
            max_memory: MAX_MEMORY,
            max_instances: MAX_INSTANCES,
            max_pages: MAX_INSTANCES,
            ..HostOptions::new(folder, compiler)
        };
        let host = Host::new(options)
            .map_err(|error| anyhow::anyhow!("failed to {:#}", anyhow::Error::new(error)))?;
        Ok(Offline { host, _temporary: temporary })
    }

    fn folder(&self) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
        let own = match &self.cache {
            Some(chosen) => Some(chosen.clone()),
            None => user_cache(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")),
        };
        if let Some(folder) = own {
            match prepare(&folder) {
                Ok(()) => return Ok((folder, None)),
                // Somebody without a home that can be written to, as in many containers, can do without a cache.
                Err(Unusable::Io(_)) if self.cache.is_none() => {}
                Err(reason) => {
                    let text = format!("failed to keep compiled components in {folder:?}: {reason}");
                    return Err(Usage(text).into());
                }
            }
        }
        let temporary = tempfile::tempdir().context("failed to make a folder for compiled components")?;
        Ok((temporary.path().to_owned(), Some(temporary)))
    }
}

/// Where the user's compiled components are, by the environment. Relative paths in it are to be ignored, says the XDG base
/// directory specification.
fn user_cache(xdg_cache_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |value: Option<OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute(xdg_cache_home).or_else(|| Some(absolute(home)?.join(".cache")))?;
    Some(cache.join("wharf/components"))
}

/// Makes the folder if it is missing, and sees to it that nobody else can put files there.
fn prepare(folder: &Path) -> Result<(), Unusable> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::metadata(folder)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        Err(Unusable::Foreign)
    } else if found.mode() & OTHERS_WRITE != 0 {
        Err(Unusable::Shared)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_environment_says_where_the_cache_is() {
        let in_home = Some("/home/me/.cache/wharf/components");
        for (xdg, home, expected) in [
            (Some("/cache"), Some("/home/me"), Some("/cache/wharf/components")),
            (Some("cache"), Some("/home/me"), in_home),
            (Some(""), Some("/home/me"), in_home),
            (None, Some("/home/me"), in_home),
            (None, Some(""), None),
            (None, None, None),
        ] {
            let found = user_cache(xdg.map(OsString::from), home.map(OsString::from));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{xdg:?} {home:?}");
        }
    }

    #[test]
    fn a_folder_is_made_for_its_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("wharf/components");
        prepare(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        for mode in [0o720, 0o702, 0o777, 0o1777] {
            fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(prepare(&folder), Err(Unusable::Shared)), "{mode:o}");
        }
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        prepare(&folder).unwrap();
    }
}

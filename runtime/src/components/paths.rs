//! Whether the paths of a config can stand beside each other once links are followed: what a receiver may touch must not be the
//! server's own, nor lead to anything that it was not granted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf, absolute};

use thiserror::Error;

use crate::config::Config;

/// How many links are followed on the way to a path, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Why a path can't be used. Names the key in the config.
#[derive(Debug, Error)]
pub enum PathProblem {
    /// A component is where the server keeps what is its own.
    #[error(
        "receivers.{receiver}.component: found {component:?}, which leads into the data directory {data_dir:?}, expected a \
         file outside: what is in there is the server's own"
    )]
    ComponentInDataDir {
        /// Its receiver.
        receiver: String,
        /// The component's file.
        component: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// There is no such folder.
    #[error("receivers.{receiver}.files: found {folder:?}, expected the path of a folder: {source}")]
    NoFolder {
        /// The receiver that it is granted to.
        receiver: String,
        /// The path.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder would let the receiver at what is the server's.
    #[error(
        "receivers.{receiver}.files: found {folder:?}, expected a folder that neither contains {what} {path:?} nor lies in it, \
         also by way of links"
    )]
    Overlap {
        /// The receiver that it is granted to.
        receiver: String,
        /// The folder.
        folder: PathBuf,
        /// What it overlaps with.
        what: String,
        /// Where that is.
        path: PathBuf,
    },
    /// A receiver could make another folder of a granted one.
    #[error(
        "receivers.{receiver}.files: found {folder:?}, which is reached through {outer:?}, expected one that is not: receiver \
         {writer:?} may write there, and could put a link to any other folder in its place"
    )]
    Replaceable {
        /// The receiver that it is granted to.
        receiver: String,
        /// The folder.
        folder: PathBuf,
        /// The folder around it.
        outer: PathBuf,
        /// The receiver that may write there.
        writer: String,
    },
}

/// A path as it is on the disk.
struct Place {
    /// The path without links, if there is anything.
    real: Option<PathBuf>,
    /// Every folder, without links, that is gone through on the way to it, those to links and their targets included. Whoever
    /// can write to one of them can make the path lead elsewhere.
    way: Vec<PathBuf>,
}

/// A granted folder.
struct Folder<'a> {
    receiver: &'a str,
    path: &'a Path,
    write: bool,
    real: PathBuf,
    place: Place,
}

/// Looks at the folders and components of a config. Gives all that is wrong with them.
pub fn check(config: &Config) -> Vec<PathProblem> {
    let mut problems = Vec::new();
    let data_dir = config.data_dir.canonicalize().ok();
    let mut own = vec![
        ("the data directory".to_owned(), &config.data_dir, Place::of(&config.data_dir)),
        ("the config".to_owned(), &config.file, Place::of(&config.file)),
    ];
    for receiver in &config.receivers {
        let place = Place::of(&receiver.component);
        if data_dir.as_ref().is_some_and(|data_dir| place.is_below(data_dir)) {
            problems.push(PathProblem::ComponentInDataDir {
                receiver: receiver.name.clone(),
                component: receiver.component.clone(),
                data_dir: config.data_dir.clone(),
            });
        }
        own.push((format!("the component of receiver {:?}", receiver.name), &receiver.component, place));
    }
    let folders = folders(config, &mut problems);
    for folder in &folders {
        for (what, path, _) in own.iter().filter(|(_, _, place)| folder.overlaps(place)) {
            problems.push(PathProblem::Overlap {
                receiver: folder.receiver.to_owned(),
                folder: folder.path.to_owned(),
                what: what.clone(),
                path: path.to_path_buf(),
            });
        }
        let around = |outer: &&Folder<'_>| outer.write && folder.place.is_below(&outer.real);
        for outer in folders.iter().filter(around) {
            problems.push(PathProblem::Replaceable {
                receiver: folder.receiver.to_owned(),
                folder: folder.path.to_owned(),
                outer: outer.path.to_owned(),
                writer: outer.receiver.to_owned(),
            });
        }
    }
    problems
}

fn folders<'a>(config: &'a Config, problems: &mut Vec<PathProblem>) -> Vec<Folder<'a>> {
    let mut folders = Vec::new();
    for receiver in &config.receivers {
        for grant in &receiver.files {
            match real_folder(&grant.host) {
                Ok(real) => folders.push(Folder {
                    receiver: &receiver.name,
                    path: &grant.host,
                    write: grant.write,
                    real,
                    place: Place::of(&grant.host),
                }),
                Err(source) => problems.push(PathProblem::NoFolder {
                    receiver: receiver.name.clone(),
                    folder: grant.host.clone(),
                    source,
                }),
            }
        }
    }
    folders
}

fn real_folder(path: &Path) -> io::Result<PathBuf> {
    let real = path.canonicalize()?;
    if real.is_dir() { Ok(real) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

impl Place {
    fn of(path: &Path) -> Place {
        let (mut links, mut way) = (MAX_LINKS, Vec::new());
        go(path, &mut links, &mut way);
        Place { real: path.canonicalize().ok(), way }
    }

    /// Whether the way to it leads through `folder`, whose path has no links.
    fn is_below(&self, folder: &Path) -> bool {
        self.way.iter().any(|passed| passed.starts_with(folder))
    }
}

impl Folder<'_> {
    fn overlaps(&self, own: &Place) -> bool {
        own.real.as_ref().is_some_and(|real| *real == self.real || self.place.is_below(real))
            || own.is_below(&self.real)
    }
}

/// Notes every folder on the way to a path, and on the ways to the targets of its links.
fn go(path: &Path, links: &mut usize, way: &mut Vec<PathBuf>) {
    let Ok(path) = absolute(path) else { return };
    for step in path.ancestors() {
        let Some(folder) = step.parent() else { return };
        way.extend(folder.canonicalize());
        if let Ok(target) = fs::read_link(step)
            && *links > 0
        {
            *links -= 1;
            go(&folder.join(target), links, way);
        }
    }
}

#[cfg(test)]
mod tests;

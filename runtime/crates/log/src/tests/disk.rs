//! A disk as the power failing would leave it: what was synced is there, and of the rest any part may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a directory holds: files with their contents, and directories.
pub(super) type Picture = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// A change of a disk. Files have numbers, from 0 in the order in which they came.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Create {
        path: PathBuf,
        file: usize,
    },
    Write {
        file: usize,
        bytes: Vec<u8>,
        position: usize,
    },
    Cut {
        file: usize,
        length: usize,
    },
    Sync {
        file: usize,
    },
    /// The system gave up: what was not synced never will be.
    FailedSync {
        file: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    CreateDir {
        dir: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
}

/// What is on a disk, and what is only on its way there.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    files: Vec<Contents>,
    /// As a process sees them.
    names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<NameChange>,
}

#[derive(Debug, Clone, Default)]
struct Contents {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { bytes: Vec<u8>, position: usize },
    Cut { length: usize },
}

#[derive(Debug, Clone, Copy)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Debug, Clone)]
struct NameChange {
    removed: Option<PathBuf>,
    added: Option<(PathBuf, Node)>,
}

/// What became of the bytes that were written and not synced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bytes {
    Kept,
    Lost,
    /// Of the last write to each file only the first half is there.
    Torn,
    /// The files are as long as they should be, but with zeros.
    Zeroed,
}

/// What became of the names that were changed in directories that were not synced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Changes {
    Kept,
    Lost,
    /// Only this one is there, counted from the last.
    Only(usize),
}

impl Disk {
    /// Adds a file with these contents or a directory that was always there.
    pub(super) fn hold(&mut self, name: &Path, contents: Option<Vec<u8>>) {
        let node = match contents {
            None => Node::Dir,
            Some(durable) => {
                self.files.push(Contents { durable, pending: Vec::new() });
                Node::File(self.files.len() - 1)
            }
        };
        self.names.insert(name.to_owned(), node);
        self.durable.insert(name.to_owned(), node);
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step.clone() {
            Step::Create { path, file } => {
                assert_eq!(file, self.files.len());
                self.files.push(Contents::default());
                self.change(None, Some((path, Node::File(file))));
            }
            Step::Write { file, bytes, position } => {
                self.files[file].pending.push(Change::Write { bytes, position });
            }
            Step::Cut { file, length } => self.files[file].pending.push(Change::Cut { length }),
            Step::Sync { file } => {
                let contents = &mut self.files[file];
                contents.durable = contents.with(Bytes::Kept);
                contents.pending.clear();
            }
            Step::FailedSync { file } => self.files[file].pending.clear(),
            Step::Rename { from, to } => {
                let node = self.names[&from];
                self.change(Some(from), Some((to, node)));
            }
            Step::Remove { path } => self.change(Some(path), None),
            Step::CreateDir { dir } => self.change(None, Some((dir, Node::Dir))),
            Step::SyncDir { dir } => {
                let (synced, pending) =
                    std::mem::take(&mut self.pending).into_iter().partition(|change| change.is_in(&dir));
                self.pending = pending;
                for change in synced {
                    change.apply(&mut self.durable);
                }
            }
        }
    }

    fn change(&mut self, removed: Option<PathBuf>, added: Option<(PathBuf, Node)>) {
        let change = NameChange { removed, added };
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    /// Everything that the disk may hold after the power failed now, and the names of the kinds of it.
    pub(super) fn pictures(&self) -> Vec<(String, Picture)> {
        let mut changes = vec![Changes::Kept, Changes::Lost];
        changes.extend((0..self.pending.len()).map(Changes::Only));
        let mut pictures = Vec::new();
        for bytes in [Bytes::Kept, Bytes::Lost, Bytes::Torn, Bytes::Zeroed] {
            for changes in &changes {
                let picture = self.picture(bytes, *changes);
                pictures.push((format!("bytes {bytes:?}, names {changes:?}"), picture));
            }
        }
        pictures
    }

    pub(super) fn picture(&self, bytes: Bytes, changes: Changes) -> Picture {
        let mut names = self.durable.clone();
        for (n, change) in self.pending.iter().rev().enumerate().rev() {
            if match changes {
                Changes::Kept => true,
                Changes::Lost => false,
                Changes::Only(only) => n == only,
            } {
                change.apply(&mut names);
            }
        }
        let is_dir = |dir: &Path| dir == Path::new("") || matches!(names.get(dir), Some(Node::Dir));
        let there = names.iter().filter(|(path, _)| path.ancestors().skip(1).all(is_dir));
        let contents = |node: &Node| match node {
            Node::Dir => None,
            Node::File(file) => Some(self.files[*file].with(bytes)),
        };
        there.map(|(path, node)| (path.clone(), contents(node))).collect()
    }
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        let path = self.removed.as_ref().or(self.added.as_ref().map(|(path, _)| path)).unwrap();
        path.parent() == Some(dir)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        if let Some(removed) = &self.removed {
            names.remove(removed);
        }
        if let Some((path, node)) = &self.added {
            names.insert(path.clone(), *node);
        }
    }
}

impl Contents {
    fn with(&self, bytes: Bytes) -> Vec<u8> {
        let mut contents = self.durable.clone();
        for (n, change) in self.pending.iter().enumerate() {
            match (change, bytes) {
                (_, Bytes::Lost) => {}
                (Change::Cut { length }, _) => contents.truncate(*length),
                (Change::Write { bytes: written, position }, _) => {
                    let torn = matches!(bytes, Bytes::Torn) && n + 1 == self.pending.len();
                    let kept = if torn { written.len() / 2 } else { written.len() };
                    let end = position + kept;
                    contents.resize(contents.len().max(end), 0);
                    match bytes {
                        Bytes::Zeroed => contents[*position..end].fill(0),
                        _ => contents[*position..end].copy_from_slice(&written[..kept]),
                    }
                }
            }
        }
        contents
    }
}

/// Fills an empty directory.
pub(super) fn paint(picture: &Picture, dir: &Path) {
    for (path, contents) in picture {
        match contents {
            None => std::fs::create_dir(dir.join(path)).unwrap(),
            Some(contents) => std::fs::write(dir.join(path), contents).unwrap(),
        }
    }
}

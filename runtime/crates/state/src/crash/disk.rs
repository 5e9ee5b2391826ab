//! A disk as the power failing would leave it: what was synced is there, and of the rest any part may be. See the module
//! above for what that means.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    contents::{Bytes, Change, Contents},
    image::Image,
};

/// What a directory holds: files with their contents, and directories.
pub type Picture = BTreeMap<PathBuf, Option<Image>>;

/// A change of a disk. Files have numbers, from 0 in the order in which they came.
#[derive(Debug)]
pub enum Step {
    /// Makes an empty file.
    Create {
        path: PathBuf,
    },
    Write {
        file: usize,
        bytes: Vec<u8>,
        position: usize,
    },
    /// The file gets this length, longer or shorter.
    Cut {
        file: usize,
        length: usize,
    },
    /// Of the changes that were made to the file since it came, so many are durable now.
    Sync {
        file: usize,
        changes: usize,
    },
    /// The system gave up: what was not synced never will be, though it can still be read.
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
    /// Of the changes that were made to names, those among the first so many that are of this directory are durable now.
    SyncDir {
        dir: PathBuf,
        changes: usize,
    },
}

/// What is on a disk, and what is only on its way there.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<Contents>,
    /// How many directories came, with the one that everything is in.
    dirs: usize,
    /// As a process sees them.
    names: Names,
    durable: Names,
    /// With their numbers.
    pending: Vec<(usize, NameChange)>,
    name_changes: usize,
}

type Names = BTreeMap<Place, Node>;

/// A directory and a name in it.
type Place = (usize, OsString);

/// The directory that everything is in.
const ROOT: usize = 0;

#[derive(Debug, Clone, Copy)]
enum Node {
    Dir(usize),
    File(usize),
}

#[derive(Debug)]
struct NameChange {
    removed: Option<Place>,
    added: Option<(Place, Node)>,
}

/// What became of the names that were changed in directories that were not synced.
#[derive(Debug, Clone, Copy)]
enum Changes {
    Kept,
    Lost,
    /// Only this one is there.
    Only(usize),
    /// All are there but this one.
    AllBut(usize),
}

/// What became of everything that was not synced.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    bytes: Bytes,
    changes: Changes,
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "bytes {:?}, names {:?}", self.bytes, self.changes)
    }
}

impl Loss {
    /// A word for what became of the bytes.
    pub fn word(&self) -> &'static str {
        match self.bytes {
            Bytes::Kept => "kept",
            Bytes::Lost => "lost",
            Bytes::Torn => "torn",
            Bytes::Zeroed => "zeroed",
            Bytes::AllBut(..) => "all but a page",
            Bytes::Only(..) => "only a page",
        }
    }
}

/// How many of the latest changes of names are tried to be missing alone. One that is older was tried when it was among them.
const LATEST: usize = 3;

/// How many ways of losing something are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoroughness {
    All,
    /// No zeros, and not each page and each change by itself.
    Coarse,
}

impl Disk {
    /// A disk that holds this, durably.
    pub fn holding(picture: Picture) -> Self {
        let mut disk = Self { dirs: 1, ..Self::default() };
        for (path, contents) in picture {
            match contents {
                None => disk.take(Step::CreateDir { dir: path }),
                Some(image) => {
                    disk.take(Step::Create { path });
                    *disk.files.last_mut().unwrap() = Contents::holding(image);
                }
            }
        }
        disk.pending.clear();
        disk.durable.clone_from(&disk.names);
        disk
    }

    /// How many changes were made to a file so far.
    pub fn changes(&self, file: usize) -> usize {
        self.files[file].changes()
    }

    /// How many changes were made to names so far.
    pub fn name_changes(&self) -> usize {
        self.name_changes
    }

    /// How many files there were so far.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The length of a file, as a process sees it.
    pub fn length(&self, file: usize) -> usize {
        self.files[file].current().length()
    }

    /// The file of that name, if it is one.
    pub fn file(&self, path: &Path) -> Option<usize> {
        match self.node(path) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn node(&self, path: &Path) -> Option<Node> {
        path.iter().try_fold(Node::Dir(ROOT), |node, name| match node {
            Node::Dir(dir) => self.names.get(&(dir, name.to_owned())).copied(),
            Node::File(_) => None,
        })
    }

    fn dir(&self, path: &Path) -> usize {
        match self.node(path) {
            Some(Node::Dir(dir)) => dir,
            other => panic!("{path:?} is {other:?}"),
        }
    }

    fn place(&self, path: &Path) -> Place {
        (self.dir(path.parent().unwrap()), path.file_name().unwrap().to_owned())
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Create { path } => {
                self.files.push(Contents::default());
                self.change(None, Some((self.place(&path), Node::File(self.files.len() - 1))));
            }
            Step::Write { file, bytes, position } => {
                self.files[file].change(Change::Write { bytes, position })
            }
            Step::Cut { file, length } => self.files[file].change(Change::Cut { length }),
            Step::Sync { file, changes } => self.files[file].sync(changes),
            Step::FailedSync { file } => self.files[file].fail_to_sync(),
            Step::Rename { from, to } => {
                let (node, from, to) = (self.node(&from).unwrap(), self.place(&from), self.place(&to));
                self.change(Some(from), Some((to, node)));
            }
            Step::Remove { path } => self.change(Some(self.place(&path)), None),
            Step::CreateDir { dir } => {
                self.dirs += 1;
                self.change(None, Some((self.place(&dir), Node::Dir(self.dirs - 1))));
            }
            Step::SyncDir { dir, changes } => {
                let dir = self.dir(&dir);
                let is_synced =
                    |(number, change): &mut (usize, NameChange)| *number < changes && change.is_in(dir);
                for (_, change) in self.pending.extract_if(.., is_synced) {
                    change.apply(&mut self.durable);
                }
            }
        }
    }

    fn change(&mut self, removed: Option<Place>, added: Option<(Place, Node)>) {
        let change = NameChange { removed, added };
        change.apply(&mut self.names);
        self.pending.push((self.name_changes, change));
        self.name_changes += 1;
    }

    /// What the directory holds if a process ends now, and the power does not fail.
    pub fn as_seen(&self) -> Picture {
        self.paint(&self.names, |contents, _| contents.current().clone())
    }

    /// What the disk may hold after the power failed now.
    pub fn pictures(&self, thoroughness: Thoroughness) -> Vec<(Loss, Picture)> {
        let mut kinds = Vec::new();
        for bytes in [Bytes::Kept, Bytes::Lost, Bytes::Torn] {
            kinds.extend([(bytes, Changes::Kept), (bytes, Changes::Lost)]);
        }
        if thoroughness == Thoroughness::Coarse {
            return self.paint_all(kinds);
        }
        kinds.extend([(Bytes::Zeroed, Changes::Kept), (Bytes::Zeroed, Changes::Lost)]);
        let latest = || self.pending.iter().rev().map(|(number, _)| *number);
        kinds.extend(latest().take(1).map(|number| (Bytes::Kept, Changes::Only(number))));
        kinds.extend(latest().take(LATEST).map(|number| (Bytes::Kept, Changes::AllBut(number))));
        for (file, contents) in self.files.iter().enumerate() {
            for page in contents.unsynced_pages() {
                kinds.push((Bytes::AllBut(file, page), Changes::Kept));
                kinds.push((Bytes::Only(file, page), Changes::Kept));
            }
        }
        self.paint_all(kinds)
    }

    fn paint_all(&self, kinds: Vec<(Bytes, Changes)>) -> Vec<(Loss, Picture)> {
        let paint = |(bytes, changes)| (Loss { bytes, changes }, self.picture(bytes, changes));
        kinds.into_iter().map(paint).collect()
    }

    fn picture(&self, bytes: Bytes, changes: Changes) -> Picture {
        let mut names = self.durable.clone();
        for (number, change) in &self.pending {
            if match changes {
                Changes::Kept => true,
                Changes::Lost => false,
                Changes::Only(only) => *number == only,
                Changes::AllBut(not) => *number != not,
            } {
                change.apply(&mut names);
            }
        }
        self.paint(&names, |contents, file| contents.with(bytes, file))
    }

    fn paint(&self, names: &Names, image: impl Fn(&Contents, usize) -> Image) -> Picture {
        let mut picture = Picture::new();
        let mut dirs = vec![(ROOT, PathBuf::new())];
        while let Some((dir, path)) = dirs.pop() {
            for ((_, name), node) in names.range((dir, OsString::new())..(dir + 1, OsString::new())) {
                let path = path.join(name);
                let contents = match *node {
                    Node::File(file) => Some(image(&self.files[file], file)),
                    Node::Dir(dir) => {
                        dirs.push((dir, path.clone()));
                        None
                    }
                };
                picture.insert(path, contents);
            }
        }
        picture
    }
}

impl NameChange {
    fn is_in(&self, dir: usize) -> bool {
        let removed = self.removed.as_ref().is_some_and(|(other, _)| *other == dir);
        removed || self.added.as_ref().is_some_and(|((other, _), _)| *other == dir)
    }

    fn apply(&self, names: &mut Names) {
        if let Some(removed) = &self.removed {
            names.remove(removed);
        }
        if let Some((place, node)) = &self.added {
            names.insert(place.clone(), *node);
        }
    }
}

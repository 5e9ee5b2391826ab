//! A file system that does what it is asked and notes every step, so that it can be told what the disk may
//! hold if the power fails behind any of them. It can also fail at one.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::disk::{Disk, Step};
use crate::files::{Files, SystemFiles};

/// Does everything in a directory, and can fail once.
#[derive(Debug)]
pub(super) struct Recorder {
    root: PathBuf,
    before: Disk,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    steps: Vec<Step>,
    asked: usize,
    fails_at: Option<usize>,
    /// By inode number.
    files: HashMap<u64, usize>,
    /// Held open, so that no inode number is used again.
    held: Vec<File>,
}

impl Recorder {
    /// What the directory holds already counts as durable.
    pub(super) fn new(root: &Path) -> Self {
        let (mut before, mut notes) = (Disk::default(), Notes::default());
        let mut dirs = vec![root.to_owned()];
        while let Some(dir) = dirs.pop() {
            for path in std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
                let name = path.strip_prefix(root).unwrap();
                if path.is_dir() {
                    before.hold(name, None);
                    dirs.push(path);
                } else {
                    let held = File::open(&path).unwrap();
                    notes.files.insert(held.metadata().unwrap().ino(), notes.held.len());
                    notes.held.push(held);
                    before.hold(name, Some(std::fs::read(&path).unwrap()));
                }
            }
        }
        Self { root: root.to_owned(), before, notes: Mutex::new(notes) }
    }

    /// The step of this number fails, as if the disk had an error.
    pub(super) fn failing_at(self, step: usize) -> Self {
        self.notes.lock().unwrap().fails_at = Some(step);
        self
    }

    /// How many steps were taken.
    pub(super) fn steps(&self) -> usize {
        self.notes.lock().unwrap().steps.len()
    }

    /// Whether there were fewer steps than that.
    pub(super) fn never_failed(&self) -> bool {
        let notes = self.notes.lock().unwrap();
        notes.fails_at.is_none_or(|step| step >= notes.asked)
    }

    /// The disk after each number of steps, beginning with none.
    pub(super) fn disks(&self) -> Vec<Disk> {
        let mut disk = self.before.clone();
        let mut disks = vec![disk.clone()];
        for step in &self.notes.lock().unwrap().steps {
            disk.take(step);
            disks.push(disk.clone());
        }
        disks
    }

    fn relative(&self, path: &Path) -> PathBuf {
        // The directory above is not part of it.
        path.strip_prefix(&self.root).unwrap_or(Path::new("..")).to_owned()
    }

    /// Does the step and notes it. The one that fails is not done; `half` is what comes of it all the same.
    fn step(
        &self,
        half: impl FnOnce(&Notes) -> Option<Step>,
        whole: impl FnOnce(&mut Notes) -> io::Result<Step>,
    ) -> io::Result<()> {
        let mut notes = self.notes.lock().unwrap();
        notes.asked += 1;
        if notes.fails_at == Some(notes.asked - 1) {
            let half = half(&notes);
            notes.steps.extend(half);
            return Err(io::Error::other("the disk has an error here"));
        }
        let step = whole(&mut notes)?;
        notes.steps.push(step);
        Ok(())
    }
}

impl Notes {
    fn number(&self, file: &File) -> usize {
        self.files[&file.metadata().unwrap().ino()]
    }
}

impl Files for Recorder {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut created = None;
        self.step(
            |_| None,
            |notes| {
                let file = SystemFiles.create(path)?;
                let inode = file.metadata()?.ino();
                created = Some(file.try_clone()?);
                if let Some(file) = notes.files.get(&inode) {
                    return Ok(Step::Cut { file: *file, length: 0 });
                }
                // Those of before are among them.
                let number = notes.files.len();
                notes.files.insert(inode, number);
                notes.held.push(file);
                Ok(Step::Create { path: self.relative(path), file: number })
            },
        )?;
        Ok(created.unwrap())
    }

    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        let write = |notes: &Notes, bytes: &[u8]| {
            SystemFiles.write(file, bytes, position)?;
            let position = usize::try_from(position).unwrap();
            Ok(Step::Write { file: notes.number(file), bytes: bytes.to_vec(), position })
        };
        self.step(|notes| write(notes, &bytes[..bytes.len() / 2]).ok(), |notes| write(notes, bytes))
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        self.step(
            |_| None,
            |notes| {
                SystemFiles.cut(file, length)?;
                Ok(Step::Cut { file: notes.number(file), length: usize::try_from(length).unwrap() })
            },
        )
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.step(
            |notes| Some(Step::FailedSync { file: notes.number(file) }),
            |notes| Ok(Step::Sync { file: notes.number(file) }),
        )
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(
            |_| None,
            |_| {
                SystemFiles.rename(from, to)?;
                Ok(Step::Rename { from: self.relative(from), to: self.relative(to) })
            },
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(
            |_| None,
            |_| {
                SystemFiles.remove(path)?;
                Ok(Step::Remove { path: self.relative(path) })
            },
        )
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(
            |_| None,
            |_| {
                SystemFiles.create_dir(dir)?;
                Ok(Step::CreateDir { dir: self.relative(dir) })
            },
        )
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(|_| None, |_| Ok(Step::SyncDir { dir: self.relative(dir) }))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

//! Folders with everything in them: copied, and compared.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// What a folder has in it: each file with its length, a hash of its contents, and when it was changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, (u64, u64, SystemTime)>);

impl Tree {
    pub fn of(folder: &Path) -> Tree {
        let files = files_in(folder).into_iter().map(|path| {
            let mut file = std::fs::File::open(&path).expect("a file can be opened");
            let mut hasher = DefaultHasher::new();
            let mut chunk = vec![0; 1 << 16];
            loop {
                match file.read(&mut chunk).expect("a file can be read") {
                    0 => break,
                    read => hasher.write(&chunk[..read]),
                }
            }
            let found = file.metadata().expect("a file has metadata");
            let changed = found.modified().expect("files have times");
            (path, (found.len(), hasher.finish(), changed))
        });
        Tree(files.collect())
    }
}

/// Every file in a folder and those in it, in order.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder can be read") {
        let entry = entry.expect("a folder can be read");
        match entry.file_type().expect("a file has a type").is_dir() {
            true => files.extend(files_in(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    files
}

/// Copies a folder to a place where nothing is. Files that are mostly holes stay so.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--sparse=always"]).args([from, to]).status();
    assert!(status.expect("cp can be run").success(), "{from:?} can be copied to {to:?}");
}

//! Every change that the log makes to a file or directory goes through here, so that one place shows in which
//! order things are written and synced. Nothing here knows what the bytes mean.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The ending of files that are not complete yet. A crash may leave them behind; they mean nothing.
pub(crate) const UNFINISHED: &str = "unfinished";

/// Makes the directory and those above it, durably.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_dir(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent)
}

/// Puts a file with these contents in place, durably and as a whole: after a crash there is the new file, or
/// what was there before. The file is returned, open for writing.
pub(crate) fn put(path: &Path, contents: &[u8]) -> io::Result<File> {
    let unfinished = path.with_added_extension(UNFINISHED);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
    file.write_all_at(contents, 0)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

/// Opens an existing file for writing.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Opens the file that says who uses the directory, and makes it if it is not there.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

/// Writes the bytes at the position; one system call, unless the system takes only a part.
pub(crate) fn write(file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    file.write_all_at(bytes, position)
}

/// Makes what was written to the file durable.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Cuts the file off, durably.
pub(crate) fn truncate(file: &File, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    file.sync_all()
}

/// Removes a file. A crash may bring it back.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Whether this is the name of a file that [`put`] had not finished.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    path.extension() == Some(OsStr::new(UNFINISHED))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_replaces_a_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bound");
        put(&path, b"old and longer").unwrap();
        put(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn directories_are_made_with_those_above() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir(&deep).unwrap();
        create_dir(&deep).unwrap();
        assert!(deep.is_dir());
    }
}

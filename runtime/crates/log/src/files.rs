//! Every change that the log makes to a file or directory goes through [`Files`], so that one place shows in
//! which order things are written and synced, and so that a test can take part in each of them. Nothing here
//! knows what the bytes mean. Reading goes past it: what was written is read with the standard library.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The ending of files that are not complete yet. A crash may leave them behind; they mean nothing.
pub(crate) const UNFINISHED: &str = "unfinished";

/// A file system. The steps are the smallest that a crash can come between; what is made of several of them
/// is a method with a body.
///
/// There are two: [`SystemFiles`], and one of the tests that notes every step, to try what a crash behind
/// each of them leaves.
pub(crate) trait Files: Debug + Send + Sync {
    /// Makes an empty file, in place of one that may be there, and opens it for reading and writing.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Writes the bytes at the position; one system call, unless the system takes only a part.
    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Makes the file shorter.
    fn cut(&self, file: &File, length: u64) -> io::Result<()>;

    /// Makes what was written to the file durable, and of the rest what is needed to read it.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Makes everything about the file durable, but for its name.
    fn sync_all(&self, file: &File) -> io::Result<()>;

    /// Gives a file another name, in place of the one that may have it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Until its directory is synced, a crash may bring it back.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory in one that is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in the directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How many bytes can still be written to the file system that holds the directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Makes the directory and those above it, durably.
    fn create_dirs(&self, dir: &Path) -> io::Result<()> {
        let parent = parent(dir);
        if dir.is_dir() {
            // Whoever made it may have ended before this. What we may not open is not of our making.
            return match self.sync_dir(parent) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            };
        }
        self.create_dirs(parent)?;
        match self.create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(parent)
    }

    /// Puts a file with these contents in place, durably and as a whole: after a crash there is the new file,
    /// or what was there before. The file is returned, open for writing.
    fn put(&self, path: &Path, contents: &[u8]) -> io::Result<File> {
        let unfinished = path.with_added_extension(UNFINISHED);
        let file = self.create(&unfinished)?;
        self.write(&file, contents, 0)?;
        self.sync_all(&file)?;
        self.rename(&unfinished, path)?;
        self.sync_dir(parent(path))?;
        Ok(file)
    }

    /// Cuts the file off, durably.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.cut(file, length)?;
        self.sync_all(file)
    }
}

/// The file system of the machine.
#[derive(Debug)]
pub(crate) struct SystemFiles;

impl Files for SystemFiles {
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
    }

    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        file.write_all_at(bytes, position)
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        // What only root may still take is not there for us.
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// Opens an existing file for writing.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Opens the file that says who uses the directory, and makes it if it is not there. It need not be durable.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

/// Whether this is the name of a file that [`Files::put`] had not finished.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    path.extension() == Some(OsStr::new(UNFINISHED))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_replaces_a_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bound");
        SystemFiles.put(&path, b"old and longer").unwrap();
        SystemFiles.put(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn directories_are_made_with_those_above() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        SystemFiles.create_dirs(&deep).unwrap();
        SystemFiles.create_dirs(&deep).unwrap();
        assert!(deep.is_dir());
    }

    #[test]
    fn a_file_system_tells_what_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let free = SystemFiles.free_bytes(dir.path()).unwrap();
        assert!((1..1 << 60).contains(&free), "{free}");
    }
}

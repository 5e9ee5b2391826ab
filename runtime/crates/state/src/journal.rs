//! Copies the journal files of a database that is closed after a failed write.
//!
//! After a failed sync the system may treat pages as written that never reached the disk. A later sync of the same file
//! would succeed without them, and after a power loss the hole would cut off everything behind it. So the files are
//! written anew before they are used again: the copies' pages are fresh, and a sync says the truth about them.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// The ending of the database's journal files.
const ENDING: &str = "jnl";

/// How much is copied at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Replaces every journal file in `dir` by a copy that is synced. The database must be closed.
pub fn rewrite(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            let copy = path.with_extension("copy");
            copy_file(&path, &copy)?;
            fs::rename(&copy, &path)?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Copies `from` by reading and writing, because copying inside the system may share the very pages in doubt. Zeros, of which
/// a journal has many at its end, become holes again.
pub fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut to = File::create(to)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut length = 0;
    loop {
        let read = match from.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = chunk.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        if bytes.iter().any(|&byte| byte != 0) {
            to.write_all(bytes)?;
        } else {
            to.seek(SeekFrom::Current(i64::try_from(read).map_err(io::Error::other)?))?;
        }
        length += read as u64;
    }
    to.set_len(length)?;
    to.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_equal_and_only_of_journals() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = vec![0; 3 * CHUNK_BYTES + 17];
        content[5] = 1;
        content[2 * CHUNK_BYTES + 3] = 2;
        let journal = dir.path().join("0.jnl");
        let other = dir.path().join("version");
        fs::write(&journal, &content).unwrap();
        fs::write(&other, "3").unwrap();
        let inodes = || {
            [&journal, &other].map(|path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap()))
        };
        let before = inodes();

        rewrite(dir.path()).unwrap();

        assert_eq!(fs::read(&journal).unwrap(), content);
        assert_ne!(inodes()[0], before[0], "the journal is still the same file");
        assert_eq!(inodes()[1], before[1], "another file was replaced");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

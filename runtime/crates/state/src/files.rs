//! Looks at the files of a database before it is opened. It reads and never writes.
//!
//! The database (fjall 3) checks what it reads, but not everything that says what there is to be read: at a damaged entry it
//! cuts a journal off without a word, it takes a manifest as it is, and makes an empty database where the files that
//! mark one are gone. So what it trusts is checked here first. The formats are the database's own, of its version 3; a test
//! shows that they are understood.
//!
//! ```text
//! version               `FJL` 0x03
//! <n>.jnl               journals: see `files/journal.rs`. The one with the highest number is written to
//! keyspaces/<n>/        one for each keyspace; 0 has their names and numbers
//!   current             number of the manifest (8 bytes) | XXH3-128 of its file (16 bytes) | 0x00; little-endian
//!   v<number>           the manifest: which tables there are
//!   tables/<n>          sorted files with checksums of their own
//! ```

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_128;

mod journal;

/// How the file `version` begins, but for the version itself.
const MAGIC: [u8; 3] = *b"FJL";

/// The version of the database's format that is known here.
const VERSION: u8 = 3;

/// The folder of the keyspace that is always there.
const NAMES: &str = "0";

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    pub found: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The journal that was written to last ends with a write that was not finished. It is to be cut off here; nobody was told
    /// that it would survive a power loss.
    Torn { position: u64 },
    /// What is in the file, or in others, can't be trusted.
    Damage,
}

/// Everything that is wrong with the database in `dir`, which nobody may have open.
pub fn problems(dir: &Path) -> io::Result<Vec<Problem>> {
    let mut found = Problems(Vec::new());
    found.version(&dir.join("version"))?;
    found.journals(dir)?;
    found.keyspaces(&dir.join("keyspaces"))?;
    Ok(found.0)
}

struct Problems(Vec<Problem>);

impl Problems {
    fn damage(&mut self, path: &Path, found: impl Into<String>) {
        self.0.push(Problem { path: path.to_owned(), found: found.into(), kind: Kind::Damage });
    }

    fn version(&mut self, path: &Path) -> io::Result<()> {
        match read(path)?.as_deref() {
            None => self.damage(path, "it is missing, though there is a database"),
            Some([magic @ .., VERSION]) if *magic == MAGIC => {}
            Some([magic @ .., version]) if *magic == MAGIC => {
                self.damage(
                    path,
                    format!("its format version is {version}, this program knows version {VERSION}"),
                );
            }
            Some(_) => self.damage(path, "it is damaged"),
        }
        Ok(())
    }

    fn journals(&mut self, dir: &Path) -> io::Result<()> {
        let mut journals = Vec::new();
        for path in names_in(dir)? {
            if path.extension().is_some_and(|ending| ending == "jnl") {
                match number(path.file_stem()) {
                    Some(number) => journals.push((number, path)),
                    None => self.damage(&path, "its name is not that of a journal"),
                }
            }
        }
        journals.sort();
        let last = journals.last().map(|(number, _)| *number);
        let mut walked = journal::Walked::default();
        for (number, path) in journals {
            walked.walk(&path)?;
            let Some(journal::End { position, bytes, is_torn }) = walked.end.take() else { continue };
            // The others were synced before the next was begun.
            if is_torn && Some(number) == last {
                let found = format!("its last {bytes} bytes, from {position} on, are half-written");
                self.0.push(Problem { path, found, kind: Kind::Torn { position } });
            } else {
                self.damage(&path, format!("it is damaged within the {bytes} bytes from {position} on"));
            }
        }
        Ok(())
    }

    fn keyspaces(&mut self, dir: &Path) -> io::Result<()> {
        if !dir.join(NAMES).is_dir() {
            self.damage(&dir.join(NAMES), "it is missing, though there is a database");
        }
        for path in names_in(dir)? {
            if !path.is_dir() {
                continue;
            }
            if number(path.file_name()).is_none() {
                self.damage(&path, "its name is not that of a keyspace");
                continue;
            }
            let tables = names_in(&path.join("tables"))?;
            for table in &tables {
                if number(table.file_name()).is_none() {
                    self.damage(table, "its name is not that of a table");
                }
            }
            match read(&path.join("current"))? {
                // One whose creation was cut short is removed when the database is opened.
                None if tables.is_empty() && !path.ends_with(NAMES) => {}
                None => self.damage(&path.join("current"), "it is missing, though there is a database"),
                Some(current) => self.manifest(&path, &current)?,
            }
        }
        Ok(())
    }

    fn manifest(&mut self, keyspace: &Path, current: &[u8]) -> io::Result<()> {
        let path = keyspace.join("current");
        let Some((number, rest)) = current.split_first_chunk::<8>() else {
            self.damage(&path, format!("it has {} bytes, expected 25", current.len()));
            return Ok(());
        };
        let Some((checksum, [0])) = rest.split_first_chunk::<16>() else {
            self.damage(&path, format!("it has {} bytes, expected 25 and a zero as the last", current.len()));
            return Ok(());
        };
        let manifest = keyspace.join(format!("v{}", u64::from_le_bytes(*number)));
        match read(&manifest)? {
            None => self.damage(&path, format!("it names {manifest:?}, which is not there")),
            Some(bytes) if xxh3_128(&bytes) == u128::from_le_bytes(*checksum) => {}
            Some(_) => self.damage(&manifest, format!("its checksum is not the one in {path:?}")),
        }
        Ok(())
    }
}

fn number(name: Option<&std::ffi::OsStr>) -> Option<u64> {
    name?.to_str()?.parse().ok()
}

/// What is in a file, if it is there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is in a folder, in order; nothing if it is not there.
pub fn names_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;

//! Looks at a database that nobody has open and says what is whole: its files, and every entry in it.
//!
//! Nothing in its folder is changed. The database itself can't be opened without being written to, so a copy of it is: the
//! files that it changes are copied, and of its tables, which it never changes, there are links. The copy needs as much
//! room as the journals have content, some 64 MiB at most.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use crate::{
    StateError, database,
    files::{self, Kind, Problem, names_in},
    journal,
};

mod state;
#[cfg(test)]
mod tests;
mod values;

pub use state::{CheckedCursors, StateContent};
pub use values::ValuesContent;

/// What was found in the folder of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T> {
    /// What its files take on disk.
    pub bytes: u64,
    /// What is not as it should be.
    pub problems: Vec<StateProblem>,
    /// What is in it; `None` if its files are damaged, or if there is none.
    pub content: Option<T>,
}

/// Something in a database that is not as a clean stop leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateProblem {
    /// The file, or the folder of the database if an entry is meant.
    pub path: PathBuf,
    /// What is wrong.
    pub found: String,
    /// What starting a server makes of it.
    pub effect: String,
    /// Whether something is damaged, and not only what a crash leaves.
    pub is_damage: bool,
}

/// Checks the database of cursors, agents, dead letters and gap records in `dir`, with room for a copy in the empty folder
/// `scratch`. `progress` is told, again and again, how many bytes more were looked at.
///
/// # Errors
///
/// [`StateError::Prepare`] if a file can't be read or copied. That files are damaged is no error.
pub fn check_state(
    dir: &Path,
    scratch: &Path,
    progress: impl FnMut(u64),
) -> Result<Checked<StateContent>, StateError> {
    check(dir, scratch, progress, crate::store::open::IF_LOST, state::read)
}

/// Checks the database of what receivers keep under keys, as [`check_state`] does.
///
/// # Errors
///
/// As for [`check_state`].
pub fn check_values(
    dir: &Path,
    scratch: &Path,
    progress: impl FnMut(u64),
) -> Result<Checked<ValuesContent>, StateError> {
    check(dir, scratch, progress, crate::keyvalue::IF_LOST, values::read)
}

/// What a check tells while it reads entries.
struct Findings<'a> {
    problems: Vec<(String, &'static str)>,
    progress: &'a mut dyn FnMut(u64),
}

impl Findings<'_> {
    fn add(&mut self, found: String, effect: &'static str) {
        self.problems.push((found, effect));
    }

    /// Hands each entry to `each` until one can't be read.
    fn entries(
        &mut self,
        name: &str,
        entries: impl Iterator<Item = fjall::Guard>,
        mut each: impl FnMut(&mut Self, &[u8], &[u8]),
    ) {
        for entry in entries {
            match entry.into_inner() {
                Ok((key, value)) => {
                    let bytes = key.len().saturating_add(value.len());
                    (self.progress)(u64::try_from(bytes).unwrap_or(u64::MAX));
                    each(self, &key, &value);
                }
                Err(error) => {
                    self.add(format!("entries of {name} can't be read: {error}"), UNREADABLE);
                    return;
                }
            }
        }
    }
}

const UNREADABLE: &str = "whoever reads them fails; restore the data directory from a backup";

fn check<T>(
    dir: &Path,
    scratch: &Path,
    mut progress: impl FnMut(u64),
    if_lost: &'static str,
    read: impl FnOnce(&Path, &mut Findings<'_>) -> Result<T, StateError>,
) -> Result<Checked<T>, StateError> {
    let failed = |source| StateError::Prepare { dir: dir.to_owned(), source };
    let mut checked = Checked { bytes: 0, problems: Vec::new(), content: None };
    if names_in(dir).map_err(failed)?.is_empty() {
        return Ok(checked);
    }
    let problems = files::problems(dir).map_err(failed)?;
    let is_damaged = problems.iter().any(|problem| problem.kind == Kind::Damage);
    checked.problems.extend(problems.into_iter().map(|problem| of_file(problem, dir, if_lost)));
    if is_damaged {
        checked.bytes = size(dir).map_err(failed)?;
        return Ok(checked);
    }
    let copy = scratch.join("database");
    checked.bytes = copy_for_reading(dir, &copy).map_err(failed)?;
    let mut findings = Findings { problems: Vec::new(), progress: &mut progress };
    // The database takes some things for granted that damage makes untrue.
    let content = panic::catch_unwind(AssertUnwindSafe(|| read(&copy, &mut findings)));
    let problem = |found: String, effect: &str| StateProblem {
        path: dir.to_owned(),
        found,
        effect: effect.to_owned(),
        is_damage: true,
    };
    for (found, effect) in findings.problems {
        checked.problems.push(problem(found, effect));
    }
    match content {
        Ok(Ok(content)) => checked.content = Some(content),
        Ok(Err(StateError::Damaged { path, found, .. })) => {
            let path = path.strip_prefix(&copy).map_or_else(|_| dir.to_owned(), |path| dir.join(path));
            checked.problems.push(of_file(Problem { path, found, kind: Kind::Damage }, dir, if_lost));
        }
        Ok(Err(error)) => return Err(error),
        Err(_) => checked.problems.push(problem("reading it made the database panic".to_owned(), UNREADABLE)),
    }
    Ok(checked)
}

fn of_file(Problem { path, found, kind }: Problem, dir: &Path, if_lost: &str) -> StateProblem {
    let effect = match kind {
        Kind::Damage => database::advice(dir, if_lost),
        Kind::Torn { .. } => {
            "it is cut off; what was saved last is forgotten, and messages are delivered again".to_owned()
        }
    };
    StateProblem { path, found, effect, is_damage: kind == Kind::Damage }
}

/// Makes a copy of the database in `dir` that can be opened, and says what its files take. The last part of `to` is made.
fn copy_for_reading(dir: &Path, to: &Path) -> io::Result<u64> {
    fs::create_dir(to)?;
    let mut bytes = 0_u64;
    for path in names_in(dir)? {
        let Some(name) = path.file_name() else { continue };
        let to = to.join(name);
        let found = fs::metadata(&path)?;
        if found.is_dir() {
            bytes = bytes.saturating_add(copy_for_reading(&path, &to)?);
            continue;
        }
        bytes = bytes.saturating_add(on_disk(&found));
        if dir.ends_with("tables") {
            symlink(fs::canonicalize(&path)?, &to)?;
        } else {
            journal::copy_file(&path, &to)?;
        }
    }
    Ok(bytes)
}

/// What the files in a folder take on disk.
fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    for path in names_in(dir)? {
        let found = File::open(&path)?.metadata()?;
        let more = if found.is_dir() { size(&path)? } else { on_disk(&found) };
        bytes = bytes.saturating_add(more);
    }
    Ok(bytes)
}

/// Journals have a length that they do not take.
fn on_disk(found: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(found).saturating_mul(512)
}

//! Makes a database in such a way that one whose creation was cut short is never taken for a whole one.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::StateError;

/// Makes an empty database in `dir` if there is none. `open` opens the one in a folder, making it, and closes it again.
///
/// The database cannot be opened when its creation was cut short, so it is created beside its place and moved there whole.
pub fn create(dir: &Path, open: impl FnOnce(&Path) -> Result<(), StateError>) -> Result<(), StateError> {
    let prepare = |source| StateError::Prepare { dir: dir.to_owned(), source };
    // An empty folder is as good as none: the finished database replaces it.
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(prepare(error)),
    }
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(prepare(io::Error::new(io::ErrorKind::InvalidInput, "this is not a folder's name")));
    };
    let mut unfinished = name.to_owned();
    unfinished.push(".unfinished");
    let unfinished = parent.join(unfinished);
    if unfinished.try_exists().map_err(prepare)? {
        fs::remove_dir_all(&unfinished).map_err(prepare)?;
    }
    fs::create_dir_all(&unfinished).map_err(prepare)?;
    open(&unfinished)?;
    fs::rename(&unfinished, dir).map_err(prepare)?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(prepare)
}

//! Tests that need a process of their own: of failing writes, which a limit of the process provokes, and of ends without
//! warning. Each starts the test binary again, for itself alone, with a variable that says where to work.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{self, Command},
};

use crate::{Cursors, Persist, State, StateError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// In the child: the folder to work in.
pub(crate) const DIR: &str = "WHARF_STATE_TEST_DIR";

/// Runs the test of that path in a child process, which has to exit with `code`.
pub(crate) fn run_child(test: &str, dir: &Path, code: i32) {
    // The shell makes the child ignore the signal that otherwise comes with a write beyond the file size limit.
    let status = Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; exec "$0" --exact "$1" --nocapture"#])
        .arg(env::current_exe().unwrap())
        .arg(test)
        .env(DIR, dir)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(code), "{test} in {dir:?}");
}

pub(crate) fn limit_file_size(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

/// The only journal, and where its content ends.
pub(crate) fn journal(dir: &Path) -> (File, u64) {
    let paths = dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let journals: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "jnl")).collect();
    assert_eq!(journals.len(), 1);
    let content = fs::read(&journals[0]).unwrap();
    let end = content.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    (File::open(&journals[0]).unwrap(), end)
}

#[test]
fn opens_again_after_a_failed_write() {
    let Some(dir) = env::var_os(DIR) else {
        let dir = tempfile::tempdir().unwrap();
        return run_child("store::processes::opens_again_after_a_failed_write", dir.path(), 0);
    };
    let dir = Path::new(&dir).join("state");
    let state = State::open(&dir).unwrap();
    state.save("r", "t", Cursors::at(1).iter(), Persist::Sync).unwrap();

    // The write is cut at several places within the batch, which is some 700 bytes long.
    for (next, cut) in (2..).zip([0, 1, 20, 300, 690]) {
        let before = state.cursors("r", "t").unwrap().unwrap();
        // The number of this file is not given to another while it is open.
        let (file, end) = journal(&dir);
        limit_file_size(Some(end + cut));
        let error = state.save("r", "t", Cursors::at(next).iter(), Persist::Sync).unwrap_err();
        assert!(matches!(error, StateError::Write { .. }), "{error:?}");
        let error = state.save("r", "t", Cursors::at(next).iter(), Persist::Sync).unwrap_err();
        assert!(matches!(error, StateError::Prepare { .. } | StateError::Write { .. }), "{error:?}");

        limit_file_size(None);
        assert_eq!(state.cursors("r", "t").unwrap().unwrap(), before, "half of a batch is there");
        let number = |file: &File| file.metadata().unwrap().ino();
        assert_ne!(number(&journal(&dir).0), number(&file), "a file that failed once is written on");
        state.save("r", "t", Cursors::at(next).iter(), Persist::Sync).unwrap();
        assert_eq!(state.cursors("r", "t").unwrap().unwrap(), Cursors::at(next));
    }

    drop(state);
    let state = State::open(&dir).unwrap();
    assert_eq!(state.cursors("r", "t").unwrap().unwrap(), Cursors::at(6));
}

#[test]
fn a_buffered_save_survives_the_end_of_the_process() {
    if let Some(dir) = env::var_os(DIR) {
        let state = State::open(&Path::new(&dir).join("state")).unwrap();
        state.save("r", "t", Cursors::at(1).iter(), Persist::Buffered).unwrap();
        let cursors = Cursors::at(2);
        state.save("r", "t", cursors.iter().take(7), Persist::Buffered).unwrap();
        // No destructor runs: what only this process knows is lost.
        process::exit(7);
    }
    let dir = tempfile::tempdir().unwrap();
    run_child("store::processes::a_buffered_save_survives_the_end_of_the_process", dir.path(), 7);

    let state = State::open(&dir.path().join("state")).unwrap();
    let cursors = state.cursors("r", "t").unwrap().unwrap();
    assert!(cursors.iter().map(|(_, cursor)| cursor.next()).eq((0..64).map(|lane| if lane < 7 {
        2
    } else {
        1
    })));
}

//! A script, played twice: once by processes that are traced and leave marks between the calls, and once before books that
//! note what there is after each call.

use std::{
    env,
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{self, Command},
};

use super::{
    disk::{Disk, Picture},
    trace::{CALLS, Event, Tracer},
};
use crate::{StateError, store::processes::DIR};

/// In a process that is watched: which part of the script it plays.
const PART: &str = "WHARF_STATE_TEST_PART";

/// What lies in the folder of a theatre: what is watched, and a file of marks.
const ROOT: &str = "root";
const MARKS: &str = "marks";

/// Where the database lies in what is watched.
pub const DATABASE: &str = "database";

/// The marks before and behind a call.
const BEGIN: &str = "begin;";
const END: &str = "end;";

/// A database that is to survive.
pub trait Subject: Sized + 'static {
    /// Everything that it says it holds.
    type Contents: Debug + PartialEq + Send + Sync;

    fn open(dir: &Path) -> Result<Self, StateError>;

    fn contents(&self) -> Self::Contents;

    /// Writes something more, durably.
    fn go_on(&self);
}

/// A part of a script, for a process of its own.
pub struct Part<S: Subject> {
    /// A process that returns with the database open ends without warning.
    pub play: fn(&mut Stage<S>),
    pub how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Traced,
    /// Traced, and this system call fails, as `strace` wants to have it said.
    Failing(&'static str),
    /// What it leaves counts as durable.
    Untraced,
}

/// What a call promises when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// What it wrote, and what was written before, survives a power loss.
    Durable,
    /// What it wrote, and what was written before, survives the end of the process.
    Kept,
    /// It failed: nobody knows.
    Nothing,
}

/// Where a script is played.
pub struct Stage<S: Subject> {
    dir: PathBuf,
    open: Option<S>,
    audience: Audience<S>,
}

enum Audience<S: Subject> {
    Marks(File),
    Books(Vec<(Promise, S::Contents)>),
}

impl<S: Subject> Stage<S> {
    pub fn open(&mut self) {
        self.open = Some(S::open(&self.dir).unwrap());
    }

    pub fn close(&mut self) {
        self.open = None;
    }

    /// The database, for what changes nothing that can be read.
    pub fn subject(&self) -> &S {
        self.open.as_ref().unwrap()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether calls fail that are to fail.
    pub fn is_watched(&self) -> bool {
        matches!(self.audience, Audience::Marks(_))
    }

    pub fn call(&mut self, promise: Promise, call: impl FnOnce(&S)) {
        self.mark(BEGIN);
        call(self.subject());
        self.mark(END);
        let Self { open: Some(subject), audience: Audience::Books(books), .. } = self else { return };
        books.push((promise, subject.contents()));
    }

    fn mark(&mut self, mark: &str) {
        if let Audience::Marks(marks) = &mut self.audience {
            marks.write_all(mark.as_bytes()).unwrap();
        }
    }
}

/// If this process is one that is watched: plays its part, and ends.
pub fn play_if_watched<S: Subject>(parts: &[Part<S>]) {
    let (Some(dir), Ok(part)) = (env::var_os(DIR), env::var(PART)) else { return };
    let dir = PathBuf::from(dir);
    let marks = OpenOptions::new().append(true).open(dir.join(MARKS)).unwrap();
    let database = dir.join(ROOT).join(DATABASE);
    let mut stage = Stage::<S> { dir: database, open: None, audience: Audience::Marks(marks) };
    match part.parse::<usize>() {
        Ok(part) => (parts[part].play)(&mut stage),
        Err(_) => {
            stage.open();
            stage.close();
        }
    }
    // No destructor runs: what is still open is not closed.
    process::exit(0);
}

/// What there is before the first call, and after each.
pub struct Books<C> {
    pub before: C,
    pub calls: Vec<(Promise, C)>,
}

impl<C> Books<C> {
    pub fn of<S: Subject<Contents = C>>(parts: &[Part<S>]) -> Self {
        let dir = super::scratch();
        let before = S::open(&dir.path().join("before")).unwrap().contents();
        let audience = Audience::Books(Vec::new());
        let mut stage = Stage::<S> { dir: dir.path().join(DATABASE), open: None, audience };
        for part in parts {
            (part.play)(&mut stage);
            stage.close();
        }
        let Audience::Books(calls) = stage.audience else { unreachable!() };
        Self { before, calls }
    }

    /// What there is after so many calls.
    pub fn after(&self, calls: usize) -> &C {
        calls.checked_sub(1).map_or(&self.before, |call| &self.calls[call].1)
    }
}

/// How many calls have begun, and how many have returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub begun: usize,
    pub ended: usize,
}

/// A place where processes work and are watched.
pub struct Theatre {
    dir: tempfile::TempDir,
    /// The path of the test that plays a part when it is told so.
    test: &'static str,
    disk: Disk,
    progress: Progress,
}

impl Theatre {
    /// One where this lies on the disk.
    pub fn new(test: &'static str, picture: &Picture) -> Self {
        let theatre =
            Self { dir: super::scratch(), test, disk: Disk::default(), progress: Progress::default() };
        fs::create_dir(theatre.path(ROOT)).unwrap();
        File::create(theatre.path(MARKS)).unwrap();
        super::paint(picture, &theatre.path(ROOT));
        Self { disk: Disk::holding(picture.clone()), ..theatre }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Plays the parts, each in a process, and tells of every moment when the disk or the progress had changed.
    pub fn play<S: Subject>(&mut self, parts: &[Part<S>], mut tell: impl FnMut(&Disk, Progress)) -> Progress {
        tell(&self.disk, self.progress);
        for (number, part) in parts.iter().enumerate() {
            self.play_one(&number.to_string(), part.how, &mut tell);
        }
        self.progress
    }

    /// Opens the database and closes it again, in a process that is traced.
    pub fn open_and_close(&mut self, mut tell: impl FnMut(&Disk, Progress)) {
        self.play_one("open and close", How::Traced, &mut tell);
    }

    fn play_one(&mut self, part: &str, how: How, tell: &mut impl FnMut(&Disk, Progress)) {
        let trace = self.path("trace");
        let mut command = Command::new(if how == How::Untraced { "env" } else { "strace" });
        if how != How::Untraced {
            command.args(["-f", "--seccomp-bpf", "-xx", "-s", "1000000000", "-e", "signal=none", "-e"]);
            command.arg(format!("trace={CALLS}")).arg("-o").arg(&trace);
        }
        if let How::Failing(call) = how {
            command.arg("-e").arg(format!("inject={call}"));
        }
        // The shell makes the process ignore the signal that otherwise comes with a write beyond the file size limit.
        command.args(["sh", "-c", r#"trap '' XFSZ; exec "$0" --exact "$1" --nocapture --test-threads=1"#]);
        command.arg(env::current_exe().unwrap()).arg(self.test).env(DIR, self.dir.path()).env(PART, part);
        let status = command.status().expect("strace, which `make setup` installs, could not be started");
        assert!(status.success(), "part {part}: {status}");
        let (root, marks) = (self.path(ROOT), self.path(MARKS));
        if how == How::Untraced {
            self.disk = Disk::holding(super::look(&root));
            let marks = fs::read_to_string(marks).unwrap();
            self.progress =
                Progress { begun: marks.matches(BEGIN).count(), ended: marks.matches(END).count() };
            return;
        }
        let Self { disk, progress, .. } = self;
        Tracer::new(&root, &marks).read(&trace, disk, |disk, event| {
            match event {
                Event::Step(step) => disk.take(step),
                Event::Mark(mark) if mark == BEGIN => progress.begun += 1,
                Event::Mark(mark) if mark == END => progress.ended += 1,
                Event::Mark(mark) => panic!("{mark:?}"),
            }
            tell(disk, *progress);
        });
        let is_told = disk.as_seen() == super::look(&root);
        assert!(is_told, "the trace does not tell what became of the disk");
    }
}

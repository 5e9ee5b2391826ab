//! Tries what a crash leaves behind every single change that a database makes to its disk.
//!
//! The database writes to files itself, so nothing of ours stands between. Instead processes play a script
//! under `strace`, which prints every system call that changes a file, whoever makes it: also those that go past the C library,
//! of which an interposed one would not know. The printed calls are played again onto a [`Disk`](disk::Disk); in the end it must
//! hold, byte for byte, what the real one holds, so that no call can be missing. Between the calls of the script the process
//! leaves marks, so that for every moment it is known which of them had begun and which had returned.
//!
//! For every moment there are pictures of what may be left, each of which is painted into an empty directory and opened:
//!
//! - The process ends: everything that was written is there, whether it was synced or not.
//! - The power fails. What was synced is there: of a file its bytes and its length, if it was synced; of a directory the
//!   names in it, if that was synced. Syncing a file does not make its name durable, nor a directory's that it lies in. A sync
//!   covers what was written before it began. A failed one covers nothing, and no later one makes up for it.
//!   - Of the other bytes all are there, or none; or all but the second half of the last write to each file; or the
//!     lengths, but zeros in place of the bytes; or everything but one page; or only one page.
//!   - Of the other changes of names all are there, or none; or all but one of the latest; or only the latest.
//!
//! A picture must open, and hold what there was after some number of calls of the script: at least those that
//! promised to survive this and had returned, at most those that had begun, each whole, none out of order. Then something is
//! written, durably, and must be there after opening once more. Behind some of the losses the power fails a second time, at
//! every moment of opening.
//!
//! What must be there is known from playing the script a second time, without ends or failures, and looking after every call.
//! That what it does is right is for other tests to say.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::RangeInclusive,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use disk::{Disk, Loss, Picture, Thoroughness};
use image::Image;
use stage::{Books, DATABASE, How, Part, Progress, Promise, Stage, Subject, Theatre};

mod contents;
pub mod disk;
mod image;
pub mod stage;
mod trace;

/// How many pictures are tried at once.
const THREADS: usize = 2;

/// After how many losses of each kind a second one is tried while the database is opened, spread over the script.
const RECOVERIES: usize = 4;

/// Where the database has its keyspaces in a picture.
const KEYSPACES: &str = "database/keyspaces";

/// How many failures are told in full.
const MOST_FAILURES: usize = 20;

/// Where syncs cost nothing, if there is such a place: thousands of directories are made.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// Fills an empty directory.
fn paint(picture: &Picture, dir: &Path) {
    for (path, contents) in picture {
        match contents {
            None => fs::create_dir(dir.join(path)).unwrap(),
            Some(image) => image.paint(&dir.join(path)).unwrap(),
        }
    }
}

/// What there really is in a directory.
fn look(root: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for path in dir.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                picture.insert(name, None);
                dirs.push(path);
            } else {
                picture.insert(name, Some(Image::of(&path).unwrap()));
            }
        }
    }
    picture
}

/// A picture that is to be tried.
struct Trial {
    picture: Picture,
    /// How it came about, and how many calls may have had an effect. The same picture may come about more than once.
    ways: Vec<(String, RangeInclusive<usize>)>,
}

/// A moment when the disk or the progress had changed.
struct Moment<'a> {
    number: usize,
    disk: &'a Disk,
    progress: Progress,
}

#[derive(Default)]
struct Trials {
    list: Vec<Trial>,
    /// Their numbers, by a digest of the picture.
    known: HashMap<u64, usize>,
}

impl Trials {
    /// Adds a picture, and gives its number.
    fn add(&mut self, picture: Picture, way: impl FnOnce() -> String, calls: RangeInclusive<usize>) -> usize {
        let mut hasher = DefaultHasher::new();
        picture.hash(&mut hasher);
        let number = *self.known.entry(hasher.finish()).or_insert(self.list.len());
        if number == self.list.len() {
            self.list.push(Trial { picture, ways: Vec::new() });
        }
        let ways = &mut self.list[number].ways;
        if !ways.iter().any(|(_, other)| *other == calls) {
            ways.push((way(), calls));
        }
        number
    }

    /// Adds everything that may be left of the disk at a moment, and gives the numbers of those that the power left.
    fn add_all<C>(
        &mut self,
        moment: &Moment<'_>,
        books: &Books<C>,
        thoroughness: Thoroughness,
    ) -> Vec<(Loss, usize)> {
        let Moment { number, disk, progress: Progress { begun, ended } } = *moment;
        let promised = |holds: fn(Promise) -> bool| {
            (1..=ended).rfind(|call| holds(books.calls[call - 1].0)).unwrap_or(0)
        };
        let kept = promised(|promise| promise != Promise::Nothing);
        self.add(disk.as_seen(), || format!("moment {number}, the process ends"), kept..=begun);
        let durable = promised(|promise| promise == Promise::Durable);
        let add = |(loss, picture)| {
            (loss, self.add(picture, || format!("moment {number}, {loss}"), durable..=begun))
        };
        disk.pictures(thoroughness).into_iter().map(add).collect()
    }

    /// Adds everything that may be left when the power fails again while the database is opened after a loss.
    fn add_recovery<S: Subject>(&mut self, test: &'static str, trial: usize) {
        let Trial { picture, ways } = &self.list[trial];
        let (picture, ways) = (picture.clone(), ways.clone());
        let mut moments = 0;
        Theatre::new(test, &picture).open_and_close(|disk, _| {
            moments += 1;
            for (loss, picture) in disk.pictures(Thoroughness::Coarse) {
                for (way, calls) in &ways {
                    let way = || format!("{way}; opened, moment {moments}, {loss}");
                    self.add(picture.clone(), way, calls.clone());
                }
            }
        });
    }
}

/// The life of a database: it is filled, writes fail and syncs fail, it is merged, and it ends. Each part is a process of its own.
pub struct Life<S: Subject> {
    pub begin: fn(&mut Stage<S>),
    pub fail_to_write: fn(&mut Stage<S>),
    pub fail_to_sync: fn(&mut Stage<S>),
    pub merge: fn(&mut Stage<S>),
    pub end: fn(&mut Stage<S>),
}

/// Tries everything that a crash may leave at any moment of that life, for the test of that path.
pub fn is_survived<S: Subject>(test: &'static str, life: Life<S>) {
    let parts = [
        Part { play: life.begin, how: How::Traced },
        Part { play: life.fail_to_write, how: How::Traced },
        // The first of the thread that writes.
        Part { play: life.fail_to_sync, how: How::Failing("fdatasync:error=EIO:when=1") },
        Part { play: life.merge, how: How::Traced },
        Part { play: life.end, how: How::Traced },
    ];
    let names = survives(test, &parts, Thoroughness::All);
    assert!(were_merged(&names), "the worker has merged no files");
    assert!(
        names.contains_key(Path::new("database/0.copy")),
        "no failed write has made the journal be copied"
    );
}

/// Plays the parts, for the test of that path, and tries everything that a crash may leave at any moment. If that is to be
/// thorough, also what a second one leaves while the database is opened after the first. Gives the names of files and
/// directories that there were, and whether they are still there in the end.
pub fn survives<S: Subject>(
    test: &'static str,
    parts: &[Part<S>],
    thoroughness: Thoroughness,
) -> BTreeMap<PathBuf, bool> {
    stage::play_if_watched::<S>(parts);
    let books = Books::of::<S>(parts);
    let (mut trials, mut moments) = (Trials::default(), 0);
    let (mut losses, mut names) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
    let progress = Theatre::new(test, &Picture::new()).play::<S>(parts, |disk, progress| {
        moments += 1;
        names.values_mut().for_each(|is_there| *is_there = false);
        names.extend(disk.as_seen().into_keys().map(|name| (name, true)));
        let known = trials.list.len();
        for (loss, trial) in trials.add_all(&Moment { number: moments, disk, progress }, &books, thoroughness)
        {
            // Before there is a database, opening makes one, as in the script.
            if trial >= known && trials.list[trial].picture.contains_key(Path::new(DATABASE)) {
                losses.entry(loss.word()).or_default().push(trial);
            }
        }
    });
    let calls = books.calls.len();
    assert_eq!(progress, Progress { begun: calls, ended: calls });
    if thoroughness == Thoroughness::All {
        for of_a_kind in losses.values() {
            let spread =
                (1..=RECOVERIES).filter_map(|n| of_a_kind.get(of_a_kind.len() * n / (RECOVERIES + 1)));
            spread.for_each(|trial| trials.add_recovery::<S>(test, *trial));
        }
    }
    println!("{calls} calls, {moments} moments, {} pictures", trials.list.len());
    try_all::<S>(&books, &trials.list);
    names
}

/// Whether the worker has merged sorted files: one is gone that there was.
fn were_merged(names: &BTreeMap<PathBuf, bool>) -> bool {
    let is_table =
        |name: &Path| name.starts_with(KEYSPACES) && name.parent().is_some_and(|dir| dir.ends_with("tables"));
    // Those of the database itself are merged when it is made.
    let is_ours = |name: &Path| !name.starts_with(Path::new(KEYSPACES).join("0"));
    names.iter().any(|(name, is_there)| !is_there && is_table(name) && is_ours(name))
}

fn try_all<S: Subject>(books: &Books<S::Contents>, trials: &[Trial]) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = panic::catch_unwind(AssertUnwindSafe(|| try_one::<S>(books, trial)));
                    if let Err(failure) = tried.unwrap_or_else(|_| Err("a panic".to_owned())) {
                        failures.lock().unwrap().push(format!("{}: {failure}", trial.ways[0].0));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let some = failures[..failures.len().min(MOST_FAILURES)].join("\n");
    assert!(failures.is_empty(), "{} of {} pictures are not survived:\n{some}", failures.len(), trials.len());
}

fn try_one<S: Subject>(books: &Books<S::Contents>, trial: &Trial) -> Result<(), String> {
    let dir = scratch();
    paint(&trial.picture, dir.path());
    let path = dir.path().join(DATABASE);
    let open = || S::open(&path).map_err(|error| format!("{error:?}"));
    let subject = open()?;
    let found = subject.contents();
    for (way, calls) in &trial.ways {
        if !calls.clone().any(|calls| *books.after(calls) == found) {
            let like = (0..=books.calls.len()).find(|calls| *books.after(*calls) == found);
            return Err(format!(
                "{way}: after {calls:?} calls, there is what was there after {like:?} calls"
            ));
        }
    }
    subject.go_on();
    let after = subject.contents();
    if after == found {
        return Err("a write has changed nothing".to_owned());
    }
    drop(subject);
    if open()?.contents() != after {
        return Err("what was written afterwards is not there".to_owned());
    }
    Ok(())
}

//! The power fails behind every single step that the log takes on its disk, and every single step fails: what
//! was acknowledged is there, nothing is invented, and no offset is used again. Not a sample: all of them.

use std::collections::BTreeSet;

use super::disk::{Bytes, Changes, Picture, paint};
use super::recorder::Recorder;
use super::*;
use crate::{Retention, TrimError};

const NOTHING: Retention = Retention { retain: Some(Duration::ZERO), retain_bytes: None };

/// Two blocks of a small record each, and little memory, so that files are read.
fn small() -> TopicOptions {
    TopicOptions { segment_bytes: 250, tail_bytes: 1, ..options(Durability::Fsync) }
}

/// Where syncs cost nothing, if there is such a place: thousands of directories are made.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// An append, and between which steps it was under way.
#[derive(Debug)]
struct Append {
    texts: Vec<String>,
    /// None if it was refused.
    offsets: Option<Range<u64>>,
    steps: Range<usize>,
}

/// A trim, and between which steps it was under way.
#[derive(Debug)]
struct Trim {
    below: u64,
    /// Where the topic began afterwards, if it worked.
    start: Option<u64>,
    steps: Range<usize>,
}

/// Uses of a log that keep the books of what they were told.
#[derive(Debug)]
struct Books {
    recorder: Arc<Recorder>,
    appends: Vec<Append>,
    trims: Vec<Trim>,
}

impl Books {
    /// Everything that a log does with its files, more than once and in different orders.
    async fn of(recorder: Recorder, dir: &Path) -> Self {
        let mut books = Self { recorder: Arc::new(recorder), appends: Vec::new(), trims: Vec::new() };
        let (log, topic) = books.open(dir);
        for texts in [&["a"][..], &["b"], &["c", "d", "e"], &["f"], &["g"]] {
            books.append(&topic, texts).await;
        }
        books.trim(&topic, 3).await;
        books.append(&topic, &["h"]).await;
        books.append(&topic, &["i", "j"]).await;
        // Several segments at once.
        books.trim(&topic, 7).await;
        log.close().await;

        let (log, topic) = books.open(dir);
        books.append(&topic, &["k"]).await;
        // All of it: the segment that is written to as well.
        books.trim(&topic, u64::MAX).await;
        books.append(&topic, &["l"]).await;
        crash(log);

        let (log, topic) = books.open(dir);
        books.append(&topic, &["m"]).await;
        books.append(&topic, &["n", "o"]).await;
        books.trim(&topic, topic.end() - 2).await;
        log.close().await;

        let (log, topic) = books.open(dir);
        books.trim(&topic, u64::MAX).await;
        log.close().await;
        let (log, topic) = books.open(dir);
        books.append(&topic, &["p"]).await;
        log.close().await;
        books
    }

    fn open(&self, dir: &Path) -> (Log, Topic) {
        let open = || Log::open_on(Arc::clone(&self.recorder) as Arc<dyn Files>, dir, vec![small()]);
        // One step fails and no more.
        let log = open().or_else(|_| open()).unwrap();
        let topic = log.topic(NAME).unwrap().clone();
        (log, topic)
    }

    async fn append(&mut self, topic: &Topic, texts: &[&str]) {
        let began = self.recorder.steps();
        let records = texts.iter().map(|text| record(1, text)).collect();
        let offsets = topic.append(records, LONG).await.ok();
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        self.appends.push(Append { texts, offsets, steps: began..self.recorder.steps() });
    }

    async fn trim(&mut self, topic: &Topic, below: u64) {
        let began = self.recorder.steps();
        let start = match topic.trim(below, NOTHING).await {
            Ok(_) => Some(topic.start()),
            Err(TrimError::Io { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        let below = below.min(topic.end());
        self.trims.push(Trim { below, start, steps: began..self.recorder.steps() });
    }

    /// What must hold of a directory that is left when `steps` steps were taken.
    async fn check(&self, dir: &Path, steps: usize) {
        let (log, topic) = open(dir, small());
        assert_eq!(report(&log).lost, []);
        assert!(!report(&log).bound_lost);
        let told =
            self.trims.iter().filter(|trim| trim.steps.end <= steps).filter_map(|trim| trim.start).max();
        assert!(topic.start() >= told.unwrap_or(0), "begins at {}, was {told:?}", topic.start());
        let next = topic.append(vec![record(1, "next")], LONG).await.unwrap().start;
        log.close().await;
        let mut read = self.check_contents(&topic, steps).await;
        assert_eq!(read.pop(), Some((next, "next".into())));
        assert!(read.iter().all(|(offset, _)| *offset < next));
        let used = self.acknowledged(steps).filter_map(|append| append.offsets.as_ref());
        assert!(used.map(|offsets| offsets.end).max().unwrap_or(0) <= next, "offset {next} is used again");

        let (log, topic) = open(dir, small());
        assert!(report(&log).clean);
        log.close().await;
        read.push((next, "next".into()));
        assert_eq!(self.check_contents(&topic, steps).await, read);
    }

    async fn check_contents(&self, topic: &Topic, steps: usize) -> Vec<(u64, String)> {
        let may_be_trimmed = self.trims.iter().filter(|trim| trim.steps.start < steps);
        let may_be_trimmed = may_be_trimmed.map(|trim| trim.below).max().unwrap_or(0);
        let mut reader = topic.reader(LaneSet::ALL, 0);
        let mut read = Vec::new();
        while let Ok(part) = reader.next(100, 1_000).await {
            assert_eq!(part.lost, []);
            assert!(part.trimmed.is_none_or(|trimmed| trimmed.end <= may_be_trimmed && read.is_empty()));
            read.extend(texts(&part.entries));
        }
        assert!(read.is_sorted());
        let is_read = |append: &Append| {
            let found = read.iter().filter(|(_, text)| append.texts.contains(text));
            let found: Vec<_> = found.map(|(offset, text)| (*offset, text.clone())).collect();
            if found.is_empty() {
                return false;
            }
            let offsets = append.offsets.clone().unwrap_or_else(|| panic!("{append:?} was refused"));
            assert_eq!(found, offsets.zip(append.texts.iter().cloned()).collect::<Vec<_>>());
            true
        };
        let known = self.appends.iter().filter(|append| append.steps.start < steps);
        let of_known: usize = known.filter(|append| is_read(append)).map(|append| append.texts.len()).sum();
        assert_eq!(of_known, read.iter().filter(|(_, text)| text != "next").count(), "invented: {read:?}");
        let mut later_are_read = false;
        for append in self.acknowledged(steps) {
            let trimmed = append.offsets.as_ref().is_some_and(|offsets| offsets.end <= may_be_trimmed);
            assert!(is_read(append) || trimmed && !later_are_read, "{append:?} is not read: {read:?}");
            later_are_read |= is_read(append);
        }
        read
    }

    fn acknowledged(&self, steps: usize) -> impl Iterator<Item = &Append> {
        self.appends.iter().filter(move |append| append.offsets.is_some() && append.steps.end <= steps)
    }

    /// What of the books counts when so many steps were taken.
    fn page(&self, steps: usize) -> Vec<bool> {
        let all =
            self.appends.iter().map(|append| &append.steps).chain(self.trims.iter().map(|trim| &trim.steps));
        all.flat_map(|under_way| [under_way.start < steps, under_way.end <= steps]).collect()
    }
}

#[tokio::test]
async fn the_power_fails_behind_every_step() {
    let dir = scratch();
    let books = Books::of(Recorder::new(dir.path()), dir.path()).await;
    assert!(books.appends.iter().all(|append| append.offsets.is_some()));
    assert!(books.trims.iter().all(|trim| trim.start.is_some()));
    let mut tried: BTreeSet<(Vec<bool>, Picture)> = BTreeSet::new();
    for (steps, disk) in books.recorder.disks().iter().enumerate() {
        for (kind, picture) in disk.pictures() {
            try_picture(&books, steps, &kind, picture, &mut tried).await;
        }
    }
    assert!(tried.len() > 100, "{}", tried.len());
}

/// Checks the picture, and what is left when the power fails again behind every step of its recovery.
async fn try_picture(
    books: &Books,
    steps: usize,
    kind: &str,
    picture: Picture,
    tried: &mut BTreeSet<(Vec<bool>, Picture)>,
) {
    let mut to_try = vec![picture];
    while let Some(picture) = to_try.pop() {
        if !tried.insert((books.page(steps), picture.clone())) {
            continue;
        }
        let dir = scratch();
        paint(&picture, dir.path());
        println!("behind step {steps}: {kind}");
        let recorder = Arc::new(Recorder::new(dir.path()));
        crash(Log::open_on(Arc::clone(&recorder) as Arc<dyn Files>, dir.path(), vec![small()]).unwrap());
        books.check(dir.path(), steps).await;
        let disks = recorder.disks();
        for disk in disks {
            to_try.push(disk.picture(Bytes::Lost, Changes::Lost));
            to_try.push(disk.picture(Bytes::Kept, Changes::Kept));
        }
    }
}

#[tokio::test]
async fn every_step_fails_once() {
    let mut step = 0;
    loop {
        let dir = scratch();
        let books = Books::of(Recorder::new(dir.path()).failing_at(step), dir.path()).await;
        let steps = books.recorder.steps();
        let refused = books.appends.iter().filter(|append| append.offsets.is_none()).count();
        assert!(refused <= 1, "one failure refused {refused} appends");
        println!("step {step} fails, {steps} are taken");
        for (_, picture) in books.recorder.disks().last().unwrap().pictures() {
            let after_power_loss = scratch();
            paint(&picture, after_power_loss.path());
            books.check(after_power_loss.path(), steps).await;
        }
        books.check(dir.path(), steps).await;
        if books.recorder.never_failed() {
            return;
        }
        step += 1;
    }
}

//! Tests of the log as a whole, through its public surface and on real files.

#![expect(clippy::single_range_in_vec_init, reason = "a list of one range of offsets is what is meant")]

mod append;
mod backup;
mod bytes;
mod check;
mod crash;
mod damage;
mod disk;
mod failure;
mod model;
mod observe;
mod read;
mod recorder;
mod reserve;
mod times;
mod trim;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::files::{Files, SystemFiles};
use crate::writer::Writer;
use crate::{
    Durability, Entry, Lane, LaneSet, Log, Read, ReadError, Reader, Record, Topic, TopicOptions,
    TopicRecovery,
};

const NAME: &str = "metrics";
/// Longer than any test: a wait that should not be long enough to matter.
const LONG: Duration = Duration::from_secs(600);

fn options(durability: Durability) -> TopicOptions {
    TopicOptions::new(NAME, durability)
}

fn open(dir: &Path, options: TopicOptions) -> (Log, Topic) {
    let log = Log::open(dir, vec![options]).unwrap();
    let topic = log.topic(NAME).unwrap().clone();
    (log, topic)
}

/// A topic and its writer, which does not run yet.
fn prepare(dir: &Path, options: TopicOptions) -> (Topic, Writer) {
    let files: Arc<dyn Files> = Arc::new(SystemFiles);
    let no_reserve = Arc::new(AtomicU64::new(0));
    let (topic, writer, _) = crate::log::prepare(&files, &no_reserve, dir.join(NAME), options).unwrap();
    (topic, writer)
}

fn report(log: &Log) -> &TopicRecovery {
    &log.recovery()[0]
}

fn lane(index: u8) -> Lane {
    Lane::new(index).unwrap()
}

fn record(index: u8, payload: impl AsRef<[u8]>) -> Record {
    Record { lane: lane(index), time: 1_000, payload: payload.as_ref().to_vec().into() }
}

/// Appends each text as an append, and so as a block, of its own.
async fn append_each(topic: &Topic, texts: &[&str]) -> Vec<Range<u64>> {
    let mut offsets = Vec::new();
    for text in texts {
        offsets.push(topic.append(vec![record(1, text)], LONG).await.unwrap());
    }
    offsets
}

fn texts(entries: &[Entry]) -> Vec<(u64, String)> {
    entries.iter().map(|e| (e.offset, String::from_utf8(e.payload.to_vec()).unwrap())).collect()
}

/// Everything that a reader gave.
#[derive(Debug, Default)]
struct Given {
    entries: Vec<Entry>,
    trimmed: Vec<Range<u64>>,
    lost: Vec<Range<u64>>,
}

impl Given {
    fn add(&mut self, read: Read) {
        let gap = read.trimmed.is_some() || !read.lost.is_empty();
        assert!(gap || !read.entries.is_empty(), "a read gives something");
        self.entries.extend(read.entries);
        self.trimmed.extend(read.trimmed);
        self.lost.extend(read.lost);
    }

    /// Adds what the reader still gives until the log, which must be closed, tells that this is all.
    async fn drain(&mut self, reader: &mut Reader) {
        loop {
            match reader.next(7, 1_000).await {
                Ok(read) => self.add(read),
                Err(ReadError::Closed { .. }) => return,
                Err(error) => panic!("{error}: {error:?}"),
            }
        }
    }
}

/// Everything that the reader of a closed log still gives, but for what was trimmed.
async fn drain(reader: &mut Reader) -> (Vec<Entry>, Vec<Range<u64>>) {
    let mut given = Given::default();
    given.drain(reader).await;
    (given.entries, given.lost)
}

/// Opens the log, reads everything from offset 0 on, and closes it again.
async fn contents(
    dir: &Path,
    durability: Durability,
) -> (Vec<(u64, String)>, Vec<Range<u64>>, TopicRecovery) {
    let (log, topic) = open(dir, options(durability));
    let report = report(&log).clone();
    log.close().await;
    let (entries, lost) = drain(&mut topic.reader(LaneSet::ALL, 0)).await;
    (texts(&entries), lost, report)
}

/// The topic's segments, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir.join(NAME))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    paths.sort();
    paths
}

fn last_segment(dir: &Path) -> PathBuf {
    segments(dir).pop().unwrap()
}

/// Lets a log end as a crash would: nothing is marked as clean.
fn crash(log: Log) {
    drop(log);
}

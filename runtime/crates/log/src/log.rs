//! A log: the directory with its topics and their writers. Opening, closing and dropping are here.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::error::OpenError;
use crate::files::{self, Files, SystemFiles};
use crate::free_space::RESERVE_BYTES;
use crate::recovery::{Recovered, TopicRecovery, recover};
use crate::retention::Holds;
use crate::segment::Segments;
use crate::tail::Tail;
use crate::topic::{Shared, Topic, TopicOptions};
use crate::writer::{Active, Writer};

/// The longest name of a topic: with endings, well within what file systems take.
const MAX_NAME_BYTES: usize = 128;

/// The file that is locked while the log is open. No topic can have its name.
pub(crate) const LOCK: &str = ".lock";

/// An open log. While it is open, no other process can open it.
///
/// [`close`](Self::close) it at the end. Dropping it instead waits (without async) for the writers to write
/// what is queued, and leaves the topics as a crash would: they skip offsets when they are opened again.
#[derive(Debug)]
pub struct Log {
    topics: BTreeMap<String, Topic>,
    writers: Vec<(Topic, JoinHandle<()>)>,
    recovery: Vec<TopicRecovery>,
    files: Arc<dyn Files>,
    reserve: Arc<AtomicU64>,
    dir: PathBuf,
    /// Locked until the writers are gone.
    _lock: File,
}

impl Log {
    /// Opens the log in this directory, or makes it, and starts a writer thread for each topic. Blocks on the
    /// disk: the last segment of each topic is read whole.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; each says what to do.
    pub fn open(dir: &Path, topics: Vec<TopicOptions>) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(SystemFiles), dir, topics)
    }

    pub(crate) fn open_on(
        files: Arc<dyn Files>,
        dir: &Path,
        topics: Vec<TopicOptions>,
    ) -> Result<Self, OpenError> {
        files.create_dirs(dir).map_err(OpenError::io(dir))?;
        let lock_path = dir.join(LOCK);
        let lock = files::open_lock(&lock_path).map_err(OpenError::io(&lock_path))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path: lock_path, source }),
            Ok(()) => {}
        }
        let mut log = Self {
            topics: BTreeMap::new(),
            writers: Vec::new(),
            recovery: Vec::new(),
            files,
            reserve: Arc::new(AtomicU64::new(RESERVE_BYTES)),
            dir: dir.to_owned(),
            _lock: lock,
        };
        for options in topics {
            log.add(options)?;
        }
        Ok(log)
    }

    /// Opens one more topic, and starts its writer thread. Blocks on the disk, as [`open`](Self::open) does.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. The others are as before then.
    pub fn add(&mut self, options: TopicOptions) -> Result<Topic, OpenError> {
        let name = options.name.clone();
        if !is_name(&name) {
            return Err(OpenError::Name { name });
        }
        if self.topics.contains_key(&name) {
            return Err(OpenError::Twice { name });
        }
        let (topic, writer, report) = prepare(&self.files, &self.reserve, self.dir.join(&name), options)?;
        let thread = std::thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Thread { name: name.clone(), source })?;
        self.writers.push((topic.clone(), thread));
        self.topics.insert(name, topic.clone());
        self.recovery.push(report);
        Ok(topic)
    }

    /// Closes the topic of this name, if there is one, as [`close`](Self::close) closes all, and ends its writer. What it holds
    /// stays on the disk. Blocks until the writer has ended.
    pub fn remove(&mut self, name: &str) {
        self.topics.remove(name);
        self.recovery.retain(|report| report.topic != name);
        let (removed, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.writers).into_iter().partition(|(topic, _)| topic.name() == name);
        self.writers = others;
        for (topic, _) in &removed {
            // The end of the thread tells that it is done.
            drop(topic.close(true));
        }
        join(removed.into_iter());
    }

    /// From now on, appends are refused as long as less than so many bytes of the disk would be left free; 0 lets
    /// them fill it. At first it is 128 MiB. It is looked at every few megabytes, so that a little less may be
    /// left, and does not concern topics in memory.
    pub fn set_reserve(&self, bytes: u64) {
        self.reserve.store(bytes, Ordering::Relaxed);
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// What was found when the log was opened, topic by topic.
    pub fn recovery(&self) -> &[TopicRecovery] {
        &self.recovery
    }

    /// Takes no more appends, writes and answers those in the queues, syncs, leaves the exact next offsets
    /// behind and ends the writers. Readers read to the end and are then told that the log is closed.
    /// Failures are logged; they cost no more than a crash would.
    pub async fn close(mut self) {
        let finished: Vec<_> = self.writers.iter().map(|(topic, _)| topic.close(true)).collect();
        for finished in finished {
            // A writer that is gone without an answer is as finished as one can be.
            let _ = finished.await;
        }
        // Only now, so that a drop of this future leaves the threads to the drop of the log.
        join(self.writers.drain(..));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        for (topic, _) in &self.writers {
            topic.close(false);
        }
        join(self.writers.drain(..));
    }
}

/// Opens a topic and its writer, which does not run yet.
pub(crate) fn prepare(
    files: &Arc<dyn Files>,
    reserve: &Arc<AtomicU64>,
    dir: PathBuf,
    options: TopicOptions,
) -> Result<(Topic, Writer, TopicRecovery), OpenError> {
    let Recovered { report, segments, trimmed, active } =
        recover(files.as_ref(), &dir, &options.name, options.durability)?;
    let (readable, end) = watch::channel(report.end);
    let shared = Arc::new(Shared {
        tail: Tail::new(options.tail_bytes, report.end),
        segments: Segments::new(segments),
        reserved: AtomicU64::new(report.next),
        trimmed: AtomicU64::new(trimmed),
        holds: Holds::default(),
        files: Arc::clone(files),
        reserve: Arc::clone(reserve),
        options,
        dir,
        end,
    });
    let active =
        active.zip(shared.segments.last()).map(|((file, length), segment)| Active { segment, file, length });
    let (messages, queue) = mpsc::channel();
    let writer = Writer::new(Arc::clone(&shared), queue, readable, active, report.next);
    Ok((Topic::new(shared, messages), writer, report))
}

fn join(writers: impl Iterator<Item = (Topic, JoinHandle<()>)>) {
    for (topic, thread) in writers {
        if thread.join().is_err() {
            tracing::error!(log.topic = topic.name(), "the writer of the topic panicked");
        }
    }
}

/// Whether the name can be that of a directory on every file system, and of nothing but a directory within
/// ours.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

//! What can go wrong, as the callers of the log see it. Every text fits "failed to …: {error}" and leaves its
//! cause to `source`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a log can't be opened. Nothing was changed that would make a second attempt worse.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another [`Log`](crate::Log) of this one, has it open.
    #[error("open the log in {}: it is in use by another process", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// A topic's name can't be the name of a directory.
    #[error(
        "open topic `{name}`: a name is 1 to 128 of the characters a-z, A-Z, 0-9, `_`, `-` and `.`, and does not begin with `.`"
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// Two topics have the same name.
    #[error("open topic `{name}`: the name is given twice")]
    Twice {
        /// The name as given.
        name: String,
    },
    /// A file was written by a newer version of this program.
    #[error("open {}: its format version is {found} and this program knows versions up to {known}; use the newer program", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The header of a segment is damaged, so that none of its blocks can be trusted.
    #[error(
        "open segment {}: {found}; restore the file from a backup, or move it out of the directory to go on without it: \
         receivers are then told which offsets are gone", path.display()
    )]
    Segment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: &'static str,
    },
    /// The reserved bound of the offsets is unreadable and there are no segments to tell it from.
    #[error(
        "open {}: it is damaged, and there are no segments to tell from which offsets were used; restore it from a backup, \
         or remove it together with the receivers' cursors of this topic to begin again at offset 0", path.display()
    )]
    Bound {
        /// The file.
        path: PathBuf,
    },
    /// The topic keeps messages in memory only, but there are segments from the time when it did not.
    #[error(
        "open topic `{name}` in memory: {} holds segments of messages that were promised to be durable; \
         keep the topic's former durability, or move the segments out of the directory", dir.display()
    )]
    DurableBefore {
        /// The topic.
        name: String,
        /// The topic's directory.
        dir: PathBuf,
    },
    /// A file or directory can't be read or written.
    #[error("open {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The thread that writes the topic can't be started.
    #[error("start the writer of topic `{name}`")]
    Thread {
        /// The topic.
        name: String,
        /// The cause.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Why an append was refused. None of its records is stored or will ever be read, but for
/// [`Closed`](Self::Closed) as said there.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The queue of the topic's writer had no room within the time that the caller would wait.
    #[error("append: the queue of topic `{topic}` is full")]
    Overloaded {
        /// The topic.
        topic: String,
    },
    /// The log was closed. An append that was enqueued before the close is normally answered by it; if the
    /// process is ending because the writer died, its fate is unknown.
    #[error("append: topic `{topic}` is closed")]
    Closed {
        /// The topic.
        topic: String,
    },
    /// The disk has no room, or no more than is kept free ([`Log::set_reserve`](crate::Log::set_reserve)). The
    /// topic works again as soon as there is some.
    #[error("append: the disk is full")]
    Full,
    /// Writing or syncing failed.
    #[error("append: the disk reports an error")]
    Io(#[source] Arc<io::Error>),
    /// The records of one append are larger than [`MAX_APPEND_BYTES`](crate::MAX_APPEND_BYTES).
    #[error("append {bytes} bytes at once: at most {max} are allowed")]
    TooLarge {
        /// The size of the append, with 16 bytes for each record.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// Why a read failed. The reader stays where it was and may be asked again.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log was closed and the reader has returned everything that there is.
    #[error("read topic `{topic}`: it is closed")]
    Closed {
        /// The topic.
        topic: String,
    },
    /// A segment can't be read. Data that is readable but damaged is told in
    /// [`Read::lost`](crate::Read::lost) instead.
    #[error("read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The runtime that was reading from files for this reader is shutting down.
    #[error("read topic `{topic}`: the runtime is shutting down")]
    Runtime {
        /// The topic.
        topic: String,
    },
}

/// Why segments could not be deleted, or not all of them. Asking again goes on with the rest.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The log was closed.
    #[error("trim topic `{topic}`: it is closed")]
    Closed {
        /// The topic.
        topic: String,
    },
    /// A file or directory can't be changed.
    #[error("trim {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The runtime that did it is shutting down.
    #[error("trim topic `{topic}`: the runtime is shutting down")]
    Runtime {
        /// The topic.
        topic: String,
    },
}

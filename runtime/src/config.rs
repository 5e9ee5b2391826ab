//! The configuration: what an operator writes in one TOML file, as values that are already valid.
//!
//! Everything that can be judged from the file alone is judged here, all problems at once and with their lines. What needs the
//! disk, the network or a component (does the file exist, does it export `handler`, is the port free) is judged where it is used.

use std::{
    fs::File,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    num::NonZero,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use wharf_host::{FolderGrant, Origin};
use wharf_log::Durability;

mod document;
mod error;
mod read;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, Problem};

/// One kibibyte.
const KIB: u64 = 1024;
/// One mebibyte.
const MIB: u64 = 1024 * KIB;
/// One gibibyte.
const GIB: u64 = 1024 * MIB;

/// The largest file that is read: a configuration of a thousand receivers is far below, and a path that names a device by
/// mistake ends here.
const MAX_FILE_BYTES: u64 = MIB;

/// A valid configuration. Relative paths of the file are resolved against the file's own folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that this was read from, as it was named.
    pub file: PathBuf,
    /// Where the server keeps everything: log, state, compiled components. Default: `data` beside the file.
    pub data_dir: PathBuf,
    /// Who may speak to the server. Default: off, which only loopback listeners accept.
    pub auth: Auth,
    /// The listeners.
    pub listen: Listen,
    /// What agents and their connections may take up.
    pub limits: Limits,
    /// The store of accepted messages.
    pub log: Log,
    /// What is remembered beside the log.
    pub state: State,
    /// When agents count as active.
    pub presence: Presence,
    /// The sandbox that all receivers share.
    pub host: Host,
    /// The data types, by name. There is at least one.
    pub types: Vec<DataType>,
    /// The receivers, by name.
    pub receivers: Vec<Receiver>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], whose text is the whole report for the operator.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { file: file.to_owned(), source };
        let mut bytes = Vec::new();
        let content = File::open(file).map_err(unreadable)?;
        content.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge { file: file.to_owned() });
        }
        let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText { file: file.to_owned() })?;
        Self::parse(&text, file)
    }

    /// Checks the `text` of a configuration, as if it stood in `file`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with all problems, or as many as anybody mends at a time.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        read::config(text, file)
    }
}

impl Config {
    /// What is allowed and may still be a mistake, each in a sentence that names the key.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.types.iter().filter_map(DataType::warning).collect()
    }
}

/// How callers prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all: whoever reaches a listener may use it. Only loopback listeners accept this.
    Off,
}

/// Where the server listens, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Agents and pages. Default: `127.0.0.1:4000`. Port 0 picks a free one.
    pub agents: SocketAddr,
    /// Operators: always loopback, because it can replace components. Default: `127.0.0.1:4001`. Port 0 picks a free one.
    pub admin: SocketAddr,
    /// `Host` headers, in lower case, that are accepted beside the listener's own address. Default: none, so that a name that a
    /// web page made point to this machine is refused.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may speak to the server beside its own. Default: none.
    pub allowed_origins: Vec<String>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            agents: (Ipv4Addr::LOCALHOST, 4000).into(),
            admin: (Ipv4Addr::LOCALHOST, 4001).into(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
        }
    }
}

/// What agents and their connections may take up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one WebSocket message or request body. Default: 8 MiB, as much as the agents of the system before Wharf send.
    pub max_frame: u64,
    /// Connections of agents and browsers at a time. Default: 20,000, twice the fleet that one server is measured with.
    pub max_connections: usize,
    /// How deep the values in a frame may nest. Default: 64; many JSON readers, receivers' too, stop at 128.
    pub max_depth: usize,
    /// Calls in one frame. Default: 10,000: beyond, a batch gains nothing and its answer grows long.
    pub max_calls: usize,
    /// Frames of one connection that wait for their answer before its socket is not read any further. Default: 256, enough for
    /// 10 ms of sync at 25,000 frames a second.
    pub max_unanswered: usize,
    /// Bytes of those frames, and of what is kept for their answers; one frame is always taken. Default: 16 MiB, two of the largest frames.
    pub max_unanswered_bytes: u64,
    /// Bytes of all frames and bodies above 8 KiB that are arriving or being decoded. What comes beyond is not read until there is
    /// room. Default: 256 MiB, 32 of the largest.
    pub max_arriving_bytes: u64,
    /// How long a WebSocket message may take from its first byte to its last, and how long a client may take to accept what
    /// it is sent. Default: 30 s, enough for 8 MiB over a slow mobile line.
    pub frame_timeout: Duration,
    /// How long a message waits for room in the queue of its log, or for its type to be open, before it is refused as overloaded. Default: 1 s, below what
    /// agents wait for an answer.
    pub append_wait: Duration,
    /// The time for the head and body of an HTTP request. Default: 30 s, enough for 8 MiB over a slow mobile line.
    pub request_timeout: Duration,
    /// How long a stop may take before it is forced. Default: 10 s, what most supervisors grant at least.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: 8 * MIB,
            max_connections: 20_000,
            max_depth: 64,
            max_calls: 10_000,
            max_unanswered: 256,
            max_unanswered_bytes: 16 * MIB,
            max_arriving_bytes: 256 * MIB,
            frame_timeout: Duration::from_secs(30),
            append_wait: Duration::from_secs(1),
            request_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// The store of accepted messages. Sizes are per data type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Bytes at which a segment file is closed and the next begun. Default: 64 MiB: deletion goes by whole segments.
    pub segment_size: u64,
    /// Bytes of messages that may wait to be written. Default: 32 MiB, a fraction of a second of a disk's speed.
    pub queue_size: u64,
    /// Bytes of the latest messages kept in memory, so that receivers that keep up read no files. Default: 16 MiB.
    pub tail_size: u64,
    /// Bytes of the disk that are left free: before they are touched, messages are refused. Default: 128 MiB, so that whatever
    /// must still be written has room.
    pub disk_reserve: u64,
    /// How long messages are kept for a receiver that is not in the config any more, from the first start without it. Default:
    /// 7 days: it may come back.
    pub absent_grace: Duration,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            segment_size: 64 * MIB,
            queue_size: 32 * MIB,
            tail_size: 16 * MIB,
            disk_reserve: 128 * MIB,
            absent_grace: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What is remembered beside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How often the positions of receivers are written. Default: 100 ms; what was handled since is handled again after a crash.
    pub cursor_interval: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self { cursor_interval: Duration::from_millis(100) }
    }
}

/// When agents count as active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// How long an agent of which nothing is heard stays active. Default: 7 s, as in the system before Wharf.
    pub timeout: Duration,
    /// Agents that are remembered, active or not; beyond, the inactive one that was heard of longest ago is forgotten. Default:
    /// 100,000, five times the connections.
    pub max_agents: usize,
}

impl Default for Presence {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(7), max_agents: 100_000 }
    }
}

/// The sandbox that all receivers share. Its pools have a fixed size from start to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The most memory that any receiver may ask for. Default: 256 MiB. Only address space is reserved for it.
    pub max_memory: u64,
    /// Instances of all receivers together. Default: 64.
    pub max_instances: usize,
    /// Threads that run receivers, at least one. Default (written as 0): one for each core.
    pub threads: usize,
    /// Memory of the process that compiles a component. Default: 2 GiB; a 13 MB JavaScript component takes 400 MiB.
    pub compile_memory: u64,
    /// How long compiling one component may take. Default: 120 s; a 13 MB JavaScript component takes 21 s of one core.
    pub compile_timeout: Duration,
    /// Bytes of a component's file. Default: 64 MiB; whole language runtimes take 13 to 40 MB.
    pub max_component: u64,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            max_memory: 256 * MIB,
            max_instances: 64,
            threads: thread::available_parallelism().map_or(1, NonZero::get),
            compile_memory: 2 * GIB,
            compile_timeout: Duration::from_secs(120),
            max_component: 64 * MIB,
        }
    }
}

/// A data type that agents may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataType {
    /// Its name: 1 to 64 of `a-z`, `0-9`, `_`, `.` and `-`, so that it is safe as the name of a folder.
    pub name: String,
    /// When a message counts as kept. Default: `fsync`, on the disk.
    pub durability: Durability,
    /// How long messages are kept after every receiver finished them. Default: a day.
    pub retain: Duration,
    /// Bytes of such messages that are kept at most. Default: 1 GiB.
    pub retain_bytes: u64,
    /// How long a `message_id` is remembered, so that a message that is sent again is stored once. Default: 10 minutes,
    /// longer than agents try again; 0 remembers none.
    pub dedup_window: Duration,
    /// How many of them are remembered at most. Default: 100,000, some 8 MiB.
    pub dedup_messages: usize,
}

impl DataType {
    /// A data type with every setting at its default.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self {
            name,
            durability: Durability::Fsync,
            retain: Duration::from_secs(24 * 3600),
            retain_bytes: GIB,
            dedup_window: Duration::from_secs(600),
            dedup_messages: 100_000,
        }
    }

    fn warning(&self) -> Option<String> {
        let forgotten =
            self.retain < self.dedup_window || (self.retain_bytes == 0 && !self.dedup_window.is_zero());
        (forgotten && self.durability != Durability::Memory).then(|| {
            format!(
                "types.{}: messages are kept for less than dedup-window ({}) once they are handled; those that are deleted \
                 earlier are not known any more after a restart, and are stored again if their agents send them again",
                self.name,
                humantime::format_duration(self.dedup_window),
            )
        })
    }
}

/// How a receiver gets the bodies of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As JSON, whatever the agent sent.
    Json,
    /// As the agent sent it, JSON or MessagePack.
    AsSent,
}

/// Where a receiver begins that is new to a data type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is accepted from then on.
    New,
    /// With the oldest message that is kept.
    Oldest,
}

/// What is done when a receiver's backlog is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOverflow {
    /// Nothing more of that data type is accepted until there is room: the receiver matters more than the flow.
    Block,
    /// The receiver loses the oldest of its messages, and a gap record says which: the flow matters more.
    Shed,
}

/// A receiver: a component, the data types mapped to it, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its name: 1 to 64 of `a-z`, `0-9` and `-`, because it is part of the address of its page.
    pub name: String,
    /// The file of its component, outside the data directory.
    pub component: PathBuf,
    /// The data types that it receives, in the order of the file. There is at least one.
    pub types: Vec<String>,
    /// Where it begins in a data type that is new to it. Default: with new messages.
    pub start: Start,
    /// The grant of the import `wharf:receiver/live`: whether it may publish to open pages. Default: no, as every grant.
    pub live: bool,
    /// Keys whose last value is kept for pages that open later. Default: 10,000, one for each agent of a large fleet.
    pub live_keys: usize,
    /// Bytes of those values together. Default: 16 MiB.
    pub live_bytes: u64,
    /// The grant of `wasi:keyvalue`: whether it has a durable store of its own. Default: no.
    pub keyvalue: bool,
    /// Bytes of keys and values in that store. Default: 64 MiB.
    pub keyvalue_bytes: u64,
    /// The grant of `wasi:http/outgoing-handler`: origins that it may send requests to. Default: none.
    pub http: Vec<Origin>,
    /// Requests of its that are under way at a time. Default: 16.
    pub outgoing_requests: usize,
    /// How long one of them may take, with its answer. Default: 3 s, less than the deadline, so that it learns of it.
    pub outgoing_timeout: Duration,
    /// Bytes of the body of one of them. Default: 1 MiB.
    pub outgoing_body: u64,
    /// Bytes of the body of an answer. Default: 8 MiB.
    pub outgoing_answer: u64,
    /// The grant of `wasi:filesystem`: folders that it may use. Default: none.
    pub files: Vec<FolderGrant>,
    /// Its own settings as texts, nested tables as dotted keys.
    pub settings: Vec<(String, String)>,
    /// How often its `tick` is called. Default: never.
    pub tick: Option<Duration>,
    /// How it gets the bodies of messages. Default: JSON, which every language reads.
    pub encoding: Encoding,
    /// Memory of one instance. Default: 64 MiB; a Python or JavaScript runtime fits.
    pub memory: u64,
    /// How long one call may take. Default: 5 s.
    pub deadline: Duration,
    /// Instances that share its messages; those of one agent always go to the same. Default: 1, so that a receiver may keep
    /// totals in its memory.
    pub instances: usize,
    /// Messages of one batch, at most 1,024. Default: 256: the cost of a call is negligible from 64 on.
    pub max_messages: usize,
    /// Bytes of one batch; a larger message goes alone. Default: 1 MiB.
    pub max_bytes: u64,
    /// How long a batch waits to become full. Default: 5 ms, not noticed on a page.
    pub max_wait: Duration,
    /// Messages that it was given and has not finished: those of the batch and those that wait to be given again. Default: 1,024.
    pub max_in_flight: usize,
    /// Messages that wait behind one of their agent that is to be given again. Default: 100,000, about 1 MB of memory.
    pub max_parked: usize,
    /// The age from which a message that it asks to get again becomes a dead letter. Default: none.
    pub max_age: Option<Duration>,
    /// Bytes of one data type that lie on the disk from its first unfinished message on. Default: 10 GiB.
    pub max_backlog: u64,
    /// What is done beyond. Default: block.
    pub on_overflow: OnOverflow,
    /// Dead letters that are kept; beyond, the oldest fall out. Default: 10,000.
    pub dead_letters: u64,
    /// Bytes of dead letters that are kept. Default: 256 MiB.
    pub dead_letter_bytes: u64,
    /// How often a message that fails alone in its batch is tried. Default: 3.
    pub max_attempts: u32,
    /// The pause before the first retry; it grows from there. Default: 100 ms.
    pub retry_pause: Duration,
    /// Messages given up, or starts failed, one after the other and none handled between, after which it is quarantined.
    /// Default: 5.
    pub quarantine_failures: u32,
    /// The share of a minute, in percent, that it may spend in calls that fail, before it is quarantined. Default: 50.
    pub quarantine_percent: u32,
    /// The pause of a quarantine before the receiver is tried again; it doubles up to `quarantine_longest`. Default: 10 s.
    pub quarantine_pause: Duration,
    /// The longest such pause. Default: 10 minutes.
    pub quarantine_longest: Duration,
    /// Host objects that one instance may hold: streams, requests, headers. Default: 1,000; a request takes about ten.
    pub resources: usize,
    /// Series of metrics of its own. Default: 200.
    pub metric_series: usize,
    /// Requests to its page at a time. Default: 8. Each has an instance of its own.
    pub http_concurrency: usize,
    /// How long one request to its page may take. Default: 5 s.
    pub http_deadline: Duration,
    /// Bytes of the body of a request to its page. Default: 1 MiB.
    pub http_body: u64,
    /// Lines a second that it may write to the log. Default: 100; what is above is counted and dropped.
    pub log_lines: u32,
    /// Whether a changed file of its component is swapped in by itself. Default: no.
    pub watch: bool,
    /// How long a swap waits for a call that is running. Default: 5 s, as long as a call may take.
    pub swap_timeout: Duration,
    /// How long a version that was swapped in is compared with the one before it. Default: 30 s; 0 does not compare.
    pub probation: Duration,
    /// By how much the share of failed messages, in percent, may be above that of the version before. Default: 5.
    pub probation_failed_percent: u32,
    /// How many times as long as those of the version before its calls may take for each message. Default: 10.
    pub probation_slowdown: u32,
    /// Whether the dead letters of a version that was rolled back are given to the one before. Default: no.
    pub probation_redrive: bool,
}

impl Receiver {
    /// A receiver with every setting at its default.
    #[must_use]
    pub fn new(name: String, component: PathBuf, types: Vec<String>) -> Self {
        Self {
            name,
            component,
            types,
            start: Start::New,
            live: false,
            live_keys: 10_000,
            live_bytes: 16 * MIB,
            keyvalue: false,
            keyvalue_bytes: 64 * MIB,
            http: Vec::new(),
            outgoing_requests: 16,
            outgoing_timeout: Duration::from_secs(3),
            outgoing_body: MIB,
            outgoing_answer: 8 * MIB,
            files: Vec::new(),
            settings: Vec::new(),
            tick: None,
            encoding: Encoding::Json,
            memory: 64 * MIB,
            deadline: Duration::from_secs(5),
            instances: 1,
            max_messages: 256,
            max_bytes: MIB,
            max_wait: Duration::from_millis(5),
            max_in_flight: 1_024,
            max_parked: 100_000,
            max_age: None,
            max_backlog: 10 * GIB,
            on_overflow: OnOverflow::Block,
            dead_letters: 10_000,
            dead_letter_bytes: 256 * MIB,
            max_attempts: 3,
            retry_pause: Duration::from_millis(100),
            quarantine_failures: 5,
            quarantine_percent: 50,
            quarantine_pause: Duration::from_secs(10),
            quarantine_longest: Duration::from_secs(600),
            resources: 1_000,
            metric_series: 200,
            http_concurrency: 8,
            http_deadline: Duration::from_secs(5),
            http_body: MIB,
            log_lines: 100,
            watch: false,
            swap_timeout: Duration::from_secs(5),
            probation: Duration::from_secs(30),
            probation_failed_percent: 5,
            probation_slowdown: 10,
            probation_redrive: false,
        }
    }
}

//! What can be said of a receiver at any moment, kept by its workers, read by the admin interface and the metrics.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use wharf_host::Fault;
use wharf_log::{Lane, Topic};
use wharf_state::{DeathKind, GapReason};

use super::breaker::{Breaker, BreakerState};
use super::progress::Progress;
use super::recent::{Recent, Work};
use crate::config;
use crate::telemetry::{DeadLetterLabel, DroppedLabel, FaultLabel, Metrics, ReceiverLabel};
use crate::unix_time::unix_milliseconds;

/// The kind of fault of a receiver whose answer can't be right, beside those of the host.
pub(super) const WRONG_ANSWER: &str = "wrong-answer";
/// Why messages are dropped without anybody's doing: what an operator skips is recorded with who did it, and not counted.
const COUNTED_REASONS: [GapReason; 4] =
    [GapReason::Shed, GapReason::DeadLettersFull, GapReason::Damaged, GapReason::Trimmed];
/// Text of a fault that is kept for the status; the log has all of it.
const MAX_ERROR_CHARS: usize = 500;

/// How a receiver is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverState {
    /// All its instances work.
    Running,
    /// At least one instance is being made anew after a fault.
    Restarting,
    /// It failed too much: nothing is called until a probe goes well.
    Quarantined,
    /// An operator paused it.
    Paused,
    /// At least one instance is not fed any more, because of a defect of the server.
    Broken,
}

impl ReceiverState {
    /// Every state.
    pub const ALL: [ReceiverState; 5] = [
        ReceiverState::Running,
        ReceiverState::Restarting,
        ReceiverState::Quarantined,
        ReceiverState::Paused,
        ReceiverState::Broken,
    ];

    /// The word for it in the admin interface.
    pub fn as_str(self) -> &'static str {
        match self {
            ReceiverState::Running => "running",
            ReceiverState::Restarting => "restarting",
            ReceiverState::Quarantined => "quarantined",
            ReceiverState::Paused => "paused",
            ReceiverState::Broken => "broken",
        }
    }
}

/// What waits to be given to a receiver again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Agents whose messages wait.
    pub agents: usize,
    /// Messages that were given and are to be given again.
    pub given: usize,
    /// Messages that wait behind others of their agent, and were not given.
    pub parked: usize,
}

/// How far a receiver is behind in a data type.
#[derive(Clone, Debug, PartialEq)]
pub struct Lag {
    /// The data type.
    pub data_type: String,
    /// Where its slowest lane is.
    pub next: u64,
    /// The end of the topic.
    pub end: u64,
    /// How many offsets lie between: an upper bound of the messages that wait, since offsets may have gaps.
    pub messages: u64,
    /// How old the oldest message is that is not finished; nothing if that can't be read.
    pub seconds: Option<f64>,
}

/// One receiver's numbers.
#[derive(Debug)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The path of its component.
    pub component: String,
    /// The SHA-256 of its component, in hexadecimal.
    pub digest: String,
    /// Since when it has that component, Unix milliseconds.
    pub since: u64,
    /// The data types mapped to it.
    pub types: Vec<String>,
    /// How many instances it has.
    pub instances: usize,
    /// Messages finished.
    pub handled: Counter,
    /// Calls that ended in a fault.
    pub faults: Counter,
    /// Messages that it asked to get again.
    pub retried: Counter,
    /// Messages that became dead letters.
    pub dead: Counter,
    /// Offsets that could not be served.
    pub lost: Counter,
    /// Instances made.
    pub instances_started: Counter,
    batch_messages: Histogram,
    call_seconds: Histogram,
    dead_letters: Family<DeadLetterLabel, Counter>,
    dropped: Family<DroppedLabel, Counter>,
    breaker: Arc<Breaker>,
    faults_by_kind: Family<FaultLabel, Counter>,
    topics: Vec<(Topic, Arc<Progress>)>,
    /// What waits, by worker.
    waits: Mutex<Vec<Waits>>,
    restarting: AtomicUsize,
    interrupted: AtomicBool,
    broken: AtomicBool,
    last_error: Mutex<Option<String>>,
    recent: Mutex<Recent>,
}

impl Status {
    pub(super) fn new(
        settings: &config::Receiver,
        digest: &str,
        topics: Vec<(Topic, Arc<Progress>)>,
        breaker: Arc<Breaker>,
        metrics: &Metrics,
        before: Option<&Status>,
    ) -> Status {
        let label = ReceiverLabel::new(&settings.name);
        let receiver_name = || settings.name.clone();
        // Each begins at 0, so that a rate can be told from the first one on.
        for kind in Fault::KINDS.into_iter().chain([WRONG_ANSWER]) {
            drop(metrics.faults.get_or_create(&FaultLabel { receiver: receiver_name(), kind }));
        }
        for kind in DeathKind::ALL.map(DeathKind::word) {
            drop(metrics.dead_letters.get_or_create(&DeadLetterLabel { receiver: receiver_name(), kind }));
        }
        for reason in COUNTED_REASONS.map(|reason| reason.word()) {
            drop(metrics.dropped.get_or_create(&DroppedLabel { receiver: receiver_name(), reason }));
        }
        Status {
            name: settings.name.clone(),
            component: std::fs::canonicalize(&settings.component)
                .as_deref()
                .unwrap_or(&settings.component)
                .display()
                .to_string(),
            digest: digest.to_owned(),
            since: before
                .filter(|before| before.digest == digest)
                .map_or_else(unix_milliseconds, |before| before.since),
            types: settings.types.clone(),
            instances: settings.instances,
            handled: metrics.handled.get_or_create_owned(&label),
            faults: before.map(|before| before.faults.clone()).unwrap_or_default(),
            retried: metrics.retried.get_or_create_owned(&label),
            dead: before.map(|before| before.dead.clone()).unwrap_or_default(),
            lost: metrics.lost.get_or_create_owned(&label),
            instances_started: metrics.instances_started.get_or_create_owned(&label),
            batch_messages: metrics.batch_messages.get_or_create_owned(&label),
            call_seconds: metrics.call_seconds.get_or_create_owned(&label),
            dead_letters: metrics.dead_letters.clone(),
            dropped: metrics.dropped.clone(),
            breaker,
            faults_by_kind: metrics.faults.clone(),
            topics,
            waits: Mutex::new(vec![Waits::default(); settings.instances]),
            restarting: AtomicUsize::new(0),
            interrupted: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            last_error: Mutex::new(None),
            recent: Mutex::default(),
        }
    }

    /// How it is doing.
    pub fn state(&self) -> ReceiverState {
        if self.broken.load(Ordering::Relaxed) {
            return ReceiverState::Broken;
        }
        if self.breaker.is_paused() {
            return ReceiverState::Paused;
        }
        if self.breaker.state() != BreakerState::Closed {
            return ReceiverState::Quarantined;
        }
        match self.restarting.load(Ordering::Relaxed) {
            0 => ReceiverState::Running,
            _ => ReceiverState::Restarting,
        }
    }

    /// How long until a quarantined receiver is tried again.
    pub fn next_probe(&self) -> Option<Duration> {
        match self.breaker.state() {
            BreakerState::Open { until } => Some(until.saturating_duration_since(Instant::now())),
            BreakerState::Closed | BreakerState::Probing => None,
        }
    }

    /// What waits to be given again, of all instances together.
    pub fn waiting(&self) -> Waits {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.iter().fold(Waits::default(), |all, one| Waits {
            agents: all.agents.saturating_add(one.agents),
            given: all.given.saturating_add(one.given),
            parked: all.parked.saturating_add(one.parked),
        })
    }

    /// How far it is behind in each of its data types. What is no longer in memory is looked up on the disk.
    pub async fn lags(&self) -> Vec<Lag> {
        let mut lags = Vec::new();
        for (topic, progress) in &self.topics {
            let (end, next) = (topic.end(), progress.lowest());
            let seconds = if next >= end { Some(0.0) } else { self.age(topic, next).await };
            lags.push(Lag {
                data_type: topic.name().to_owned(),
                next,
                end,
                messages: end.saturating_sub(next),
                seconds,
            });
        }
        lags
    }

    /// How long ago the message at this offset was accepted, in seconds; nothing if that can't be read.
    async fn age(&self, topic: &Topic, offset: u64) -> Option<f64> {
        match topic.time_at(offset).await {
            Ok(Some(time)) => {
                Some(Duration::from_millis(unix_milliseconds().saturating_sub(time)).as_secs_f64())
            }
            Ok(None) => Some(0.0),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(
                    receiver.name = self.name,
                    log.topic = topic.name(),
                    error,
                    "failed to see how old the oldest unfinished message is"
                );
                None
            }
        }
    }

    /// How many bytes of each data type lie on the disk from its first unfinished message on.
    pub fn backlogs(&self) -> impl Iterator<Item = (&str, u64)> {
        self.topics.iter().map(|(topic, progress)| (topic.name(), topic.bytes_from(progress.lowest())))
    }

    /// What this version of it did in the last minutes.
    pub fn recent(&self) -> Work {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).total()
    }

    fn add_recent(&self, add: impl FnOnce(&mut Work)) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).add(Instant::now(), add);
    }

    /// What went wrong last, if anything did.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn waits(&self, worker: usize, waits: Waits) {
        let mut all = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = all.get_mut(worker) {
            *place = waits;
        }
    }

    pub(super) fn lane_full(&self, data_type: &str, lane: Lane) {
        tracing::warn!(
            receiver.name = self.name,
            log.topic = data_type,
            log.lane = lane.index(),
            "a lane waits: too many of its messages are finished behind others that are not; it goes on when these are"
        );
    }

    /// Counts a call of `handle`, however it went.
    pub(super) fn called(&self, messages: usize, took: Duration) {
        // At most `max-messages`.
        self.batch_messages.observe(messages as f64);
        self.call_seconds.observe(took.as_secs_f64());
        self.add_recent(|work| {
            work.calls = work.calls.saturating_add(1);
            work.messages = work.messages.saturating_add(u64::try_from(messages).unwrap_or(u64::MAX));
            work.time = work.time.saturating_add(took);
        });
    }

    /// Counts a message that became a dead letter.
    pub(super) fn dead(&self, kind: DeathKind) {
        self.dead.inc();
        if kind == DeathKind::Rejected {
            self.add_recent(|work| work.failed = work.failed.saturating_add(1));
        }
        let label = DeadLetterLabel { receiver: self.name.clone(), kind: kind.word() };
        self.dead_letters.get_or_create_owned(&label).inc();
    }

    /// Counts messages of which a gap record tells.
    pub(super) fn dropped(&self, reason: &GapReason, messages: u64) {
        let label = DroppedLabel { receiver: self.name.clone(), reason: reason.word() };
        self.dropped.get_or_create_owned(&label).inc_by(messages);
    }

    pub(super) fn fault(&self, kind: &'static str, what: &impl std::fmt::Display) {
        self.faults.inc();
        self.add_recent(|work| work.failed = work.failed.saturating_add(1));
        self.faults_by_kind.get_or_create_owned(&FaultLabel { receiver: self.name.clone(), kind }).inc();
        self.failed(what);
    }

    /// Something went wrong.
    pub fn failed(&self, what: &(impl std::fmt::Display + ?Sized)) {
        let text = what.to_string().chars().take(MAX_ERROR_CHARS).collect();
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Whether the server stopped while messages were delivered and not finished.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    pub(super) fn interrupted(&self) {
        self.interrupted.store(true, Ordering::Release);
    }

    pub(super) fn broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.interrupted();
    }

    pub(super) fn restarting(&self) {
        self.restarting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn restarted(&self) {
        self.restarting.fetch_sub(1, Ordering::Relaxed);
    }
}

//! What can be said of a receiver at any moment, kept by its workers, read by the admin interface and the metrics.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use wharf_host::Fault;
use wharf_log::{Lane, Topic};
use wharf_state::DeathKind;

use super::breaker::{Breaker, BreakerState};
use super::progress::Progress;
use crate::config;
use crate::telemetry::{FaultLabel, Metrics, ReceiverLabel};

/// The kind of fault of a receiver whose answer can't be right, beside those of the host.
pub(super) const WRONG_ANSWER: &str = "wrong-answer";
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

/// One receiver's numbers.
#[derive(Debug)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The path of its component.
    pub component: String,
    /// The SHA-256 of its component, in hexadecimal.
    pub digest: String,
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
    breaker: Arc<Breaker>,
    faults_by_kind: Family<FaultLabel, Counter>,
    topics: Vec<(Topic, Arc<Progress>)>,
    /// What waits, by worker.
    waits: Mutex<Vec<Waits>>,
    restarting: AtomicUsize,
    interrupted: AtomicBool,
    broken: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl Status {
    pub(super) fn new(
        settings: &config::Receiver,
        receiver: &wharf_host::Receiver,
        topics: Vec<(Topic, Arc<Progress>)>,
        breaker: Arc<Breaker>,
        metrics: &Metrics,
    ) -> Status {
        let label = ReceiverLabel::new(&settings.name);
        for kind in Fault::KINDS.into_iter().chain([WRONG_ANSWER]) {
            // Each begins at 0, so that a rate can be told from the first one on.
            drop(metrics.faults.get_or_create(&FaultLabel { receiver: settings.name.clone(), kind }));
        }
        Status {
            name: settings.name.clone(),
            component: std::fs::canonicalize(&settings.component)
                .as_deref()
                .unwrap_or(&settings.component)
                .display()
                .to_string(),
            digest: receiver.digest().to_owned(),
            types: settings.types.clone(),
            instances: settings.instances,
            handled: metrics.handled.get_or_create_owned(&label),
            faults: Counter::default(),
            retried: metrics.retried.get_or_create_owned(&label),
            dead: metrics.skipped.get_or_create_owned(&label),
            lost: metrics.lost.get_or_create_owned(&label),
            instances_started: metrics.instances_started.get_or_create_owned(&label),
            breaker,
            faults_by_kind: metrics.faults.clone(),
            topics,
            waits: Mutex::new(vec![Waits::default(); settings.instances]),
            restarting: AtomicUsize::new(0),
            interrupted: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            last_error: Mutex::new(None),
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
            BreakerState::Open { until } => {
                Some(until.saturating_duration_since(tokio::time::Instant::now()))
            }
            BreakerState::Closed | BreakerState::Probing => None,
        }
    }

    /// How many offsets lie between its slowest lanes and the ends of its topics: an upper bound of the messages that
    /// wait for it, since offsets may have gaps.
    pub fn lag(&self) -> u64 {
        self.topics.iter().map(|(topic, progress)| topic.end().saturating_sub(progress.lowest())).sum()
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

    pub(super) fn dead(&self, _kind: DeathKind) {
        self.dead.inc();
    }

    pub(super) fn lane_full(&self, data_type: &str, lane: Lane) {
        tracing::warn!(
            receiver.name = self.name,
            log.topic = data_type,
            log.lane = lane.index(),
            "a lane waits: too many of its messages are finished behind others that are not; it goes on when these are"
        );
    }

    pub(super) fn fault(&self, kind: &'static str, what: &impl std::fmt::Display) {
        self.faults.inc();
        self.faults_by_kind.get_or_create_owned(&FaultLabel { receiver: self.name.clone(), kind }).inc();
        self.failed(what);
    }

    pub(super) fn failed(&self, what: &(impl std::fmt::Display + ?Sized)) {
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

//! What an operator sees of a running server: log lines on standard error and the numbers at `/metrics`.
//!
//! The numbers are plain counters that the parts of the server bump; nothing here knows what they mean to delivery or to
//! a frontend. Everything has a bounded number of label values: types, receivers and error codes all come from the config
//! or from the code, never from an agent.

use std::io::IsTerminal;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};
use tracing_subscriber::EnvFilter;

use crate::presence;
use guests::Guests;
use stderr::Stderr;

mod guests;
mod stderr;

/// What is logged when `WHARF_LOG` does not say otherwise: our own news and the lines of guests, and only warnings of
/// libraries.
const DEFAULT_FILTER: &str = "warn,wharf=info,wharf_host=info,wharf_log=info,wharf_state=info,guest=info";

/// Starts logging to standard error, filtered by the environment variable `WHARF_LOG` (the syntax of
/// `tracing_subscriber::EnvFilter`).
pub fn start_logging() {
    let filter = EnvFilter::try_from_env("WHARF_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // A second call (tests start several servers in one process) keeps the first one's settings.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr::default())
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

/// The numbers of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open connections, by listener.
    pub connections: Family<ListenerLabel, Gauge>,
    /// Connections turned away because `limits.max-connections` was reached.
    pub connections_refused: Family<ListenerLabel, Counter>,
    /// Connections closed because the client was too slow, by what was waited for.
    pub timed_out: Family<TimeoutLabel, Counter>,
    /// Bytes of frames and bodies that wait for their answer, over all connections.
    pub unanswered_bytes: Gauge,
    /// Bytes of large frames and bodies that are arriving, see `limits.max-arriving-bytes`.
    pub arriving_bytes: Gauge,
    /// Messages that were stored as durably as their type says and acknowledged.
    pub accepted: Family<TypeLabel, Counter>,
    /// Bytes of the bodies of accepted messages.
    pub accepted_bytes: Family<TypeLabel, Counter>,
    /// Agents: how many there are, and their comings and goings.
    pub agents: presence::Numbers,
    /// Calls and frames that were refused, by error code.
    pub refused: Family<CodeLabel, Counter>,
    /// Messages that a receiver finished.
    pub handled: Family<ReceiverLabel, Counter>,
    /// Calls of a receiver that ended in a fault: a trap, a deadline, memory.
    pub faults: Family<FaultLabel, Counter>,
    /// 1 for the state that a receiver is in, 0 for the others.
    pub receiver_state: Family<StateLabel, Gauge>,
    /// Messages that a receiver asked to get again.
    pub retried: Family<ReceiverLabel, Counter>,
    /// Messages that were given up: rejected, or failed alone too often.
    pub skipped: Family<ReceiverLabel, Counter>,
    /// Offsets that could not be served to a receiver because they were lost.
    pub lost: Family<ReceiverLabel, Counter>,
    /// Instances made, first ones and later ones.
    pub instances_started: Family<ReceiverLabel, Counter>,
    /// Browsers connected to a receiver's live updates.
    pub live_browsers: Family<ReceiverLabel, Gauge>,
    /// The numbers of receivers themselves.
    pub guests: Guests,
}

/// Which listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ListenerLabel {
    /// `agents` or `admin`.
    pub listener: &'static str,
}

/// What was waited for in vain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TimeoutLabel {
    /// `frame` or `write`.
    waited_for: &'static str,
}

impl TimeoutLabel {
    /// The rest of a frame that had begun.
    pub const FRAME: TimeoutLabel = TimeoutLabel { waited_for: "frame" };
    /// That the client takes what it is sent.
    pub const WRITE: TimeoutLabel = TimeoutLabel { waited_for: "write" };
}

/// Which data type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    /// The name of a configured data type.
    pub r#type: String,
}

/// Which error code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    /// A code of the protocol.
    pub code: &'static str,
}

/// Which receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReceiverLabel {
    /// The name of a configured receiver.
    pub receiver: String,
}

/// A state of which receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// One of the states of a receiver.
    pub state: &'static str,
}

/// Which kind of fault of which receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabel {
    /// The name of a configured receiver.
    pub receiver: String,
    /// What kind of fault, see [`wharf_host::Fault::kind`].
    pub kind: &'static str,
}

impl ReceiverLabel {
    /// The label of one receiver.
    pub fn new(receiver: &str) -> ReceiverLabel {
        ReceiverLabel { receiver: receiver.to_owned() }
    }
}

impl Metrics {
    /// All numbers at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("wharf");
        let guests = Guests::default();
        registry.register_collector(Box::new(guests.clone()));
        let new = &mut registry;
        Metrics {
            connections: family(new, "connections", "Open connections"),
            connections_refused: family(new, "connections_refused", "Connections turned away at the bound"),
            timed_out: family(
                new,
                "connections_timed_out",
                "Connections closed because a client was too slow",
            ),
            unanswered_bytes: gauge(new, "unanswered_bytes", "Bytes of frames that wait for their answer"),
            arriving_bytes: gauge(
                new,
                "arriving_bytes",
                "Bytes of large frames and bodies that are arriving",
            ),
            accepted: family(new, "messages_accepted", "Messages stored and acknowledged"),
            accepted_bytes: family(new, "accepted_body_bytes", "Bytes of the bodies of accepted messages"),
            agents: agents(new),
            refused: family(new, "calls_refused", "Calls and frames refused, by code"),
            handled: family(new, "messages_handled", "Messages finished by a receiver"),
            faults: family(new, "receiver_faults", "Calls of a receiver that ended in a fault, by kind"),
            receiver_state: family(new, "receiver_state", "1 for the state that a receiver is in"),
            retried: family(new, "messages_retried", "Messages that a receiver asked to get again"),
            skipped: family(new, "messages_skipped", "Messages that were given up for a receiver"),
            lost: family(new, "offsets_lost", "Offsets that could not be served to a receiver"),
            instances_started: family(new, "instances_started", "Instances made of a receiver's component"),
            live_browsers: family(new, "live_browsers", "Browsers connected to a receiver's live updates"),
            guests,
            registry,
        }
    }

    /// All numbers in the OpenMetrics text format.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

fn agents(registry: &mut Registry) -> presence::Numbers {
    let numbers = presence::Numbers::default();
    registry.register("agents_active", "Agents that are active", numbers.active.clone());
    registry.register("agents_known", "Agents that are remembered, active or not", numbers.known.clone());
    registry.register("presence_changes", "Agents that became active or inactive", numbers.changes.clone());
    registry.register(
        "calls_untracked",
        "Calls of agents that are not remembered",
        numbers.untracked.clone(),
    );
    numbers
}

/// A new number, in the registry under this name.
fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// A new family of numbers, in the registry under this name.
fn family<L, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    Family<L, M>: Default + Clone + Metric,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

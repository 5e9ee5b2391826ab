//! What an operator sees of a running server: log lines on standard error and the numbers at `/metrics`.
//!
//! The numbers are plain counters that the parts of the server bump; nothing here knows what they mean to delivery or to
//! a frontend. Everything has a bounded number of label values: types, receivers and error codes all come from the config
//! or from the code, never from an agent.

use std::io::IsTerminal;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use tracing_subscriber::EnvFilter;
use wharf_protocol::Code;

use crate::presence;
use guests::Guests;
pub use labels::*;
use log::LogNumbers;
use process::Process;
use stderr::Stderr;
use swaps::SwapNumbers;

mod guests;
mod labels;
mod log;
mod process;
mod stderr;
mod swaps;
mod text;

pub use text::Format;

/// Upper bounds of the buckets of every duration, in seconds: what memory and processors take is below the first, what
/// anybody waits for is below the last, and with three for each power of ten a quantile is known to within a factor of 2.5.
const SECONDS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0,
];

/// Upper bounds of the buckets of numbers of records and messages: powers of four, up to what one group can hold of small
/// records.
const COUNTS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0];

/// Upper bounds of the buckets of sizes in bytes: powers of four, up to the size of a group, and that of the largest append.
const BYTES: [f64; 10] = [
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// A gauge of a number with a fraction.
pub type Fraction = Gauge<f64, AtomicU64>;

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
    /// From when a frame with messages was submitted until its answer was known.
    pub acknowledgement_seconds: Histogram,
    /// Messages that were acknowledged and not stored, because their agent had sent them before.
    pub repeated: Family<TypeLabel, Counter>,
    /// Ids of stored messages that are remembered.
    pub message_ids: Family<TypeLabel, Gauge>,
    /// Agents: how many there are, and their comings and goings.
    pub agents: presence::Numbers,
    /// Calls and frames that were refused, by error code.
    pub refused: Family<CodeLabel, Counter>,
    /// What the writers of topics do, and what their topics take.
    pub log: LogNumbers,
    /// Messages that a receiver finished.
    pub handled: Family<ReceiverLabel, Counter>,
    /// Messages of each call of `handle`.
    pub batch_messages: Family<ReceiverLabel, Histogram>,
    /// How long each call of `handle` took.
    pub call_seconds: Family<ReceiverLabel, Histogram>,
    /// Calls of a receiver that ended in a fault: a trap, a deadline, memory.
    pub faults: Family<FaultLabel, Counter>,
    /// 1 for the state that a receiver is in, 0 for the others.
    pub receiver_state: Family<StateLabel, Gauge>,
    /// Messages that a receiver asked to get again.
    pub retried: Family<ReceiverLabel, Counter>,
    /// Messages that became dead letters, by kind.
    pub dead_letters: Family<DeadLetterLabel, Counter>,
    /// Dead letters that are kept.
    pub dead_letters_kept: Family<ReceiverLabel, Gauge>,
    /// What they take.
    pub dead_letter_bytes: Family<ReceiverLabel, Gauge>,
    /// Messages that a gap record tells of, by reason. Those whose number is not known count as offsets.
    pub dropped: Family<DroppedLabel, Counter>,
    /// Bytes of a data type on the disk that a receiver has not finished.
    pub backlog_bytes: Family<ReceiverTypeLabel, Gauge>,
    /// 1 while a data type takes no messages because a receiver's backlog in it is at its bound.
    pub blocks: Family<ReceiverTypeLabel, Gauge>,
    /// Offsets that could not be served to a receiver because they were lost.
    pub lost: Family<ReceiverLabel, Counter>,
    /// Messages that were given to a receiver and are to be given again.
    pub in_flight: Family<ReceiverLabel, Gauge>,
    /// Messages that wait behind one of their agent that is to be given again.
    pub parked: Family<ReceiverLabel, Gauge>,
    /// Agents one of whose messages is to be given again.
    pub waiting_agents: Family<ReceiverLabel, Gauge>,
    /// Offsets between a receiver's slowest lane and the end of a topic.
    pub lag_messages: Family<ReceiverTypeLabel, Gauge>,
    /// How old the oldest message is that a receiver has not finished.
    pub lag_seconds: Family<ReceiverTypeLabel, Fraction>,
    /// Instances made, first ones and later ones.
    pub instances_started: Family<ReceiverLabel, Counter>,
    /// Browsers connected to a receiver's live updates.
    pub live_browsers: Family<ReceiverLabel, Gauge>,
    /// What came of swaps.
    pub swaps: SwapNumbers,
    /// The numbers of receivers themselves.
    pub guests: Guests,
}

impl Metrics {
    /// Shows no more how a receiver is doing that is not there any more. What was counted stays, and is counted on if it comes back.
    pub fn forget_receiver(
        &self,
        receiver: &str,
        states: impl IntoIterator<Item = &'static str>,
        types: &[String],
    ) {
        self.forget_mapping(receiver, types);
        for state in states {
            let label = StateLabel { receiver: receiver.to_owned(), state };
            self.receiver_state.remove(&label);
        }
        let label = ReceiverLabel::new(receiver);
        for gauge in [
            &self.dead_letters_kept,
            &self.dead_letter_bytes,
            &self.in_flight,
            &self.parked,
            &self.waiting_agents,
            &self.live_browsers,
        ] {
            gauge.remove(&label);
        }
    }

    /// Shows no more how far a receiver is in data types that are not mapped to it any more.
    pub fn forget_mapping(&self, receiver: &str, types: &[String]) {
        for data_type in types {
            let label = ReceiverTypeLabel { receiver: receiver.to_owned(), r#type: data_type.clone() };
            self.backlog_bytes.remove(&label);
            self.blocks.remove(&label);
            self.lag_messages.remove(&label);
            self.lag_seconds.remove(&label);
        }
    }

    /// All numbers at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let new = registry.sub_registry_with_prefix("wharf");
        let build: Family<BuildLabel, Gauge> =
            family(new, "build_info", "Always 1, with the version of the server");
        build.get_or_create(&BuildLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        let refused = family(new, "calls_refused", "Calls and frames refused, by code");
        for code in Code::ALL {
            // Each begins at 0, so that a rate can be told from the first one on.
            drop(refused.get_or_create(&CodeLabel { code: code.as_str() }));
        }
        let acknowledgement_seconds = Histogram::new(SECONDS);
        new.register(
            "acknowledgement_seconds",
            "Time from when a frame with messages was submitted until its answer was known",
            acknowledgement_seconds.clone(),
        );
        let guests = Guests::default();
        new.register_collector(Box::new(guests.clone()));
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
            acknowledgement_seconds,
            repeated: family(new, "messages_repeated", "Messages acknowledged that were stored before"),
            message_ids: family(new, "message_ids", "Ids of stored messages that are remembered"),
            agents: agents(new),
            refused,
            log: LogNumbers::new(new),
            handled: family(new, "messages_handled", "Messages finished by a receiver"),
            batch_messages: histograms(
                new,
                "receiver_batch_messages",
                "Messages of each batch that a receiver was given",
                || Histogram::new(COUNTS),
            ),
            call_seconds: seconds(new, "receiver_call_seconds", "How long a receiver took over each batch"),
            faults: family(new, "receiver_faults", "Calls of a receiver that ended in a fault, by kind"),
            receiver_state: family(new, "receiver_state", "1 for the state that a receiver is in"),
            retried: family(new, "messages_retried", "Messages that a receiver asked to get again"),
            dead_letters: family(
                new,
                "receiver_dead_letters",
                "Messages that became dead letters of a receiver, by kind",
            ),
            dead_letters_kept: family(
                new,
                "receiver_dead_letters_kept",
                "Dead letters of a receiver that are kept",
            ),
            dead_letter_bytes: family(
                new,
                "receiver_dead_letter_bytes",
                "Bytes of the dead letters of a receiver",
            ),
            dropped: family(
                new,
                "receiver_messages_dropped",
                "Messages that a receiver will not get and a gap record tells of, by reason",
            ),
            backlog_bytes: family(
                new,
                "receiver_backlog_bytes",
                "Bytes of a data type that a receiver has not finished",
            ),
            blocks: family(
                new,
                "receiver_blocks_type",
                "1 while a data type takes no messages because the backlog of a receiver is at its bound",
            ),
            lost: family(new, "offsets_lost", "Offsets that could not be served to a receiver"),
            in_flight: family(
                new,
                "receiver_in_flight_messages",
                "Messages that were given to a receiver and are to be given again",
            ),
            parked: family(
                new,
                "receiver_parked_messages",
                "Messages that wait behind one of their agent that is to be given again",
            ),
            waiting_agents: family(
                new,
                "receiver_waiting_agents",
                "Agents one of whose messages is to be given to a receiver again",
            ),
            lag_messages: family(
                new,
                "receiver_lag_messages",
                "Offsets between the slowest lane of a receiver and the end of a data type's log",
            ),
            lag_seconds: family(
                new,
                "receiver_lag_seconds",
                "Age of the oldest message of a data type that a receiver has not finished",
            ),
            instances_started: family(new, "instances_started", "Instances made of a receiver's component"),
            live_browsers: family(new, "live_browsers", "Browsers connected to a receiver's live updates"),
            swaps: SwapNumbers::new(new),
            guests,
            registry,
        }
    }

    /// All numbers as text. Looks at what the process uses, which reads some files that are no files of a disk.
    pub fn render(&self, format: Format) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(format.of_openmetrics(text))
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

/// A new family of durations.
fn seconds<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Histogram>
where
    Family<L, Histogram>: Clone + Metric,
    L: Clone + Eq + std::hash::Hash,
{
    histograms(registry, name, help, || Histogram::new(SECONDS))
}

/// A new family of histograms, each of which is made in the same way.
fn histograms<L>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    make: fn() -> Histogram,
) -> Family<L, Histogram>
where
    Family<L, Histogram>: Clone + Metric,
    L: Clone + Eq + std::hash::Hash,
{
    let family = Family::new_with_constructor(make);
    registry.register(name, help, family.clone());
    family
}

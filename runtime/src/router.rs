//! Takes the calls of a frame to where they belong: messages to the topic of their type, in the order in which they came.
//!
//! A frame goes through in two steps. [`Router::submit`] puts its messages into the queues of their topics, waiting a
//! little for room, or for the topic's [gate](Gate) to open; the [`Submitted`] frame gives its answer when they are as durable as their types say. So a connection
//! can submit frame after frame, in order, and answer each when its time comes. The router knows no socket and no receiver.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio_util::sync::CancellationToken;
use wharf_log::AppendError;
use wharf_protocol::{Answer, Call, Frame, Message, Reference, Refusal, Request};

use crate::dedup::Dedup;
use crate::gate::Gate;
use crate::presence::clock::Connection;
use crate::presence::{Presence, TopicIndex};
use crate::telemetry::{CodeLabel, Metrics, TypeLabel};
use crate::unix_time::unix_milliseconds;
use group::{Append, Group};

mod group;

/// What a client that was refused for want of room is asked to wait before it tries again: a few group commits, in which
/// a queue that was full of ordinary traffic has drained.
pub const RETRY_AFTER_MS: u64 = 200;
/// The same for a topic that is shut: its receivers have to work off some of what they have.
const SHUT_RETRY_AFTER_MS: u64 = 1_000;
/// The token that a `session` call gets while accounts are off. It is never checked; clients that begin with `session`
/// work unchanged.
const NO_ACCOUNT_TOKEN: &str = "accounts-are-off";

/// The way from a frontend into the log.
#[derive(Debug)]
pub struct Router {
    /// Replaced as a whole, so that whoever has them waits for nobody.
    routes: RwLock<Arc<Routes>>,
    presence: Arc<Presence>,
    append_wait: Duration,
    stop: CancellationToken,
    refused: Family<CodeLabel, Counter>,
    acknowledgement_seconds: Histogram,
}

/// The ways of messages, by data type.
type Routes = HashMap<String, Arc<Route>>;

#[derive(Debug)]
struct Route {
    topic: TopicIndex,
    gate: Gate,
    /// If ids are remembered there.
    dedup: Option<Arc<Dedup>>,
    counters: Arc<Counters>,
}

/// What is counted of one data type.
#[derive(Debug)]
struct Counters {
    accepted: Counter,
    accepted_bytes: Counter,
    repeated: Counter,
}

impl Route {
    fn new(name: &str, topic: TopicIndex, gate: Gate, dedup: Option<Arc<Dedup>>, metrics: &Metrics) -> Route {
        let label = TypeLabel { r#type: name.to_owned() };
        let counters = Arc::new(Counters {
            accepted: metrics.accepted.get_or_create_owned(&label),
            accepted_bytes: metrics.accepted_bytes.get_or_create_owned(&label),
            repeated: metrics.repeated.get_or_create_owned(&label),
        });
        Route { topic, gate, dedup, counters }
    }
}

impl Router {
    /// A router to the topics that presence knows, by their `gates`: a topic without one is always open; and with the ids that
    /// some of them remember. From the moment `stop` is cancelled it refuses every call with `shutting_down`; `append_wait` is how
    /// long a message may wait for its topic's gate and for room in its queue.
    pub fn new(
        presence: Arc<Presence>,
        gates: &HashMap<String, Gate>,
        dedup: &HashMap<String, Arc<Dedup>>,
        append_wait: Duration,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Router {
        let route = |(topic, name): (TopicIndex, &str)| {
            let gate = gates.get(name).cloned().unwrap_or_default();
            let dedup = dedup.get(name).cloned();
            (name.to_owned(), Arc::new(Route::new(name, topic, gate, dedup, metrics)))
        };
        let routes = RwLock::new(Arc::new(presence.topics().enumerate().map(route).collect()));
        Router {
            routes,
            presence,
            append_wait,
            stop,
            refused: metrics.refused.clone(),
            acknowledgement_seconds: metrics.acknowledgement_seconds.clone(),
        }
    }

    /// Lets messages of one more data type through, whose topic presence knows. Frames that are on their way do not notice.
    pub fn add(
        &self,
        name: &str,
        topic: TopicIndex,
        gate: Gate,
        dedup: Option<Arc<Dedup>>,
        metrics: &Metrics,
    ) {
        let route = Arc::new(Route::new(name, topic, gate, dedup, metrics));
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let mut more = Routes::clone(&routes);
        more.insert(name.to_owned(), route);
        *routes = Arc::new(more);
    }

    fn routes(&self) -> Arc<Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts the messages of a frame into the queues of their topics, behind those of every frame submitted before. Its calls
    /// are signs of life on this connection, whose clock is to stand still meanwhile.
    pub async fn submit(&self, frame: Frame, connection: &Connection) -> Submitted {
        let (reference, single, requests) = match frame {
            Frame::One { reference, request } => (reference, true, vec![request]),
            Frame::Batch { reference, requests } => (reference, false, requests),
        };
        let mut submitted = Submitted {
            reference,
            single,
            calls: requests.len(),
            token: None,
            refusals: Vec::new(),
            appends: Vec::new(),
            refused: self.refused.clone(),
            since: Instant::now(),
            acknowledgement_seconds: self.acknowledgement_seconds.clone(),
            stop: self.stop.clone(),
        };
        let stopping = self.stop.is_cancelled();
        let received_at = unix_milliseconds();
        let deadline = submitted.since + self.append_wait;
        let routes = self.routes();
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (index, request) in requests.into_iter().enumerate() {
            let request = if stopping { Err(Refusal::shutting_down()) } else { request };
            match request {
                Ok(Request { call: Call::Data(message), .. }) => match routes.get(&message.data_type) {
                    Some(route) => add_to_group(&mut groups, route, index, message, received_at),
                    None => {
                        self.presence.ping(&message.agent, connection);
                        let refusal = Refusal::unknown_type(&message.data_type, self.presence.topics());
                        submitted.refusals.push((index, refusal));
                    }
                },
                Ok(Request { call: Call::Session { .. }, .. }) => {
                    submitted.token = Some(NO_ACCOUNT_TOKEN.to_owned());
                }
                Ok(Request { call: Call::Ping { agent }, .. }) => self.presence.ping(&agent, connection),
                Ok(Request { call: Call::Bye { agent }, .. }) => {
                    // It comes after the messages before it, and before those after it.
                    let groups = std::mem::take(&mut groups);
                    self.enqueue(groups, connection, deadline, &mut submitted.appends).await;
                    self.presence.bye(&agent);
                }
                Err(refusal) => submitted.refusals.push((index, refusal)),
            }
        }
        self.enqueue(groups, connection, deadline, &mut submitted.appends).await;
        submitted
    }

    /// Those whose gate is shut come last, so that nothing else of the frame waits for it.
    async fn enqueue(
        &self,
        mut groups: Vec<Group<'_>>,
        connection: &Connection,
        deadline: Instant,
        appends: &mut Vec<Append>,
    ) {
        groups.sort_by_cached_key(|group| !group.is_open());
        for group in groups {
            appends.push(group.enqueue(self, connection, deadline).await);
        }
    }

    /// What a frame that could not even be decoded is answered.
    pub fn refuse(&self, reference: Option<Reference>, refusal: Refusal) -> Answer {
        count(&self.refused, &refusal);
        Answer::Error { reference, refusal }
    }
}

fn add_to_group<'r>(
    groups: &mut Vec<Group<'r>>,
    route: &'r Route,
    index: usize,
    message: Message,
    received_at: u64,
) {
    // Few types in a frame, most often one: a search is cheaper than a map.
    let at = groups.iter().position(|group| group.goes(route));
    let group = match at.and_then(|at| groups.get_mut(at)) {
        Some(group) => group,
        None => groups.push_mut(Group::new(route)),
    };
    group.add(index, message, received_at);
}

/// A frame whose messages are on their way into the log.
#[must_use = "the frame is owed its answer"]
pub struct Submitted {
    reference: Option<Reference>,
    single: bool,
    calls: usize,
    token: Option<String>,
    refusals: Vec<(usize, Refusal)>,
    appends: Vec<Append>,
    refused: Family<CodeLabel, Counter>,
    since: Instant,
    acknowledgement_seconds: Histogram,
    stop: CancellationToken,
}

/// Why messages are not stored.
enum NotStored {
    /// The topic takes no new ones at the moment.
    Shut,
    Failed(AppendError),
}

impl Submitted {
    /// Bytes that are kept for the answer, for calls that are refused already.
    pub fn refused_bytes(&self) -> usize {
        let bytes = |(_, refusal): &(usize, Refusal)| {
            size_of::<(usize, Refusal)>().saturating_add(refusal.message.len())
        };
        self.refusals.iter().map(bytes).fold(0, usize::saturating_add)
    }

    /// The answer, once every message of the frame is as durable as its type says, or refused.
    pub async fn answer(self) -> Answer {
        let Submitted {
            reference,
            single,
            calls,
            token,
            mut refusals,
            appends,
            refused,
            since,
            acknowledgement_seconds,
            stop,
        } = self;
        let has_messages = !appends.is_empty();
        for append in appends {
            let outcome = match append.queued {
                Ok(queued) => queued.stored().await.map_err(NotStored::Failed),
                Err(error) => Err(error),
            };
            let mut repeated = append.repeated;
            let mut refuse = |calls: Vec<usize>, not_stored| {
                let refusal = refusal_of(&not_stored, stop.is_cancelled());
                refusals.extend(calls.into_iter().map(|call| (call, refusal.clone())));
            };
            match outcome {
                Ok(()) => {
                    append.counters.accepted.inc_by(number(append.messages));
                    append.counters.accepted_bytes.inc_by(number(append.body_bytes));
                    repeated = repeated.saturating_add(append.calls.len().saturating_sub(append.messages));
                }
                Err(not_stored) => refuse(append.calls, not_stored),
            }
            for (calls, storing) in append.repeating {
                match storing.await {
                    Ok(()) => repeated = repeated.saturating_add(calls.len()),
                    Err(error) => refuse(calls, NotStored::Failed(error)),
                }
            }
            append.counters.repeated.inc_by(number(repeated));
        }
        if has_messages {
            acknowledgement_seconds.observe(since.elapsed().as_secs_f64());
        }
        for (_, refusal) in &refusals {
            count(&refused, refusal);
        }
        if single {
            return match refusals.pop() {
                Some((_, refusal)) => Answer::Error { reference, refusal },
                None => Answer::Success { reference, token },
            };
        }
        refusals.sort_by_key(|(index, _)| *index);
        let accepted = number(calls.saturating_sub(refusals.len()));
        Answer::Batch { reference, accepted, errors: refusals }
    }
}

fn refusal_of(not_stored: &NotStored, stopping: bool) -> Refusal {
    match not_stored {
        NotStored::Shut if stopping => Refusal::shutting_down(),
        NotStored::Shut => Refusal {
            message: format!(
                "as many messages of this type as may wait to be handled do so, retry in {SHUT_RETRY_AFTER_MS} ms"
            ),
            ..Refusal::overloaded(SHUT_RETRY_AFTER_MS)
        },
        NotStored::Failed(error) => not_appended(error, stopping),
    }
}

fn not_appended(error: &AppendError, stopping: bool) -> Refusal {
    match error {
        AppendError::Overloaded { .. } => Refusal::overloaded(RETRY_AFTER_MS),
        AppendError::Full => Refusal {
            message: "the disk of the server is full; send it again later".to_owned(),
            ..Refusal::overloaded(RETRY_AFTER_MS)
        },
        AppendError::Closed { .. } if stopping => Refusal::shutting_down(),
        AppendError::Closed { topic } => {
            tracing::error!(log.topic = topic, "the writer of a topic has ended; start the server again");
            Refusal::internal()
        }
        AppendError::TooLarge { .. } => Refusal::too_large(error.to_string()),
        AppendError::Io(source) => {
            // What failed is for the operator; the agent learns that it was not stored.
            tracing::error!(%source, "failed to store messages");
            Refusal::internal()
        }
    }
}

/// A count as counters take it.
fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn count(refused: &Family<CodeLabel, Counter>, refusal: &Refusal) {
    refused.get_or_create(&CodeLabel { code: refusal.code.as_str() }).inc();
}

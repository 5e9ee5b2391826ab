//! Takes the calls of a frame to where they belong: messages to the topic of their type, in the order in which they came.
//!
//! A frame goes through in two steps. [`Router::submit`] puts its messages into the queues of their topics, waiting a
//! little for room; the [`Submitted`] frame gives its answer when they are as durable as their types say. So a connection
//! can submit frame after frame, in order, and answer each when its time comes. The router knows no socket and no receiver.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio_util::sync::CancellationToken;
use wharf_log::{AppendError, Lane, Pending, Topic};
use wharf_protocol::{Answer, Call, Frame, Message, Record, Reference, Refusal, Request, StoredMessage};

use crate::telemetry::{CodeLabel, Metrics, TypeLabel};

/// What a client that was refused for want of room is asked to wait before it tries again: a few group commits, in which
/// a queue that was full of ordinary traffic has drained.
const RETRY_AFTER_MS: u64 = 200;
/// The token that a `session` call gets while accounts are off. It is never checked; clients that begin with `session`
/// work unchanged.
const NO_ACCOUNT_TOKEN: &str = "accounts-are-off";

/// The way from a frontend into the log.
#[derive(Debug)]
pub struct Router {
    routes: HashMap<String, Route>,
    names: Vec<String>,
    append_wait: Duration,
    stop: CancellationToken,
    refused: Family<CodeLabel, Counter>,
}

#[derive(Debug)]
struct Route {
    topic: Topic,
    accepted: Counter,
    accepted_bytes: Counter,
}

impl Router {
    /// A router for these topics, by the name of their data type. From the moment `stop` is cancelled it refuses every call
    /// with `shutting_down`; `append_wait` is how long a message may wait for room in its topic's queue.
    pub fn new(
        topics: Vec<(String, Topic)>,
        append_wait: Duration,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Router {
        let names = topics.iter().map(|(name, _)| name.clone()).collect();
        let routes = topics
            .into_iter()
            .map(|(name, topic)| {
                let label = TypeLabel { r#type: name.clone() };
                let route = Route {
                    topic,
                    accepted: metrics.accepted.get_or_create_owned(&label),
                    accepted_bytes: metrics.accepted_bytes.get_or_create_owned(&label),
                };
                (name, route)
            })
            .collect();
        Router { routes, names, append_wait, stop, refused: metrics.refused.clone() }
    }

    /// Puts the messages of a frame into the queues of their topics, behind those of every frame submitted before.
    pub async fn submit(&self, frame: Frame) -> Submitted {
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
            stop: self.stop.clone(),
        };
        let stopping = self.stop.is_cancelled();
        let received_at = unix_milliseconds();
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (index, request) in requests.into_iter().enumerate() {
            let request = if stopping { Err(Refusal::shutting_down()) } else { request };
            match request {
                Ok(Request { call: Call::Data(message), .. }) => {
                    if let Err(refusal) = self.group(&mut groups, index, message, received_at) {
                        submitted.refusals.push((index, refusal));
                    }
                }
                Ok(Request { call: Call::Session { .. }, .. }) => {
                    submitted.token = Some(NO_ACCOUNT_TOKEN.to_owned());
                }
                Ok(Request { call: Call::Ping { .. } | Call::Bye { .. }, .. }) => {}
                Err(refusal) => submitted.refusals.push((index, refusal)),
            }
        }
        let deadline = Instant::now() + self.append_wait;
        for group in groups {
            let wait = deadline.saturating_duration_since(Instant::now());
            submitted.appends.push(group.enqueue(wait).await);
        }
        submitted
    }

    /// What a frame that could not even be decoded is answered.
    pub fn refuse(&self, reference: Option<Reference>, refusal: Refusal) -> Answer {
        count(&self.refused, &refusal);
        Answer::Error { reference, refusal }
    }

    fn group<'a>(
        &'a self,
        groups: &mut Vec<Group<'a>>,
        index: usize,
        message: Message,
        received_at: u64,
    ) -> Result<(), Refusal> {
        let Some(route) = self.routes.get(&message.data_type) else {
            return Err(Refusal::unknown_type(&message.data_type, self.names.iter().map(String::as_str)));
        };
        // Few types in a frame, most often one: a search is cheaper than a map.
        let at = groups.iter().position(|group| std::ptr::eq(group.route, route));
        let group = match at.and_then(|at| groups.get_mut(at)) {
            Some(group) => group,
            None => groups.push_mut(Group::new(route)),
        };
        group.add(index, message, received_at);
        Ok(())
    }
}

/// The messages of one frame that go to one topic.
struct Group<'a> {
    route: &'a Route,
    indices: Vec<usize>,
    records: Vec<wharf_log::Record>,
    body_bytes: u64,
}

impl<'a> Group<'a> {
    fn new(route: &'a Route) -> Group<'a> {
        Group { route, indices: Vec::new(), records: Vec::new(), body_bytes: 0 }
    }

    fn add(&mut self, index: usize, message: Message, received_at: u64) {
        let lane = Lane::of(message.agent.as_str());
        self.body_bytes =
            self.body_bytes.saturating_add(u64::try_from(message.body.bytes().len()).unwrap_or(u64::MAX));
        let record = Record::Message(StoredMessage {
            agent: message.agent,
            received_at,
            message_id: message.message_id,
            sent_at: message.sent_at,
            user: None,
            traceparent: message.traceparent,
            body: message.body,
        });
        self.indices.push(index);
        self.records.push(wharf_log::Record { lane, time: received_at, payload: record.encode().into() });
    }

    async fn enqueue(self, wait: Duration) -> Append {
        let Route { topic, accepted, accepted_bytes } = self.route;
        Append {
            indices: self.indices,
            queued: topic.enqueue(self.records, wait).await,
            accepted: accepted.clone(),
            accepted_bytes: accepted_bytes.clone(),
            body_bytes: self.body_bytes,
        }
    }
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
    stop: CancellationToken,
}

struct Append {
    indices: Vec<usize>,
    queued: Result<Pending, AppendError>,
    accepted: Counter,
    accepted_bytes: Counter,
    body_bytes: u64,
}

impl Submitted {
    /// The answer, once every message of the frame is as durable as its type says, or refused.
    pub async fn answer(self) -> Answer {
        let Submitted { reference, single, calls, token, mut refusals, appends, refused, stop } = self;
        for append in appends {
            let outcome = match append.queued {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(_) => {
                    append.accepted.inc_by(u64::try_from(append.indices.len()).unwrap_or(u64::MAX));
                    append.accepted_bytes.inc_by(append.body_bytes);
                }
                Err(error) => {
                    let refusal = not_appended(&error, stop.is_cancelled());
                    refusals.extend(append.indices.into_iter().map(|index| (index, refusal.clone())));
                }
            }
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
        let accepted = u64::try_from(calls.saturating_sub(refusals.len())).unwrap_or(u64::MAX);
        Answer::Batch { reference, accepted, errors: refusals }
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

fn count(refused: &Family<CodeLabel, Counter>, refusal: &Refusal) {
    refused.get_or_create(&CodeLabel { code: refusal.code.as_str() }).inc();
}

fn unix_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! Ids over a log on the disk, through failures and restarts.

use std::sync::Arc;

use tempfile::TempDir;
use wharf_log::{Lane, LaneSet, Log, Record, TopicOptions};
use wharf_protocol::{Body, Encoding, Limits, StoredMessage};
use wharf_state::State;

use super::*;
use crate::presence::clock::Connection;
use crate::presence::{Numbers, Presence, Sender};

const WINDOW: Duration = Duration::from_secs(600);

/// A log with one topic, and its ids.
struct Site {
    dir: TempDir,
    log: Log,
    state: State,
    presence: Arc<Presence>,
    dedup: Arc<Dedup>,
    connection: Connection,
}

/// What becomes of messages.
struct Sent {
    queued: Result<Queued, AppendError>,
    repeats: Vec<Repeat>,
}

impl Site {
    fn open(dir: TempDir, max_messages: usize) -> Site {
        let log = Log::open(&dir.path().join("log"), vec![TopicOptions::new("t", Durability::Os)]).unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let topic = log.topic("t").unwrap().clone();
        let dedup = Dedup::new(topic.clone(), Durability::Os, WINDOW, max_messages, Gauge::default());
        let presence = Presence::new([(topic, Durability::Os)], WINDOW, 10, Numbers::default());
        let connection = Connection::new(Instant::now());
        Site { dir, log, state, presence: Arc::new(presence), dedup: Arc::new(dedup), connection }
    }

    fn new() -> Site {
        Site::open(tempfile::tempdir().unwrap(), 100)
    }

    /// Ends as a crash would, and begins again with nothing read back.
    fn crash(self, max_messages: usize) -> Site {
        let Site { dir, log, state, presence, dedup, connection } = self;
        drop((log, state, presence, dedup, connection));
        Site::open(dir, max_messages)
    }

    fn topic(&self) -> &Topic {
        self.log.topic("t").unwrap()
    }

    /// Messages of the agent `a`, accepted at that time.
    async fn put(&self, ids: &[&str], received_at: u64) -> Sent {
        let agent = AgentId::new("a").unwrap();
        let identified = |(place, id): (usize, &&str)| Identified { place, key: self.dedup.key(&agent, id) };
        let identified: Vec<_> = ids.iter().enumerate().map(identified).collect();
        let records: Vec<_> = ids.iter().map(|id| record(&agent, Some(id), received_at)).collect();
        let senders = [Sender { agent, first: 0 }];
        let room = self.presence.reserve(0, &records, &senders, &self.connection, WINDOW).await.unwrap();
        let (queued, repeats) = self.dedup.append(&identified, |repeats| {
            let is_repeat = |place| repeats.iter().any(|repeat| repeat.place == place);
            let records: Vec<_> = (0..).zip(records).filter(|(place, _)| !is_repeat(*place)).collect();
            let records = records.into_iter().map(|(_, record)| record).collect();
            self.presence.enqueue(0, room, records, &senders, &self.connection)
        });
        Sent { queued, repeats }
    }

    /// Whether each of these messages is new, once all are stored.
    async fn send(&self, ids: &[&str]) -> Vec<bool> {
        let sent = self.put(ids, unix_now()).await;
        let is_new = |place| sent.repeats.iter().all(|repeat| repeat.place != place);
        let new = (0..ids.len()).map(is_new).collect();
        sent.outcome().await.unwrap();
        new
    }

    /// The ids in the topic.
    async fn stored(&self) -> Vec<String> {
        let mut reader = self.topic().reader(LaneSet::ALL, 0);
        let mut stored = Vec::new();
        while reader.position() < self.topic().end() {
            for entry in reader.next(usize::MAX, usize::MAX).await.unwrap().entries {
                if let Ok(wharf_protocol::Record::Message(message)) =
                    wharf_protocol::Record::decode(entry.payload)
                {
                    stored.extend(message.message_id);
                }
            }
        }
        stored
    }
}

impl Sent {
    async fn outcome(self) -> Result<(), AppendError> {
        for repeat in self.repeats {
            if let First::Storing(storing) = repeat.first {
                storing.await?;
            }
        }
        self.queued?.stored().await
    }
}

fn record(agent: &AgentId, id: Option<&str>, received_at: u64) -> Record {
    let body = Body::new(Encoding::Json, "{}".into(), &Limits::default()).unwrap();
    let message = StoredMessage {
        agent: agent.clone(),
        received_at,
        message_id: id.map(str::to_owned),
        sent_at: None,
        user: None,
        traceparent: None,
        body,
    };
    let payload = wharf_protocol::Record::Message(message).encode().into();
    Record { lane: Lane::of(agent.as_str()), time: received_at, payload }
}

fn unix_now() -> u64 {
    crate::unix_time::unix_milliseconds()
}

#[test]
fn keys_differ_by_agent_by_id_and_by_where_one_ends() {
    let site = Site::new();
    let key = |agent: &str, id: &str| site.dedup.key(&AgentId::new(agent).unwrap(), id);
    assert_eq!(key("a", "b"), key("a", "b"));
    let keys = [key("a", "b"), key("b", "a"), key("ab", "c"), key("a", "bc"), key("a", "c")];
    for (at, one) in keys.iter().enumerate() {
        assert_ne!(one.0, one.1);
        assert!(keys[at + 1..].iter().all(|other| other != one && other.0 != one.0 && other.1 != one.1));
    }
}

#[tokio::test]
async fn what_comes_again_is_answered_and_stored_once() {
    let site = Site::new();
    assert_eq!(site.send(&["1", "2", "1"]).await, [true, true, false]);
    assert_eq!(site.send(&["2", "3"]).await, [false, true]);
    assert_eq!(site.send(&["3", "1"]).await, [false, false]);
    assert_eq!(site.stored().await, ["1", "2", "3"]);
}

#[tokio::test]
async fn what_comes_again_while_the_first_is_being_stored_is_known_although_nobody_waits_for_that() {
    let site = Site::new();
    // The connection ends at once.
    drop(site.put(&["1"], unix_now()).await);
    assert_eq!(site.send(&["1", "2"]).await, [false, true]);
    assert_eq!(site.stored().await, ["1", "2"]);
}

#[tokio::test]
async fn what_could_not_be_stored_may_be_sent_again() {
    let site = Site::new();
    assert_eq!(site.send(&["0"]).await, [true]);
    site.log.set_reserve(u64::MAX);
    let first = site.put(&["1"], unix_now()).await;
    let second = site.put(&["1", "0"], unix_now()).await;
    assert!(matches!(second.outcome().await, Err(AppendError::Full)), "no message can be stored now");
    assert!(matches!(first.outcome().await, Err(AppendError::Full)));
    site.log.set_reserve(0);
    assert_eq!(site.send(&["1", "0"]).await, [true, false]);
    assert_eq!(site.send(&["1"]).await, [false]);
    assert_eq!(site.stored().await, ["0", "1"]);
}

#[tokio::test]
async fn what_could_not_be_put_into_the_queue_may_be_sent_again() {
    let site = Site::new();
    let agent = AgentId::new("a").unwrap();
    let identified = [Identified { place: 0, key: site.dedup.key(&agent, "1") }];
    let (queued, repeats) = site.dedup.append(&identified, |repeats| {
        assert!(repeats.is_empty());
        Err(AppendError::Closed { topic: "t".to_owned() })
    });
    assert!(queued.is_err() && repeats.is_empty());
    assert_eq!(site.send(&["1"]).await, [true]);
}

#[tokio::test]
async fn ids_are_read_back_after_a_crash() {
    let site = Site::new();
    let ids: Vec<String> = (0..50).map(|id| id.to_string()).collect();
    for id in &ids {
        site.send(&[id]).await;
    }
    let site = site.crash(100);
    restore(std::slice::from_ref(&site.dedup), &site.state).await.unwrap();
    assert_eq!(site.dedup.remembered.get(), 50);
    for id in &ids {
        assert_eq!(site.send(&[id]).await, [false], "{id}");
    }
    // The last ten, after another crash.
    let site = site.crash(10);
    restore(std::slice::from_ref(&site.dedup), &site.state).await.unwrap();
    let (old, last) = ids.split_at(40);
    for id in last {
        assert_eq!(site.send(&[id]).await, [false], "{id}");
    }
    assert_eq!(site.send(&[&old[39]]).await, [true]);
}

#[tokio::test]
async fn what_is_read_back_is_in_the_window() {
    let site = Site::new();
    let (now, window) = (unix_now(), milliseconds(WINDOW));
    for (id, age) in [("old", window + 1_000), ("older", window + 2_000), ("young", window / 2), ("new", 0)] {
        site.put(&[id], now - age).await.outcome().await.unwrap();
    }
    let site = site.crash(100);
    assert!(site.dedup.restore(0, now).await.unwrap() >= 2);
    assert_eq!(site.send(&["young", "new", "old", "older"]).await, [false, false, true, true]);
}

#[tokio::test]
async fn an_id_that_was_used_again_after_its_window_counts_from_the_second_time() {
    let site = Site::new();
    let agent = AgentId::new("a").unwrap();
    let (now, window) = (unix_now(), milliseconds(WINDOW));
    let twice = [window + 1_000, 500].map(|age| record(&agent, Some("again"), now - age));
    // In one block, so that both are read back.
    site.topic().append(twice.to_vec(), WINDOW).await.unwrap();
    let site = site.crash(100);
    assert_eq!(site.dedup.restore(0, now).await.unwrap(), 2);
    assert_eq!(site.send(&["again"]).await, [false]);
}

#[tokio::test]
async fn what_need_not_be_read_back_is_not() {
    let site = Site::new();
    let agent = AgentId::new("a").unwrap();
    let without_id = || (0..100).map(|_| record(&agent, None, unix_now())).collect();
    let mut saved = Vec::new();
    for ids in [&[][..], &["1"], &["2"]] {
        site.topic().append(without_id(), WINDOW).await.unwrap();
        if !ids.is_empty() {
            site.send(ids).await;
        }
        saved.push(site.dedup.settled_from());
    }
    assert_eq!(saved[0], 100, "there is no id below");
    assert!(saved[1] >= 200 && saved[1] == saved[2], "the first id is the oldest: {saved:?}");
    site.state.save_message_ids_from(&[("t".to_owned(), saved[2])]).unwrap();

    let site = site.crash(100);
    let from = site.state.message_ids_from("t").unwrap().unwrap();
    let read = site.dedup.restore(from, unix_now()).await.unwrap();
    assert!(read < 110, "{read} records were read");
    assert_eq!(site.send(&["1", "2"]).await, [false, false]);
}

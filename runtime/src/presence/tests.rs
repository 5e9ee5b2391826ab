use std::sync::atomic::{AtomicBool, Ordering};

use rand::RngExt;
use tokio_util::sync::CancellationToken;
use wharf_log::{Log, TopicOptions};
use wharf_protocol::{Body, Encoding, Limits};
use wharf_state::State;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(7);
const SAVE_INTERVAL: Duration = Duration::from_millis(1);

/// A log with topics, the state database, and presence over them.
struct Site {
    dir: tempfile::TempDir,
    log: Log,
    state: State,
    presence: Arc<Presence>,
}

impl Site {
    async fn open(dir: tempfile::TempDir, durability: Durability) -> Site {
        Site::open_with(dir, durability, &["a", "b"]).await
    }

    async fn open_with(dir: tempfile::TempDir, durability: Durability, topics: &[&str]) -> Site {
        let options = topics.iter().map(|name| TopicOptions::new(*name, durability));
        let log = Log::open(&dir.path().join("log"), options.collect()).unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let topics = topics.iter().map(|name| (log.topic(name).unwrap().clone(), durability));
        let presence = Arc::new(Presence::new(topics, TIMEOUT, 100, Numbers::default()));
        presence.restore(state.clone()).await.unwrap();
        Site { dir, log, state, presence }
    }

    async fn new() -> Site {
        Site::open(tempfile::tempdir().unwrap(), Durability::Os).await
    }

    /// Ends as a crash would: nothing is saved, and the log is not closed.
    async fn crash(self) -> Site {
        let Site { dir, log, state, presence } = self;
        drop((presence, log, state));
        Site::open(dir, Durability::Os).await
    }

    /// Ends in an orderly way.
    async fn stop(self) -> tempfile::TempDir {
        let shutdown = CancellationToken::new();
        let keeper = self.presence.start(self.state.clone(), SAVE_INTERVAL, shutdown.clone());
        shutdown.cancel();
        self.log.close().await;
        keeper.stop().await;
        self.dir
    }

    fn topic(&self, name: &str) -> &Topic {
        self.log.topic(name).unwrap()
    }

    /// All room in the queue of the first topic, as if it were full.
    async fn all_room(&self) -> wharf_log::Room<'_> {
        let room = self.topic("a").reserve(TopicOptions::QUEUE_BYTES, Duration::from_secs(60)).await;
        room.unwrap()
    }

    /// What lies in a topic: `+` and `-` for an agent that came and went, its id alone for a message.
    async fn told(&self, name: &str) -> Vec<String> {
        // An append is answered after everything enqueued before it.
        let mark = Record { lane: Lane::of("mark"), time: 0, payload: Default::default() };
        let end = self.topic(name).append(vec![mark], Duration::from_secs(60)).await.unwrap().start;
        let mut reader = self.topic(name).reader(LaneSet::ALL, 0);
        let mut told = Vec::new();
        while reader.position() < end {
            for entry in reader.next(usize::MAX, usize::MAX).await.unwrap().entries {
                match wharf_protocol::Record::decode(entry.payload) {
                    Ok(wharf_protocol::Record::Message(message)) => told.push(message.agent.to_string()),
                    Ok(wharf_protocol::Record::Presence(change)) => {
                        told.push(format!("{}{}", if change.active { '+' } else { '-' }, change.agent));
                    }
                    Err(_) => {}
                }
            }
        }
        told
    }

    async fn send(&self, topic: TopicIndex, agents: &[&str], connection: &Connection) {
        send(&self.presence, topic, agents, connection).await;
    }
}

async fn send(presence: &Arc<Presence>, topic: TopicIndex, agents: &[&str], connection: &Connection) {
    let records = agents.iter().map(|agent| message(agent)).collect();
    let senders = agents.iter().enumerate().map(|(first, id)| Sender { agent: agent(id), first });
    let senders: Vec<Sender> = senders.collect();
    let queued = append(presence, topic, records, &senders, connection, Duration::from_secs(60)).await;
    queued.unwrap().stored().await.unwrap();
}

async fn append(
    presence: &Arc<Presence>,
    topic: TopicIndex,
    records: Vec<Record>,
    senders: &[Sender],
    connection: &Connection,
    wait: Duration,
) -> Result<Queued, AppendError> {
    let room = presence.reserve(topic, &records, senders, connection, wait).await?;
    presence.enqueue(topic, room, records, senders, connection)
}

fn agent(id: &str) -> AgentId {
    AgentId::new(id).unwrap()
}

fn message(id: &str) -> Record {
    let message = wharf_protocol::StoredMessage {
        agent: agent(id),
        received_at: 1,
        message_id: None,
        sent_at: None,
        user: None,
        traceparent: None,
        body: Body::new(Encoding::Json, "{}".into(), &Limits { max_depth: 1, max_calls: 1 }).unwrap(),
    };
    let payload = wharf_protocol::Record::Message(message).encode().into();
    Record { lane: Lane::of(id), time: 1, payload }
}

#[tokio::test]
async fn changes_lie_in_order_with_the_messages() {
    let site = Site::new().await;
    let connection = Connection::new(Instant::now());
    site.send(0, &["x", "y", "x", "x"], &connection).await;
    site.send(1, &["x"], &connection).await;
    site.presence.bye(&agent("x"));
    site.presence.bye(&agent("stranger"));
    site.send(0, &["y", "x"], &connection).await;
    site.presence.bye(&agent("x"));
    site.presence.ping(&agent("x"), &connection);
    assert_eq!(site.told("a").await, ["+x", "x", "+y", "y", "x", "x", "-x", "y", "+x", "x", "-x", "+x"]);
    assert_eq!(site.told("b").await, ["+x", "x", "-x", "+x", "-x", "+x"], "also where it sent nothing since");
    assert_eq!(site.presence.counts(), (2, 2));
}

#[tokio::test]
async fn what_has_no_room_is_told_with_the_next_sweep() {
    let site = Site::new().await;
    let connection = Connection::new(Instant::now());
    site.send(0, &["x"], &connection).await;
    let room = site.all_room().await;
    site.presence.bye(&agent("x"));
    site.presence.sweep(Instant::now(), true).await;
    drop(room);
    assert_eq!(site.told("a").await, ["+x", "x"]);
    site.presence.sweep(Instant::now(), true).await;
    assert_eq!(site.told("a").await, ["+x", "x", "-x"]);
}

#[tokio::test]
async fn what_is_not_known_to_be_stored_is_told_again() {
    let site = Site::new().await;
    let connection = Connection::new(Instant::now());
    let sender = Sender { agent: agent("x"), first: 0 };
    let queued = append(&site.presence, 0, vec![message("x")], &[sender], &connection, Duration::ZERO).await;
    // The connection ended before its answer.
    drop(queued.unwrap());
    site.presence.sweep(Instant::now(), true).await;
    site.presence.sweep(Instant::now(), true).await;
    assert_eq!(site.told("a").await, ["+x", "x", "+x"]);
}

#[tokio::test]
async fn a_message_that_waits_for_room_keeps_its_agent_active() {
    let site = Site::new().await;
    let now = Instant::now();
    let (first, second) = (Connection::new(now), Connection::new(now));
    first.reading(now);
    site.send(0, &["x"], &first).await;
    let room = site.all_room().await;
    let sending = site.send(0, &["x"], &second);
    let mut sending = std::pin::pin!(sending);
    assert!(futures_util::poll!(sending.as_mut()).is_pending());
    site.presence.sweep(now + 9 * TIMEOUT, false).await;
    assert_eq!(site.presence.counts(), (1, 1), "its message lies unread");
    drop(room);
    sending.await;
    assert_eq!(site.told("a").await, ["+x", "x", "x"]);
}

#[tokio::test]
async fn a_crash_loses_no_change() {
    let site = Site::new().await;
    let connection = Connection::new(Instant::now());
    site.send(0, &["gone", "there"], &connection).await;
    site.send(1, &["there"], &connection).await;
    site.presence.bye(&agent("gone"));
    site.told("a").await;

    // Nothing was ever saved: all comes from the topics.
    let site = site.crash().await;
    assert_eq!(site.presence.counts(), (1, 2));
    site.presence.sweep(Instant::now() + 9 * TIMEOUT, false).await;
    assert_eq!(site.presence.counts(), (1, 2), "nobody expires before the server listens");
    let keeper = site.presence.start(site.state.clone(), SAVE_INTERVAL, CancellationToken::new());
    site.presence.sweep(Instant::now(), false).await;
    assert_eq!(site.presence.counts(), (1, 2), "held for one time-out");
    site.presence.sweep(Instant::now() + TIMEOUT, false).await;
    assert_eq!(site.presence.counts(), (0, 2));
    assert_eq!(site.told("a").await, ["+gone", "gone", "+there", "there", "-gone", "-there"]);
    assert_eq!(site.told("b").await, ["+there", "there", "-there"]);
    drop(keeper);
}

#[tokio::test]
async fn what_was_saved_is_there_after_an_orderly_stop() {
    let site = Site::new().await;
    let shutdown = CancellationToken::new();
    let keeper = site.presence.start(site.state.clone(), SAVE_INTERVAL, shutdown.clone());
    let connection = Connection::new(Instant::now());
    site.send(0, &["gone", "there"], &connection).await;
    site.presence.bye(&agent("gone"));
    site.presence.ping(&agent("pings"), &connection);
    shutdown.cancel();
    let Site { dir, log, state, presence } = site;
    let end = log.topic("a").unwrap().clone();
    log.close().await;
    keeper.stop().await;
    let known = state.agents().unwrap();
    assert!(known.reflected.contains(&("a".to_owned(), end.end())), "{known:?}");
    drop((state, presence));

    let site = Site::open(dir, Durability::Os).await;
    assert_eq!(site.presence.counts(), (2, 3));
    site.presence.sweep(Instant::now(), true).await;
    assert_eq!(site.told("a").await, ["+gone", "gone", "+there", "there", "-gone"], "all of it was told");
    site.send(0, &["gone", "there"], &connection).await;
    assert_eq!(site.told("a").await[5..], ["+gone", "gone", "there"]);
}

#[tokio::test]
async fn a_topic_that_comes_back_is_told_what_it_missed() {
    let site = Site::new().await;
    let connection = Connection::new(Instant::now());
    site.send(0, &["x"], &connection).await;
    site.send(1, &["x", "y"], &connection).await;
    let dir = site.stop().await;

    let site = Site::open_with(dir, Durability::Os, &["a"]).await;
    site.presence.bye(&agent("x"));
    site.presence.bye(&agent("y"));
    let dir = site.stop().await;

    let site = Site::open(dir, Durability::Os).await;
    assert_eq!(site.presence.counts(), (0, 2));
    site.presence.sweep(Instant::now(), true).await;
    assert_eq!(site.told("a").await, ["+x", "x", "-x"]);
    let mut told = site.told("b").await;
    told[4..].sort();
    assert_eq!(told, ["+x", "x", "+y", "y", "-x", "-y"]);
}

#[tokio::test]
async fn a_topic_that_comes_while_agents_are_there_is_told_what_it_missed() {
    let site = Site::new().await;
    let connection = Connection::new(Instant::now());
    site.send(0, &["x", "y"], &connection).await;
    site.send(1, &["x", "y"], &connection).await;
    let dir = site.stop().await;

    // A run without one of them, in which one agent is there and the other is not.
    let mut site = Site::open_with(dir, Durability::Os, &["b"]).await;
    site.presence.bye(&agent("y"));
    site.send(0, &["x"], &connection).await;
    let topic = site.log.add(TopicOptions::new("a", Durability::Os)).unwrap();
    let index = site.presence.add(topic, Durability::Os).await.unwrap();
    assert_eq!(site.presence.topics().collect::<Vec<_>>(), ["b", "a"]);
    site.presence.sweep(Instant::now(), false).await;
    assert_eq!(site.told("a").await, ["+x", "x", "+y", "y", "-y"]);
    site.send(index, &["y", "z"], &connection).await;
    assert_eq!(site.told("a").await[5..], ["+y", "y", "+z", "z"]);
}

#[tokio::test]
async fn a_topic_in_memory_is_told_anew_after_a_start() {
    let site = Site::open(tempfile::tempdir().unwrap(), Durability::Memory).await;
    let shutdown = CancellationToken::new();
    let keeper = site.presence.start(site.state.clone(), SAVE_INTERVAL, shutdown.clone());
    site.send(0, &["x"], &Connection::new(Instant::now())).await;
    shutdown.cancel();
    let Site { dir, log, state, presence } = site;
    log.close().await;
    keeper.stop().await;
    drop((state, presence));

    let site = Site::open(dir, Durability::Memory).await;
    assert_eq!(site.presence.counts(), (1, 1));
    site.presence.sweep(Instant::now(), true).await;
    assert_eq!(site.told("a").await, ["+x"]);
}

/// Agents on several connections each, that come and go at random while sweeps declare them inactive: whatever the order of
/// events, no message lies in a topic while its agent is inactive there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_message_of_an_inactive_agent_under_load() {
    let site = Site::new().await;
    let done = Arc::new(AtomicBool::new(false));
    let sweeper = {
        let (presence, done) = (site.presence.clone(), done.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Acquire) {
                presence.sweep(Instant::now() + TIMEOUT, false).await;
            }
        })
    };
    let senders = (0..8).map(|_| {
        let presence = site.presence.clone();
        tokio::spawn(async move {
            let connection = Connection::new(Instant::now());
            for _ in 0..400 {
                let agents: Vec<String> =
                    (0..3).map(|_| rand::rng().random_range(0..6).to_string()).collect();
                let agents: Vec<&str> = agents.iter().map(String::as_str).collect();
                connection.busy(Instant::now());
                let (what, topic) = (rand::rng().random_range(0..4), rand::rng().random_range(0..2));
                match what {
                    0 => presence.bye(&agent(agents[0])),
                    1 => presence.ping(&agent(agents[0]), &connection),
                    _ => send(&presence, topic, &agents, &connection).await,
                }
                connection.reading(Instant::now());
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    done.store(true, Ordering::Release);
    sweeper.await.unwrap();
    site.presence.sweep(Instant::now() + TIMEOUT, false).await;
    for topic in ["a", "b"] {
        let mut active = std::collections::HashSet::new();
        let told = site.told(topic).await;
        for one in &told {
            match one.split_at(1) {
                ("+", id) => assert!(active.insert(id), "{id} came twice"),
                ("-", id) => assert!(active.remove(id), "{id} went twice"),
                _ => assert!(active.contains(one.as_str()), "a message of {one}, which is inactive"),
            }
        }
        assert!(told.iter().filter(|one| one.starts_with('-')).count() > 20, "they came and went");
        assert!(active.is_empty(), "{active:?} are said to be active");
    }
}

use std::path::Path;

use wharf_log::{Durability, Lane, LaneSet, Log, Record as Stored, TopicOptions};
use wharf_protocol::{AgentId, Body, Encoding, Limits, PresenceRecord, Record, StoredMessage};
use wharf_state::{Gap, GapReason};

use super::*;

const RECEIVER: &str = "slow";
const TOPIC: &str = "metrics";
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// A topic and a receiver that is new to it.
struct Site {
    dir: tempfile::TempDir,
    log: Log,
    state: State,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Site {
    fn open(durability: Durability) -> Site {
        let dir = tempfile::tempdir().unwrap();
        // Small, so that what is read is read from files.
        let options =
            TopicOptions { tail_bytes: 1, segment_bytes: 2_000, ..TopicOptions::new(TOPIC, durability) };
        let options =
            if durability == Durability::Memory { TopicOptions::new(TOPIC, durability) } else { options };
        let log = Log::open(&dir.path().join("log"), vec![options]).unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let topic = log.topic(TOPIC).unwrap().clone();
        let feed = Feed { topic, durability, gate: Gate::new(), again_below: 0 };
        let settings = config::Receiver::new(RECEIVER.to_owned(), "r.wasm".into(), vec![TOPIC.to_owned()]);
        let progress = Arc::new(Progress::take_up(&settings, TOPIC, &feed, false, &state).unwrap());
        Site { dir, log, state, progress, stop: CancellationToken::new() }
    }

    fn topic(&self) -> &Topic {
        self.log.topic(TOPIC).unwrap()
    }

    /// Appends messages of these agents, each as a block of its own; of an agent that is named in capitals, a change of presence.
    async fn append(&self, agents: &str) {
        for agent in agents.chars() {
            let id = AgentId::new(agent.to_string()).unwrap();
            let record = if agent.is_uppercase() {
                Record::Presence(PresenceRecord { agent: id, active: true, at: 0 })
            } else {
                let text = format!("{{\"padding\":\"{}\"}}", "x".repeat(80));
                let limits = Limits { max_depth: 1, max_calls: 1 };
                let body = Body::new(Encoding::Json, text.into(), &limits).unwrap();
                let (message_id, sent_at, user, traceparent) = (None, None, None, None);
                let agent = id;
                Record::Message(StoredMessage {
                    agent,
                    received_at: 0,
                    message_id,
                    sent_at,
                    user,
                    traceparent,
                    body,
                })
            };
            let stored = Stored { lane: lane(agent), time: 0, payload: record.encode().into() };
            self.topic().append(vec![stored], LONG).await.unwrap();
        }
    }

    fn shedding(&self) -> Shedding {
        let counter = Family::default();
        Shedding::new(self.topic().clone(), self.progress.clone(), self.state.clone(), None, counter)
    }

    fn gaps(&self) -> Vec<Gap> {
        let known = self.state.gaps(RECEIVER).unwrap();
        known.topics.into_iter().flat_map(|(_, gaps)| gaps).collect()
    }

    /// The one gap record that there is: its offsets and its count.
    fn gap(&self) -> (u64, u64, u64) {
        let gaps = self.gaps();
        let [Gap { offsets, count: Some(count), reason: GapReason::Shed, .. }] = &gaps[..] else {
            panic!("one record of what was shed: {gaps:?}")
        };
        (offsets.start, offsets.end, *count)
    }
}

fn lane(agent: char) -> Lane {
    Lane::of(&agent.to_ascii_lowercase().to_string())
}

#[tokio::test]
async fn what_is_finished_already_and_changes_of_presence_are_not_counted() {
    let site = Site::open(Durability::Os);
    site.append("AaBbaabbab").await;
    // The first of `a` is not finished, which holds the others back.
    for (agent, offset) in [('b', 3), ('a', 5), ('b', 6)] {
        site.progress.finish(lane(agent), offset..offset + 1);
    }
    let left = site.topic().bytes_from(8);
    site.shedding().shed_to(left, &site.stop).await;
    // 1, 4 and 7 are lost; 0 and 2 are no messages.
    assert_eq!(site.gap(), (0, 8, 3));
    assert_eq!(site.progress.lowest(), 8);
    let saved = site.state.cursors(RECEIVER, TOPIC).unwrap().unwrap();
    assert_eq!(saved, site.progress.cursors());
    // Enough is enough.
    site.shedding().shed_to(left, &site.stop).await;
    assert_eq!(site.gap(), (0, 8, 3));
    site.shedding().shed_to(0, &site.stop).await;
    assert_eq!(site.gap(), (0, 10, 5));
}

#[tokio::test]
async fn without_its_record_no_cursor_moves() {
    let site = Site::open(Durability::Os);
    site.append("aaaa").await;
    let (topic, away) = (site.dir.path().join("log").join(TOPIC), site.dir.path().join("away"));
    std::fs::rename(&topic, &away).unwrap();
    let mut shedding = site.shedding();
    shedding.shed_to(0, &site.stop).await;
    assert_eq!((site.progress.lowest(), site.gaps()), (0, Vec::new()));
    std::fs::rename(&away, &topic).unwrap();
    shedding.shed_to(0, &site.stop).await;
    assert_eq!((site.progress.lowest(), site.gap()), (4, (0, 4, 4)));
}

#[tokio::test]
async fn what_can_not_be_read_any_more_has_a_record_of_its_own() {
    let site = Site::open(Durability::Os);
    site.append("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").await;
    let segments = || {
        let mut files: Vec<_> = files(&site.dir.path().join("log").join(TOPIC));
        files.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
        files.sort();
        files
    };
    let before = segments();
    let base = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    // The first segment is trimmed, and the second one damaged.
    let (second, third) = (base(&before[1]), base(&before[2]));
    let at_once = wharf_log::Retention { retain: Some(Duration::ZERO), retain_bytes: None };
    site.topic().trim(second, at_once).await.unwrap();
    let mut bytes = std::fs::read(&before[1]).unwrap();
    bytes[64..].fill(0);
    std::fs::write(&before[1], bytes).unwrap();
    site.shedding().shed_to(0, &site.stop).await;
    let mut gaps = site.gaps();
    gaps.sort_by_key(|gap| gap.reason.word());
    let told: Vec<_> = gaps.iter().map(|gap| (gap.reason.word(), gap.offsets.clone(), gap.count)).collect();
    assert_eq!(
        told,
        [("damaged", second..third, None), ("shed", 0..30, Some(30 - third)), ("trimmed", 0..second, None)]
    );
}

#[tokio::test]
async fn of_a_topic_in_memory_only_the_record_is_written() {
    let site = Site::open(Durability::Memory);
    site.append("aAa").await;
    site.shedding().shed_to(0, &site.stop).await;
    assert_eq!((site.progress.lowest(), site.gap()), (3, (0, 3, 2)));
    assert_eq!(site.state.cursors(RECEIVER, TOPIC).unwrap(), None);
}

#[tokio::test]
async fn what_an_operator_sets_back_meanwhile_is_not_lost_untold() {
    let site = Site::open(Durability::Os);
    site.append("aaaaaaaa").await;
    site.progress.pass(0..4);
    let mut shedding = site.shedding();
    let mut reader = site.topic().reader(LaneSet::ALL, 4);
    site.progress.set(wharf_state::Cursors::at(2));
    assert!(!shedding.shed_piece(&mut reader, 8).await.unwrap());
    assert_eq!((site.progress.lowest(), site.gaps()), (2, Vec::new()));
    shedding.shed_to(0, &site.stop).await;
    assert_eq!(site.gap(), (2, 8, 6));
}

#[tokio::test]
async fn a_gate_is_shut_while_the_backlog_is_at_its_bound() {
    let site = Site::open(Durability::Os);
    site.append("aaaaaaaaaa").await;
    let gate = Gate::new();
    let bytes = Gauge::default();
    let watched = Backlog {
        topic: site.topic().clone(),
        progress: site.progress.clone(),
        gate: gate.clone(),
        max_bytes: site.topic().bytes(),
        on_overflow: OnOverflow::Block,
        bytes: bytes.clone(),
        blocks: Gauge::default(),
        dropped: Family::default(),
    };
    let watching = tokio::spawn(watched.run(site.state.clone(), None, site.stop.clone()));
    while gate.is_open() {
        tokio::task::yield_now().await;
    }
    assert_eq!(u64::try_from(bytes.get()).unwrap(), site.topic().bytes());
    site.progress.pass(0..1);
    assert!(gate.opens(LONG).await, "a tenth is worked off");
    site.stop.cancel();
    watching.await.unwrap();
    assert_eq!(site.gaps(), []);
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

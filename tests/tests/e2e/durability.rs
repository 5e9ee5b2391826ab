//! What was acknowledged is kept and handled, in order, through kill -9 at any moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use e2e::calls::{data, data_of, success};
use e2e::{Agent, Config, Encoding, Log, Seen, Site, files, within};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;

/// How often the server is killed, or now and then stopped, under load.
const ROUNDS: u32 = 40;
/// After so many acknowledgements of a round at most, as a power of ten: some rounds end with the first messages, others
/// after many were handled and noted.
const MOST_ACKNOWLEDGED: f64 = 4.0;
/// Frames that an agent has under way.
const WINDOW: usize = 8;
/// Bytes that a body is filled with, so that several segments come about.
const PADDING: usize = 700;

/// One agent through all rounds. Its messages are numbered; none is sent twice.
#[derive(Debug)]
struct Load {
    agent: String,
    data_type: &'static str,
    encoding: Encoding,
    /// Messages in a frame; 0 for a frame that is a single call.
    batch: u64,
    next: u64,
    acknowledged: BTreeSet<u64>,
}

impl Load {
    fn all() -> Vec<Load> {
        let mut all = Vec::new();
        for data_type in ["synced", "handed"] {
            for encoding in Encoding::ALL {
                for batch in [0, 1, 20] {
                    let agent = format!("{data_type}-{encoding:?}-{batch}");
                    all.push(Load {
                        agent,
                        data_type,
                        encoding,
                        batch,
                        next: 0,
                        acknowledged: BTreeSet::new(),
                    });
                }
            }
        }
        all
    }

    fn body(&self, number: u64) -> Value {
        json!({ "number": number, "padding": char::from(b'a' + (number % 26) as u8).to_string().repeat(PADDING) })
    }

    /// The next frame and the numbers in it.
    fn frame(&mut self) -> (Value, std::ops::Range<u64>) {
        let first = self.next;
        self.next += self.batch.max(1);
        let call = |number| data_of(self.data_type, &self.agent, self.body(number));
        let frame = match self.batch {
            0 => call(first),
            _ => (first..self.next).map(call).collect(),
        };
        (frame, first..self.next)
    }

    /// Sends until the connection breaks, and counts what is acknowledged.
    async fn run(mut self, address: SocketAddr, acknowledged: Arc<watch::Sender<u64>>) -> Load {
        let Ok(mut agent) = Agent::open(address, "/agent").await else { return self };
        let mut unanswered = std::collections::VecDeque::new();
        loop {
            while unanswered.len() < WINDOW {
                let (frame, numbers) = self.frame();
                unanswered.push_back(numbers);
                let bytes = self.encoding.encode(&frame);
                if agent.try_send_bytes(self.encoding, bytes).await.is_err() {
                    return self;
                }
            }
            let Ok((_, answer)) = agent.try_answer().await else { return self };
            if answer["result"] != "success" {
                let error =
                    if answer["result"] == "partial" { &answer["errors"][0] } else { &answer["error"] };
                assert_eq!(error["code"], "shutting_down", "{answer}");
                return self;
            }
            let numbers = unanswered.pop_front().unwrap();
            acknowledged.send_modify(|count| *count += numbers.end - numbers.start);
            self.acknowledged.extend(numbers);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_and_is_handled() {
    let mut random = StdRng::seed_from_u64(9);
    let mut site = Site::new(
        Config::new()
            .set("types.synced.durability", "fsync")
            .set("types.handed.durability", "os")
            .set("log.segment-size", "1MiB")
            .receiver("recorder", &files::guest("recorder"), &["synced", "handed"])
            .set("receivers.recorder.instances", 2),
    );
    let mut loads = Load::all();
    let mut logs: Vec<Log> = Vec::new();
    for round in 0..ROUNDS {
        if round % 6 == 5 {
            // Killed while it starts: the moment is what is tried here, so it is random and not waited for.
            let starting = site.start_unawaited();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
            logs.push(starting.kill().await);
        }
        let server = site.start().await;
        // The same port from now on, as agents have it.
        site.set("listen.agents", server.agents.to_string());
        let (counter, mut acknowledged) = watch::channel(0);
        let counter = Arc::new(counter);
        let running: Vec<_> =
            loads.drain(..).map(|load| tokio::spawn(load.run(server.agents, counter.clone()))).collect();
        let enough = 10_f64.powf(random.random_range(0.0..MOST_ACKNOWLEDGED)) as u64;
        within("acknowledgements", acknowledged.wait_for(|count| *count >= enough)).await.unwrap();
        // Now and then an orderly stop in the middle of the load, which must lose as little.
        logs.push(if round % 5 == 2 { server.stop().await } else { server.kill().await });
        for load in running {
            loads.push(within("an agent to end", load).await.unwrap());
        }
    }

    let server = site.start().await;
    let mut missing: BTreeSet<(String, u64)> = loads
        .iter()
        .flat_map(|load| load.acknowledged.iter().map(|number| (load.agent.clone(), *number)))
        .collect();
    let total = missing.len();
    for seen in logs.iter().flat_map(|log| log.seen("recorder")) {
        missing.remove(&(seen.agent.clone(), number_of(&seen)));
    }
    if !missing.is_empty() {
        server
            .log
            .until("every acknowledged message to be handled", |line| {
                let seen = Seen::of_line(line, "recorder")?;
                missing.remove(&(seen.agent.clone(), number_of(&seen)));
                missing.is_empty().then_some(())
            })
            .await;
    }
    logs.push(server.stop().await);
    for data_type in ["synced", "handed"] {
        let files = std::fs::read_dir(site.topic(data_type)).unwrap().count();
        assert!(files > 4, "{data_type} has {files} files: too few to have tried segments");
    }
    assert!(total > 1_000, "{total} acknowledged messages are too few to show anything");
    check(&loads, &logs);
}

fn number_of(seen: &Seen) -> u64 {
    seen.body["number"].as_u64().unwrap_or_else(|| panic!("{seen:?} was never sent"))
}

/// Checks everything that was seen, over all runs, against what was sent.
fn check(loads: &[Load], logs: &[Log]) {
    let loads: HashMap<&str, &Load> = loads.iter().map(|load| (load.agent.as_str(), load)).collect();
    let mut at_offset: BTreeMap<(String, u64), (String, u64)> = BTreeMap::new();
    let mut offsets: BTreeMap<(String, u64), u64> = BTreeMap::new();
    let mut latest: HashMap<String, (u64, u64)> = HashMap::new();
    for seen in logs.iter().flat_map(|log| log.seen("recorder")) {
        let number = number_of(&seen);
        let load = loads.get(seen.agent.as_str()).unwrap_or_else(|| panic!("{seen:?} is of nobody"));
        assert!(number < load.next, "{seen:?} was never sent");
        assert_eq!(
            (seen.r#type.as_str(), &seen.body),
            (load.data_type, &load.body(number)),
            "{seen:?} was changed"
        );

        let message = (seen.agent.clone(), number);
        let there = at_offset.entry((seen.r#type.clone(), seen.offset)).or_insert_with(|| message.clone());
        assert_eq!(*there, message, "two messages at offset {} of {}", seen.offset, seen.r#type);
        match offsets.get(&message) {
            Some(offset) => {
                assert_eq!(seen.offset, *offset, "{seen:?} was stored once and has two offsets");
                assert_eq!(seen.redelivery, "again", "{seen:?} came before");
            }
            None => {
                offsets.insert(message, seen.offset);
                if let Some((number_before, offset_before)) =
                    latest.insert(seen.agent.clone(), (number, seen.offset))
                {
                    assert!(number_before < number, "{seen:?} came first after message {number_before}");
                    assert!(offset_before < seen.offset, "{seen:?} came first after offset {offset_before}");
                }
            }
        }
    }
    for load in loads.values() {
        for number in &load.acknowledged {
            assert!(
                offsets.contains_key(&(load.agent.clone(), *number)),
                "message {number} of {} was acknowledged and never seen",
                load.agent
            );
        }
    }
}

#[tokio::test]
async fn a_crash_repeats_what_was_not_yet_noted_and_numbers_go_on() {
    let site = Site::new(Config::new().set("state.cursor-interval", "10s").receiver(
        "recorder",
        &files::guest("recorder"),
        &["metrics"],
    ));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    for number in 0..10 {
        assert_eq!(agent.call(Encoding::Json, &data("a", json!({ "number": number }))).await, success());
    }
    let first = server.log.wait_seen("recorder", 10).await;
    assert!(first.iter().all(|seen| seen.redelivery == "none"), "{first:#?}");
    assert!(first.iter().zip(&first[1..]).all(|(one, next)| one.offset < next.offset), "{first:#?}");
    server.kill().await;

    let server = site.start().await;
    let again = server.log.wait_seen("recorder", 10).await;
    let expected: Vec<_> =
        first.iter().map(|seen| Seen { redelivery: "again".to_owned(), ..seen.clone() }).collect();
    assert_eq!(again, expected);
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({ "number": 10 }))).await, success());
    let last = server.log.wait_seen("recorder", 11).await.pop().unwrap();
    assert_eq!((last.redelivery.as_str(), &last.body), ("none", &json!({ "number": 10 })));
    assert!(last.offset > first[9].offset);
}

#[tokio::test]
async fn what_a_crash_left_to_repeat_is_still_marked_after_an_orderly_stop() {
    let recorder = files::guest("recorder");
    let mut site = Site::new(Config::new().set("state.cursor-interval", "10s").receiver(
        "recorder",
        &recorder,
        &["metrics"],
    ));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
    let first = server.log.wait_seen("recorder", 1).await;
    server.kill().await;

    // A run that can't repeat anything.
    site.change(|config| config.receiver("recorder", &files::guest("init-fails"), &["metrics"]));
    let server = site.start().await;
    server.log.wait_for(&["the database is on holiday"]).await;
    server.stop().await;

    site.change(|config| config.receiver("recorder", &recorder, &["metrics"]));
    let server = site.start().await;
    let again = server.log.wait_seen("recorder", 1).await;
    assert_eq!((again[0].offset, again[0].redelivery.as_str()), (first[0].offset, "again"));
}

#[tokio::test]
async fn what_a_run_without_new_messages_delivered_is_marked_when_it_comes_again() {
    let recorder = files::guest("recorder");
    let mut site = Site::new(Config::new().set("state.cursor-interval", "10s").receiver(
        "recorder",
        &files::guest("init-fails"),
        &["metrics"],
    ));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
    server.stop().await;

    site.change(|config| config.receiver("recorder", &recorder, &["metrics"]));
    for redelivery in ["none", "again", "again"] {
        let server = site.start().await;
        let seen = server.log.wait_seen("recorder", 1).await;
        assert_eq!(seen[0].redelivery, redelivery);
        server.kill().await;
    }
}

#[tokio::test]
async fn a_receiver_whose_cursors_are_lost_gets_everything_again() {
    let site = Site::new(Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"]));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    for number in 0..3 {
        assert_eq!(agent.call(Encoding::Json, &data("a", json!({ "number": number }))).await, success());
    }
    let first = server.log.wait_seen("recorder", 3).await;
    server.stop().await;

    std::fs::remove_dir_all(site.path().join("data/state")).unwrap();
    let server = site.start().await;
    server.log.wait_for(&["the cursors of this receiver are lost", "recorder"]).await;
    let expected: Vec<_> =
        first.into_iter().map(|seen| Seen { redelivery: "again".to_owned(), ..seen }).collect();
    assert_eq!(server.log.wait_seen("recorder", 3).await, expected);
}

#[tokio::test]
async fn an_orderly_restart_repeats_nothing() {
    let site = Site::new(
        Config::new()
            .set("types.handed.durability", "os")
            .set("types.fleeting.durability", "memory")
            .receiver("recorder", &files::guest("recorder"), &["metrics", "handed", "fleeting"]),
    );
    let types = ["metrics", "handed", "fleeting"];
    let mut offsets = BTreeMap::new();
    for run in 0..3 {
        let server = site.start().await;
        let mut agent = Agent::connect(server.agents).await;
        for data_type in types {
            let frame = data_of(data_type, "a", json!({ "run": run }));
            assert_eq!(agent.call(Encoding::Json, &frame).await, success());
        }
        server.log.wait_seen("recorder", types.len()).await;
        let seen = server.stop().await.seen("recorder");
        assert_eq!(seen.len(), types.len(), "{seen:#?}");
        for seen in seen {
            assert_eq!((seen.redelivery.as_str(), &seen.body), ("none", &json!({ "run": run })));
            // What a `memory` type forgets includes its offsets.
            if seen.r#type != "fleeting" {
                let before = offsets.insert(seen.r#type.clone(), seen.offset);
                assert!(before.is_none_or(|before| before < seen.offset), "{seen:?} after {before:?}");
            }
        }
    }
}

//! A message that its agent sends again under the same `message_id` is acknowledged again and stored once.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use e2e::calls::{bye, data, data_of, success};
use e2e::seen::Seen;
use e2e::{Agent, Config, Encoding, Log, Rest, Server, Site, eventually, files, within};
use serde_json::{Value, json};
use tokio::sync::watch;

const TYPES: [&str; 3] = ["metrics", "handed", "fleeting"];

fn config() -> Config {
    Config::new().set("types.handed.durability", "os").set("types.fleeting.durability", "memory").receiver(
        "recorder",
        &files::guest("recorder"),
        &TYPES,
    )
}

fn identified(mut call: Value, message_id: &str) -> Value {
    call["message_id"] = message_id.into();
    call
}

/// Message `number` of an agent, under an id of its own.
fn numbered(data_type: &str, agent: &str, number: u64) -> Value {
    identified(data_of(data_type, agent, json!({ "number": number })), &format!("m-{number}"))
}

async fn send(agent: &mut Agent, call: &Value) {
    assert_eq!(agent.call(Encoding::Json, call).await, success());
}

/// The numbers of an agent's messages of one data type, in the order of their offsets, once everything sent before is seen.
async fn numbers(server: &Server, data_type: &str, agent: &str) -> Vec<u64> {
    let mut connection = Agent::connect(server.agents).await;
    let mark = format!("{:032x}", rand::random::<u128>());
    send(&mut connection, &data_of(data_type, agent, json!({ "mark": mark }))).await;
    let is_of = |seen: &Seen| seen.r#type == data_type && seen.agent == agent;
    server
        .log
        .until("the mark", |line| {
            let seen = Seen::of_line(line, "recorder").filter(is_of)?;
            (seen.body["mark"] == mark).then_some(())
        })
        .await;
    let seen = server.log.seen("recorder").into_iter().filter(is_of);
    by_offset(seen).into_values().collect()
}

/// The numbers of messages by their offsets, however often they were delivered.
fn by_offset(seen: impl Iterator<Item = Seen>) -> BTreeMap<u64, u64> {
    seen.filter_map(|seen| Some((seen.offset, seen.body["number"].as_u64()?))).collect()
}

/// A number from `/metrics` for the data type `metrics`.
async fn metric(server: &Server, name: &str) -> f64 {
    server.metrics().await.get(&format!("{name}{{type=\"metrics\"}}"))
}

#[tokio::test]
async fn a_message_is_stored_once_whichever_way_it_comes_again() {
    let server = Site::new(config()).start().await;
    let (mut agent, rest) = (Agent::connect(server.agents).await, Rest::new(server.agents));
    for encoding in Encoding::ALL {
        for number in 0..3 {
            let message = numbered("metrics", "a", number);
            assert_eq!(agent.call(encoding, &message).await, success());
            let answered = rest.call("/data", encoding, &message).await;
            assert_eq!((answered.status, answered.value()), (200, success()));
        }
        let batch: Value = (2..5).map(|number| numbered("metrics", "a", number)).collect();
        let accepted = json!({ "result": "success", "accepted": 3 });
        assert_eq!(agent.call(encoding, &batch).await, accepted);
        let answered = rest.call("/data", encoding, &batch).await;
        assert_eq!((answered.status, answered.value()), (200, accepted));
    }
    assert_eq!(numbers(&server, "metrics", "a").await, [0, 1, 2, 3, 4]);
    // And the mark.
    assert_eq!(metric(&server, "wharf_messages_accepted_total").await, 6.0);
    assert_eq!(metric(&server, "wharf_messages_repeated_total").await, 2.0 * (2.0 * 3.0 + 2.0 * 3.0) - 5.0);
    eventually("the ids to be counted", async || {
        (metric(&server, "wharf_message_ids").await == 5.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_id_is_one_of_its_agent_and_of_its_data_type() {
    let server = Site::new(config()).start().await;
    let mut connection = Agent::connect(server.agents).await;
    for _ in 0..2 {
        for (data_type, agent) in [("metrics", "a"), ("metrics", "b"), ("handed", "a"), ("fleeting", "a")] {
            send(&mut connection, &numbered(data_type, agent, 1)).await;
        }
        // Without an id, everything is another message.
        send(&mut connection, &data("a", json!({ "number": 2 }))).await;
    }
    assert_eq!(numbers(&server, "metrics", "a").await, [1, 2, 2]);
    assert_eq!(numbers(&server, "metrics", "b").await, [1]);
    assert_eq!(numbers(&server, "handed", "a").await, [1]);
    assert_eq!(numbers(&server, "fleeting", "a").await, [1]);
}

#[tokio::test]
async fn the_same_id_in_one_frame_is_one_message() {
    let server = Site::new(config()).start().await;
    let mut connection = Agent::connect(server.agents).await;
    let other = |agent| identified(data(agent, json!({ "number": 7 })), "m-1");
    let batch = json!([
        numbered("metrics", "a", 1),
        other("b"),
        other("a"),
        { "call": "data", "id": "a", "type": "unknown", "data": {}, "message_id": "m-2" },
        numbered("metrics", "a", 2),
        bye("a"),
        numbered("metrics", "a", 1),
        numbered("metrics", "a", 3),
        numbered("metrics", "a", 3),
    ]);
    let answer = connection.call(Encoding::Msgpack, &batch).await;
    assert_eq!((&answer["result"], &answer["accepted"]), (&json!("partial"), &json!(8)), "{answer}");
    assert_eq!((&answer["errors"][0]["index"], answer["errors"].as_array().unwrap().len()), (&json!(3), 1));
    assert_eq!(numbers(&server, "metrics", "a").await, [1, 2, 3], "the first one counts");
    assert_eq!(numbers(&server, "metrics", "b").await, [7]);
}

#[tokio::test]
async fn two_connections_that_send_the_same_at_once_are_both_answered() {
    const FRAMES: u64 = 100;
    const BATCH: u64 = 10;
    let server = Site::new(config()).start().await;
    for data_type in TYPES {
        let sending = (0..3).map(async |connection| {
            let mut agent = Agent::connect(server.agents).await;
            let encoding = Encoding::ALL[connection % 2];
            for frame in 0..FRAMES {
                let numbers = frame * BATCH..(frame + 1) * BATCH;
                let batch: Value = numbers.map(|number| numbered(data_type, "a", number)).collect();
                agent.send(encoding, &batch).await;
            }
            for _ in 0..FRAMES {
                let (_, answer) = agent.answer().await;
                assert_eq!(answer, json!({ "result": "success", "accepted": BATCH }));
            }
        });
        futures_util::future::join_all(sending).await;
        let expected: Vec<_> = (0..FRAMES * BATCH).collect();
        assert_eq!(numbers(&server, data_type, "a").await, expected, "{data_type}: each once, and in order");
    }
}

#[tokio::test]
async fn what_is_sent_again_after_a_kill_or_a_stop_is_known_except_to_a_type_in_memory() {
    let site = Site::new(config());
    let mut logs = Vec::new();
    for run in 0..3 {
        let server = site.start().await;
        let mut connection = Agent::connect(server.agents).await;
        for data_type in TYPES {
            for number in 0..20 {
                send(&mut connection, &numbered(data_type, "a", number)).await;
            }
        }
        let expected: Vec<_> = (0..20).collect();
        assert_eq!(numbers(&server, "fleeting", "a").await, expected);
        if run == 0 {
            for data_type in ["metrics", "handed"] {
                assert_eq!(numbers(&server, data_type, "a").await, expected);
            }
        } else {
            assert_eq!(metric(&server, "wharf_messages_repeated_total").await, 20.0);
            let text = server.log.wait_for(&["message ids read back", "metrics"]).await;
            assert!(text.contains("remembered=20"), "{text}");
        }
        logs.push(if run == 0 { server.kill().await } else { server.stop().await });
    }
    for data_type in ["metrics", "handed"] {
        let seen = logs.iter().flat_map(|log| log.seen("recorder")).filter(|seen| seen.r#type == data_type);
        assert_eq!(by_offset(seen).len(), 20, "{data_type}");
    }
}

/// One agent that loses its server again and again, and then sends everything again that is not long acknowledged.
struct Load {
    agent: String,
    data_type: &'static str,
    encoding: Encoding,
    /// Everything below is acknowledged.
    acknowledged: u64,
}

/// Messages in a frame, frames under way, and messages that are sent again although they were acknowledged.
const BATCH: u64 = 7;
const WINDOW: usize = 8;
const AGAIN: u64 = 3 * BATCH;

impl Load {
    fn all() -> Vec<Load> {
        let types = ["metrics", "handed"].into_iter();
        let both = types.flat_map(|data_type| Encoding::ALL.map(|encoding| (data_type, encoding)));
        both.map(|(data_type, encoding)| Load {
            agent: format!("{data_type}-{encoding:?}"),
            data_type,
            encoding,
            acknowledged: 0,
        })
        .collect()
    }

    /// Sends until the connection breaks.
    async fn run(mut self, address: SocketAddr, acknowledged: Arc<watch::Sender<u64>>) -> Load {
        let Ok(mut agent) = Agent::open(address, "/agent").await else { return self };
        let mut next = self.acknowledged.saturating_sub(AGAIN);
        let mut unanswered = VecDeque::new();
        loop {
            while unanswered.len() < WINDOW {
                let numbers = next..next + BATCH;
                next = numbers.end;
                unanswered.push_back(next);
                let batch: Value =
                    numbers.map(|number| numbered(self.data_type, &self.agent, number)).collect();
                let bytes = self.encoding.encode(&batch);
                if agent.try_send_bytes(self.encoding, bytes).await.is_err() {
                    return self;
                }
            }
            let Ok((_, answer)) = agent.try_answer().await else { return self };
            assert_eq!(answer, json!({ "result": "success", "accepted": BATCH }));
            self.acknowledged = self.acknowledged.max(unanswered.pop_front().unwrap());
            acknowledged.send_modify(|count| *count += BATCH);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_again_after_kills_under_load_is_stored_once_and_in_order() {
    let mut site = Site::new(config());
    let mut loads = Load::all();
    let mut logs: Vec<Log> = Vec::new();
    for enough in [40, 700, 1, 3_000, 200] {
        let server = site.start().await;
        site.set("listen.agents", server.agents.to_string());
        let (counter, mut acknowledged) = watch::channel(0);
        let counter = Arc::new(counter);
        let running: Vec<_> =
            loads.drain(..).map(|load| tokio::spawn(load.run(server.agents, counter.clone()))).collect();
        within("acknowledgements", acknowledged.wait_for(|count| *count >= enough)).await.unwrap();
        logs.push(server.kill().await);
        for load in running {
            loads.push(within("an agent to end", load).await.unwrap());
        }
    }
    let server = site.start().await;
    for load in &loads {
        numbers(&server, load.data_type, &load.agent).await;
    }
    logs.push(server.stop().await);
    for load in &loads {
        let is_of = |seen: &Seen| (&*seen.r#type, &*seen.agent) == (load.data_type, &*load.agent);
        let seen = logs.iter().flat_map(|log| log.seen("recorder")).filter(is_of);
        let stored: Vec<u64> = by_offset(seen).into_values().collect();
        let expected: Vec<u64> = (0..stored.len() as u64).collect();
        assert_eq!(stored, expected, "{}: each once, and in order", load.agent);
        assert!(expected.len() as u64 >= load.acknowledged && load.acknowledged > 0, "{}", load.agent);
    }
}

#[tokio::test]
async fn the_oldest_ids_are_forgotten_by_count_also_after_a_kill() {
    let site = Site::new(config().set("types.metrics.dedup-messages", 3));
    let server = site.start().await;
    let mut connection = Agent::connect(server.agents).await;
    for number in [1, 2, 3, 4, 2, 3, 4, 1, 3, 4, 1] {
        send(&mut connection, &numbered("metrics", "a", number)).await;
    }
    assert_eq!(numbers(&server, "metrics", "a").await, [1, 2, 3, 4, 1], "1 was forgotten for 4");
    server.kill().await;

    let server = site.start().await;
    let mut connection = Agent::connect(server.agents).await;
    for number in [3, 4, 1, 2, 2] {
        send(&mut connection, &numbered("metrics", "a", number)).await;
    }
    assert_eq!(metric(&server, "wharf_messages_repeated_total").await, 4.0);
    assert_eq!(metric(&server, "wharf_messages_accepted_total").await, 1.0, "2 was forgotten for 1");
}

#[tokio::test]
async fn an_id_is_forgotten_after_the_window_also_after_a_kill() {
    let site = Site::new(config().set("types.metrics.dedup-window", "500ms"));
    let server = site.start().await;
    let mut connection = Agent::connect(server.agents).await;
    let accepted_again = async |server: &Server, connection: &mut Agent, accepted: f64| {
        eventually("the message to be accepted again", async || {
            send(connection, &numbered("metrics", "a", 1)).await;
            (metric(server, "wharf_messages_accepted_total").await == accepted).then_some(())
        })
        .await;
    };
    accepted_again(&server, &mut connection, 2.0).await;
    assert!(metric(&server, "wharf_messages_repeated_total").await > 0.0);
    server.kill().await;

    let server = site.start().await;
    let mut connection = Agent::connect(server.agents).await;
    accepted_again(&server, &mut connection, 1.0).await;
    eventually("the id to be forgotten although nothing comes", async || {
        (metric(&server, "wharf_message_ids").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_type_without_a_window_stores_whatever_comes() {
    let site = Site::new(config().set("types.metrics.dedup-window", "0s"));
    let server = site.start().await;
    let mut connection = Agent::connect(server.agents).await;
    for number in [1, 1, 2, 1] {
        send(&mut connection, &numbered("metrics", "a", number)).await;
    }
    assert_eq!(numbers(&server, "metrics", "a").await, [1, 1, 2, 1]);
}

#[tokio::test]
async fn a_message_that_comes_again_is_a_sign_of_life() {
    let server = Site::new(config().set("presence.timeout", "60s")).start().await;
    let mut connection = Agent::connect(server.agents).await;
    send(&mut connection, &numbered("metrics", "a", 1)).await;
    send(&mut connection, &bye("a")).await;
    assert_eq!(server.status().await["agents"], json!({ "active": 0, "known": 1 }));
    send(&mut connection, &numbered("metrics", "a", 1)).await;
    assert_eq!(server.status().await["agents"], json!({ "active": 1, "known": 1 }));
    assert_eq!(metric(&server, "wharf_messages_accepted_total").await, 1.0);
}

#[tokio::test]
async fn lines_that_are_sent_again_under_their_own_ids_are_stored_once() {
    let server_site = Site::new(config());
    let server = server_site.start().await;
    let url = format!("http://{}", server.agents);
    let lines = |numbers: std::ops::Range<u64>| -> String {
        numbers
            .map(|number| format!("{}\n", json!({ "number": number, "message_id": number.to_string() })))
            .collect()
    };
    for (format, numbers) in [("json", 0..50), ("msgpack", 20..100)] {
        let args = ["send", "--id", "a", "--type", "metrics", "--url", &url, "--format", format, "--json"];
        let count = numbers.end - numbers.start;
        let finished = server_site.run_with(&args, lines(numbers).as_bytes()).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let summary: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(summary["accepted"], count, "{summary}");
    }
    assert_eq!(numbers(&server, "metrics", "a").await, (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_through_a_kill_of_the_server_stores_each_line_once() {
    const LINES: u64 = 20_000;
    let mut site = Site::new(config());
    let server = site.start().await;
    site.set("listen.agents", server.agents.to_string());
    let url = format!("http://{}", server.agents);
    let input: String = (0..LINES).map(|number| format!("{}\n", json!({ "number": number }))).collect();
    let args = ["send", "--id", "a", "--type", "metrics", "--url", &url, "--batch", "10"];
    let killing = async {
        server.log.wait_seen("recorder", 1_000).await;
        let log = server.kill().await;
        (log, site.start().await)
    };
    let (finished, (log, server)) = tokio::join!(site.run_with(&args, input.as_bytes()), killing);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("connecting again"), "{}", finished.stderr);
    numbers(&server, "metrics", "a").await;
    let seen = [log, server.stop().await].into_iter().flat_map(|log| log.seen("recorder"));
    let stored: Vec<u64> = by_offset(seen).into_values().collect();
    assert_eq!(stored, (0..LINES).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_window_that_outlasts_the_messages_is_warned_about() {
    let warning = "types.metrics: messages are kept for less than dedup-window (10m)";
    for (key, value, is_warned) in
        [("retain", "9m", true), ("retain-bytes", "0B", true), ("retain", "10m", false)]
    {
        let site = Site::new(config().set(&format!("types.metrics.{key}"), value));
        let checked = site.run(&["check", "--config", site.write_config().to_str().unwrap()]).await;
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        assert_eq!(checked.stdout.contains(warning), is_warned, "{key} {value}: {}", checked.stdout);
        if is_warned {
            site.start().await.log.wait_for(&[warning]).await;
        }
    }
}

//! Who is active, as receivers learn it: in order with the messages, through silence, farewells and crashes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use e2e::calls::{bye, data, data_of, ping, success};
use e2e::{Agent, Config, Encoding, Log, Rest, Server, Site, eventually, files};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Longer than any pause of a busy machine within a test that expects nobody to be gone.
const LONG: &str = "60s";
/// For tests that wait until an agent is gone.
const SHORT: &str = "300ms";

fn watched(timeout: &str) -> Config {
    Config::new().data_type("other").set("presence.timeout", timeout).receiver(
        "watcher",
        &files::guest("watcher"),
        &["metrics", "other"],
    )
}

/// What the watcher saw of one data type.
fn watched_of(log: &Log, data_type: &str) -> Vec<String> {
    let lines = log.guest_lines("watcher");
    lines
        .iter()
        .filter_map(|line| line.strip_prefix(data_type)?.strip_prefix(' '))
        .map(str::to_owned)
        .collect()
}

/// Waits until the watcher has seen exactly this of one agent and data type. What it sees of different agents has no order.
async fn wait_watched(server: &Server, data_type: &str, expected: &[&str]) {
    let (agent, _) = expected[0].split_once(' ').unwrap();
    eventually(&format!("{expected:?} of {data_type}"), async || {
        let mut seen = watched_of(&server.log, data_type);
        seen.retain(|line| line.split_once(' ').is_some_and(|(id, _)| id == agent));
        assert!(expected.starts_with(&seen.iter().map(String::as_str).collect::<Vec<_>>()), "{seen:?}");
        (seen.len() == expected.len()).then_some(())
    })
    .await;
}

async fn call(agent: &mut Agent, frame: Value) {
    assert_eq!(agent.call(Encoding::Json, &frame).await, success());
}

async fn agents(server: &Server) -> Value {
    server.status().await["agents"].clone()
}

#[tokio::test]
async fn an_agent_is_active_before_its_first_message_and_inactive_with_its_bye() {
    let server = Site::new(watched(LONG)).start().await;
    let mut agent = Agent::connect(server.agents).await;
    call(&mut agent, ping("a")).await;
    assert_eq!(agents(&server).await, json!({ "active": 1, "known": 1 }), "a ping is enough");
    call(&mut agent, data("a", json!({}))).await;
    call(&mut agent, data("a", json!({}))).await;
    call(&mut agent, bye("a")).await;
    assert_eq!(agents(&server).await, json!({ "active": 0, "known": 1 }));
    let metrics = server.metrics().await;
    let numbers = ["wharf_agents_active", "wharf_agents_known", "wharf_presence_changes_total"];
    assert_eq!(numbers.map(|number| metrics.get(number)), [0.0, 1.0, 2.0]);
    wait_watched(&server, "metrics", &["a active", "a message", "a message", "a inactive"]).await;

    // In one frame, each call in its turn.
    let frame = json!([data("a", json!({})), bye("a"), data("a", json!({})), bye("b"), bye("a"), ping("a")]);
    let answer = agent.call(Encoding::Json, &frame).await;
    assert_eq!(answer, json!({ "result": "success", "accepted": 6 }));
    let expected = [
        &["a active", "a message", "a message", "a inactive"][..],
        &["a active", "a message", "a inactive", "a active", "a message", "a inactive", "a active"],
    ];
    wait_watched(&server, "metrics", &expected.concat()).await;
    assert_eq!(watched_of(&server.log, "other"), [""; 0], "it has not used that type");
}

#[tokio::test]
async fn an_agent_that_comes_back_by_ping_is_active_in_every_type_that_it_has_used() {
    let server = Site::new(watched(LONG)).start().await;
    let rest = Rest::new(server.agents);
    let post = async |path: &str, call: Value| {
        let answer = rest.call(path, Encoding::Msgpack, &call).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    post("/data", data("a", json!({}))).await;
    post("/data", data_of("other", "a", json!({}))).await;
    post("/bye", bye("a")).await;
    post("/ping", ping("a")).await;
    for data_type in ["metrics", "other"] {
        wait_watched(&server, data_type, &["a active", "a message", "a inactive", "a active"]).await;
    }
}

#[tokio::test]
async fn an_agent_that_is_silent_becomes_inactive_connected_or_not() {
    let server = Site::new(watched(SHORT)).start().await;
    let mut silent = Agent::connect(server.agents).await;
    call(&mut silent, data("silent", json!({}))).await;
    let mut gone = Agent::connect(server.agents).await;
    call(&mut gone, data_of("other", "gone", json!({}))).await;
    gone.close().await;
    let answer = Rest::new(server.agents).call("/ping", Encoding::Json, &ping("rest")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    wait_watched(&server, "metrics", &["silent active", "silent message", "silent inactive"]).await;
    wait_watched(&server, "other", &["gone active", "gone message", "gone inactive"]).await;
    eventually("the agent that used REST to be inactive", async || {
        (agents(&server).await == json!({ "active": 0, "known": 3 })).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_was_active_before_a_crash_is_held_for_one_time_out() {
    let mut site = Site::new(watched(LONG));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    call(&mut agent, data("stays", json!({}))).await;
    call(&mut agent, data_of("other", "stays", json!({}))).await;
    call(&mut agent, data("leaves", json!({}))).await;
    call(&mut agent, bye("leaves")).await;
    wait_watched(&server, "metrics", &["stays active", "stays message"]).await;
    wait_watched(&server, "metrics", &["leaves active", "leaves message", "leaves inactive"]).await;
    server.kill().await;

    let server = site.start().await;
    assert_eq!(agents(&server).await, json!({ "active": 1, "known": 2 }));
    let mut agent = Agent::connect(server.agents).await;
    call(&mut agent, data("stays", json!({}))).await;
    server.kill().await;

    site.set("presence.timeout", SHORT);
    let server = site.start().await;
    let gone = |log: &Log, data_type| watched_of(log, data_type).contains(&"stays inactive".to_owned());
    eventually("the agent to be inactive", async || {
        (gone(&server.log, "metrics") && gone(&server.log, "other")).then_some(())
    })
    .await;
    assert_eq!(agents(&server).await, json!({ "active": 0, "known": 2 }));
    server.stop().await;
    let server = site.start().await;
    assert_eq!(agents(&server).await, json!({ "active": 0, "known": 2 }));
}

/// Bytes that an answer is made long with, so that few of them fill what lies between a server and its client.
const REFERENCE: usize = 120;

#[tokio::test]
async fn an_agent_whose_connection_is_not_read_stays_active() {
    let config = watched(SHORT).set("limits.frame-timeout", "300s").set("limits.max-unanswered", 2);
    let server = Site::new(config).start().await;
    let mut deaf = Agent::connect(server.agents).await;
    call(&mut deaf, data("deaf", json!({}))).await;
    // It never reads an answer, until the server waits for it and reads no more.
    let sent = Arc::new(AtomicU64::new(0));
    let flood = tokio::spawn({
        let sent = sent.clone();
        async move {
            let mut frame = ping("deaf");
            frame["ref"] = "r".repeat(REFERENCE).into();
            let bytes = Encoding::Json.encode(&frame);
            while deaf.send_patiently(Encoding::Json, bytes.clone()).await.is_ok() {
                sent.fetch_add(1, Ordering::AcqRel);
            }
        }
    });
    // Another agent that comes and goes is the clock of this test.
    let mut other = Agent::connect(server.agents).await;
    let mut rounds_stuck = 0;
    let mut round = 0;
    while rounds_stuck < 3 {
        round += 1;
        let before = sent.load(Ordering::Acquire);
        let id = format!("other-{round}");
        call(&mut other, data_of("other", &id, json!({}))).await;
        eventually("the other agent to be inactive", async || {
            watched_of(&server.log, "other").contains(&format!("{id} inactive")).then_some(())
        })
        .await;
        rounds_stuck = if sent.load(Ordering::Acquire) == before { rounds_stuck + 1 } else { 0 };
        assert!(round < 100, "the server never stopped to read");
    }
    let deaf: Vec<_> =
        watched_of(&server.log, "metrics").into_iter().filter(|line| line.starts_with("deaf")).collect();
    assert_eq!(
        deaf,
        ["deaf active", "deaf message"],
        "it was silent for three time-outs, but nobody listened"
    );
    flood.abort();
    eventually("the agent to be inactive once its connection is gone", async || {
        watched_of(&server.log, "metrics").contains(&"deaf inactive".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_receiver_sees_a_message_of_an_inactive_agent() {
    const CONNECTIONS: u64 = 6;
    const ROUNDS: usize = 150;
    let server = Site::new(watched(SHORT).set("receivers.watcher.instances", 3)).start().await;
    let senders = (0..CONNECTIONS).map(|seed| {
        let address = server.agents;
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut agent = Agent::connect(address).await;
            let mut messages = 0;
            for _ in 0..ROUNDS {
                let calls: Vec<Value> = (0..random.random_range(1..12))
                    .map(|_| {
                        // Every agent speaks on every connection.
                        let id = format!("agent-{}", random.random_range(0..8));
                        match random.random_range(0..10) {
                            0 => bye(&id),
                            1 => ping(&id),
                            2 => data_of("other", &id, json!({})),
                            _ => data(&id, json!({})),
                        }
                    })
                    .collect();
                messages += calls.iter().filter(|call| call["call"] == "data").count();
                let answer = agent.call(Encoding::ALL[calls.len() % 2], &calls.clone().into()).await;
                assert_eq!(answer, json!({ "result": "success", "accepted": calls.len() }));
            }
            messages
        })
    });
    let mut messages = 0;
    for sender in senders.collect::<Vec<_>>() {
        messages += sender.await.unwrap();
    }
    let lines = eventually("all messages and the end of all agents", async || {
        let lines = ["metrics", "other"].map(|data_type| watched_of(&server.log, data_type));
        let all: Vec<&String> = lines.iter().flatten().collect();
        let handled = all.iter().filter(|line| line.ends_with(" message")).count();
        let count = |what: &str| all.iter().filter(|line| line.ends_with(what)).count();
        (handled == messages && count(" active") == count(" inactive")).then(|| lines.clone())
    })
    .await;
    for lines in lines {
        let mut active = std::collections::HashSet::new();
        for line in &lines {
            let (agent, what) = line.split_once(' ').unwrap();
            match what {
                "active" => assert!(active.insert(agent), "{agent} became active twice"),
                "inactive" => assert!(active.remove(agent), "{agent} became inactive twice"),
                _ => assert!(active.contains(agent), "a message of {agent}, which is inactive"),
            }
        }
        assert!(lines.iter().filter(|line| line.ends_with(" inactive")).count() > 20, "they came and went");
    }
}

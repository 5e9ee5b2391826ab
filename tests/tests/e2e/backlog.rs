//! A receiver's backlog is bounded: at the bound its data type takes no more, or it loses its oldest messages and is told which.

use e2e::calls::{data, data_of, success};
use e2e::{Agent, Config, Encoding, Rest, Server, Site, eventually, files};
use serde_json::{Value, json};
use wharf_state::{Gap, GapReason, State};

/// The smallest bound.
const BOUND: u64 = 1024 * 1024;
/// A message takes a little more than this on the disk.
const PADDING: usize = 4 * 1024;
/// Messages of a frame.
const BATCH: u64 = 16;
/// A flood has this many frames: six times the bound.
const FLOOD: u64 = 96;

/// A receiver that prints what it gets, with the smallest bound, beside one that keeps up.
fn config(on_overflow: &str) -> Config {
    Config::new()
        .data_type("other")
        .set("limits.append-wait", "100ms")
        .receiver("slow", &files::guest("recorder"), &["metrics"])
        .set("receivers.slow.max-backlog", "1MiB")
        .set("receivers.slow.on-overflow", on_overflow)
        .receiver("quiet", &files::guest("quiet"), &["metrics", "other"])
}

async fn operate(site: &Site, server: &Server, command: &[&str]) -> String {
    let admin = format!("http://{}", server.admin);
    let finished = site.run(&[command, &["--admin", &admin]].concat()).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

fn message(number: u64) -> Value {
    data("a", json!({ "number": number, "padding": "x".repeat(PADDING) }))
}

/// Sends messages with the numbers from `next` on, in one frame, and gives those that were accepted.
async fn send(agent: &mut Agent, encoding: Encoding, next: u64) -> Vec<u64> {
    let answer = agent.call(encoding, &(next..next + BATCH).map(message).collect()).await;
    let errors = answer["errors"].as_array().cloned().unwrap_or_default();
    for error in &errors {
        assert_eq!(error["code"], "overloaded", "{answer}");
    }
    let refused: Vec<u64> = errors.iter().map(|error| next + error["index"].as_u64().unwrap()).collect();
    assert_eq!(answer["accepted"], BATCH - refused.len() as u64, "{answer}");
    (next..next + BATCH).filter(|number| !refused.contains(number)).collect()
}

/// Sends frames until one is refused, and gives the numbers that were accepted.
async fn send_until_shut(agent: &mut Agent, from: u64) -> Vec<u64> {
    let mut accepted = Vec::new();
    for frame in 0.. {
        let taken = send(agent, Encoding::Json, from + frame * BATCH).await;
        if taken.is_empty() {
            break;
        }
        accepted.extend(taken);
    }
    accepted
}

/// Sends a whole flood, all of which must be accepted.
async fn flood(server: &Server, from: u64) {
    let mut agent = Agent::connect(server.agents).await;
    for frame in 0..FLOOD {
        let next = from + frame * BATCH;
        assert_eq!(send(&mut agent, Encoding::Msgpack, next).await.len() as u64, BATCH);
    }
}

fn numbers(server: &Server, receiver: &str) -> Vec<u64> {
    server.log.seen(receiver).iter().map(|seen| seen.body["number"].as_u64().unwrap()).collect()
}

async fn backlog(server: &Server) -> u64 {
    server.receiver("slow").await["backlog"][0]["bytes"].as_u64().unwrap()
}

/// Waits until what is too much is shed. When nothing more is sent, nothing more is shed then.
async fn shed(server: &Server) {
    eventually("the backlog to be below its bound", async || (backlog(server).await < BOUND).then_some(()))
        .await;
}

/// The gap records of the receiver, as they lie on the disk of a server that does not run.
fn gaps(site: &Site) -> Vec<Gap> {
    let state = State::open(&site.path().join("data/state")).unwrap();
    state.gaps("slow").unwrap().topics.into_iter().flat_map(|(_, gaps)| gaps).collect()
}

#[tokio::test]
async fn at_the_bound_a_type_is_shut_until_its_receiver_has_worked_some_off() {
    let site = Site::new(config("block"));
    let server = site.start().await;
    operate(&site, &server, &["pause", "slow"]).await;
    let mut agent = Agent::connect(server.agents).await;
    let mut accepted = send_until_shut(&mut agent, 0).await;
    assert!(accepted.len() as u64 * PADDING as u64 > BOUND / 2, "{} messages", accepted.len());
    server.log.wait_for(&["ERROR", "is at its bound", "slow", "metrics"]).await;

    // Whoever sends one hears it, over both protocols, and is told when to try again.
    let rest = Rest::new(server.agents);
    for encoding in Encoding::ALL {
        let answer = agent.call(encoding, &message(0)).await;
        assert_eq!(answer["error"]["code"], "overloaded", "{answer}");
        assert!(answer["error"]["retry_after_ms"].as_u64().unwrap() > 0, "{answer}");
        let answer = rest.call("/data", encoding, &message(0)).await;
        assert_eq!((answer.status, &answer.value()["error"]), (503, &json!("overloaded")));
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        // Others are served, also in the same frame, and agents are alive.
        let both = json!([message(0), data_of("other", "a", json!({}))]);
        let answer = agent.call(encoding, &both).await;
        assert_eq!((&answer["accepted"], &answer["errors"][0]["index"]), (&json!(1), &json!(0)), "{answer}");
        assert_eq!(agent.call(encoding, &data_of("other", "a", json!({}))).await, success());
        assert_eq!(rest.call("/bye", encoding, &json!({ "id": "a" })).await.status, 200);
        assert_eq!(rest.call("/ping", encoding, &json!({ "id": "a" })).await.status, 200);
    }
    assert_eq!(server.status().await["types"][0]["blocked_by"], json!(["slow"]));
    let table = operate(&site, &server, &["status"]).await;
    assert!(table.contains("metrics takes no messages: the backlog of slow is at its bound"), "{table}");
    let metrics = server.metrics().await;
    assert_eq!(metrics.get(r#"wharf_receiver_blocks_type{receiver="slow",type="metrics"}"#), 1.0);
    let bytes = metrics.get(r#"wharf_receiver_backlog_bytes{receiver="slow",type="metrics"}"#);
    assert!(bytes >= BOUND as f64 && backlog(&server).await >= BOUND, "{bytes}");

    // It is still so after a restart; what comes before that is noticed counts.
    server.stop().await;
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    accepted.extend(send_until_shut(&mut agent, 1_000_000).await);

    operate(&site, &server, &["resume", "slow"]).await;
    eventually("the type to open", async || {
        let answer = Rest::new(server.agents).call("/data", Encoding::Json, &message(2_000_000)).await;
        (answer.status == 200).then_some(())
    })
    .await;
    accepted.push(2_000_000);
    server.log.wait_for(&["is below its bound again", "slow", "metrics"]).await;
    server.log.wait_seen("slow", accepted.len()).await;
    assert_eq!(numbers(&server, "slow"), accepted, "all that was accepted was handled, in order");
    assert_eq!(server.status().await["types"][0]["blocked_by"], json!([]));
    server.stop().await;
    assert_eq!(gaps(&site), [], "nothing was lost");
}

#[tokio::test]
async fn a_frame_waits_for_its_type_to_open_as_long_as_it_may_wait_for_the_queue() {
    let site = Site::new(config("block").set("limits.append-wait", "2m"));
    let server = site.start().await;
    operate(&site, &server, &["pause", "slow"]).await;
    let mut agent = Agent::connect(server.agents).await;
    // Nothing is refused, so that it is the metrics that say when it is shut.
    let shut = r#"wharf_receiver_blocks_type{receiver="slow",type="metrics"}"#;
    let mut frames = 0;
    while server.metrics().await.get(shut) == 0.0 {
        agent.send(Encoding::Json, &message(frames)).await;
        frames += 1;
    }
    let mut late = Agent::connect(server.agents).await;
    late.send(Encoding::Json, &message(frames)).await;
    operate(&site, &server, &["resume", "slow"]).await;
    assert_eq!(late.answer().await, (Encoding::Json, success()));
    for _ in 0..frames {
        assert_eq!(agent.answer().await, (Encoding::Json, success()));
    }
    server.log.wait_seen("slow", frames as usize + 1).await;
}

#[tokio::test]
async fn a_receiver_that_may_lose_messages_loses_the_oldest_and_a_record_says_how_many() {
    let site = Site::new(config("shed"));
    let server = site.start().await;
    operate(&site, &server, &["pause", "slow"]).await;
    flood(&server, 0).await;
    shed(&server).await;
    server.log.wait_for(&["WARN", "it lost its oldest messages", "slow", "metrics"]).await;
    server.kill().await;

    // The record is on the disk together with the cursors.
    let [gap] = &gaps(&site)[..] else { panic!("one record: {:?}", gaps(&site)) };
    let lost = gap.count.unwrap();
    assert_eq!(gap.reason, GapReason::Shed, "{gap:?}");
    assert!(lost * PADDING as u64 > 4 * BOUND, "{gap:?}");

    let server = site.start().await;
    flood(&server, FLOOD * BATCH).await;
    shed(&server).await;
    operate(&site, &server, &["resume", "slow"]).await;
    // It gets all but the oldest, in order, and what it does not get is counted exactly.
    eventually("slow to have come to the end", async || {
        (server.receiver("slow").await["lag"] == 0).then_some(())
    })
    .await;
    let more = r#"wharf_receiver_messages_dropped_total{receiver="slow",reason="shed"}"#;
    let more = server.metrics().await.get(more) as u64;
    assert_eq!(server.receiver("slow").await["gaps"], json!({ "records": 1, "messages": lost + more }));
    let expected: Vec<u64> = (lost + more..2 * FLOOD * BATCH).collect();
    server.log.wait_seen("slow", expected.len()).await;
    assert_eq!(numbers(&server, "slow"), expected);
    // Nobody else lost anything.
    eventually("the other receiver to have handled all", async || {
        (server.receiver("quiet").await["lag"] == 0).then_some(())
    })
    .await;
    server.stop().await;
    let [gap] = &gaps(&site)[..] else { panic!("one record: {:?}", gaps(&site)) };
    assert_eq!((&gap.reason, gap.count), (&GapReason::Shed, Some(lost + more)), "{gap:?}");
}

#[tokio::test]
async fn messages_are_shed_also_while_the_receiver_hangs() {
    let site = Site::new(
        config("shed")
            .receiver("slow", &files::guest("puppet"), &["metrics"])
            .set("receivers.slow.deadline", "10m")
            .set("host.threads", 1),
    );
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    let hang = data("a", json!({ "do": "loop" }));
    assert_eq!(agent.call(Encoding::Json, &hang).await, success());
    flood(&server, 0).await;
    shed(&server).await;
    assert_eq!(server.receiver("slow").await["handled"], 0);
    server.kill().await;
    let [gap] = &gaps(&site)[..] else { panic!("one record: {:?}", gaps(&site)) };
    assert_eq!(gap.reason, GapReason::Shed, "{gap:?}");
}

#[tokio::test]
async fn a_message_that_is_to_come_again_for_ever_is_shed_and_no_other() {
    let site = Site::new(config("shed").receiver("slow", &files::guest("puppet"), &["metrics"]));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    let again = data("stuck", json!({ "do": "retry", "milliseconds": 3_600_000 }));
    assert_eq!(agent.call(Encoding::Json, &again).await, success());
    for frame in 0..FLOOD {
        send(&mut agent, Encoding::Json, frame * BATCH).await;
        // All of it is handled before more comes, so that it is the one message alone that holds the cursor back.
        eventually("slow to have handled all others", async || {
            (server.receiver("slow").await["handled"] == (frame + 1) * BATCH).then_some(())
        })
        .await;
    }
    shed(&server).await;
    server.stop().await;
    let [gap] = &gaps(&site)[..] else { panic!("one record: {:?}", gaps(&site)) };
    assert_eq!((&gap.reason, gap.count), (&GapReason::Shed, Some(1)), "{gap:?}");
}

#[tokio::test]
async fn what_waits_behind_a_message_that_is_shed_goes_on_without_it() {
    let site = Site::new(
        config("shed")
            .receiver("slow", &files::guest("puppet"), &["metrics"])
            .set("receivers.slow.max-messages", 1),
    );
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    let again = data("a", json!({ "do": "retry", "milliseconds": 3_600_000 }));
    assert_eq!(agent.call(Encoding::Json, &again).await, success());
    flood(&server, 0).await;
    shed(&server).await;
    eventually("slow to have come to the end", async || {
        (server.receiver("slow").await["lag"] == 0).then_some(())
    })
    .await;
    let lost = server.receiver("slow").await["gaps"]["messages"].as_u64().unwrap();
    assert!(lost > 1 && lost < FLOOD * BATCH, "{lost}");
    assert_eq!(server.receiver("slow").await["handled"], 1 + FLOOD * BATCH - lost);
    server.stop().await;
    let [gap] = &gaps(&site)[..] else { panic!("one record: {:?}", gaps(&site)) };
    assert_eq!((&gap.reason, gap.count), (&GapReason::Shed, Some(lost)), "{gap:?}");
}

#[tokio::test]
async fn a_new_receiver_begins_with_new_messages_or_with_the_oldest() {
    let base = || Config::new().receiver("quiet", &files::guest("quiet"), &["metrics"]);
    let mut site = Site::new(base());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(send(&mut agent, Encoding::Json, 0).await.len() as u64, BATCH);
    server.kill().await;

    site.change(|_| {
        base()
            .receiver("new", &files::guest("recorder"), &["metrics"])
            .receiver("old", &files::guest("recorder"), &["metrics"])
            .set("receivers.old.start", "oldest")
    });
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &message(BATCH)).await, success());
    let seen = server.log.wait_seen("old", BATCH as usize + 1).await;
    assert!(seen.iter().all(|seen| seen.redelivery == "none"), "it never got them before: {seen:?}");
    assert_eq!(numbers(&server, "old"), (0..=BATCH).collect::<Vec<_>>());
    server.log.wait_seen("new", 1).await;
    assert_eq!(numbers(&server, "new"), [BATCH]);
    server.stop().await;

    // It is new once.
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &message(BATCH + 1)).await, success());
    for receiver in ["new", "old"] {
        server.log.wait_seen(receiver, 1).await;
        assert_eq!(numbers(&server, receiver), [BATCH + 1]);
    }
}

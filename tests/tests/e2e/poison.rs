//! What becomes of messages that a receiver does not handle, and that nothing else suffers from it.

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Log, Server, Site, eventually, files};
use serde_json::{Value, json};

/// A puppet that fails quickly.
fn puppet() -> Config {
    Config::new()
        .receiver("puppet", &files::guest("puppet"), &["metrics"])
        .set("receivers.puppet.deadline", "300ms")
        .set("receivers.puppet.retry-pause", "1ms")
        .set("receivers.puppet.quarantine-failures", 1_000_000)
        // A whole frame becomes one batch.
        .set("receivers.puppet.max-wait", "50ms")
}

async fn send(server: &Server, calls: &[Value]) {
    let mut agent = Agent::connect(server.agents).await;
    let answer = agent.call(Encoding::Json, &calls.iter().cloned().collect()).await;
    assert_eq!(answer, json!({ "result": "success", "accepted": calls.len() }));
}

/// How often a puppet said that it handled this body.
fn handled(log: &Log, name: &str) -> usize {
    let text = json!({ "name": name }).to_string();
    log.guest_lines("puppet")
        .iter()
        .filter(|line| line.starts_with("handled ") && line.ends_with(&text))
        .count()
}

/// Waits until the puppet has finished so many messages, and gives its status, which must say that so many were given up.
async fn wait_done(server: &Server, handled: usize, skipped: usize) -> Value {
    let receiver = eventually("the puppet to be done", async || {
        let receiver = server.receiver("puppet").await;
        (receiver["handled"] == handled && receiver["lag"] == 0).then_some(receiver)
    })
    .await;
    assert_eq!(receiver["dead"], skipped, "{receiver}");
    receiver
}

/// How often a puppet panicked over the message at this offset.
fn panics(log: &Log, offset: usize) -> usize {
    let text = format!("told to trap at offset {offset}");
    log.guest_errors("puppet").iter().filter(|line| **line == text).count()
}

/// Makes an agent active, so that only messages lie in the topic from then on: the next one at offset 2.
async fn first_message(server: &Server, agent: &str) {
    send(server, &[data(agent, json!({ "name": "first" }))]).await;
    wait_handled(server, "first").await;
}

async fn wait_handled(server: &Server, name: &str) {
    server.log.wait_for(&["handled ", &json!({ "name": name }).to_string()]).await;
}

#[tokio::test]
async fn a_message_that_traps_is_given_up_and_the_others_of_its_batch_are_handled() {
    let server = Site::new(puppet()).start().await;
    let calls = [
        data("before", json!({ "name": "before" })),
        data("poisoner", json!({ "do": "trap" })),
        data("after", json!({ "name": "after" })),
        data("poisoner", json!({ "name": "next" })),
    ];
    send(&server, &calls).await;
    let skipped = server.log.wait_for(&["ERROR", "dead letter", r#"agent.id="poisoner""#]).await;
    // Before the first message of each agent lies the record that it is active.
    assert!(skipped.contains("log.offset=3"), "{skipped}");
    for name in ["after", "next"] {
        wait_handled(&server, name).await;
    }
    // Once with all the others, once with those of its half, then alone as often as the default says.
    assert_eq!(panics(&server.log, 3), 2 + 3);
    assert_eq!((handled(&server.log, "before"), handled(&server.log, "after")), (3, 1));
    assert_eq!(server.log.matching(&["ERROR", "dead letter"]).len(), 1);
    let receiver = wait_done(&server, 3, 1).await;
    assert!(receiver["last_error"].as_str().unwrap().contains("offset 3"), "{receiver}");
}

#[tokio::test]
async fn the_poison_among_many_messages_is_found_by_halving() {
    let server = Site::new(puppet()).start().await;
    first_message(&server, "a").await;
    let calls: Vec<_> = (0..64)
        .map(|number| match number {
            41 => data("a", json!({ "do": "trap" })),
            number => data("a", json!({ "name": number.to_string() })),
        })
        .collect();
    send(&server, &calls).await;
    wait_handled(&server, "63").await;
    // The first message and its record come before these.
    let offset = 2 + 41;
    // In batches of 64, 32, 16, 8, 4 and 2, then alone as often as the default says.
    assert_eq!(panics(&server.log, offset), 6 + 3);
    assert_eq!(handled(&server.log, "0"), 2, "it was in no other batch that failed than the first");
    let order: Vec<_> = (42..64).map(|number| json!({ "name": number.to_string() }).to_string()).collect();
    let lines = server.log.guest_lines("puppet");
    let last_of = |text: &String| lines.iter().rposition(|line| line.ends_with(text)).unwrap();
    assert!(order.iter().map(last_of).is_sorted(), "{lines:#?}");
}

#[tokio::test]
async fn a_message_alone_in_its_batch_is_tried_as_often_as_the_config_says() {
    for (attempts, messages) in [(1, 1), (3, 1), (5, 2)] {
        let config = puppet().set("receivers.puppet.max-attempts", attempts);
        let server = Site::new(config.set("receivers.puppet.max-messages", messages)).start().await;
        first_message(&server, "a").await;
        let calls = vec![data("a", json!({ "do": "trap" })); messages];
        send(&server, &calls).await;
        for offset in 2..2 + messages {
            server.log.wait_for(&["ERROR", "dead letter", &format!("log.offset={offset}")]).await;
            // The first of several was also tried with the others.
            let expected = attempts + usize::from(offset == 2 && messages > 1);
            assert_eq!(panics(&server.log, offset), expected, "max-attempts = {attempts}");
        }
    }
}

#[tokio::test]
pub async fn every_kind_of_fault_is_survived() {
    // One thread, so that a guest which does not yield is noticed.
    let server = Site::new(puppet().set("host.threads", 1)).start().await;
    let kinds = ["trap", "loop", "allocate", "recurse", "exit", "double", "stray"];
    for kind in kinds {
        let names = ["before", "after"].map(|when| format!("{when} {kind}"));
        let calls = [
            data("a", json!({ "name": names[0] })),
            data("b", json!({ "do": kind })),
            data("a", json!({ "name": names[1] })),
        ];
        send(&server, &calls).await;
        for name in &names {
            wait_handled(&server, name).await;
        }
    }
    wait_done(&server, 2 * kinds.len(), kinds.len()).await;
    let skipped = server.log.matching(&["ERROR", "dead letter", r#"agent.id="b""#]);
    let offsets: Vec<_> = (0..kinds.len()).map(|index| format!("log.offset={} ", 3 * index + 3)).collect();
    assert_eq!(skipped.len(), offsets.len());
    assert!(skipped.iter().zip(&offsets).all(|(line, offset)| line.contains(offset)), "{skipped:#?}");
    server.stop().await;
}

#[tokio::test]
async fn a_receiver_that_loops_delays_nobody_else() {
    let config = puppet()
        .set("host.threads", 1)
        .set("receivers.puppet.deadline", "2s")
        .set("receivers.puppet.max-attempts", 1)
        .receiver("recorder", &files::guest("recorder"), &["metrics"]);
    let server = Site::new(config).start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({ "do": "loop" }))).await, success());
    for number in 0..100 {
        assert_eq!(
            agent.call(Encoding::Json, &data("a", json!({ "name": number.to_string() }))).await,
            success()
        );
    }
    server.log.wait_seen("recorder", 101).await;
    assert!(server.log.matching(&["dead letter"]).is_empty(), "the recorder had to wait for the puppet");
    wait_handled(&server, "99").await;
    // The recorder was done long before the puppet gave up.
    let lines = server.log.lines();
    let place = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap();
    assert!(place(r#""offset":101,"#) < place("dead letter"));
}

#[tokio::test]
async fn a_call_that_waits_in_the_host_past_its_deadline_is_repeated_and_not_given_up() {
    let config = puppet().receiver("recorder", &files::guest("recorder"), &["metrics"]);
    let server = Site::new(config).start().await;
    send(&server, &[data("a", json!({ "do": "sleep", "milliseconds": 3_600_000 }))]).await;
    eventually("more failures than a message may have", async || {
        (server.receiver("puppet").await["failed"].as_u64()? > 4).then_some(())
    })
    .await;
    assert_eq!(server.receiver("puppet").await["dead"], 0);
    send(&server, &[data("a", json!({ "name": "another" }))]).await;
    server.log.wait_seen("recorder", 2).await;
    server.stop().await;
}

#[tokio::test]
async fn a_retry_comes_again_before_later_messages_of_its_agent() {
    // One batch each: what comes with a message that is to be retried may well be handled before it.
    let server = Site::new(puppet().set("receivers.puppet.max-messages", 1)).start().await;
    let calls = [
        data("a", json!({ "do": "retry-once" })),
        data("a", json!({ "name": "next" })),
        data("a", json!({ "do": "trap-once" })),
        data("a", json!({ "name": "last" })),
    ];
    send(&server, &calls).await;
    wait_handled(&server, "last").await;
    let order: Vec<_> = server
        .log
        .guest_lines("puppet")
        .iter()
        .map(|line| line.split(' ').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(order, ["1", "2", "3", "4"]);
    assert!(server.log.matching(&["dead letter"]).is_empty());
    assert!(server.metrics().await.get(r#"wharf_messages_retried_total{receiver="puppet"}"#) >= 1.0);
}

#[tokio::test]
async fn a_retry_is_never_given_up_by_count() {
    let server = Site::new(puppet()).start().await;
    send(&server, &[data("a", json!({ "do": "retry", "milliseconds": 1 }))]).await;
    eventually("more retries than a message may have failures", async || {
        (server.metrics().await.get(r#"wharf_messages_retried_total{receiver="puppet"}"#) > 5.0).then_some(())
    })
    .await;
    let receiver = server.receiver("puppet").await;
    assert_eq!((&receiver["dead"], &receiver["failed"]), (&json!(0), &json!(0)), "{receiver}");
    server.stop().await;
}

#[tokio::test]
async fn a_rejected_message_is_told_and_passed_over() {
    let server = Site::new(puppet()).start().await;
    let calls = [
        data("a", json!({ "name": "before" })),
        data("b", json!({ "do": "reject" })),
        data("a", json!({ "name": "after" })),
    ];
    send(&server, &calls).await;
    let line = server.log.wait_for(&["ERROR", "dead letter", r#"agent.id="b""#]).await;
    assert!(line.contains("log.offset=3") && line.contains("told to"), "{line}");
    wait_handled(&server, "after").await;
    let receiver = wait_done(&server, 2, 1).await;
    assert_eq!(receiver["failed"], 0, "{receiver}");
    assert_eq!((handled(&server.log, "before"), handled(&server.log, "after")), (1, 1));
}

#[tokio::test]
async fn what_was_given_up_or_is_still_tried_is_the_same_after_a_restart() {
    let site = Site::new(puppet());
    let server = site.start().await;
    send(&server, &[data("a", json!({ "do": "reject" }))]).await;
    server.log.wait_for(&["ERROR", "dead letter", "log.offset=1"]).await;
    send(&server, &[data("a", json!({ "do": "retry", "milliseconds": 3_600_000 }))]).await;
    eventually("the retry", async || {
        (server.metrics().await.get(r#"wharf_messages_retried_total{receiver="puppet"}"#) > 0.0).then_some(())
    })
    .await;
    // A pause of an hour does not delay the stop.
    server.stop().await;
    let server = site.start().await;
    eventually("the retry to come again", async || {
        (server.metrics().await.get(r#"wharf_messages_retried_total{receiver="puppet"}"#) > 0.0).then_some(())
    })
    .await;
    let skipped = server.stop().await.matching(&["ERROR"]);
    assert!(skipped.is_empty(), "{skipped:#?}");
}

#[tokio::test]
async fn a_batch_is_bounded_by_count_and_bytes() {
    // A trap at the end of a batch makes those before it, in the same batch, be handled again: with their half, and alone where
    // the trap was in it.
    let run = async |config: Config, padding: usize, expected: [usize; 3]| {
        let server = Site::new(config).start().await;
        first_message(&server, "a").await;
        let body = |name: &str| json!({ "name": name, "padding": "x".repeat(padding) });
        let names = ["one", "two", "three"];
        let mut calls: Vec<_> = names.iter().map(|name| data("a", body(name))).collect();
        calls.push(data("a", json!({ "do": "trap", "padding": "x".repeat(padding) })));
        send(&server, &calls).await;
        server.log.wait_for(&["ERROR", "dead letter", "log.offset=5"]).await;
        let times = names.map(|name| server.log.matching(&["handled ", &body(name).to_string()]).len());
        assert_eq!(times, expected);
    };
    run(puppet().set("receivers.puppet.max-messages", 4), 0, [2, 2, 3]).await;
    run(puppet().set("receivers.puppet.max-messages", 3), 0, [1, 1, 1]).await;
    run(puppet().set("receivers.puppet.max-messages", 2), 0, [1, 1, 2]).await;
    // Each is larger than a batch may be, and goes alone.
    run(puppet().set("receivers.puppet.max-bytes", "1KiB"), 2_000, [1, 1, 1]).await;
    // Two fit.
    run(puppet().set("receivers.puppet.max-bytes", "5KiB"), 2_000, [1, 1, 2]).await;
}

#[tokio::test]
pub async fn an_instance_that_cannot_begin_is_tried_again_while_others_work() {
    let server = Site::new(
        Config::new()
            .receiver("failing", &files::guest("init-fails"), &["metrics"])
            .set("receivers.failing.retry-pause", "1ms")
            .set("receivers.failing.quarantine-failures", 1_000_000)
            .receiver("recorder", &files::guest("recorder"), &["metrics"]),
    )
    .start()
    .await;
    send(&server, &[data("a", json!({}))]).await;
    server.log.wait_seen("recorder", 1).await;
    eventually("several tries", async || {
        let receiver = server.receiver("failing").await;
        (receiver["failed"].as_u64()? >= 3).then_some(receiver)
    })
    .await;
    let receiver = server.receiver("failing").await;
    assert_eq!((&receiver["state"], &receiver["handled"]), (&json!("restarting"), &json!(0)), "{receiver}");
    assert!(receiver["last_error"].as_str().unwrap().contains("the database is on holiday"), "{receiver}");
    assert!(receiver["lag"].as_u64().unwrap() >= 1, "{receiver}");
    let lines = server.stop().await.matching(&["failing", "the database is on holiday"]);
    assert!(lines.len() >= 3, "{lines:#?}");
}

#[tokio::test]
async fn a_receiver_that_floods_its_log_is_capped_and_told() {
    let server = Site::new(puppet().set("receivers.puppet.log-lines", 10)).start().await;
    send(&server, &[data("a", json!({ "do": "print", "lines": 5_000, "length": 10 }))]).await;
    wait_done(&server, 1, 0).await;
    // What was dropped is told in the second after it, or at the end.
    let log = server.stop().await;
    let dropped = |line: &String| line.split_once("dropped=")?.1.split(' ').next()?.parse::<usize>().ok();
    let dropped: usize = log.matching(&["receiver.name=puppet"]).iter().filter_map(dropped).sum();
    let shown = log.guest_lines("puppet").len();
    assert_eq!(shown + dropped, 5_000);
    assert!((10..2_500).contains(&shown), "{shown} lines were shown");
}

#[tokio::test]
async fn a_guest_sees_nothing_of_the_host() {
    let server = Site::new(puppet()).start().await;
    send(&server, &[data("a", json!({ "do": "look" }))]).await;
    server.log.wait_for(&["input ", "receiver.name=puppet"]).await;
    let lines = server.log.guest_lines("puppet");
    let value = |name: &str| {
        lines.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{lines:#?}"))
    };
    assert_eq!(value("variables "), "[]");
    assert_eq!(value("network "), "false");
    for name in ["folder ", "file "] {
        assert!(value(name).starts_with("Err("), "{lines:#?}");
    }
    assert_eq!(value("input "), r#"Some("")"#);
}

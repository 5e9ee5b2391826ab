//! What receivers are given and how they are fed, when all goes well.

use e2e::calls::{data, data_of, success};
use e2e::{Agent, Config, Encoding, Site, eventually, files};
use serde_json::{Value, json};

#[tokio::test]
async fn bodies_come_as_json_or_as_they_were_sent() {
    let recorder = files::guest("recorder");
    let server = Site::new(
        Config::new()
            .receiver("plain", &recorder, &["metrics"])
            .receiver("raw", &recorder, &["metrics"])
            .set("receivers.raw.encoding", "as-sent"),
    )
    .start()
    .await;
    let mut agent = Agent::connect(server.agents).await;
    let body =
        json!({ "text": "é \"quoted\" \u{1f980}", "numbers": [0, -1, 1.5, u64::MAX], "nothing": null });
    assert_eq!(agent.call(Encoding::Json, &data("a", body.clone())).await, success());
    assert_eq!(agent.call(Encoding::Msgpack, &data("a", body.clone())).await, success());
    // {"bytes": binary}: without a form of its own in JSON.
    let mut frame = Encoding::Msgpack.encode(&data("a", Value::Null));
    let binary = [&[0x81, 0xa5][..], b"bytes", &[0xc4, 0x03, 1, 2, 3]].concat();
    // `data` is the first key in the order of names.
    let at = frame.iter().position(|byte| *byte == 0xc0).unwrap();
    frame.splice(at..=at, binary.clone());
    assert_eq!(agent.call_bytes(Encoding::Msgpack, frame).await, success());

    let plain: Vec<_> = server.log.wait_seen("plain", 3).await.into_iter().map(|seen| seen.body).collect();
    assert_eq!(plain, [body.clone(), body.clone(), json!({ "bytes": "AQID" })]);
    let raw: Vec<_> = server.log.wait_seen("raw", 3).await.into_iter().map(|seen| seen.body).collect();
    assert_eq!(raw, [body.clone(), json!(Encoding::Msgpack.encode(&body)), json!(binary)]);
}

#[tokio::test]
async fn what_an_agent_says_about_a_message_reaches_the_receiver() {
    let server =
        Site::new(Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"])).start().await;
    let mut agent = Agent::connect(server.agents).await;
    let mut frame = data("näme <script>", json!({}));
    frame["message_id"] = "m-1".into();
    frame["sent_at"] = 1_700_000_000_000_u64.into();
    frame["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into();
    assert_eq!(agent.call(Encoding::Json, &frame).await, success());
    let seen = server.log.wait_seen("recorder", 1).await.remove(0);
    assert_eq!((seen.agent.as_str(), seen.id.as_deref()), ("näme <script>", Some("m-1")));
    assert_eq!((seen.r#type.as_str(), seen.redelivery.as_str()), ("metrics", "none"));
}

#[tokio::test]
pub async fn each_receiver_gets_its_types_and_each_message_once() {
    let recorder = files::guest("recorder");
    let server = Site::new(
        Config::new()
            .data_type("other")
            .receiver("both", &recorder, &["metrics", "other"])
            .receiver("one", &recorder, &["other"])
            .set("receivers.both.instances", 3),
    )
    .start()
    .await;
    const AGENTS: usize = 50;
    const MESSAGES: usize = 20;
    let mut agent = Agent::connect(server.agents).await;
    for number in 0..MESSAGES {
        let calls = (0..AGENTS).flat_map(|agent| {
            ["metrics", "other"]
                .map(|name| data_of(name, &format!("agent-{agent}"), json!({ "number": number })))
        });
        let answer = agent.call(Encoding::ALL[number % 2], &calls.collect()).await;
        assert_eq!(answer, json!({ "result": "success", "accepted": 2 * AGENTS }));
    }
    let log = &server.log;
    let (both, one) =
        (log.wait_seen("both", 2 * AGENTS * MESSAGES).await, log.wait_seen("one", AGENTS * MESSAGES).await);
    assert!(one.iter().all(|seen| seen.r#type == "other"));
    for seen in [both, one] {
        let mut next = std::collections::HashMap::new();
        for seen in seen {
            let expected = next.entry((seen.r#type.clone(), seen.agent.clone())).or_insert(0_usize);
            assert_eq!(seen.body["number"], *expected, "{seen:?} is out of order");
            *expected += 1;
        }
        assert!(next.values().all(|count| *count == MESSAGES));
    }
    let log = server.stop().await;
    assert_eq!((log.seen("both").len(), log.seen("one").len()), (2 * AGENTS * MESSAGES, AGENTS * MESSAGES));
}

#[tokio::test]
async fn a_new_receiver_begins_with_what_comes_after_it() {
    let mut site = Site::new(Config::new());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({ "when": "before" }))).await, success());
    server.stop().await;
    site.change(|config| config.receiver("recorder", &files::guest("recorder"), &["metrics"]));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({ "when": "after" }))).await, success());
    server.log.wait_seen("recorder", 1).await;
    let seen = server.stop().await.seen("recorder");
    assert_eq!(seen.iter().map(|seen| &seen.body["when"]).collect::<Vec<_>>(), ["after"]);
}

#[tokio::test]
async fn a_receiver_that_lags_catches_up_from_files() {
    // Much more than is kept in memory, in many segments.
    const MESSAGES: usize = 3_000;
    let mut site = Site::new(
        Config::new()
            .set("log.segment-size", "1MiB")
            .set("log.tail-size", "64KiB")
            .receiver("puppet", &files::guest("puppet"), &["metrics"])
            .set("receivers.puppet.deadline", "20s"),
    );
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    // While it sleeps, the others pile up.
    assert_eq!(
        agent.call(Encoding::Json, &data("a", json!({ "do": "sleep", "milliseconds": 1500 }))).await,
        success()
    );
    let padding = "x".repeat(1_000);
    for first in (0..MESSAGES).step_by(100) {
        let calls =
            (first..first + 100).map(|number| data("a", json!({ "number": number, "padding": padding })));
        let answer = agent.call(Encoding::Msgpack, &calls.collect()).await;
        assert_eq!(answer["accepted"], 100);
    }
    eventually("the receiver to catch up", async || {
        (server.receiver("puppet").await["handled"] == MESSAGES + 1).then_some(())
    })
    .await;
    let numbers = |log: &e2e::Log| -> Vec<u64> {
        let lines = log.guest_lines("puppet").into_iter();
        lines
            .filter_map(|line| {
                serde_json::from_str::<Value>(line.splitn(3, ' ').nth(2)?).unwrap()["number"].as_u64()
            })
            .collect()
    };
    assert_eq!(numbers(&server.stop().await), (0..MESSAGES as u64).collect::<Vec<_>>());
    // Nothing is left for the next run.
    site.set("log.tail-size", "1MiB");
    assert_eq!(numbers(&site.start().await.stop().await), Vec::<u64>::new());
}

//! What operators do with dead letters: look at them, drop them, have them delivered again.

use bytes::Bytes;
use e2e::calls::{data, success};
use e2e::{Agent, Config, Finished, Rest, Server, Site, eventually, files, rest};
use reqwest::Method;
use serde_json::{Value, json};
use wharf_log::Lane;
use wharf_protocol::{AgentId, Body, Encoding, Limits, Record, StoredMessage};
use wharf_state::{DeadLetter, DeadLetterLimits, Death, DeathKind, State};

/// What no terminal may be given.
const HOSTILE: &str = "no\u{1b}[2J\u{9b}31m\nforged line";

fn recorder() -> Config {
    Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"])
}

/// An operator's command on this server.
async fn operate(site: &Site, server: &Server, command: &[&str]) -> Finished {
    let admin = format!("http://{}", server.admin);
    site.run(&[command, &["--admin", &admin]].concat()).await
}

/// As [`operate`], of a command that goes well, and gives what it printed.
async fn told(site: &Site, server: &Server, command: &[&str]) -> String {
    let finished = operate(site, server, command).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{command:?}");
    finished.stdout
}

/// The lines of a list with `--json`.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// A site whose server has run, and is stopped.
async fn used(config: Config) -> Site {
    let site = Site::new(config);
    site.start().await.stop().await;
    site
}

/// Puts dead letters into the state database of a stopped server: one for each reason.
fn bury(site: &Site, receiver: &str, reasons: &[&str]) {
    bury_body(site, receiver, reasons, json!({ "peers": 5, "text": "a\u{9b}" }));
}

/// As [`bury`], of messages with this body.
fn bury_body(site: &Site, receiver: &str, reasons: &[&str], body: Value) {
    let agent = "node-1";
    let message = StoredMessage {
        agent: AgentId::new(agent).unwrap(),
        received_at: 1_777_629_600_000,
        message_id: Some("m-1".to_owned()),
        sent_at: None,
        user: None,
        traceparent: None,
        body: Body::new(
            Encoding::Msgpack,
            Bytes::from(e2e::Encoding::Msgpack.encode(&body)),
            &Limits::default(),
        )
        .unwrap(),
    };
    let record = Record::Message(message).encode();
    let letters: Vec<_> = (0..)
        .zip(reasons)
        .map(|(offset, reason)| DeadLetter {
            death: Death {
                offset,
                lane: Lane::of(agent),
                agent: agent.to_owned(),
                received_at: 1_777_629_600_000,
                attempts: 3,
                kind: DeathKind::Faults,
                reason: (*reason).to_owned(),
                trap: Some("unreachable".to_owned()),
                backtrace: Some("0: handle\n1: main".to_owned()),
                stderr: "panicked".to_owned(),
                digest: "9f86d081".to_owned(),
                died_at: 1_777_629_660_000,
            },
            message: &record,
        })
        .collect();
    let state = State::open(&site.path().join("data/state")).unwrap();
    let limits = DeadLetterLimits { count: u64::MAX, bytes: u64::MAX };
    state.bury(receiver, "metrics", &letters, limits, []).unwrap();
}

#[tokio::test]
async fn letters_are_listed_and_shown_without_steering_the_terminal() {
    let site = used(recorder()).await;
    bury(&site, "recorder", &["first", HOSTILE]);
    let server = site.start().await;
    let list = told(&site, &server, &["dlq", "list", "recorder"]).await;
    let rows: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{list}");
    assert_eq!(
        rows[1],
        ["1", "metrics", "0", "node-1", "2026-05-01T10:01:00Z", "3", "dead", "faults", "first"]
    );
    assert!(list.ends_with("no\u{fffd}[2J\u{fffd}31m\u{fffd}forged line\n"), "{list:?}");

    let json = told(&site, &server, &["dlq", "list", "recorder", "--json"]).await;
    let letters = lines(&json);
    assert_eq!((&letters[0]["id"], &letters[1]["id"], letters.len()), (&json!(1), &json!(2), 2));
    assert_eq!(letters[1]["reason"], HOSTILE);
    assert!(json.chars().all(|character| character == '\n' || !character.is_control()), "{json:?}");

    let shown = told(&site, &server, &["dlq", "show", "recorder", "2"]).await;
    for part in
        ["trap         unreachable", "message id   m-1", "    1: main\n", "    panicked\n", "9f86d081"]
    {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    assert!(shown.contains("    forged line\n"), "it is not at the margin: {shown}");
    assert!(shown.ends_with("    {\"peers\":5,\"text\":\"a\u{fffd}\"}\n"), "{shown}");
    assert!(shown.chars().all(|character| character == '\n' || !character.is_control()), "{shown:?}");
    let shown = told(&site, &server, &["dlq", "show", "recorder", "2", "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["record"]["data"], json!({ "peers": 5, "text": "a\u{9b}" }), "{shown:#}");
    assert_eq!((&shown["record"]["encoding"], &shown["type"]), (&json!("msgpack"), &json!("metrics")));
    assert_eq!((&shown["backtrace"], &shown["kind"]), (&json!("0: handle\n1: main"), &json!("faults")));

    let missing = operate(&site, &server, &["dlq", "show", "recorder", "3"]).await;
    assert_eq!(missing.code, Some(1));
    assert_eq!(
        missing.stderr,
        "wharf: failed to show dead letter 3 of receiver \"recorder\": failed to find the dead letter 3 of receiver \
         \"recorder\": it was finished, dropped, fell out, or never was\n"
    );
}

#[tokio::test]
async fn letters_are_dropped_by_number_or_all_of_them_and_never_by_accident() {
    let site = used(recorder()).await;
    bury(&site, "recorder", &["x"; 9]);
    let server = site.start().await;
    for command in [
        &["dlq", "drop", "recorder"][..],
        &["dlq", "drop", "recorder", "--all", "1"],
        &["dlq", "drop", "recorder", "7-3"],
        &["dlq", "drop", "recorder", "1,x"],
        &["dlq", "redrive", "recorder"],
    ] {
        let refused = operate(&site, &server, command).await;
        assert_eq!(refused.code, Some(2), "{command:?}: {}", refused.stdout);
    }
    assert_eq!(lines(&told(&site, &server, &["dlq", "list", "recorder", "--json"]).await).len(), 9);

    let dropped = told(&site, &server, &["dlq", "drop", "recorder", "2", "4-5,5-6", "100-200"]).await;
    assert_eq!(dropped, "recorder: 4 dropped\n");
    let left =
        |text: String| lines(&text).iter().map(|letter| letter["id"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(left(told(&site, &server, &["dlq", "list", "recorder", "--json"]).await), [1, 3, 7, 8, 9]);
    let none = operate(&site, &server, &["dlq", "drop", "recorder", "4-6"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (Some(1), "recorder: 0 dropped\n"));
    assert_eq!(none.stderr, "wharf: receiver \"recorder\" has no such dead letters\n");

    let admin = Rest::new(server.admin);
    let path = "/admin/v1/receivers/recorder/dead-letters/7";
    let answer = rest::send(admin.request(Method::DELETE, path)).await;
    assert_eq!((answer.status, answer.value()), (200, json!({ "receiver": "recorder", "dropped": 1 })));
    assert_eq!(rest::send(admin.request(Method::DELETE, path)).await.status, 404);

    server.kill().await;
    let server = site.start().await;
    assert_eq!(left(told(&site, &server, &["dlq", "list", "recorder", "--json"]).await), [1, 3, 8, 9]);
    assert_eq!(
        told(&site, &server, &["dlq", "drop", "recorder", "--all", "--json"]).await,
        "{\"dropped\":4,\"receiver\":\"recorder\"}\n"
    );
    assert_eq!(told(&site, &server, &["dlq", "drop", "recorder", "--all"]).await, "recorder: 0 dropped\n");
    assert_eq!(told(&site, &server, &["dlq", "list", "recorder", "--json"]).await, "");
}

#[tokio::test]
async fn more_letters_than_a_page_are_listed_in_order() {
    let site = used(recorder()).await;
    bury(&site, "recorder", &["x"; 2500]);
    let server = site.start().await;
    let list = told(&site, &server, &["dlq", "list", "recorder"]).await;
    let ids: Vec<_> = list.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(ids[0], "ID");
    assert!(ids[1..].iter().map(|id| id.parse::<usize>().unwrap()).eq(1..=2500), "{ids:?}");
    assert_eq!(lines(&told(&site, &server, &["dlq", "list", "recorder", "--json"]).await).len(), 2500);
    assert_eq!(told(&site, &server, &["dlq", "drop", "recorder", "--all"]).await, "recorder: 2500 dropped\n");
}

#[tokio::test]
async fn letters_of_a_receiver_that_the_config_has_no_more_are_still_there() {
    let site = used(recorder()).await;
    bury(&site, "former", &["x", "y"]);
    bury(&site, "recorder", &["z"]);
    let server = site.start().await;
    let receivers = lines(&told(&site, &server, &["dlq", "list", "--json"]).await);
    let of: Vec<_> = receivers.iter().map(|of| (&of["receiver"], &of["count"], &of["configured"])).collect();
    assert_eq!(
        of,
        [(&json!("former"), &json!(2), &json!(false)), (&json!("recorder"), &json!(1), &json!(true))]
    );
    let table = told(&site, &server, &["dlq", "list"]).await;
    assert!(table.lines().nth(1).unwrap().starts_with("former"), "{table}");

    assert!(told(&site, &server, &["dlq", "show", "former", "2"]).await.contains("\n    y\n"));
    let refused = operate(&site, &server, &["dlq", "redrive", "former", "--all"]).await;
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (
            Some(1),
            "wharf: failed to redrive dead letters of receiver \"former\": failed to find the receiver \"former\": the config \
             has recorder\n"
        )
    );
    assert_eq!(told(&site, &server, &["dlq", "drop", "former", "--all"]).await, "former: 2 dropped\n");
    let unknown = operate(&site, &server, &["dlq", "list", "former"]).await;
    assert_eq!(unknown.code, Some(1), "{}", unknown.stdout);
    assert!(
        unknown.stderr.contains("the config has recorder, and dead letters are there of recorder"),
        "{}",
        unknown.stderr
    );
}

#[tokio::test]
async fn whatever_is_asked_of_the_admin_interface_gets_an_answer() {
    let site = used(recorder()).await;
    bury(&site, "recorder", &["x", "y"]);
    let server = site.start().await;
    let admin = Rest::new(server.admin);
    let long = format!("/admin/v1/receivers/{}/dead-letters", "x".repeat(5_000));
    let many = format!("/admin/v1/receivers/recorder/dead-letters?ids={}", ["1"; 300].join(","));
    for (method, path, status) in [
        (Method::GET, "/admin/v1/receivers/%00/dead-letters", 404),
        (Method::GET, "/admin/v1/receivers/..%2F..%2Fetc/dead-letters", 404),
        (Method::GET, "/admin/v1/receivers/%1b%5b2J/dead-letters/1", 404),
        (Method::GET, "/admin/v1/receivers/%ff/dead-letters", 400),
        (Method::GET, &long, 404),
        (Method::GET, "/admin/v1/receivers/recorder/dead-letters/-1", 400),
        (Method::GET, "/admin/v1/receivers/recorder/dead-letters/18446744073709551616", 400),
        (Method::GET, "/admin/v1/receivers/recorder/dead-letters/18446744073709551615", 404),
        (Method::GET, "/admin/v1/receivers/recorder/dead-letters?limit=-1", 400),
        (Method::GET, "/admin/v1/receivers/recorder/dead-letters?form=1", 400),
        (Method::DELETE, "/admin/v1/receivers/recorder/dead-letters", 422),
        (Method::DELETE, "/admin/v1/receivers/recorder/dead-letters?all=false", 422),
        (Method::DELETE, "/admin/v1/receivers/recorder/dead-letters?all=true&ids=1", 422),
        (Method::DELETE, "/admin/v1/receivers/recorder/dead-letters?ids=1-", 422),
        (Method::DELETE, &many, 422),
        (Method::POST, "/admin/v1/receivers/recorder/dead-letters/redrive?ids=2-1", 422),
        (Method::POST, "/admin/v1/receivers/nobody/dead-letters/redrive?all=true", 404),
    ] {
        let answer = rest::send(admin.request(method.clone(), path)).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        let error = answer.value()["error"].as_str().unwrap_or_default().to_owned();
        assert!(!error.is_empty() && error.len() < 400, "{method} {path}: {error}");
    }
    let all =
        admin.get("/admin/v1/receivers/recorder/dead-letters?from=0&to=18446744073709551615&limit=0").await;
    assert_eq!((all.value()["letters"].as_array().unwrap().len(), &all.value()["next"]), (1, &json!(2)));
    let none = admin.get("/admin/v1/receivers/recorder/dead-letters?from=9&to=3").await;
    assert_eq!((none.status, &none.value()["letters"]), (200, &json!([])));
}

/// A puppet that gives up at once.
fn puppet() -> Config {
    Config::new()
        .receiver("puppet", &files::guest("puppet"), &["metrics"])
        .set("receivers.puppet.retry-pause", "1ms")
        .set("receivers.puppet.max-attempts", 1)
        .set("receivers.puppet.quarantine-failures", 1_000_000)
}

async fn send(server: &Server, body: Value) {
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(e2e::Encoding::Json, &data("a", body)).await, success());
}

/// The number and the state of each letter.
async fn states(site: &Site, server: &Server, receiver: &str) -> Vec<(u64, String)> {
    let listed = lines(&told(site, server, &["dlq", "list", receiver, "--json"]).await);
    let state = |letter: &Value| letter["state"].as_str().unwrap().to_owned();
    listed.iter().map(|letter| (letter["id"].as_u64().unwrap(), state(letter))).collect()
}

#[tokio::test]
async fn a_redriven_letter_is_deleted_when_it_is_finished_and_kept_when_it_is_dead_again() {
    let site = Site::new(puppet());
    let server = site.start().await;
    for (dead, order) in [(1, "trap-once"), (2, "reject")] {
        send(&server, json!({ "do": order })).await;
        // In a batch of its own: with another it would be delivered more than once.
        eventually("a dead letter", async || (server.receiver("puppet").await["dead"] == dead).then_some(()))
            .await;
    }
    let before = lines(&told(&site, &server, &["dlq", "list", "puppet", "--json"]).await);
    assert_eq!((&before[0]["kind"], &before[1]["kind"]), (&json!("faults"), &json!("rejected")));
    assert!(before[0]["stderr"].as_str().unwrap().contains("told to trap once"), "{:#}", before[0]);

    let redriven = operate(&site, &server, &["dlq", "redrive", "puppet", "--all", "--wait"]).await;
    assert_eq!(redriven.code, Some(1));
    assert_eq!(redriven.stderr, "wharf: not finished: 1 of 2\n");
    let mut printed: Vec<_> = redriven.stdout.lines().collect();
    printed.sort_unstable();
    assert_eq!(printed, ["1: finished", "2: dead again, rejected: told to", "puppet: 2 queued"]);
    server.log.wait_for(&["handled 1 ", "trap-once"]).await;

    let after = lines(&told(&site, &server, &["dlq", "list", "puppet", "--json"]).await);
    let [left] = &after[..] else { panic!("{after:#?}") };
    assert_eq!(
        (&left["id"], &left["offset"], &left["attempts"]),
        (&json!(2), &json!(2), &json!(2)),
        "{left:#}"
    );
    server.kill().await;
    let server = site.start().await;
    assert_eq!(states(&site, &server, "puppet").await, [(2, "dead".to_owned())]);
}

#[tokio::test]
async fn a_redriven_message_is_marked_and_has_the_offset_that_it_had() {
    let config = recorder().set("receivers.recorder.instances", 3);
    let site = used(config).await;
    bury_body(&site, "recorder", &["x", "y", "z"], json!({ "peers": 5 }));
    let server = site.start().await;
    let redriven = told(&site, &server, &["dlq", "redrive", "recorder", "3,1", "--wait", "--json"]).await;
    assert_eq!(
        serde_json::from_str::<Value>(&redriven).unwrap(),
        json!({
            "receiver": "recorder", "queued": 2, "already": 0, "damaged": 0,
            "finished": [1, 3], "dead_again": [], "not_redriven": []
        })
    );
    let seen = server.log.wait_seen("recorder", 2).await;
    let seen: Vec<_> = seen.iter().map(|seen| (seen.offset, seen.redelivery.as_str(), &seen.id)).collect();
    let id = Some("m-1".to_owned());
    assert_eq!(seen, [(0, "redrive", &id), (2, "redrive", &id)]);
    assert_eq!(states(&site, &server, "recorder").await, [(2, "dead".to_owned())]);
    let missing = operate(&site, &server, &["dlq", "redrive", "recorder", "1"]).await;
    assert_eq!(missing.code, Some(1));
    assert_eq!(missing.stderr, "wharf: receiver \"recorder\" has no such dead letters\n");
    assert_eq!(
        told(&site, &server, &["dlq", "redrive", "recorder", "--all", "--wait"]).await,
        "recorder: 1 queued\n2: finished\n"
    );
}

#[tokio::test]
async fn a_paused_receiver_gets_what_is_redriven_when_it_is_resumed() {
    let site = used(recorder()).await;
    bury_body(&site, "recorder", &["x", "y", "z"], json!({ "peers": 5 }));
    let server = site.start().await;
    told(&site, &server, &["pause", "recorder"]).await;
    let queued = told(&site, &server, &["dlq", "redrive", "recorder", "--all"]).await;
    assert_eq!(queued, "recorder: 3 queued; it is paused, and gets them when it is resumed\n");
    let again = told(&site, &server, &["dlq", "redrive", "recorder", "1-2"]).await;
    assert_eq!(again, "recorder: 0 queued, 2 were already; it is paused, and gets them when it is resumed\n");
    let waiting = states(&site, &server, "recorder").await;
    assert!(waiting.len() == 3 && waiting.iter().all(|(_, state)| state != "dead"), "{waiting:?}");
    told(&site, &server, &["dlq", "drop", "recorder", "2"]).await;
    // What is queued is not kept over a restart.
    server.stop().await;
    let server = site.start().await;
    let dead = |id| (id, "dead".to_owned());
    assert_eq!(states(&site, &server, "recorder").await, [dead(1), dead(3)]);
    told(&site, &server, &["dlq", "redrive", "recorder", "1,3"]).await;
    told(&site, &server, &["dlq", "drop", "recorder", "3"]).await;
    assert_eq!(server.log.seen("recorder"), []);
    told(&site, &server, &["resume", "recorder"]).await;
    eventually("the letters to be gone", async || {
        states(&site, &server, "recorder").await.is_empty().then_some(())
    })
    .await;
    let seen = server.stop().await.seen("recorder");
    assert_eq!(seen.iter().map(|seen| seen.offset).collect::<Vec<_>>(), [0], "the other was dropped");
}

#[tokio::test]
async fn a_letter_whose_receiver_wants_it_again_later_is_under_way_all_the_time() {
    let site = used(puppet()).await;
    bury_body(&site, "puppet", &["x"], json!({ "do": "hold" }));
    let server = site.start().await;
    told(&site, &server, &["dlq", "redrive", "puppet", "1"]).await;
    eventually("some retries", async || {
        let [(1, state)] = &states(&site, &server, "puppet").await[..] else { panic!("it is gone") };
        assert!(state == "queued" || state == "redriving", "{state}");
        let retried = r#"wharf_messages_retried_total{receiver="puppet"}"#;
        (server.metrics().await.get(retried) > 3.0).then_some(())
    })
    .await;
    send(&server, json!({ "do": "release" })).await;
    eventually("the letter to be gone", async || {
        states(&site, &server, "puppet").await.is_empty().then_some(())
    })
    .await;
}

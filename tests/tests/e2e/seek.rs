//! Operators move the cursors of paused receivers.

use e2e::calls::{data, data_of, success};
use e2e::{Agent, Config, Encoding, Finished, Rest, Server, Site, eventually, files, rest};
use reqwest::Method;
use serde_json::{Value, json};
use wharf_state::{GapReason, State};

fn recorder(types: &[&str]) -> Config {
    types.iter().fold(Config::new(), |config, data_type| config.data_type(data_type)).receiver(
        "recorder",
        &files::guest("recorder"),
        types,
    )
}

async fn send(server: &Server, call: Value) {
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &call).await, success());
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

/// As [`operate`], of a command that is refused, and gives why.
async fn refused(site: &Site, server: &Server, command: &[&str]) -> String {
    let finished = operate(site, server, command).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{command:?}");
    finished.stderr.trim_end().to_owned()
}

/// Waits until the receiver's cursors are at the end in all lanes, also in those where nothing was for it.
async fn wait_done(server: &Server) {
    eventually("the receiver to be done", async || {
        (server.receiver("recorder").await["lag"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_receiver_gets_messages_again_and_it_is_kept_who_wanted_it() {
    let site = Site::new(recorder(&["metrics"]));
    let server = site.start().await;
    for number in 1..=3 {
        send(&server, data("a", json!({ "number": number }))).await;
    }
    server.log.wait_seen("recorder", 3).await;
    told(&site, &server, &["pause", "recorder"]).await;
    let moved = told(&site, &server, &["seek", "recorder", "--to", "oldest"]).await;
    assert_eq!(moved, "recorder in metrics: from 4 to 0\n");
    // Nobody gets them while it is paused, and the record outlasts the server.
    server.stop().await;
    let gaps = State::open(&site.path().join("data/state")).unwrap().gaps("recorder").unwrap().topics;
    let [(_, gaps)] = &gaps[..] else { panic!("{gaps:?}") };
    let GapReason::Seek { who, what } = &gaps[0].reason else { panic!("{gaps:?}") };
    assert_eq!((what.as_str(), gaps[0].offsets.is_empty()), ("wharf seek recorder --to oldest", true));
    assert!(who.contains('@'), "{who}");

    let server = site.start().await;
    told(&site, &server, &["resume", "recorder"]).await;
    let seen = server.log.wait_seen("recorder", 3).await;
    let numbers: Vec<_> = seen.iter().map(|seen| seen.body["number"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn cursors_are_moved_both_ways_while_the_server_runs() {
    let site = Site::new(recorder(&["metrics"]).set("receivers.recorder.instances", 2));
    let server = site.start().await;
    for number in 1..=3 {
        send(&server, data("a", json!({ "number": number }))).await;
    }
    wait_done(&server).await;
    told(&site, &server, &["pause", "recorder"]).await;
    // What a worker has in its hands when it is paused is not delivered either.
    for number in 4..=5 {
        send(&server, data("a", json!({ "number": number }))).await;
    }
    let moved = told(&site, &server, &["seek", "recorder", "--to", "newest"]).await;
    assert_eq!(
        moved,
        "recorder in metrics: from 4 to 6; what it had not finished of 4 to 5 is passed over\n"
    );
    told(&site, &server, &["resume", "recorder"]).await;
    send(&server, data("a", json!({ "number": 6 }))).await;
    let seen = server.log.wait_seen("recorder", 4).await;
    assert_eq!((&seen[3].body["number"], seen[3].redelivery.as_str()), (&json!(6), "none"), "{seen:#?}");

    wait_done(&server).await;
    told(&site, &server, &["pause", "recorder"]).await;
    let moved = told(&site, &server, &["seek", "recorder", "--to", "3"]).await;
    assert_eq!(moved, "recorder in metrics: from 7 to 3\n");
    told(&site, &server, &["resume", "recorder"]).await;
    send(&server, data("a", json!({ "number": 7 }))).await;
    let seen = server.log.wait_seen("recorder", 9).await;
    let again: Vec<_> = seen.iter().skip(4).map(|seen| (seen.offset, seen.redelivery.as_str())).collect();
    // Offset 6 was delivered before; 4 and 5 were not, but nobody knows it any more.
    assert_eq!(again, [(3, "again"), (4, "again"), (5, "again"), (6, "again"), (7, "none")]);
    wait_done(&server).await;
}

#[tokio::test]
async fn a_receiver_does_not_get_what_it_was_moved_past() {
    let site = Site::new(recorder(&["metrics"]));
    let server = site.start().await;
    told(&site, &server, &["pause", "recorder"]).await;
    for number in 1..=3 {
        send(&server, data("a", json!({ "number": number }))).await;
    }
    let moved = told(&site, &server, &["seek", "recorder", "--to", "newest", "--json"]).await;
    let moved: Value = serde_json::from_str(&moved).unwrap();
    let expected = json!({ "type": "metrics", "to": 4, "lowest_before": 0, "gap": { "from": 0, "to": 4 } });
    assert_eq!(moved, json!({ "receiver": "recorder", "moved": [expected] }));
    assert_eq!(server.receiver("recorder").await["lag"], 0);
    server.kill().await;

    let server = site.start().await;
    send(&server, data("a", json!({ "number": 4 }))).await;
    told(&site, &server, &["resume", "recorder"]).await;
    let seen = server.log.wait_seen("recorder", 1).await;
    assert_eq!(seen[0].body["number"], 4, "{seen:?}");
}

#[tokio::test]
async fn a_seek_that_can_not_be_meant_is_refused_and_says_how_to_go_on() {
    let site = Site::new(recorder(&["metrics", "other"]));
    let server = site.start().await;
    send(&server, data("a", json!({}))).await;
    send(&server, data_of("other", "a", json!({}))).await;
    server.log.wait_seen("recorder", 2).await;
    let failed = "wharf: failed to move the cursors of receiver \"recorder\": failed to move the cursors of receiver \"recorder\"";
    assert_eq!(
        refused(&site, &server, &["seek", "recorder", "--to", "oldest"]).await,
        format!("{failed} while it is not paused: pause it first: wharf pause recorder")
    );
    told(&site, &server, &["pause", "recorder"]).await;
    assert_eq!(
        refused(&site, &server, &["seek", "recorder", "--to", "1"]).await,
        format!("{failed} to an offset of each of its data types: choose one of metrics, other with --type")
    );
    assert_eq!(
        refused(&site, &server, &["seek", "recorder", "--to", "1", "--type", "third"]).await,
        format!("{failed} in \"third\": its data types are metrics, other")
    );
    assert_eq!(
        refused(&site, &server, &["seek", "recorder", "--to", "3", "--type", "other"]).await,
        format!("{failed} to offset 3 of \"other\", which ends at 2")
    );
    for to in ["tomorrow", "-1", ""] {
        let wrong = operate(&site, &server, &["seek", "recorder", "--to", to]).await;
        assert_eq!(wrong.code, Some(2), "{to:?}: {}", wrong.stdout);
    }
    let moved = told(&site, &server, &["seek", "recorder", "--to", "1", "--type", "other"]).await;
    assert_eq!(moved, "recorder in other: from 2 to 1\n");
    let moved = told(&site, &server, &["seek", "recorder", "--to", "1h ago"]).await;
    assert_eq!(moved, "recorder in metrics: from 2 to 0\nrecorder in other: from 1 to 0\n");
}

#[tokio::test]
async fn an_order_that_is_none_is_refused() {
    let server = Site::new(recorder(&["metrics"])).start().await;
    let admin = Rest::new(server.admin);
    let path = "/admin/v1/receivers/recorder/seek";
    let order = |to: Value| json!({ "to": to, "who": "me", "what": "seek" });
    for (body, status) in [
        (order(json!("middle")), 422),
        (order(json!({ "offset": -1 })), 422),
        (order(json!({ "offset": 1, "time": 2 })), 400),
        (json!({ "to": "oldest" }), 422),
        (json!({ "to": "oldest", "who": " ", "what": "seek" }), 422),
        (json!({ "to": "oldest", "who": "me", "what": "seek", "typ": "metrics" }), 422),
        (json!({ "to": "oldest", "who": "x".repeat(20_000), "what": "seek" }), 413),
        (order(json!("oldest")), 409),
    ] {
        let answer = rest::send(admin.request(Method::POST, path).json(&body)).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.value()["error"].is_string(), "{body}: {}", answer.text());
    }
    let answer = rest::send(admin.request(Method::POST, path).body("{")).await;
    assert_eq!(answer.status, 415, "{}", answer.text());
}

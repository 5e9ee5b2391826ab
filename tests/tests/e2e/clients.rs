//! The commands that act as agents: `wharf send` and `wharf agent`.

use std::collections::BTreeSet;

use e2e::calls::data_of;
use e2e::{Config, Encoding, Finished, Server, Site, files, within};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

fn site() -> Site {
    let recorder = files::guest("recorder");
    Site::new(Config::new().data_type("system_metrics").receiver(
        "recorder",
        &recorder,
        &["metrics", "system_metrics"],
    ))
}

/// Runs `wharf send` with more arguments on these lines.
async fn send(site: &Site, server: &Server, more: &[&str], input: &[u8]) -> Finished {
    let url = format!("http://{}", server.agents);
    let args = [&["send", "--id", "sender", "--type", "metrics", "--url", &url], more].concat();
    site.run_with(&args, input).await
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{}\n", json!({ "number": number }))).collect()
}

#[tokio::test]
async fn lines_are_sent_in_order_in_either_encoding() {
    let site = site();
    let server = site.start().await;
    let mut expected = 0;
    for format in ["json", "msgpack"] {
        for batch in ["1", "7", "100"] {
            let (first, last) = (expected, expected + 150);
            let more = ["--format", format, "--batch", batch, "--json"];
            let finished = send(&site, &server, &more, lines(first..last).as_bytes()).await;
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            // Nobody watches: progress would only fill a file.
            assert_eq!(finished.stderr, "");
            let summary: Value = serde_json::from_str(&finished.stdout).unwrap();
            assert_eq!((&summary["sent"], &summary["accepted"]), (&json!(150), &json!(150)), "{summary}");
            expected = last;
        }
    }
    let seen = server.log.wait_seen("recorder", 900).await;
    let numbers: Vec<_> = seen.iter().map(|seen| seen.body["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..900).collect::<Vec<_>>());
    assert!(seen.iter().all(|seen| seen.agent == "sender" && seen.r#type == "metrics"));
    let ids: BTreeSet<_> = seen.iter().map(|seen| seen.id.clone().expect("each message has an id")).collect();
    assert_eq!(ids.len(), 900);
}

#[tokio::test]
async fn a_line_that_is_no_message_is_told_by_number_and_the_others_are_sent() {
    let site = site();
    let server = site.start().await;
    let finished =
        send(&site, &server, &[], b"{\"number\":0}\n\nnonsense\n[1]\n{\"number\":1}\n\xff\n").await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    for line in ["line 3", "line 4", "line 6"] {
        assert!(finished.stderr.contains(line), "{line} is not in: {}", finished.stderr);
    }
    assert!(finished.stdout.contains("accepted 2"), "{}", finished.stdout);
    let seen = server.log.wait_seen("recorder", 2).await;
    assert_eq!(seen.iter().map(|seen| &seen.body["number"]).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn what_the_server_refuses_is_a_failure() {
    let site = site();
    let server = site.start().await;
    let finished = send(&site, &server, &["--type", "nonsense"], b"").await;
    assert_eq!(finished.code, Some(2), "a doubled argument: {}", finished.stderr);
    let url = format!("http://{}", server.agents);
    let args = ["send", "--id", "a", "--type", "nonsense", "--url", &url];
    let finished = site.run_with(&args, lines(0..3).as_bytes()).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("nonsense") && finished.stderr.contains("system_metrics"),
        "{}",
        finished.stderr
    );
    server.stop().await;
    let args = ["send", "--id", "a", "--type", "metrics", "--url", &url];
    let finished = site.run_with(&args, lines(0..3).as_bytes()).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains(&server_address(&url)), "{}", finished.stderr);
    let finished = site.run_with(&["send", "--id", "", "--type", "metrics"], b"").await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
}

fn server_address(url: &str) -> String {
    url.trim_start_matches("http://").to_owned()
}

/// The number at the end of a message's id, which counts what this run of the agent sampled.
fn sequence(id: Option<&str>) -> u64 {
    let id = id.expect("the agent gives each message an id");
    id.rsplit('-').next().unwrap().parse().unwrap_or_else(|_| panic!("{id:?} does not end in a number"))
}

#[tokio::test]
async fn the_agent_reports_through_a_crash_of_the_server() {
    let mut site = site();
    let server = site.start().await;
    site.set("listen.agents", server.agents.to_string());
    let url = format!("http://{}", server.agents);
    let agent = site.spawn(&["agent", "--id", "host", "--url", &url, "--interval", "200ms"]);
    let seen = server.log.wait_seen("recorder", 3).await;
    for seen in &seen {
        assert_eq!((seen.agent.as_str(), seen.r#type.as_str()), ("host", "system_metrics"));
        assert_eq!(seen.body["type"], "statistics", "{seen:?}");
        for (name, most) in [("cpu_load", 100.0), ("memory_usage", 100.0)] {
            let value = seen.body["body"][name].as_f64().unwrap_or_else(|| panic!("{seen:?} has no {name}"));
            assert!((0.0..=most).contains(&value), "{seen:?}");
        }
    }
    let mut logs = vec![server.kill().await];
    let server = site.start().await;
    // Enough to know that it goes on, and not only repeats.
    server.log.wait_seen("recorder", 6).await;
    agent.stop().await;
    logs.push(server.stop().await);
    let sequences: BTreeSet<_> =
        logs.iter().flat_map(|log| log.seen("recorder")).map(|seen| sequence(seen.id.as_deref())).collect();
    // Whatever was sampled arrived: nothing was acknowledged and lost, nothing forgotten while the server was away.
    assert_eq!(sequences, (0..sequences.len() as u64).collect(), "{sequences:?}");
    // What was sent again because its answer was lost was stored once.
    let offsets: BTreeSet<_> =
        logs.iter().flat_map(|log| log.seen("recorder")).map(|seen| seen.offset).collect();
    assert_eq!(offsets.len(), sequences.len());
}

/// Answers every frame with success, and gives the calls until the agent leaves.
async fn play_server(listener: &TcpListener, mut answered: impl FnMut(usize)) -> Vec<Value> {
    let (stream, _) = within("an agent", listener.accept()).await.unwrap();
    let mut socket = accept_async(stream).await.unwrap();
    let mut calls = Vec::new();
    while let Some(Ok(message)) = within("a call or the end", socket.next()).await {
        let call = match message {
            Message::Text(text) => Encoding::Json.decode(text.as_bytes()),
            Message::Close(_) => continue,
            other => panic!("got {other:?} in place of a call"),
        };
        calls.push(call);
        socket.send(Message::text(r#"{"result":"success"}"#)).await.unwrap();
        answered(calls.len());
    }
    calls
}

#[tokio::test]
async fn the_agent_says_good_bye() {
    let site = site();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/agent", listener.local_addr().unwrap());
    let mut agent = site.spawn(&["agent", "--id", "host", "--url", &url, "--interval", "200ms"]);
    let calls = play_server(&listener, |answered| {
        if answered == 2 {
            agent.terminate();
        }
    })
    .await;
    assert_eq!(agent.ended().await.code(), Some(0));
    assert_eq!(calls.last(), Some(&json!({ "call": "bye", "id": "host" })), "{calls:#?}");
    for call in &calls[..2] {
        let expected = data_of("system_metrics", "host", call["data"].clone());
        let fields = ["call", "id", "type", "data"];
        assert!(fields.iter().all(|field| call[field] == expected[field]), "{call}");
    }
}

#[tokio::test]
async fn the_agent_sends_again_what_was_not_acknowledged() {
    let site = site();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/agent", listener.local_addr().unwrap());
    let mut agent = site.spawn(&["agent", "--id", "host", "--url", &url, "--interval", "200ms"]);
    // The first connection ends without an answer.
    let (stream, _) = within("an agent", listener.accept()).await.unwrap();
    let mut socket = accept_async(stream).await.unwrap();
    let Some(Ok(Message::Text(first))) = within("a call", socket.next()).await else { panic!("got no call") };
    drop(socket);
    let calls = play_server(&listener, |answered| {
        if answered == 3 {
            agent.terminate();
        }
    })
    .await;
    assert_eq!(agent.ended().await.code(), Some(0));
    assert_eq!(calls[0], Encoding::Json.decode(first.as_bytes()));
}

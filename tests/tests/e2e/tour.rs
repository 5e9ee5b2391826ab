//! The receiver of the examples in `docs/receivers.md`, with every grant: each of its effects is seen.

use std::fs;

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Server, Site, eventually, files};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A web server that answers every request with 200. Gives its origin and the requests as they came.
async fn sink() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            // The body is short and the only thing with braces, so it tells where the request ends.
            while !request.contains(&b'}') && socket.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            socket.write_all(answer).await.unwrap();
            sender.send(String::from_utf8(request).unwrap()).unwrap();
        }
    });
    (origin, received)
}

fn touring(origin: &str) -> Config {
    Config::new()
        .receiver("tour", &files::component("tour"), &["metrics"])
        .set("receivers.tour.live", true)
        .set("receivers.tour.keyvalue", true)
        .set("receivers.tour.http", json!([origin]))
        .set("receivers.tour.tick", "100ms")
        .set("receivers.tour.config.greeting", "good morning")
        .set("receivers.tour.config.forward.to", format!("{origin}/in"))
}

/// Waits for a line that the tour wrote with `wasi:logging`.
async fn said(server: &Server, line: &str) {
    server.log.wait_for(&[" guest: ", line, "receiver.name=tour", "tour"]).await;
}

#[tokio::test]
async fn every_example_does_what_the_page_says() {
    let (origin, mut received) = sink().await;
    let mut site = Site::new(touring(&origin));
    fs::create_dir(site.path().join("out")).unwrap();
    site.change(|config| config.file_grant("tour", "out", "/out", true));
    let server = site.start().await;
    said(&server, "good morning, ready").await;
    let started = server.log.wait_for(&[" guest: ", "started at ", "receiver.name=tour"]).await;
    let seconds =
        started.split_once("started at ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(seconds.is_some_and(|seconds| now.abs_diff(seconds) < 3600), "{started}");

    let mut browser = Agent::open(server.agents, "/r/tour/live").await.expect("a browser is let in");
    let mut agent = Agent::connect(server.agents).await;
    let body = json!({ "cpu": 7 });
    assert_eq!(agent.call(Encoding::Json, &data("node-1", body.clone())).await, success());
    said(&server, r#""node-1" came"#).await;
    assert_eq!(browser.text().await, body.to_string());
    let request = received.recv().await.expect("the message is forwarded");
    assert!(request.starts_with("POST /in HTTP/1.1\r\n") && request.contains(&body.to_string()), "{request}");
    said(&server, "1 messages so far").await;
    let lines = fs::read_to_string(site.path().join("out/messages.ndjson")).unwrap();
    assert_eq!(lines, format!("{body}\n"));
    eventually("the message to be finished", async || {
        (server.receiver("tour").await["handled"] == 1).then_some(())
    })
    .await;
    let metrics = server.metrics().await;
    let size = body.to_string().len() as f64;
    for (series, expected) in [
        (r#"wharf_guest_counter_messages_total{receiver="tour",type="metrics"}"#, 1.0),
        (r#"wharf_guest_gauge_last_bytes{receiver="tour",type="metrics"}"#, size),
        (r#"wharf_guest_histogram_bytes_sum{receiver="tour",type="metrics"}"#, size),
    ] {
        assert_eq!(metrics.get(series), expected, "{series}: {metrics:#?}");
    }

    // The store outlives the server.
    server.stop().await;
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("node-1", body)).await, success());
    said(&server, "2 messages so far").await;
}

//! What agents and receivers see of an orderly stop.

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Raw, Rest, Site, eventually, files, within};
use serde_json::json;
use tokio::net::TcpStream;

#[tokio::test]
async fn open_sockets_are_told_and_closed() {
    let site = Site::new(Config::new());
    for encoding in Encoding::ALL {
        let mut server = site.start().await;
        let mut agent = Agent::connect(server.agents).await;
        let mut idle = Agent::connect(server.agents).await;
        assert_eq!(agent.call(encoding, &data("a", json!({}))).await, success());
        server.terminate();
        // Calls across the moment of the stop: accepted until it, refused from it on.
        let refusal = within("a refusal", async {
            loop {
                let answer = agent.call(encoding, &data("a", json!({}))).await;
                if answer != success() {
                    break answer;
                }
            }
        })
        .await;
        assert_eq!(refusal["error"]["code"], "shutting_down", "{refusal}");
        assert_eq!(agent.close_code().await, 1001);
        assert_eq!(idle.close_code().await, 1001);
        assert_eq!(server.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_request_whose_body_comes_too_late_is_refused() {
    let site = Site::new(Config::new());
    for encoding in Encoding::ALL {
        let mut server = site.start().await;
        let body = encoding.encode(&json!({ "id": "a", "type": "metrics", "data": {} }));
        let (first, second) = body.split_at(body.len() / 2);
        let mut raw = Raw::connect(server.agents).await;
        let head = format!(
            "POST /data HTTP/1.1\r\nHost: {}\r\nContent-Type: {media}\r\nAccept: {media}\r\nContent-Length: {}\r\n\
             Expect: 100-continue\r\n\r\n",
            server.agents,
            body.len(),
            media = encoding.media_type(),
        );
        raw.write(head).await;
        // The server asks for the body once it reads it.
        assert_eq!(raw.response().await.status, 100);
        raw.write(first).await;
        server.terminate();
        let agents = server.agents;
        eventually("new connections to be refused", async || TcpStream::connect(agents).await.err()).await;
        raw.write(second).await;
        let response = raw.response().await;
        assert_eq!(response.status, 503, "{}", response.head);
        assert_eq!(encoding.decode(&response.body)["error"], "shutting_down");
        assert_eq!(server.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn readiness_ends_with_the_stop_and_liveness_with_the_process() {
    let site = Site::new(Config::new().set("limits.shutdown-timeout", "60s"));
    let mut server = site.start().await;
    let admin = Rest::new(server.admin);
    assert_eq!(admin.get("/livez").await.status, 200);
    assert_eq!(admin.get("/readyz").await.status, 200);
    // A request that is not complete keeps the server from ending.
    let mut raw = Raw::connect(server.agents).await;
    let host = server.agents;
    raw.write(format!(
        "POST /ping HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.response().await.status, 100);
    server.terminate();
    eventually("the server to be no longer ready", async || {
        (admin.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(admin.get("/livez").await.status, 200);
    raw.write(r#"{"id":"a"}"#).await;
    assert_eq!(raw.response().await.status, 503);
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_stop_is_bounded_whatever_clients_and_receivers_do() {
    let site = Site::new(
        Config::new()
            .set("limits.shutdown-timeout", "1s")
            .receiver("puppet", &files::guest("puppet"), &["metrics"])
            .set("receivers.puppet.deadline", "1h"),
    );
    let mut server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({ "do": "loop" }))).await, success());
    let mut raw = Raw::connect(server.agents).await;
    raw.write("POST /ping HTTP/1.1\r\n").await;
    let before = std::time::Instant::now();
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0));
    // The time-out, the last answers and the writing of what is kept.
    assert!(before.elapsed().as_secs() < 10, "{:?}", before.elapsed());
}

#[tokio::test]
async fn instances_begin_and_end_in_an_orderly_way() {
    let site = Site::new(
        Config::new()
            .receiver("recorder", &files::guest("recorder"), &["metrics"])
            .set("receivers.recorder.instances", 2),
    );
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    for index in 0..20 {
        let answer = agent.call(Encoding::Json, &data(&format!("agent-{index}"), json!({}))).await;
        assert_eq!(answer, success());
    }
    server.log.wait_seen("recorder", 20).await;
    let lines = server.stop().await.guest_lines("recorder");
    let count = |wanted: &str| lines.iter().filter(|line| *line == wanted).count();
    assert_eq!((count("init"), count("terminate"), lines.len()), (2, 2, 24), "{lines:#?}");
    assert_eq!(lines[lines.len() - 2..], ["terminate", "terminate"]);
}

#[tokio::test]
async fn clients_that_are_stuck_do_not_make_a_stop_unclean() {
    let site = Site::new(Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"]));
    let mut server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
    server.log.wait_seen("recorder", 1).await;
    let mut half_a_head = Raw::connect(server.agents).await;
    half_a_head.write("POST /data HTTP/1.1\r\nHost:").await;
    let mut half_a_body = Raw::connect(server.agents).await;
    let head = format!(
        "POST /data HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\
         Expect: 100-continue\r\n\r\n",
        server.agents
    );
    half_a_body.write(head).await;
    assert_eq!(half_a_body.response().await.status, 100);
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(server.log.matching(&["when the time to stop was over"]).is_empty());
    assert!(!site.path().join("data/RUNNING").exists(), "the stop was clean");
}

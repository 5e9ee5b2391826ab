//! Bounds on connections: how many, how slow, how idle.

use std::time::{Duration, Instant};

use e2e::calls::{ping, success};
use e2e::{Agent, Config, Encoding, Raw, Rest, Site, eventually};

#[tokio::test]
async fn the_next_connection_above_the_bound_is_turned_away() {
    let server = Site::new(Config::new().set("limits.max-connections", 3)).start().await;
    let mut agents = Vec::new();
    for _ in 0..3 {
        agents.push(Agent::connect(server.agents).await);
    }
    let mut raw = Raw::connect(server.agents).await;
    let response = raw.response().await;
    assert_eq!(response.status, 503, "{}", response.head);
    assert!(response.head.contains("retry-after"), "{}", response.head);
    assert_eq!(Encoding::Json.decode(&response.body)["error"], "overloaded");
    raw.closed().await;
    for agent in &mut agents {
        assert_eq!(agent.call(Encoding::Json, &ping("a")).await, success());
    }
    assert!(server.metrics().await.get(r#"wharf_connections_refused_total{listener="agents"}"#) >= 1.0);
    // A place that is given up is free again.
    agents.pop().unwrap().close().await;
    eventually("a free place", async || Agent::open(server.agents, "/agent").await.ok()).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let server = Site::new(Config::new().set("limits.request-timeout", "500ms")).start().await;
    let mut idle = Agent::connect(server.agents).await;
    for part in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: 127.0.0.1"] {
        for address in [server.agents, server.admin] {
            let mut raw = Raw::connect(address).await;
            raw.write(part).await;
            let before = Instant::now();
            raw.closed().await;
            assert!(
                before.elapsed() < Duration::from_secs(5),
                "{part:?} kept its connection for {:?}",
                before.elapsed()
            );
        }
    }
    // The time-out is for requests: an agent may be silent.
    assert_eq!(idle.call(Encoding::Json, &ping("a")).await, success());
}

#[tokio::test]
async fn a_body_that_does_not_end_is_not_waited_for() {
    let server = Site::new(Config::new().set("limits.request-timeout", "500ms")).start().await;
    let mut raw = Raw::connect(server.agents).await;
    let host = server.agents;
    raw.write(format!(
        "POST /ping HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"id\""
    ))
    .await;
    let response = raw.response().await;
    assert!((400..500).contains(&response.status), "{}", response.head);
    raw.closed().await;
}

#[tokio::test]
async fn what_is_not_http_is_closed() {
    let server = Site::new(Config::new()).start().await;
    let large_header =
        format!("GET / HTTP/1.1\r\nHost: {}\r\nX-Large: {}\r\n\r\n", server.agents, "x".repeat(64 * 1024));
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n"[..],
        b"\0\0\0\0\r\n\r\n",
        large_header.as_bytes(),
    ] {
        let mut raw = Raw::connect(server.agents).await;
        raw.write(bytes).await;
        let said = raw.closed().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    assert_eq!(Rest::new(server.agents).get("/").await.status, 200);
}

#[tokio::test]
async fn a_thousand_idle_agents_stay_and_are_answered() {
    const AGENTS: usize = 1_000;
    let mut server = Site::new(Config::new()).start().await;
    let mut agents = Vec::with_capacity(AGENTS);
    for _ in 0..AGENTS {
        agents.push(Agent::connect(server.agents).await);
    }
    assert_eq!(server.status().await["connections"], AGENTS);
    for agent in &mut agents {
        agent.send(Encoding::Json, &ping("a")).await;
    }
    for agent in &mut agents {
        assert_eq!(agent.answer().await, (Encoding::Json, success()));
    }
    // All of them are told of the stop, and it is as quick as with one.
    let before = Instant::now();
    server.terminate();
    for agent in &mut agents {
        assert_eq!(agent.close_code().await, 1001);
    }
    drop(agents);
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
}

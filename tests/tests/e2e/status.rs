//! What operators see: health, numbers, and the status, over HTTP and as a command.

use std::time::Instant;

use e2e::calls::{data, ping, success};
use e2e::{Agent, Config, Encoding, Raw, Rest, Site, eventually, files};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn the_numbers_are_those_of_the_traffic() {
    let site = Site::new(Config::new().set("types.other.durability", "os").receiver(
        "recorder",
        &files::guest("recorder"),
        &["metrics"],
    ));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    let body = json!({ "number": 1 });
    let body_bytes = body.to_string().len() as f64;
    for _ in 0..5 {
        assert_eq!(agent.call(Encoding::Json, &data("a", body.clone())).await, success());
    }
    let batch = json!([data("a", body.clone()), ping("a"), data("", body.clone()), { "call": "dance" }]);
    assert_eq!(agent.call(Encoding::Json, &batch).await["accepted"], 2);
    server.log.wait_seen("recorder", 6).await;
    eventually("the receiver to be done", async || {
        (server.receiver("recorder").await["handled"] == 6).then_some(())
    })
    .await;

    let metrics = server.metrics().await;
    for (series, expected) in [
        (r#"wharf_messages_accepted_total{type="metrics"}"#, 6.0),
        (r#"wharf_messages_accepted_total{type="other"}"#, 0.0),
        (r#"wharf_accepted_body_bytes_total{type="metrics"}"#, 6.0 * body_bytes),
        (r#"wharf_calls_refused_total{code="invalid_field"}"#, 1.0),
        (r#"wharf_calls_refused_total{code="unknown_call"}"#, 1.0),
        (r#"wharf_messages_handled_total{receiver="recorder"}"#, 6.0),
        (r#"wharf_receiver_faults_total{receiver="recorder",kind="unreachable"}"#, 0.0),
        (r#"wharf_receiver_dead_letters_total{receiver="recorder",kind="rejected"}"#, 0.0),
        (r#"wharf_instances_started_total{receiver="recorder"}"#, 1.0),
        (r#"wharf_connections{listener="agents"}"#, 1.0),
    ] {
        assert_eq!(metrics.get(series), expected, "{series}: {metrics:#?}");
    }

    let status = server.status().await;
    assert_eq!((&status["ready"], &status["connections"]), (&json!(true), &json!(1)), "{status:#}");
    assert!(status["uptime_seconds"].as_f64().unwrap() > 0.0);
    let types: Vec<_> = status["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (&t["name"], &t["durability"], &t["accepted"]))
        .collect();
    let expected = [(json!("metrics"), json!("fsync"), json!(6)), (json!("other"), json!("os"), json!(0))];
    assert_eq!(
        types,
        expected.iter().map(|(name, durability, accepted)| (name, durability, accepted)).collect::<Vec<_>>()
    );
    let receiver = &status["receivers"][0];
    assert_eq!(
        (&receiver["name"], &receiver["state"], &receiver["lag"]),
        (&json!("recorder"), &json!("running"), &json!(0))
    );
    assert_eq!(receiver["component"]["digest"].as_str().unwrap().len(), 64, "{receiver}");
    assert_eq!(receiver["last_error"], json!(null));
}

#[tokio::test]
async fn the_status_is_a_command_too() {
    let site = Site::new(Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"]));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
    server.log.wait_seen("recorder", 1).await;
    let admin = format!("http://{}", server.admin);
    let finished = site.run(&["status", "--admin", &admin]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished.stdout.contains("recorder") && finished.stdout.contains("metrics"),
        "{}",
        finished.stdout
    );
    assert!(!finished.stdout.contains('\x1b'), "colours in a pipe: {:?}", finished.stdout);
    let finished = site.run(&["status", "--json", "--admin", &admin]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let status: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(status["types"][0]["accepted"], 1, "{status}");

    server.stop().await;
    let finished = site.run(&["status", "--admin", &admin]).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stdout);
    assert!(finished.stderr.contains(&admin), "{}", finished.stderr);
    let finished = site.run(&["status", "--admin", "nonsense"]).await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
}

#[tokio::test]
async fn the_status_can_be_watched_over_a_restart_of_the_server() {
    let mut site = Site::new(Config::new());
    let server = site.start().await;
    site.set("listen.admin", server.admin.to_string());
    let admin = format!("http://{}", server.admin);
    let mut table = site.spawn(&["status", "--watch", "--admin", &admin]);
    let mut lines = site.spawn(&["status", "--watch", "--json", "--admin", &admin]);
    // It is shown again and again.
    for (watch, what) in [(&table, "agents active of"), (&lines, "uptime_seconds")] {
        eventually("a second answer", async || (watch.stdout.matching(&[what]).len() > 1).then_some(()))
            .await;
    }
    server.stop().await;
    for watch in [&table, &lines] {
        watch.log.wait_for(&["wharf: no answer since", "trying again", &admin]).await;
    }
    let _server = site.start().await;
    for watch in [&mut table, &mut lines] {
        watch.log.wait_for(&["wharf: the server was started again: no answer from"]).await;
        watch.signal(Signal::INT);
        assert_eq!(watch.ended().await.code(), Some(0));
    }
    assert!(!table.stdout.lines().iter().any(|line| line.contains('\x1b')), "no terminal is steered");
    for line in lines.stdout.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    }
}

#[tokio::test]
async fn the_operators_side_is_on_its_own_listener_only() {
    let server = Site::new(Config::new()).start().await;
    let (agents, admin) = (Rest::new(server.agents), Rest::new(server.admin));
    for path in ["/metrics", "/admin/v1/status", "/livez", "/readyz"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
        assert_eq!(agents.get(path).await.status, 404, "{path}");
    }
    let answer = admin.call("/data", Encoding::Json, &data("a", json!({}))).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn nonsense_is_answered_with_what_is_wrong() {
    let server = Site::new(Config::new()).start().await;
    let admin = Rest::new(server.admin);
    for (method, path, status, wrong) in [
        (Method::GET, "/", 404, "/"),
        (Method::GET, "/admin/v1/nonsense", 404, "/admin/v1/nonsense"),
        (Method::GET, "/admin/v1/%1b%5b2J", 404, "/admin/v1/%1b%5b2J"),
        (Method::POST, "/admin/v1/status", 405, "POST"),
        (Method::DELETE, "/metrics", 405, "DELETE"),
        (Method::GET, "/admin/v1/receivers/a/seek", 405, "GET"),
    ] {
        let answer = e2e::rest::send(admin.request(method, path)).await;
        assert_eq!(answer.status, status, "{path}");
        let error = answer.value()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(wrong), "{path}: {error}");
    }
}

#[tokio::test]
async fn an_order_that_does_not_arrive_is_not_waited_for() {
    let site = Site::new(Config::new().receiver("puppet", &files::guest("puppet"), &["metrics"]));
    let server = site.start().await;
    let mut raw = Raw::connect(server.admin).await;
    let host = server.admin;
    raw.write(format!(
        "POST /admin/v1/receivers/puppet/seek HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    ))
    .await;
    let response = raw.response().await;
    assert_eq!(response.status, 408, "{}", response.text());
    assert!(response.text().contains("the body did not arrive within"), "{}", response.text());
}

#[tokio::test]
async fn the_log_is_plain_text_in_a_pipe() {
    let server = Site::new(Config::new()).start().await;
    let lines = server.stop().await.lines();
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:#?}");
}

#[tokio::test]
async fn a_receiver_is_shown_with_what_it_did_not_get_and_how_far_it_is_behind() {
    let config = Config::new()
        .receiver("puppet", &files::guest("puppet"), &["metrics"])
        .set("receivers.puppet.max-messages", 1)
        .set("receivers.puppet.dead-letters", 2)
        .set("presence.timeout", "1h");
    let site = Site::new(config);
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    let began = Instant::now();
    let bodies = std::iter::once(json!({ "name": "well" }))
        .chain(vec![json!({ "do": "reject" }); 5])
        .chain([json!({ "do": "retry", "milliseconds": 3_600_000 }), json!({}), json!({})]);
    for body in bodies {
        assert_eq!(agent.call(Encoding::Json, &data("a", body)).await, success());
    }
    let receiver = eventually("two messages behind the one that waits", async || {
        let receiver = server.receiver("puppet").await;
        (receiver["parked"] == 2).then_some(receiver)
    })
    .await;
    let counts = [("handled", 1), ("dead", 5), ("in_flight", 1), ("waiting_agents", 1), ("lag", 3)];
    for (field, expected) in counts {
        assert_eq!(receiver[field], expected, "{field}: {receiver:#}");
    }
    assert_eq!(receiver["dead_letters"]["count"], 2, "{receiver:#}");
    assert!(receiver["dead_letters"]["bytes"].as_u64().unwrap() > 0, "{receiver:#}");
    assert_eq!(receiver["gaps"], json!({ "records": 1, "messages": 3 }), "{receiver:#}");
    assert!(receiver["rate"].as_f64().unwrap() > 0.0, "{receiver:#}");
    let behind = receiver["lag_seconds"].as_f64().unwrap();
    // Times are kept in milliseconds.
    assert!((0.0..=began.elapsed().as_secs_f64() + 0.001).contains(&behind), "{receiver:#}");

    let admin = Rest::new(server.admin);
    let all = admin.get("/admin/v1/receivers").await.value();
    assert_eq!(all["receivers"][0]["name"], "puppet", "{all:#}");
    let puppet = admin.get("/admin/v1/receivers/puppet").await.value();
    assert_eq!((&puppet["name"], &puppet["dead"]), (&json!("puppet"), &json!(5)), "{puppet:#}");
    let cursor = &puppet["cursors"][0];
    assert_eq!((&cursor["type"], &cursor["lag"]), (&json!("metrics"), &json!(3)), "{puppet:#}");
    // Behind the record that the agent is active and the message that it handled, the five that it rejected.
    assert_eq!((&cursor["next"], &cursor["end"]), (&json!(7), &json!(10)), "{puppet:#}");
    let gap = &puppet["gap_records"][0];
    assert_eq!(
        (&gap["type"], &gap["reason"], &gap["from"], &gap["to"], &gap["count"]),
        (&json!("metrics"), &json!("dead-letters-full"), &json!(2), &json!(5), &json!(3)),
        "{puppet:#}"
    );
    let unknown = admin.get("/admin/v1/receivers/pupet").await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    assert!(unknown.text().contains("the config has puppet"), "{}", unknown.text());

    let table = site.run(&["status", "--admin", &format!("http://{}", server.admin)]).await;
    for head in ["A SECOND", "DEAD", "DROPPED", "IN FLIGHT", "PARKED", "BEHIND"] {
        assert!(table.stdout.contains(head), "{}", table.stdout);
    }
}

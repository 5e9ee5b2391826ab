//! What operators see: health, numbers, and the status, over HTTP and as a command.

use e2e::calls::{data, ping, success};
use e2e::{Agent, Config, Encoding, Rest, Site, eventually, files};
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
async fn the_log_is_plain_text_in_a_pipe() {
    let server = Site::new(Config::new()).start().await;
    let lines = server.stop().await.lines();
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:#?}");
}

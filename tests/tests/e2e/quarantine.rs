//! Receivers that fail too much are quarantined, probed and resumed; operators can pause them.

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Finished, Server, Site, eventually, files};
use serde_json::{Value, json};

async fn send(server: &Server, body: Value) {
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", body)).await, success());
}

async fn state(server: &Server, receiver: &str, expected: &str) {
    eventually(&format!("{receiver} to be {expected}"), async || {
        (server.receiver(receiver).await["state"] == expected).then_some(())
    })
    .await;
}

/// An operator's command on this server.
async fn operate(site: &Site, server: &Server, command: &[&str]) -> Finished {
    let admin = format!("http://{}", server.admin);
    site.run(&[command, &["--admin", &admin]].concat()).await
}

/// A receiver that traps at whatever comes, beside one that is well.
fn failing() -> Config {
    Config::new()
        .receiver("puppet", &files::guest("puppet"), &["metrics"])
        .receiver("recorder", &files::guest("recorder"), &["metrics"])
        .set("receivers.puppet.retry-pause", "1ms")
        .set("receivers.puppet.max-attempts", 2)
        .set("receivers.puppet.quarantine-failures", 3)
        .set("receivers.puppet.quarantine-pause", "1h")
        .set("receivers.puppet.quarantine-longest", "1h")
}

#[tokio::test]
async fn a_receiver_that_only_fails_is_quarantined_and_its_messages_wait() {
    let site = Site::new(failing());
    let server = site.start().await;
    for _ in 0..10 {
        send(&server, json!({ "do": "trap" })).await;
    }
    send(&server, json!({ "well": true })).await;
    state(&server, "puppet", "quarantined").await;
    server.log.wait_seen("recorder", 11).await;
    // Three were given up; the others are still in the log, the good one among them. The third is written down when the
    // quarantine has begun.
    let puppet = eventually("three dead letters", async || {
        let puppet = server.receiver("puppet").await;
        (puppet["dead"] == 3).then_some(puppet)
    })
    .await;
    assert_eq!(puppet["handled"], 0, "{puppet:#}");
    assert!(puppet["next_try_seconds"].as_f64().unwrap() > 3000.0, "{puppet:#}");
    assert!(puppet["lag"].as_u64().unwrap() >= 8, "{puppet:#}");
    let metrics = server.metrics().await;
    assert_eq!(metrics.get(r#"wharf_receiver_state{receiver="puppet",state="quarantined"}"#), 1.0);
    assert_eq!(metrics.get(r#"wharf_receiver_state{receiver="puppet",state="running"}"#), 0.0);
    assert_eq!(metrics.get(r#"wharf_receiver_state{receiver="recorder",state="running"}"#), 1.0);
    let table = operate(&site, &server, &["status"]).await;
    assert!(table.stdout.contains("quarantined, tried in 59m"), "{}", table.stdout);

    // Resumed by hand again and again, it works off what it can't handle, and then the rest.
    eventually("the good message", async || {
        operate(&site, &server, &["resume", "puppet"]).await;
        server.log.guest_lines("puppet").iter().any(|line| line.contains("well")).then_some(())
    })
    .await;
    state(&server, "puppet", "running").await;
    assert_eq!(server.receiver("puppet").await["dead"], 10);
}

#[tokio::test]
async fn a_quarantine_ends_by_itself_when_a_probe_goes_well() {
    let config = failing()
        .set("receivers.puppet.quarantine-pause", "50ms")
        .set("receivers.puppet.quarantine-longest", "100ms");
    let server = Site::new(config).start().await;
    for _ in 0..4 {
        send(&server, json!({ "do": "trap" })).await;
    }
    send(&server, json!({ "well": true })).await;
    server.log.wait_for(&["a quarantined receiver works again", "puppet"]).await;
    state(&server, "puppet", "running").await;
    assert!(!server.log.matching(&["a receiver is quarantined", "puppet", "pause=100ms"]).is_empty());
}

#[tokio::test]
async fn a_receiver_whose_init_fails_is_quarantined() {
    let config = Config::new()
        .receiver("init", &files::guest("init-fails"), &["metrics"])
        .set("receivers.init.retry-pause", "1ms")
        .set("receivers.init.quarantine-pause", "1h")
        .set("receivers.init.quarantine-longest", "1h");
    let server = Site::new(config).start().await;
    state(&server, "init", "quarantined").await;
    let metrics = server.metrics().await;
    assert_eq!(
        metrics.get(r#"wharf_receiver_faults_total{receiver="init",kind="init"}"#),
        5.0,
        "{metrics:#?}"
    );
}

#[tokio::test]
async fn a_receiver_is_tried_again_although_its_cursors_were_moved_while_it_was_probed() {
    let config = Config::new()
        .receiver("hostile", &files::guest("hostile"), &["metrics"])
        .set("receivers.hostile.config.mode", "init-loop")
        .set("receivers.hostile.live", true)
        .set("receivers.hostile.keyvalue", true)
        // Its instance is being made nearly all the time.
        .set("receivers.hostile.deadline", "500ms")
        .set("receivers.hostile.retry-pause", "1ms")
        .set("receivers.hostile.quarantine-failures", 1)
        .set("receivers.hostile.quarantine-pause", "1ms")
        .set("receivers.hostile.quarantine-longest", "1ms");
    let site = Site::new(config);
    let server = site.start().await;
    send(&server, json!({})).await;
    let failed = async || server.receiver("hostile").await["failed"].as_u64().unwrap();
    for _ in 0..3 {
        let before = failed().await;
        eventually("another probe", async || (failed().await > before + 1).then_some(())).await;
        for command in
            [&["pause", "hostile"][..], &["seek", "hostile", "--to", "oldest"], &["resume", "hostile"]]
        {
            let finished = operate(&site, &server, command).await;
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        }
    }
    let before = failed().await;
    eventually("another probe", async || (failed().await > before + 1).then_some(())).await;
}

#[tokio::test]
async fn a_paused_receiver_is_not_called_until_it_is_resumed_also_after_a_restart() {
    let site = Site::new(Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"]));
    let server = site.start().await;
    send(&server, json!({ "number": 1 })).await;
    server.log.wait_seen("recorder", 1).await;
    let paused = operate(&site, &server, &["pause", "recorder"]).await;
    assert_eq!((paused.code, paused.stdout.as_str()), (Some(0), "recorder: paused\n"));
    send(&server, json!({ "number": 2 })).await;
    assert_eq!(server.receiver("recorder").await["state"], "paused");
    server.stop().await;

    let server = site.start().await;
    send(&server, json!({ "number": 3 })).await;
    assert_eq!(server.receiver("recorder").await["state"], "paused");
    assert_eq!(server.log.seen("recorder"), []);
    let resumed = operate(&site, &server, &["resume", "recorder"]).await;
    assert_eq!((resumed.code, resumed.stdout.as_str()), (Some(0), "recorder: running\n"));
    let seen = server.log.wait_seen("recorder", 2).await;
    let numbers: Vec<_> = seen.iter().map(|seen| seen.body["number"].clone()).collect();
    assert_eq!(numbers, [2, 3]);
    assert!(seen.iter().all(|seen| seen.redelivery == "none"), "they waited, but nobody got them: {seen:#?}");
}

#[tokio::test]
async fn a_receiver_that_is_not_there_can_not_be_paused() {
    let site = Site::new(Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"]));
    let server = site.start().await;
    let refused = operate(&site, &server, &["pause", "recoder"]).await;
    assert_eq!(refused.code, Some(1));
    assert_eq!(
        refused.stderr,
        "wharf: failed to pause receiver \"recoder\": failed to find the receiver \"recoder\": the config has recorder\n"
    );
}

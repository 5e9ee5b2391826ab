//! Ticks: between batches, on one instance, and what follows when they fail.

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Site, eventually, files};
use serde_json::json;

fn ticking() -> Config {
    Config::new()
        .receiver("watcher", &files::guest("watcher"), &["metrics"])
        .set("receivers.watcher.tick", "100ms")
}

#[tokio::test]
pub async fn a_receiver_ticks_without_messages_and_on_one_of_its_instances() {
    let server = Site::new(ticking().set("receivers.watcher.instances", 4)).start().await;
    let began = std::time::Instant::now();
    let ticks = eventually("ten ticks", async || {
        let ticks = server.log.guest_lines("watcher").iter().filter(|line| *line == "tick").count();
        (ticks >= 10).then_some(ticks)
    })
    .await;
    // One instance ticks ten times a second; four would have to be four times as fast.
    let most = began.elapsed().as_millis() / 100 + 2;
    assert!(ticks as u128 <= most, "{ticks} ticks, at most {most} expected");
}

#[tokio::test]
async fn a_tick_never_comes_beside_a_batch() {
    let config =
        ticking().set("receivers.watcher.config.slow-ms", "350").set("receivers.watcher.max-messages", 1);
    let server = Site::new(config).start().await;
    let mut agent = Agent::connect(server.agents).await;
    for _ in 0..4 {
        assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
    }
    let lines = eventually("four messages", async || {
        let lines = server.log.guest_lines("watcher");
        (lines.iter().filter(|line| line.ends_with("a message")).count() == 4).then_some(lines)
    })
    .await;
    // Three ticks are due while a message is handled: one comes after it, the others are left out.
    let first = lines.iter().position(|line| line.ends_with("a message")).unwrap();
    let ticks = lines[first..].iter().filter(|line| *line == "tick").count();
    assert!((2..=4).contains(&ticks), "{lines:?}");
}

#[tokio::test]
async fn messages_have_their_turn_between_ticks_that_take_longer_than_their_period() {
    let config = ticking().set("receivers.watcher.config.slow-tick-ms", "250");
    let server = Site::new(config).start().await;
    server.log.wait_for(&["tick", "watcher"]).await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
    server.log.wait_for(&["metrics a message"]).await;
}

#[tokio::test]
async fn a_tick_that_traps_is_not_repeated_and_messages_go_on() {
    let config = ticking()
        .set("receivers.watcher.config.trap-tick", true)
        .set("receivers.watcher.quarantine-failures", 1_000_000);
    let server = Site::new(config).start().await;
    server.log.wait_for(&["told to trap at every tick"]).await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
    server.log.wait_for(&["metrics a message"]).await;
    let metrics = server.metrics().await;
    assert!(
        metrics.get(r#"wharf_receiver_faults_total{receiver="watcher",kind="unreachable"}"#) >= 1.0,
        "{metrics:#?}"
    );
}

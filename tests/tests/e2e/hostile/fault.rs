//! Receivers that end themselves.

use e2e::calls::{data, success};
use e2e::{Agent, Encoding, eventually};
use serde_json::json;

use super::{BY_HOSTILE, Ring, config};

/// An unreachable instruction was reached, which is how a panic ends.
const PANICKED: &str = "it panicked or aborted";

#[tokio::test]
async fn a_trap_on_every_message() {
    let ring = Ring::start(config("trap")).await;
    let line = ring.failed(PANICKED).await;
    assert!(line.contains("guest_hostile::fault::trap"), "the backtrace has names: {line}");
    assert!(line.contains("told to trap"), "the panic's text is told: {line}");
    ring.end().await;
}

#[tokio::test]
async fn a_trap_on_one_poisonous_message() {
    let ring = Ring::start(config("poison").set("receivers.hostile.max-attempts", 2)).await;
    let mut agent = Agent::connect(ring.server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("poisoner", json!({ "poison": true }))).await, success());
    let line = ring.failed(PANICKED).await;
    assert!(line.contains("this message is poisonous"), "{line}");
    ring.server.log.wait_for(&["ERROR", "dead letter", BY_HOSTILE, r#"agent.id="poisoner""#]).await;
    // What came with it and after it is handled, here as there.
    let handled = ring.server.receiver("hostile").await["handled"].as_u64();
    eventually("the hostile receiver to go on", async || {
        (ring.server.receiver("hostile").await["handled"].as_u64() > handled).then_some(())
    })
    .await;
    let skipped = ring.server.receiver("hostile").await["dead"].clone();
    assert_eq!(skipped, 1);
    ring.end_with(1).await;
}

#[tokio::test]
async fn a_panic_with_a_huge_message() {
    let ring = Ring::start(config("panic-huge")).await;
    let line = ring.failed(PANICKED).await;
    assert!(line.len() < 64 * 1024, "the line about it has {} bytes", line.len());
    let shown = ring.server.log.guest_errors("hostile");
    assert!(shown.iter().any(|line| line.starts_with("no no no") && line.ends_with(" bytes more)")));
    ring.end().await;
}

#[tokio::test]
async fn an_exit_that_claims_success() {
    let ring = Ring::start(config("exit")).await;
    let line = ring.failed("it ended itself with exit code 0").await;
    assert!(line.contains("guest_hostile::fault::exit"), "the backtrace has names: {line}");
    ring.end().await;
}

//! Receivers that give the host too much: lines, values, handles, or one huge thing.

use e2e::eventually;

use super::{Ring, config};

/// The words about whatever a call may not hold or hand over.
const HOST_LIMIT: &str = "it went past a limit of the host";

#[tokio::test]
async fn floods_of_lines() {
    for mode in ["print", "print-errors", "log"] {
        let ring = Ring::start(config(mode)).await;
        ring.server.log.wait_for(&["WARN", "lines dropped", "receiver.name=hostile"]).await;
        // To write a lot is no fault.
        eventually("the flood to go on", async || {
            (ring.server.receiver("hostile").await["handled"].as_u64() > Some(0)).then_some(())
        })
        .await;
        assert_eq!(ring.server.receiver("hostile").await["failed"], 0, "{mode}");
        let log = ring.end().await;
        let (dropped, shown) = (log.matching(&["lines dropped"]), log.matching(&["more and more"]));
        // One line about it in each second, in which a hundred may be written.
        assert!(shown.len() <= 100 * (dropped.len() + 1), "{mode}: {} lines were shown", shown.len());
    }
}

#[tokio::test]
async fn a_store_that_is_filled_up() {
    let ring = Ring::start(config("store").set("receivers.hostile.keyvalue-bytes", "1MiB")).await;
    let line = ring.server.log.wait_for(&["receiver.name=hostile", "values: Error::Other("]).await;
    assert!(line.contains("keyvalue-bytes"), "the guest is told what it ran into: {line}");
    let used = ring.server.metrics().await.get(r#"wharf_keyvalue_bytes{receiver="hostile"}"#);
    assert!(used <= f64::from(1 << 20), "{used} bytes are in use");
    ring.end().await;
}

#[tokio::test]
async fn a_value_that_is_written_again_and_again() {
    let ring = Ring::start(config("store-again")).await;
    // Whether it computes or waits for the disk at that moment is chance.
    ring.failed("for longer than its deadline of 1s").await;
    ring.end().await;
}

#[tokio::test]
async fn a_huge_list_for_a_host_call() {
    for (mode, name) in [
        ("publish-huge", "guest_hostile::flood::publish_huge"),
        ("store-huge", "guest_hostile::flood::store_huge"),
    ] {
        let ring = Ring::start(config(mode)).await;
        let line = ring.failed(HOST_LIMIT).await;
        assert!(line.contains(name), "the backtrace has names: {line}");
        ring.end().await;
    }
}

#[tokio::test]
async fn handles_that_are_never_dropped() {
    for (mode, name) in
        [("leak-pollables", "guest_hostile::leak::pollables"), ("leak-fields", "guest_hostile::leak::fields")]
    {
        let ring = Ring::start(config(mode)).await;
        let line = ring.failed(HOST_LIMIT).await;
        assert!(line.contains(name), "the backtrace has names: {line}");
        ring.end().await;
    }
}

//! Receivers that keep the processor, or their call, for as long as they get.

use super::{BY_HOSTILE, FAILED, Ring, config};

const COMPUTED: &str = "it computed for longer than its deadline of 1s";

#[tokio::test]
pub async fn an_endless_loop() {
    let ring = Ring::start(config("loop")).await;
    let line = ring.failed(COMPUTED).await;
    assert!(line.contains("guest_hostile::compute::spin"), "the backtrace has names: {line}");
    ring.goes_on_between("loop begins", FAILED).await;
    ring.end().await;
}

#[tokio::test]
async fn an_endless_loop_in_init() {
    let ring = Ring::start(config("init-loop")).await;
    let line = ring.failed(COMPUTED).await;
    assert!(line.contains("guest_hostile::compute::spin"), "the backtrace has names: {line}");
    // From one failure to the next: it is made anew all the time.
    ring.goes_on_between(FAILED, FAILED).await;
    assert_eq!(ring.server.receiver("hostile").await["handled"], 0);
    ring.end().await;
}

#[tokio::test]
async fn an_endless_loop_in_terminate() {
    let ring = Ring::start(config("terminate-loop")).await;
    // That the server ends in an orderly way, and the victim with it, is checked there.
    let log = ring.end().await;
    let lines = log.matching(&["a receiver's terminate failed", BY_HOSTILE, COMPUTED]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(log.guest_lines("victim").last().map(String::as_str), Some("terminate"));
}

#[tokio::test]
async fn a_sleep_beyond_the_deadline() {
    let ring = Ring::start(config("sleep")).await;
    ring.failed("it waited for the host for longer than its deadline of 1s").await;
    ring.goes_on_between("sleep begins", FAILED).await;
    ring.end().await;
}

#[tokio::test]
async fn a_recursion_without_end() {
    let ring = Ring::start(config("recurse")).await;
    let line = ring.failed("its stack overflowed").await;
    assert!(line.contains("guest_hostile::compute::deeper"), "the backtrace has names: {line}");
    ring.end().await;
}

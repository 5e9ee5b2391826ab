//! Receivers that want all the memory.

use e2e::eventually;

use super::{Ring, config};

#[tokio::test]
async fn endless_allocation() {
    let ring = Ring::start(config("allocate").set("receivers.hostile.memory", "16MiB")).await;
    let line = ring.failed("more than its limit of 16777216").await;
    assert!(line.contains("guest_hostile::memory::allocate"), "the backtrace has names: {line}");
    ring.end().await;
}

#[tokio::test]
async fn many_instances_that_stay_just_below_the_limit() {
    const INSTANCES: usize = 16;
    let config = config("hoard")
        .set("receivers.hostile.memory", "16MiB")
        .set("receivers.hostile.instances", INSTANCES);
    let ring = Ring::start(config).await;
    let holds = |line: &String| line.strip_prefix("holds ")?.strip_suffix(" MiB")?.parse().ok();
    let held: Vec<u64> = eventually("all instances to hold their memory", async || {
        let held: Vec<_> = ring.server.log.guest_lines("hostile").iter().filter_map(holds).collect();
        (held.len() == INSTANCES).then_some(held)
    })
    .await;
    assert!(held.iter().all(|mebibytes| (10..16).contains(mebibytes)), "{held:?}");
    assert_eq!(ring.server.receiver("hostile").await["failed"], 0, "it does nothing that is forbidden");
    ring.end().await;
}

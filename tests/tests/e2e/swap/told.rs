//! What operators are told of swaps beside the receipts: by the status and by the numbers.

use e2e::{Site, eventually};
use serde_json::json;

use super::{counter, guest, numbers, operate, refused, send, swapped};

#[tokio::test]
async fn swaps_are_counted_and_the_status_tells_of_the_last() {
    let site = Site::new(
        counter()
            .set("receivers.counter.probation", "10m")
            .set("receivers.counter.quarantine-failures", 1_000_000)
            .set("receivers.counter.instances", 2),
    );
    let server = site.start().await;
    let metrics = server.metrics().await;
    let swaps = |kind: &str, outcome: &str| {
        format!(r#"wharf_swaps_total{{receiver="counter",kind="{kind}",outcome="{outcome}"}}"#)
    };
    let probations =
        |outcome: &str| format!(r#"wharf_swap_probations_total{{receiver="counter",outcome="{outcome}"}}"#);
    for series in [
        swaps("swap", "switched"),
        swaps("swap", "refused"),
        swaps("rollback", "switched"),
        swaps("reload", "switched"),
        probations("passed"),
        probations("rolled-back"),
        probations("failed"),
        r#"wharf_swap_messages_lost_total{receiver="counter"}"#.to_owned(),
        r#"wharf_swap_pause_seconds_count{receiver="counter"}"#.to_owned(),
    ] {
        assert_eq!(metrics.get(&series), 0.0, "{series}: {metrics:#?}");
    }
    assert_eq!(server.receiver("counter").await["last_swap"], json!(null));

    refused(&site, &server, &[&guest("init-fails")]).await;
    let last = server.receiver("counter").await["last_swap"].clone();
    assert_eq!(
        (&last["id"], &last["outcome"], &last["kind"]),
        (&json!(1), &json!("refused"), &json!("swap"))
    );
    send(&server, "a", numbers(0, 3)).await;
    server.log.wait_seen("counter", 3).await;
    let receipt = swapped(&site, &server, &[&guest("counter-next")]).await;
    let last = server.receiver("counter").await["last_swap"].clone();
    let told =
        json!({ "id": 2, "kind": "swap", "outcome": "settled", "at": receipt["at"], "probation": "running" });
    assert_eq!(last, told);
    let shown = operate(&site, &server, &["status"]).await.stdout;
    assert!(shown.contains("swap settled, probation running"), "{shown}");
    assert!(shown.contains("running, on probation"), "{shown}");

    send(&server, "b", (0..4).map(|_| json!({ "do": "fail", "in": "counter-next" }))).await;
    let metrics = eventually("the rollback to be counted", async || {
        let metrics = server.metrics().await;
        (metrics.get(&probations("rolled-back")) == 1.0).then_some(metrics)
    })
    .await;
    for (series, expected) in [
        (swaps("swap", "switched"), 1.0),
        (swaps("swap", "refused"), 1.0),
        (swaps("rollback", "switched"), 1.0),
        (probations("passed"), 0.0),
        (probations("ended"), 0.0),
        (r#"wharf_swap_messages_lost_total{receiver="counter"}"#.to_owned(), 0.0),
        // Two exchanges of two instances.
        (r#"wharf_swap_pause_seconds_count{receiver="counter"}"#.to_owned(), 4.0),
    ] {
        assert_eq!(metrics.get(&series), expected, "{series}: {metrics:#?}");
    }
    let last = server.receiver("counter").await["last_swap"].clone();
    assert_eq!(
        (&last["id"], &last["kind"], &last["probation"]),
        (&json!(3), &json!("rollback"), &json!(null))
    );
    server.stop().await;
    // Another run knows it from the receipts.
    let server = site.start().await;
    assert_eq!(server.receiver("counter").await["last_swap"]["id"], 3);
}

#[tokio::test]
async fn whoever_waits_is_told_that_the_new_version_was_no_good() {
    let site = Site::new(
        counter()
            .set("receivers.counter.probation", "10m")
            .set("receivers.counter.quarantine-failures", 1_000_000),
    );
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    let component = guest("counter-next");
    let mut swap = site.spawn(&["swap", "counter", &component, "--wait", "--admin", &admin]);
    server.log.wait_for(&["the component of a receiver was exchanged"]).await;
    send(&server, "b", (0..4).map(|_| json!({ "do": "fail", "in": "counter-next" }))).await;
    assert_eq!(swap.ended().await.code(), Some(1));
    let receipt = swap.stdout.lines().join("\n");
    assert!(receipt.contains("  probation  rolled-back: "), "{receipt}");
    let said = swap.log.lines().join("\n");
    assert!(said.contains("failed its probation") && said.contains("probation-failed-percent"), "{said}");
}

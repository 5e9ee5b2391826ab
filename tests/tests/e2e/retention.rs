//! What every receiver has finished is deleted, and nothing else.

use std::path::Path;

use e2e::calls::{data_of, success};
use e2e::{Agent, Config, Encoding, Server, Site, eventually, files};
use serde_json::json;

/// A segment holds about a thousand messages of this size.
const MESSAGE_BYTES: usize = 1024;
/// Eight segments' worth.
const MESSAGES: usize = 8 * 1024;

fn config() -> Config {
    Config::new()
        .set("log.segment-size", "1MiB")
        .set("types.metrics.retain", "0s")
        .set("types.other.retain", "0s")
        .receiver("quiet", &files::guest("quiet"), &["metrics", "other"])
}

async fn send(server: &Server, data_type: &str) {
    let mut agent = Agent::connect(server.agents).await;
    let body = json!({ "filler": "x".repeat(MESSAGE_BYTES) });
    let batch: Vec<_> = (0..256).map(|_| data_of(data_type, "a", body.clone())).collect();
    for _ in 0..MESSAGES / 256 {
        let answer = agent.call(Encoding::Json, &batch.iter().cloned().collect()).await;
        assert_eq!(answer["result"], success()["result"], "{answer}");
    }
}

async fn handled(server: &Server, receiver: &str, count: usize) {
    eventually(&format!("{count} messages handled by {receiver}"), async || {
        (server.receiver(receiver).await["handled"] == count).then_some(())
    })
    .await;
}

/// Bytes of the segments of a topic.
fn stored(topic: &Path) -> u64 {
    let files = std::fs::read_dir(topic).unwrap().map(|entry| entry.unwrap());
    let segments = files.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "seg"));
    // One may be deleted just now.
    segments.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Waits until all but the last segments are gone.
async fn deleted(site: &Site, data_type: &str) {
    let topic = site.topic(data_type);
    eventually("finished segments to be deleted", async || (stored(&topic) <= 2 << 20).then_some(())).await;
}

#[tokio::test]
async fn what_every_receiver_has_finished_is_deleted() {
    let site = Site::new(config());
    let server = site.start().await;
    send(&server, "metrics").await;
    handled(&server, "quiet", MESSAGES).await;
    deleted(&site, "metrics").await;
    let start = server.status().await["types"][0]["start"].as_u64().unwrap();
    assert!(start > 0);

    // What is gone is not taken for damage.
    server.stop().await;
    let server = site.start().await;
    assert_eq!(server.status().await["types"][0]["start"], start);
    send(&server, "metrics").await;
    handled(&server, "quiet", MESSAGES).await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.get(r#"wharf_offsets_lost_total{receiver="quiet"}"#), 0.0);
}

#[tokio::test]
async fn what_a_receiver_has_not_finished_is_kept_also_when_it_leaves_the_config_for_a_while() {
    let with_slow = || config().receiver("slow", &files::guest("quiet"), &["metrics"]);
    let mut site = Site::new(with_slow());
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["pause", "slow", "--admin", &admin]).await.code, Some(0));
    send(&server, "metrics").await;
    send(&server, "other").await;
    handled(&server, "quiet", 2 * MESSAGES).await;
    deleted(&site, "other").await;
    server.stop().await;

    site.change(|_| config());
    let server = site.start().await;
    server.log.wait_for(&["this receiver is not mapped", "slow"]).await;
    send(&server, "other").await;
    deleted(&site, "other").await;
    server.stop().await;

    site.change(|_| with_slow());
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["resume", "slow", "--admin", &admin]).await.code, Some(0));
    handled(&server, "slow", MESSAGES).await;
}

#[tokio::test]
async fn a_receiver_that_stays_away_holds_nothing_back_after_its_grace() {
    let with_slow = || config().receiver("slow", &files::guest("quiet"), &["metrics"]);
    let mut site = Site::new(with_slow());
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["pause", "slow", "--admin", &admin]).await.code, Some(0));
    send(&server, "metrics").await;
    handled(&server, "quiet", MESSAGES).await;
    server.stop().await;

    // The time runs from the first start without it, whether a server runs meanwhile or not.
    site.change(|_| config());
    let server = site.start().await;
    server.log.wait_for(&["what it has not finished is kept for a while", "slow"]).await;
    server.stop().await;
    site.set("log.absent-grace", "1ms");
    let server = site.start().await;
    server.log.wait_for(&["nothing is kept for it any longer", "slow", "metrics"]).await;
    deleted(&site, "metrics").await;
    server.stop().await;

    // Back again, it goes on with what there is.
    site.change(|_| with_slow());
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["resume", "slow", "--admin", &admin]).await.code, Some(0));
    send(&server, "metrics").await;
    handled(&server, "quiet", MESSAGES).await;
    eventually("slow to have come to the end", async || {
        (server.receiver("slow").await["lag"] == 0).then_some(())
    })
    .await;
    let slow = server.receiver("slow").await;
    let handled = slow["handled"].as_u64().unwrap();
    assert!((MESSAGES as u64..2 * MESSAGES as u64).contains(&handled), "{slow:#}");
    assert!(server.log.matching(&["not mapped"]).is_empty());
    server.stop().await;

    // What is gone has a record.
    let state = wharf_state::State::open(&site.path().join("data/state")).unwrap();
    let gaps = state.gaps("slow").unwrap().topics;
    let [(topic, gaps)] = &gaps[..] else { panic!("{gaps:?}") };
    let words: Vec<_> = gaps.iter().map(|gap| gap.reason.word()).collect();
    assert_eq!((topic.as_str(), &words[..]), ("metrics", &["trimmed"][..]), "{gaps:?}");
    assert!(gaps[0].offsets.start == 0 && gaps[0].offsets.end > 0, "{gaps:?}");
}

#[tokio::test]
async fn a_grace_ends_while_the_server_runs() {
    let mut site = Site::new(config().receiver("slow", &files::guest("quiet"), &["metrics"]));
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["pause", "slow", "--admin", &admin]).await.code, Some(0));
    send(&server, "metrics").await;
    handled(&server, "quiet", MESSAGES).await;
    server.stop().await;
    site.change(|_| config().set("log.absent-grace", "2s"));
    let server = site.start().await;
    server.log.wait_for(&["what it has not finished is kept for a while", "slow"]).await;
    server.log.wait_for(&["nothing is kept for it any longer", "slow", "metrics"]).await;
    deleted(&site, "metrics").await;
}

#[tokio::test]
async fn the_disk_is_bounded_while_a_receiver_that_may_lose_messages_handles_nothing() {
    let site = Site::new(
        config()
            .set("types.metrics.retain", "1h")
            .set("types.metrics.retain-bytes", "1MiB")
            .receiver("slow", &files::guest("quiet"), &["metrics"])
            .set("receivers.slow.max-backlog", "2MiB")
            .set("receivers.slow.on-overflow", "shed"),
    );
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["pause", "slow", "--admin", &admin]).await.code, Some(0));
    for _ in 0..3 {
        send(&server, "metrics").await;
    }
    // The backlog, what is retained, and the segments in which one ends and the other begins.
    eventually("the disk to be freed", async || (stored(&site.topic("metrics")) <= 5 << 20).then_some(()))
        .await;
    assert!(server.status().await["types"][0]["start"].as_u64().unwrap() > 0);
}

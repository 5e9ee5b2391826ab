//! A server that is killed amid a reload or after one.

use e2e::calls::{data, data_of, success};
use e2e::{Agent, Encoding, Log, Server, Site, eventually};
use serde_json::json;

use super::{counter, number, numbers, receiver, reloaded, send};

#[tokio::test]
async fn a_crash_after_a_reload_loses_nothing_of_what_it_changed() {
    let mut site = Site::new(counter());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 2)).await;
    site.change(|config| receiver(config, "second", "recorder", &["metrics", "other"]));
    site.set("receivers.counter.types", json!(["metrics", "other"]));
    site.set("receivers.second.max-wait", "4s");
    reloaded(&site, &server, &[]).await;
    let calls = [data("a", json!({ "number": 2 })), data_of("other", "a", json!({ "number": 3 }))];
    for call in &calls {
        assert_eq!(agent.call(Encoding::Json, call).await, success());
    }
    let first = server.kill().await;
    let server = site.start().await;
    all_came_that_is_theirs(&first, &server).await;
}

#[tokio::test]
async fn a_crash_amid_a_reload_loses_nothing_either() {
    let mut site = Site::new(counter());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 2)).await;
    site.change(|config| receiver(config.data_type("third"), "second", "recorder", &["metrics", "third"]));
    site.set("receivers.counter.types", json!(["metrics", "third"]));
    site.write_config();
    let admin = format!("http://{}", server.admin);
    let _reload = site.spawn(&["reload", "--admin", &admin]);
    // Places are taken, and nothing is exchanged or added yet.
    server.log.wait_for(&["this receiver is new to this data type", "second"]).await;
    let sent = agent.call(Encoding::Json, &data("a", json!({ "number": 2 }))).await;
    assert_eq!(sent, success());
    let first = server.kill().await;
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "third", "a", numbers(3, 4)).await;
    all_came_that_is_theirs(&first, &server).await;
    server.stop().await;
}

/// Both receivers got what was acknowledged after the reload began, before the kill or after it, and the one that is new nothing
/// of before.
async fn all_came_that_is_theirs(first: &Log, server: &Server) {
    for receiver in ["counter", "second"] {
        eventually("what was acknowledged", async || {
            let seen = [first.seen(receiver), server.log.seen(receiver)].concat();
            [2, 3].iter().all(|expected| seen.iter().any(|seen| number(seen) == *expected)).then_some(())
        })
        .await;
    }
    let early = server.log.seen("second").iter().filter(|seen| number(seen) < 2).count();
    assert_eq!(early, 0, "what came before it is not for it");
}

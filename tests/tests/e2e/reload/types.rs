//! Data types that a reload brings.

use e2e::calls::{data_of, success};
use e2e::{Agent, Encoding, Site, eventually};
use serde_json::json;

use super::{counter, number, numbers, operate, receiver, refused, reloaded, send};

#[tokio::test]
async fn a_new_data_type_is_accepted_on_connections_that_are_open() {
    let mut site = Site::new(counter().set("presence.timeout", "1h"));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 1)).await;
    let call = data_of("third", "a", json!({ "number": 1 }));
    assert_eq!(agent.call(Encoding::Json, &call).await["error"]["code"], "unknown_type");
    let config = receiver(counter().data_type("third"), "second", "recorder", &["third"]);
    let config = config.set("presence.timeout", "1h");
    // Another receiver keeps it from coming, and nothing of it stays.
    site.change(|_| config.clone().set("receivers.counter.config.counter.restore", "fail"));
    site.write_config();
    refused(&site, &server).await;
    assert_eq!(agent.call(Encoding::Json, &call).await["error"]["code"], "unknown_type");
    let config = config.set("receivers.counter.types", json!(["metrics", "third"]));
    site.change(|_| config.set("types.third.durability", "os"));
    let report = reloaded(&site, &server, &[]).await;
    assert_eq!((&report["types"], &report["added"]), (&json!(["third"]), &json!(["second"])), "{report}");
    let with_id =
        json!({ "message_id": "m", "call": "data", "id": "a", "type": "third", "data": { "number": 1 } });
    for _ in 0..2 {
        assert_eq!(agent.call(Encoding::Json, &with_id).await, success());
    }
    let mut other = Agent::connect(server.agents).await;
    send(&mut other, "third", "b", numbers(2, 3)).await;
    for (receiver, count) in [("second", 2), ("counter", 3)] {
        let seen = server.log.wait_seen(receiver, count).await;
        let mut got: Vec<_> = seen.iter().filter(|seen| seen.r#type == "third").map(number).collect();
        got.sort_unstable();
        assert_eq!(got, [1, 2], "{receiver}");
    }
    let third = eventually("what was accepted", async || {
        let status = server.status().await;
        let types = status["types"].as_array().unwrap();
        types.iter().find(|of| of["name"] == "third" && of["accepted"] == 2).cloned()
    })
    .await;
    assert_eq!(third["durability"], "os");
    let metrics = server.metrics().await;
    assert_eq!(metrics.get(r#"wharf_messages_repeated_total{type="third"}"#), 1.0);
    let backup = operate(&site, &server, &["backup"]).await;
    assert!(backup.code == Some(0) && site.data().join("backup/log/third").is_dir(), "{}", backup.stderr);
    server.kill().await;

    // A data type that is there already when it comes again has its messages, its receivers and its agents.
    let all = site.write_config();
    let text = std::fs::read_to_string(&all).unwrap();
    site.change(|_| counter().set("presence.timeout", "1h"));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &call).await["error"]["code"], "unknown_type");
    std::fs::write(&all, text).unwrap();
    let finished = operate(&site, &server, &["reload"]).await;
    assert!(finished.stdout.starts_with("added    types.third\nadded    receivers.second\n"), "{finished:?}");
    send(&mut agent, "third", "b", numbers(3, 4)).await;
    let seen = eventually("the new message", async || {
        let seen = server.log.seen("second");
        seen.iter().any(|seen| number(seen) == 3).then_some(seen)
    })
    .await;
    assert!(seen.iter().all(|seen| number(seen) == 3 || seen.redelivery == "again"), "{seen:?}");
    assert_eq!(agent.call(Encoding::Json, &with_id).await, success());
    eventually("the id to be known", async || {
        let repeated = server.metrics().await.get(r#"wharf_messages_repeated_total{type="third"}"#);
        (repeated == 1.0).then_some(())
    })
    .await;
    server.stop().await;
}

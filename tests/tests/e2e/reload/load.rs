//! Reloads under load: receivers come, go, change and are mapped otherwise while agents send. Nothing is lost, nothing is
//! reordered, no connection is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use e2e::calls::data_of;
use e2e::{Agent, Encoding, Seen, Site, eventually, within};
use serde_json::{Value, json};

use super::{counter, number, receiver, reloaded};

/// Agents, on a connection each.
const AGENTS: usize = 6;
/// Messages of a frame.
const FRAME: u64 = 10;
/// How often everything is changed.
const ROUNDS: usize = 6;

/// Sends frames to both data types until it is told to stop, and gives how many messages it sent.
async fn run(
    address: std::net::SocketAddr,
    name: String,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> u64 {
    let mut agent = Agent::connect(address).await;
    let mut next = 0;
    while !stop.load(Ordering::SeqCst) {
        let calls: Value = (next..next + FRAME)
            .flat_map(|number| ["metrics", "other"].map(|of| data_of(of, &name, json!({ "number": number }))))
            .collect();
        let answer = agent.call(Encoding::Json, &calls).await;
        assert_eq!(answer["result"], "success", "{answer}");
        next += FRAME;
        sent.fetch_add(FRAME, Ordering::SeqCst);
    }
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_nothing() {
    let config = counter().set("receivers.counter.types", json!(["metrics", "other"]));
    let mut site = Site::new(config.clone());
    let server = site.start().await;
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sending: Vec<_> = (0..AGENTS)
        .map(|agent| tokio::spawn(run(server.agents, format!("agent-{agent}"), sent.clone(), stop.clone())))
        .collect();
    for round in 0..ROUNDS {
        let types: &[&str] = if round % 2 == 0 { &["metrics"] } else { &["other", "metrics"] };
        for step in [
            config.clone().set("receivers.counter.instances", 1 + round % 3),
            receiver(config.clone(), "second", "recorder", types),
            receiver(config.clone(), "second", "recorder", &["other"])
                .set("receivers.counter.types", json!(["other"])),
            config.clone(),
        ] {
            let before = sent.load(Ordering::SeqCst);
            site.change(|_| step);
            reloaded(&site, &server, &[]).await;
            eventually("messages to go on", async || {
                (sent.load(Ordering::SeqCst) > before + 2 * FRAME).then_some(())
            })
            .await;
        }
    }
    site.change(|_| receiver(config, "second", "recorder", &["metrics", "other"]));
    reloaded(&site, &server, &[]).await;
    stop.store(true, Ordering::SeqCst);
    let mut ends = BTreeMap::new();
    for (agent, sending) in sending.into_iter().enumerate() {
        let end = within("an agent to end", sending).await.expect("no connection was dropped");
        ends.insert(format!("agent-{agent}"), end);
    }
    for receiver in ["counter", "second"] {
        eventually("the receivers to be done", async || {
            (server.receiver(receiver).await["lag"] == 0).then_some(())
        })
        .await;
    }
    let log = server.stop().await;
    // One that left comes back to where it was, so that it misses nothing from its first message on.
    check(&log.seen("counter"), &ends, true);
    check(&log.seen("second"), &ends, false);
}

/// Each agent's messages came in order, each once, up to the last one, and if `all`, from the first one on.
fn check(seen: &[Seen], ends: &BTreeMap<String, u64>, all: bool) {
    let mut next: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for one in seen {
        let first = if all { 0 } else { number(one) };
        let expected = next.entry((&one.agent, &one.r#type)).or_insert(first);
        assert_eq!(number(one), *expected, "{one:?}");
        assert_eq!(one.redelivery, "none", "{one:?}");
        *expected += 1;
    }
    assert_eq!(next.len(), 2 * ends.len());
    assert!(next.iter().all(|((agent, _), next)| ends[*agent] == *next), "{next:?} {ends:?}");
}

//! A hundred swaps under load, with kills between: nothing is lost, nothing is reordered, no connection is dropped, and the
//! receipts say what the receivers recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::calls::data;
use e2e::{Agent, Encoding, Log, Rest, Seen, Site, eventually, files, rest, within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use wharf_log::Lane;

use super::counter;

/// Agents, on a connection each.
const AGENTS: usize = 8;
/// Starts of the server, all but the last of which end with a kill, and swaps in each.
const RUNS: usize = 4;
const SWAPS: usize = 25;
/// Messages of a frame.
const FRAME: u64 = 20;

/// Whether agents send.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sends {
    On,
    Waits,
    Ended,
}

/// What an agent has sent.
struct Sender {
    name: String,
    next: u64,
    acknowledged: Vec<u64>,
    /// Whether the connection ended before the server was killed.
    dropped: bool,
}

impl Sender {
    /// Sends frame after frame until it is told to stop or the connection ends, which it may only do when `killed`.
    async fn run(
        mut self,
        server: SocketAddr,
        mut sends: watch::Receiver<Sends>,
        killed: Arc<AtomicBool>,
    ) -> Sender {
        let mut agent = Agent::connect(server).await;
        while sends.wait_for(|sends| *sends != Sends::Waits).await.is_ok_and(|sends| *sends == Sends::On) {
            let numbers = self.next..self.next + FRAME;
            // Whether they were accepted or not, they are not sent again.
            self.next += FRAME;
            let calls: Value =
                numbers.clone().map(|number| data(&self.name, json!({ "number": number }))).collect();
            agent.send(Encoding::Json, &calls).await;
            match agent.try_answer().await {
                Ok((_, answer)) if answer["result"] == "success" => self.acknowledged.extend(numbers),
                Ok((_, answer)) => panic!("a frame was refused: {answer}"),
                Err(_) => {
                    self.dropped |= !killed.load(Ordering::SeqCst);
                    break;
                }
            }
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_swaps_under_load_lose_nothing() {
    let mut site = Site::new(counter().set("receivers.counter.instances", 2));
    let components = ["counter", "counter-next"].map(|name| std::fs::read(files::guest(name)).unwrap());
    let mut senders: Vec<Sender> = (0..AGENTS)
        .map(|number| Sender {
            name: format!("agent-{number}"),
            next: 0,
            acknowledged: Vec::new(),
            dropped: false,
        })
        .collect();
    let mut logs: Vec<Log> = Vec::new();
    let mut swaps = 0;
    let mut receipts: BTreeMap<u64, (usize, Value)> = BTreeMap::new();
    for run in 0..RUNS {
        let is_last = run + 1 == RUNS;
        let server = site.start().await;
        site.set("listen.agents", server.agents.to_string());
        let (sends, killed) = (watch::Sender::new(Sends::On), Arc::new(AtomicBool::new(false)));
        let sending: Vec<_> = senders
            .drain(..)
            .map(|sender| tokio::spawn(sender.run(server.agents, sends.subscribe(), killed.clone())))
            .collect();
        for swap in 0..SWAPS {
            // The kill comes amid the last one, of which the receipt may not be settled then. Of the others they are, as soon as
            // the receiver has caught up with the agents.
            if swap + 1 == SWAPS {
                sends.send_replace(Sends::Waits);
                eventually("the receipts before the last one", async || {
                    let kept = kept_receipts(server.admin).await;
                    (!kept.iter().any(|receipt| receipt["outcome"] == "switched")).then_some(())
                })
                .await;
                sends.send_replace(Sends::On);
            }
            swaps += 1;
            let component = components[swaps % 2].clone();
            let path = "/admin/v1/receivers/counter/component?who=test";
            let request = Rest::new(server.admin).request(Method::PUT, path).body(component);
            let answer = rest::send(request).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        if is_last {
            sends.send_replace(Sends::Ended);
        } else {
            killed.store(true, Ordering::SeqCst);
        }
        let mut kept = Vec::new();
        if is_last {
            for sender in sending {
                senders.push(within("an agent to end", sender).await.unwrap());
            }
            eventually("the receiver to be done", async || {
                (server.receiver("counter").await["lag"] == 0).then_some(())
            })
            .await;
            kept = eventually("every receipt to be settled", async || {
                let kept = kept_receipts(server.admin).await;
                let is_open = |receipt: &Value| receipt["outcome"] == "switched";
                (!kept.iter().any(is_open)).then_some(kept)
            })
            .await;
            logs.push(server.stop().await);
        } else {
            logs.push(server.kill().await);
            for sender in sending {
                senders.push(within("an agent to end", sender).await.unwrap());
            }
        }
        for receipt in kept {
            let id = receipt["id"].as_u64().unwrap();
            // The receipts of a run have the numbers of its swaps.
            receipts.insert(id, ((usize::try_from(id).unwrap() - 1) / SWAPS, receipt));
        }
    }

    assert!(senders.iter().all(|sender| !sender.dropped), "a connection was dropped");
    assert_eq!(receipts.len(), RUNS * SWAPS);
    check_messages(&senders, &logs);
    check_receipts(&receipts, &logs);
}

async fn kept_receipts(admin: SocketAddr) -> Vec<Value> {
    let answer = Rest::new(admin).get("/admin/v1/swaps").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.value()["swaps"].as_array().unwrap().clone()
}

/// Everything that was acknowledged was handled, in order, and marked when it came again.
fn check_messages(senders: &[Sender], logs: &[Log]) {
    let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for log in logs {
        for one in log.seen("counter") {
            seen.entry(one.agent.clone()).or_default().push(one);
        }
    }
    for Sender { name, next, acknowledged, .. } in senders {
        assert!(!acknowledged.is_empty());
        let mut handled = BTreeSet::new();
        let mut last = None;
        for one in &seen[name] {
            let number = one.body["number"].as_u64().unwrap();
            assert!(number < *next, "{name} never sent {number}");
            if one.redelivery == "none" {
                assert!(handled.insert(number), "{name}: {number} came twice and was not marked");
                assert!(last < Some(number), "{name}: {number} came after {last:?}");
                last = Some(number);
            } else {
                handled.insert(number);
                last = last.max(Some(number));
            }
        }
        let lost: Vec<_> = acknowledged.iter().filter(|number| !handled.contains(number)).collect();
        assert!(lost.is_empty(), "{name}: acknowledged and not handled: {lost:?}");
    }
}

/// What a receipt says of a lane is what the receivers recorded in it.
fn check_receipts(receipts: &BTreeMap<u64, (usize, Value)>, logs: &[Log]) {
    let seen: Vec<Vec<Seen>> = logs.iter().map(|log| log.seen("counter")).collect();
    let mut runs_before: Option<&Value> = None;
    let (mut settled, mut compared) = (0, 0);
    for (id, (run, receipt)) in receipts {
        if let Some(before) = runs_before {
            assert_eq!(before["new"], receipt["old"], "{id}: another version ran before it");
        }
        runs_before = Some(receipt);
        assert_ne!(receipt["outcome"], "refused", "{receipt:#}");
        assert_eq!(receipt["counts"]["lost"], 0, "{receipt:#}");
        assert_eq!(receipt["counts"]["by_both"], 0, "{receipt:#}");
        if receipt["outcome"] == "interrupted" {
            continue;
        }
        settled += 1;
        let to = receipt["windows"][0]["to"].as_u64().unwrap();
        for lane in receipt["lanes"].as_array().unwrap() {
            let number = |key: &str| lane[key].as_u64().unwrap_or_else(|| panic!("{key} of {lane}"));
            let counts = ["by_old", "by_new", "dead", "gaps", "pending", "lost"].map(number);
            assert_eq!(number("accepted"), counts.iter().sum::<u64>(), "{lane}");
            let last_by_old = lane["last_by_old"].as_u64();
            let mut offsets = BTreeMap::new();
            for one in &seen[*run] {
                let is_in = (number("from")..to).contains(&one.offset)
                    && Lane::of(&one.agent).index() as u64 == number("lane");
                if is_in {
                    offsets.insert(one.offset, one.redelivery.as_str());
                }
            }
            assert_eq!(number("accepted"), offsets.len() as u64, "receipt {id}: {lane}");
            let by_old = offsets.keys().filter(|offset| Some(**offset) <= last_by_old).count() as u64;
            assert_eq!(number("by_old"), by_old, "receipt {id}: {lane}");
            let by_new = || offsets.iter().filter(|(offset, _)| Some(**offset) > last_by_old);
            assert_eq!(number("by_new"), by_new().count() as u64, "receipt {id}: {lane}");
            assert_eq!(lane["first_by_new"].as_u64(), by_new().next().map(|(offset, _)| *offset));
            let again = by_new().filter(|(_, redelivery)| **redelivery == "again").count() as u64;
            assert_eq!(number("redelivered"), again, "receipt {id}: {lane}");
            compared += number("accepted");
        }
    }
    assert!(settled > RUNS * (SWAPS - 2), "only {settled} receipts were settled");
    assert!(compared > 0, "no receipt tells of a message");
    println!("{settled} of {} receipts settled, which tell of {compared} messages", RUNS * SWAPS);
}

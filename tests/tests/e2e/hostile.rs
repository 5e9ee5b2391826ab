//! A receiver that misbehaves beside one on the same data type that does not. Whatever the first does, agents are acknowledged,
//! the second gets every message in order while the first still fails, and the server says what happened.
//!
//! One thread runs all guests, so that one which keeps it is noticed.

pub mod compute;
mod everything;
mod fault;
mod flood;
mod memory;
mod page;
mod request;
pub mod sockets;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Log, Rest, Server, Site, eventually, files};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Agents that send all the time.
const AGENTS: usize = 4;

/// The pause between two messages of an agent.
const PACE: Duration = Duration::from_millis(10);

/// An acknowledgement that takes longer has waited for a receiver, even on a machine that is busy with other tests.
const LONGEST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(10);

/// Messages of each agent at least, so that there is an order to keep.
const FEWEST_MESSAGES: u64 = 20;

/// What is in the server's own lines about the hostile receiver; in the guest's own lines the name has no quotes.
const BY_HOSTILE: &str = r#"receiver.name="hostile""#;

/// The line of the log about a call that failed.
const FAILED: &str = "a receiver failed; its instance is made anew";

/// A hostile receiver in this mode beside the victim.
fn config(mode: &str) -> Config {
    with_hostile(
        Config::new().set("host.threads", 1).receiver("victim", &files::guest("recorder"), &["metrics"]),
        "hostile",
        mode,
    )
    // Never quarantined: it goes on for as long as the test.
    .set("receivers.hostile.quarantine-failures", 1_000_000)
    .set("receivers.hostile.quarantine-percent", 100)
}

/// Adds a hostile receiver with every grant that its component needs.
fn with_hostile(config: Config, name: &str, mode: &str) -> Config {
    let key = |key: &str| format!("receivers.{name}.{key}");
    config
        .receiver(name, &files::guest("hostile"), &["metrics"])
        .set(&key("config.mode"), mode)
        .set(&key("live"), true)
        .set(&key("keyvalue"), true)
        .set(&key("log-lines"), 100)
        .set(&key("deadline"), "1s")
        .set(&key("retry-pause"), "1ms")
}

/// A server with both receivers, and agents that send to them.
struct Ring {
    server: Server,
    stopped: Arc<AtomicBool>,
    agents: Vec<JoinHandle<u64>>,
}

impl Ring {
    async fn start(config: Config) -> Ring {
        let server = Site::new(config).start().await;
        let stopped = Arc::new(AtomicBool::new(false));
        let mut agents = Vec::new();
        for number in 0..AGENTS {
            let agent = Agent::connect(server.agents).await;
            agents.push(tokio::spawn(send_steadily(agent, format!("agent-{number}"), stopped.clone())));
        }
        Ring { server, stopped, agents }
    }

    /// Waits until a call of the hostile receiver failed in these words, and gives the line about it.
    async fn failed(&self, words: &str) -> String {
        let line = self.server.log.wait_for(&[FAILED, BY_HOSTILE, words]).await;
        let hostile = self.server.receiver("hostile").await;
        let last_error = hostile["last_error"].as_str().unwrap_or_default();
        assert!(last_error.contains(words), "{hostile:#}");
        assert!(matches!(hostile["state"].as_str(), Some("running" | "restarting")), "{hostile:#}");
        assert!(hostile["failed"].as_u64() > Some(0), "{hostile:#}");
        line
    }

    /// Waits until the victim got messages between the two lines with these words, which stand for the begin and the end of a
    /// call that is stuck.
    async fn goes_on_between(&self, begin: &str, end: &str) {
        let mut seen = None;
        self.server
            .log
            .until("messages of the victim while the other one is stuck", |line| {
                if line.contains("hostile") && line.contains(end) && seen.take() >= Some(AGENTS) {
                    return Some(());
                }
                if line.contains("hostile") && line.contains(begin) {
                    seen = Some(0);
                } else if line.contains("receiver.name=victim") {
                    seen = seen.map(|seen| seen + 1);
                }
                None
            })
            .await;
    }

    /// Lets the agents finish, checks that nothing happened to anybody but the hostile receiver, stops the server, and gives
    /// its log.
    async fn end(self) -> Log {
        self.end_with(0).await
    }

    /// As [`Ring::end`], where the test has sent so many messages itself.
    async fn end_with(self, more: u64) -> Log {
        self.stopped.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for agent in self.agents {
            sent.push(agent.await.expect("an agent is acknowledged"));
        }
        let total = sent.iter().sum::<u64>() + more;
        eventually("the victim to have handled everything", async || {
            (self.server.receiver("victim").await["handled"] == total).then_some(())
        })
        .await;
        let victim = self.server.receiver("victim").await;
        let expected = (&json!("running"), &json!(0), &json!(0));
        assert_eq!((&victim["state"], &victim["failed"], &victim["dead"]), expected, "{victim:#}");
        assert_eq!(Rest::new(self.server.admin).get("/readyz").await.status, 200);

        let log = self.server.stop().await;
        let seen = log.seen("victim");
        for (number, sent) in sent.into_iter().enumerate() {
            let agent = format!("agent-{number}");
            let numbers = seen.iter().filter(|seen| seen.agent == agent).map(|seen| &seen.body["number"]);
            assert!(
                numbers.eq((0..sent).map(Value::from).collect::<Vec<_>>().iter()),
                "{agent} is out of order"
            );
        }
        log
    }
}

/// Sends until told to stop, each message when the one before was acknowledged. Gives how many that were.
async fn send_steadily(mut agent: Agent, id: String, stopped: Arc<AtomicBool>) -> u64 {
    let mut clock = interval(PACE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    while sent < FEWEST_MESSAGES || !stopped.load(Ordering::Relaxed) {
        clock.tick().await;
        let message = data(&id, json!({ "number": sent }));
        let answer = timeout(LONGEST_ACKNOWLEDGEMENT, agent.call(Encoding::Json, &message)).await;
        assert_eq!(answer.expect("acknowledgements come soon"), success());
        sent += 1;
    }
    sent
}

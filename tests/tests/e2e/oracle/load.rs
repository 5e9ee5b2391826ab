//! One agent through all runs: what it sent, and what it was told of that.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use e2e::calls::data_of;
use e2e::{Agent, Encoding, eventually};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

/// The data types.
pub const TYPES: [&str; 2] = ["metrics", "blocks"];
/// Frames that an agent has under way.
const WINDOW: usize = 4;
/// An agent sends a frame so often: what all receivers print must be read by the test.
const PACE: Duration = Duration::from_millis(20);
/// Messages of a frame at most.
const BATCH: u64 = 9;

/// What all agents of a run were answered.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    /// Waits until so many more messages are accepted.
    pub async fn wait_accepted(&self, more: u64) {
        let enough = self.accepted.load(Ordering::Relaxed) + more;
        eventually("acknowledgements", async || {
            (self.accepted.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    }

    /// Waits until more messages are refused.
    pub async fn wait_refused(&self) {
        let before = self.refused.load(Ordering::Relaxed);
        eventually("refusals", async || (self.refused.load(Ordering::Relaxed) > before).then_some(())).await;
    }
}

/// One agent. Its messages are numbered; none is sent twice.
#[derive(Debug)]
pub struct Load {
    /// Its id.
    pub agent: String,
    /// The type of all its messages.
    pub data_type: &'static str,
    encoding: Encoding,
    /// The number of the next message.
    pub next: u64,
    /// What was acknowledged.
    pub accepted: BTreeSet<u64>,
    /// What was refused.
    pub refused: BTreeSet<u64>,
}

impl Load {
    /// The agent of this number.
    pub fn new(index: usize) -> Load {
        Load {
            agent: format!("agent-{index}"),
            data_type: TYPES[index % 3 / 2],
            encoding: Encoding::ALL[index % 2],
            next: 0,
            accepted: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    /// What the puppets are told to do with a message.
    pub fn order(&self, number: u64) -> Option<&'static str> {
        // Numbers without a common factor with those of the batches, so that every place in a batch is tried.
        match number % 401 {
            7 | 107 | 207 => Some("trap-once"),
            11 | 111 | 211 => Some("retry-once"),
            33 => Some("reject"),
            77 => Some("trap"),
            _ => None,
        }
    }

    /// Whether a message is to become a dead letter of the puppets.
    pub fn is_deadly(&self, number: u64) -> bool {
        matches!(self.order(number), Some("reject" | "trap"))
    }

    /// The body of a message, of which no byte may change.
    pub fn body(&self, number: u64) -> Value {
        let letter = char::from(b'a' + (number % 26) as u8).to_string();
        let mut body = json!({ "agent": self.agent, "number": number, "padding": letter.repeat(150) });
        if let Some(order) = self.order(number) {
            body["do"] = order.into();
        }
        body
    }

    /// Sends until the connection breaks.
    pub async fn run(mut self, address: SocketAddr, counts: Arc<Counts>) -> Load {
        let Ok(mut agent) = Agent::open(address, "/agent").await else { return self };
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = VecDeque::new();
        loop {
            pace.tick().await;
            while unanswered.len() < WINDOW {
                let first = self.next;
                self.next += 1 + first % BATCH;
                let calls: Value = (first..self.next)
                    .map(|number| data_of(self.data_type, &self.agent, self.body(number)))
                    .collect();
                unanswered.push_back(first..self.next);
                let bytes = self.encoding.encode(&calls);
                if agent.try_send_bytes(self.encoding, bytes).await.is_err() {
                    return self;
                }
            }
            let Ok((_, answer)) = agent.try_answer().await else { return self };
            let numbers = unanswered.pop_front().unwrap();
            self.take(numbers, &answer, &counts);
        }
    }

    fn take(&mut self, numbers: Range<u64>, answer: &Value, counts: &Counts) {
        let all: BTreeSet<u64> = numbers.clone().collect();
        let refused: BTreeSet<u64> = match answer["result"].as_str() {
            Some("success") => BTreeSet::new(),
            Some("partial") => {
                let errors = answer["errors"].as_array().unwrap();
                for error in errors {
                    let code = error["code"].as_str().unwrap();
                    assert!(["overloaded", "internal", "shutting_down"].contains(&code), "{answer}");
                }
                errors.iter().map(|error| numbers.start + error["index"].as_u64().unwrap()).collect()
            }
            _ => panic!("got {answer} for a batch"),
        };
        counts.accepted.fetch_add((all.len() - refused.len()) as u64, Ordering::Relaxed);
        counts.refused.fetch_add(refused.len() as u64, Ordering::Relaxed);
        self.accepted.extend(all.difference(&refused));
        self.refused.extend(refused);
    }
}

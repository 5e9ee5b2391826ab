//! Counts the messages of each agent in its memory and hands the counts on in a swap. Two components are made of this file, which
//! differ only in their name: `counter` and `counter-next`.
//!
//! Each handled message is a line of JSON, as `recorder` prints it, with the name of the component and the agent's count; `init`,
//! `restore` and `terminate` are lines too. A body can tell it what to do, also only one of the two: `{"do": "trap", "in":
//! "counter-next"}`. So can the settings, for each of its functions: `counter-next.init = "fail"`, `counter.snapshot = "trap"`;
//! see [`Order`]. `counter.format` is another format of its snapshots than `counter/1`, `counter.pad` adds so many bytes to them.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use exports::wharf::receiver::{handler, handover, lifecycle};
use wharf::receiver::types::{Batch, Body, Failure, FailureAction, Message, Redelivery, SavedState};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:counter;
        world counter {
            include wharf:receiver/base@0.1.0;
            export wharf:receiver/lifecycle@0.1.0;
            export wharf:receiver/handover@0.1.0;
        }
    ",
    world: "fixture:counter/counter",
    generate_all,
});

/// The format of its snapshots if the settings name no other.
const FORMAT: &str = "counter/1";

/// The messages of each agent that were handled.
static COUNTS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// What a body or a setting can order.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// Panics.
    Trap,
    /// Waits in a host call until it is ended.
    Hang,
    /// Asks for the message again after a pause.
    Retry,
    /// Rejects the message; returns an error from `init` and `restore`.
    Fail,
}

/// A body that orders something.
#[derive(Deserialize)]
struct Told {
    r#do: Order,
    /// The component that is to obey. Both, if it is not said.
    r#in: Option<String>,
}

/// One line of the output.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'a str,
    offset: u64,
    agent: &'a str,
    redelivery: &'a str,
    id: Option<&'a str>,
    body: &'a RawValue,
    version: &'a str,
    count: u64,
}

struct Counter;

/// The name of this component.
fn version() -> &'static str {
    env!("CARGO_PKG_NAME").trim_start_matches("guest-")
}

/// A setting for this component.
fn setting(name: &str) -> Option<String> {
    std::env::var(format!("{}.{name}", version())).ok()
}

fn format() -> String {
    setting("format").unwrap_or_else(|| FORMAT.into())
}

/// What the settings order for a function, obeyed as far as that is the same everywhere.
fn ordered(function: &str) -> Option<Order> {
    let text = setting(function)?;
    let text: StrDeserializer<Error> = text.as_str().into_deserializer();
    obey(Order::deserialize(text).expect("the setting is an order"), function)
}

fn obey(order: Order, function: &str) -> Option<Order> {
    match order {
        Order::Trap => panic!("{} was told to trap in {function}", version()),
        Order::Hang => std::thread::sleep(Duration::from_secs(3600)),
        Order::Retry | Order::Fail => return Some(order),
    }
    None
}

fn refused(function: &str) -> Result<(), String> {
    let told = ordered(function) == Some(Order::Fail);
    if told { Err(format!("{} was told to fail in {function}", version())) } else { Ok(()) }
}

impl handler::Guest for Counter {
    fn handle(batch: Batch) -> Vec<Failure> {
        let by_settings = ordered("handle");
        let (mut lines, mut failures) = (Vec::new(), Vec::new());
        for message in &batch.messages {
            let Body::Json(body) = &message.body else { panic!("bodies come as JSON") };
            match by_settings.or_else(|| told(body)) {
                Some(order) => failures.push(failure(message, order)),
                None => {
                    let line = line(&batch.data_type, message, body);
                    serde_json::to_writer(&mut lines, &line).expect("a line is valid JSON");
                    lines.push(b'\n');
                }
            }
        }
        // At the end and in one write: nothing of a batch that trapped is told.
        std::io::stdout().write_all(&lines).expect("standard output is open");
        failures
    }
}

fn told(body: &str) -> Option<Order> {
    let told: Told = serde_json::from_str(body).ok()?;
    let is_meant = told.r#in.is_none_or(|version_meant| version_meant == version());
    is_meant.then(|| obey(told.r#do, "handle")).flatten()
}

fn failure(message: &Message, order: Order) -> Failure {
    let action = if order == Order::Retry { FailureAction::Retry(None) } else { FailureAction::Reject };
    Failure { offset: message.offset, action, reason: format!("{} was told to", version()) }
}

fn line<'a>(data_type: &'a str, message: &'a Message, body: &'a str) -> Line<'a> {
    let mut counts = COUNTS.lock().expect("nothing panics under the lock");
    let count = counts.entry(message.agent.clone()).or_default();
    *count += 1;
    Line {
        r#type: data_type,
        offset: message.offset,
        agent: &message.agent,
        redelivery: match message.redelivery {
            Redelivery::None => "none",
            Redelivery::Again => "again",
            Redelivery::Redrive => "redrive",
        },
        id: message.id.as_deref(),
        body: serde_json::from_str(body).expect("the host gives valid JSON"),
        version: version(),
        count: *count,
    }
}

impl lifecycle::Guest for Counter {
    fn init() -> Result<(), String> {
        println!("{} init", version());
        refused("init")
    }

    fn terminate() {
        ordered("terminate");
        println!("{} terminate", version());
    }
}

impl handover::Guest for Counter {
    fn snapshot() -> SavedState {
        ordered("snapshot");
        let counts = COUNTS.lock().expect("nothing panics under the lock");
        let mut payload = serde_json::to_vec(&*counts).expect("counts are valid JSON");
        if let Some(bytes) = setting("pad") {
            // Spaces after the end are still valid JSON.
            let bytes: usize = bytes.parse().expect("the setting is a number");
            payload.resize(payload.len() + bytes, b' ');
        }
        SavedState { format: format(), payload }
    }

    fn restore(old: SavedState) -> Result<(), String> {
        refused("restore")?;
        if old.format != format() {
            return Err(format!("found the format {:?}, expected {:?}", old.format, format()));
        }
        let old: BTreeMap<String, u64> = serde_json::from_slice(&old.payload)
            .map_err(|error| format!("failed to read counts: {error}"))?;
        println!("{} restore {}", version(), old.len());
        let mut counts = COUNTS.lock().expect("nothing panics under the lock");
        for (agent, count) in old {
            *counts.entry(agent).or_default() += count;
        }
        Ok(())
    }
}

export!(Counter);

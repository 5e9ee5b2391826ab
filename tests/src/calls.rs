//! Calls as agents write them.

use serde_json::{Value, json};

/// A message of the data type `metrics`.
pub fn data(agent: &str, body: Value) -> Value {
    data_of("metrics", agent, body)
}

/// A message of a data type.
pub fn data_of(data_type: &str, agent: &str, body: Value) -> Value {
    json!({ "call": "data", "id": agent, "type": data_type, "data": body })
}

/// A sign of life.
pub fn ping(agent: &str) -> Value {
    json!({ "call": "ping", "id": agent })
}

/// A farewell.
pub fn bye(agent: &str) -> Value {
    json!({ "call": "bye", "id": agent })
}

/// What a single call that was accepted is answered.
pub fn success() -> Value {
    json!({ "result": "success" })
}

//! What a receiver of metrics does at least: reads each body and keeps every agent's latest values. The benchmark compiles
//! this file natively too, to compare the same code inside and outside the sandbox.

use std::collections::HashMap;

use serde_json::Value;

/// The latest values of agents.
#[derive(Debug, Default)]
pub struct Readings {
    agents: HashMap<String, Latest>,
}

/// What is known of one agent.
#[derive(Debug, Default)]
struct Latest {
    messages: u64,
    sum: f64,
}

impl Readings {
    /// Takes one body. A body without any number is none that can be kept.
    pub fn take(&mut self, agent: &str, body: &str) -> Result<(), String> {
        let body: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let (numbers, sum) = numbers(&body);
        if numbers == 0 {
            return Err("found no number".to_owned());
        }
        let latest = match self.agents.get_mut(agent) {
            Some(latest) => latest,
            None => self.agents.entry(agent.to_owned()).or_default(),
        };
        latest.messages += 1;
        latest.sum = sum;
        Ok(())
    }
}

/// How many numbers a value holds, and their sum. The host bounds how deep a body may be.
fn numbers(value: &Value) -> (u64, f64) {
    let add = |(count, sum): (u64, f64), (more, plus): (u64, f64)| (count + more, sum + plus);
    match value {
        Value::Number(number) => (1, number.as_f64().unwrap_or_default()),
        Value::Object(members) => members.values().map(numbers).fold((0, 0.0), add),
        Value::Array(items) => items.iter().map(numbers).fold((0, 0.0), add),
        Value::Null | Value::Bool(_) | Value::String(_) => (0, 0.0),
    }
}

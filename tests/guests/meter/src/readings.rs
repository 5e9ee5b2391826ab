//! What a receiver of metrics does at least: reads each body and keeps every agent's latest values. The benchmark compiles
//! this file natively too, to compare the same code inside and outside the sandbox.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

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
        let Numbers { count, sum } = serde_json::from_str(body).map_err(|error| error.to_string())?;
        if count == 0 {
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

/// How many numbers a value holds, and their sum, read in one pass and without a tree of it. The host bounds how deep a
/// body may be.
#[derive(Default)]
struct Numbers {
    count: u64,
    sum: f64,
}

impl Numbers {
    fn one(number: f64) -> Numbers {
        Numbers { count: 1, sum: number }
    }

    fn add(&mut self, Numbers { count, sum }: Numbers) {
        self.count += count;
        self.sum += sum;
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Numbers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Numbers, A::Error> {
        let mut numbers = Numbers::default();
        while let Some((IgnoredAny, value)) = members.next_entry()? {
            numbers.add(value);
        }
        Ok(numbers)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Numbers, A::Error> {
        let mut numbers = Numbers::default();
        while let Some(value) = items.next_element()? {
            numbers.add(value);
        }
        Ok(numbers)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Numbers, E> {
        Ok(Numbers::one(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Numbers, E> {
        Ok(Numbers::one(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Numbers, E> {
        Ok(Numbers::one(number as f64))
    }

    fn visit_str<E>(self, _: &str) -> Result<Numbers, E> {
        Ok(Numbers::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Numbers, E> {
        Ok(Numbers::default())
    }

    fn visit_unit<E>(self) -> Result<Numbers, E> {
        Ok(Numbers::default())
    }
}

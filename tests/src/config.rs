//! The config of a server under test, written key by key. It is not checked here: that is the server's work.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

/// Lines a second of a receiver whose every line is read by a test.
const ALL_LINES: u32 = 1_000_000;

/// A config in the making. JSON scalars and lists are TOML too, so values are given as JSON.
#[derive(Debug, Clone)]
pub struct Config {
    tables: BTreeMap<String, BTreeMap<String, Value>>,
    /// Lines that are TOML already, with the table they belong to.
    raw: Vec<(String, String)>,
}

impl Config {
    /// Free ports and one data type, `metrics`.
    pub fn new() -> Config {
        Config { tables: BTreeMap::new(), raw: Vec::new() }
            .set("data-dir", "data")
            .set("auth", "off")
            .set("listen.agents", "127.0.0.1:0")
            .set("listen.admin", "127.0.0.1:0")
            .data_type("metrics")
    }

    /// Sets a key with its tables, as in `set("limits.max-frame", "64KiB")`.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Config {
        let (table, key) = key.rsplit_once('.').unwrap_or(("", key));
        self.tables.entry(table.to_owned()).or_default().insert(key.to_owned(), value.into());
        self
    }

    /// Adds a data type with its defaults.
    pub fn data_type(mut self, name: &str) -> Config {
        self.tables.entry(format!("types.{name}")).or_default();
        self
    }

    /// Adds a receiver of these data types, whose lines all reach the log.
    pub fn receiver(self, name: &str, component: &Path, types: &[&str]) -> Config {
        self.set(&format!("receivers.{name}.component"), component.to_str().expect("paths of tests are text"))
            .set(&format!("receivers.{name}.types"), json!(types))
            .set(&format!("receivers.{name}.log-lines"), ALL_LINES)
    }

    /// Grants a receiver a folder. Inline tables are the one thing that JSON writes otherwise than TOML.
    pub fn file_grant(mut self, receiver: &str, host: &str, guest: &str, write: bool) -> Config {
        let grant = format!("files = [{{ host = {host:?}, guest = {guest:?}, write = {write} }}]");
        self.raw.push((format!("receivers.{receiver}"), grant));
        self
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // The empty name sorts first, so that the root's keys stand before any table.
        for (table, entries) in &self.tables {
            if !table.is_empty() {
                text.push_str(&format!("\n[{table}]\n"));
            }
            for (key, value) in entries {
                text.push_str(&format!("{key} = {value}\n"));
            }
            for (_, line) in self.raw.iter().filter(|(of, _)| of == table) {
                text.push_str(&format!("{line}\n"));
            }
        }
        text
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

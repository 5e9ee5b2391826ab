//! The entries of the database of what receivers keep under keys.

use std::{collections::BTreeMap, path::Path};

use super::Findings;
use crate::{
    StateError,
    keyvalue::{
        Open,
        layout::{Entry, Usage, entry_bytes, parse_usage_key, parse_whole_key},
    },
};

/// What is in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValuesContent {
    /// The receivers that keep something, how many values, and the bytes that they use.
    pub receivers: Vec<(String, u64, u64)>,
}

const REFUSED: &str = "the start is refused; restore the data directory from a backup";
const FAILS: &str = "a receiver that reads it is told of an error";
const LEFT_OUT: &str = "it is left out";

#[derive(Default)]
struct Account {
    values: u64,
    bytes: u64,
    usage: Option<Usage>,
}

pub(super) fn read(dir: &Path, findings: &mut Findings<'_>) -> Result<ValuesContent, StateError> {
    let open = Open::at(dir)?;
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    findings.entries("values", open.all(), |findings, key, value| {
        if let Some((receiver, bucket, name)) = parse_whole_key(key) {
            match Entry::decode(value) {
                Ok(entry) => {
                    let account = accounts.entry(receiver.to_owned()).or_default();
                    account.values = account.values.saturating_add(1);
                    account.bytes =
                        account.bytes.saturating_add(entry_bytes(bucket, name, entry.value.len()));
                }
                Err(problem) => {
                    findings
                        .add(format!("a value of receiver {receiver:?} under {name:?}: {problem}"), FAILS);
                }
            }
            return;
        }
        match parse_usage_key(key) {
            Ok(receiver) => match Usage::decode(value) {
                Ok(usage) => accounts.entry(receiver.to_owned()).or_default().usage = Some(usage),
                Err(problem) => findings.add(format!("receiver {receiver:?}: {problem}"), REFUSED),
            },
            Err(error) if key.first() == Some(&b'u') => findings.add(error.to_string(), REFUSED),
            Err(error) => findings.add(error.to_string(), LEFT_OUT),
        }
    });
    let mut content = ValuesContent::default();
    for (receiver, Account { values, bytes, usage }) in accounts {
        let written = usage.map_or(0, |usage| usage.bytes);
        if written != bytes {
            findings.add(
                format!("receiver {receiver:?} keeps {bytes} bytes, and what is written down is {written}"),
                "its bound is kept by what is written down",
            );
        }
        if values > 0 {
            content.receivers.push((receiver, values, bytes));
        }
    }
    Ok(content)
}

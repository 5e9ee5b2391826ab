//! What is known of the dead letters of all receivers without reading them: how much they take, and which are being
//! redriven.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::layout::{self, Head, Usage, letter_bytes};
use crate::store::open::Open;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: BTreeMap<String, Account>,
}

#[derive(Debug, Default)]
struct Account {
    usage: Usage,
    /// The bytes of each letter that is being redriven.
    held: HashMap<u64, u64>,
}

impl Ledger {
    /// Takes over what the database says. Redrives go on.
    pub(crate) fn read(&mut self, open: &Open) -> fjall::Result<()> {
        self.accounts.values_mut().for_each(|account| account.usage = Usage::default());
        for entry in open.dead_letters.keyspace.prefix(layout::USAGES) {
            let (key, value) = entry.into_inner()?;
            let receiver = match layout::parse_usage_key(&key) {
                Ok(receiver) => receiver,
                Err(problem) => {
                    tracing::error!(problem, "an entry of the dead letters can't be understood");
                    continue;
                }
            };
            let usage = match Usage::decode(&value) {
                Ok(usage) => usage,
                Err(problem) => {
                    tracing::error!(
                        receiver.name = receiver,
                        problem,
                        "what the dead letters of this receiver take can't be understood; they are counted anew, and ids of \
                         dropped ones may be given again"
                    );
                    count(open, receiver)?
                }
            };
            self.set_usage(receiver, usage);
        }
        Ok(())
    }

    pub(crate) fn usage(&self, receiver: &str) -> Usage {
        self.accounts.get(receiver).map(|account| account.usage).unwrap_or_default()
    }

    pub(crate) fn set_usage(&mut self, receiver: &str, usage: Usage) {
        self.accounts.entry(receiver.to_owned()).or_default().usage = usage;
    }

    pub(crate) fn receivers_with_letters(&self) -> Vec<String> {
        let some = self.accounts.iter().filter(|(_, account)| account.usage.count > 0);
        some.map(|(receiver, _)| receiver.clone()).collect()
    }

    /// Notes that a letter is being redriven.
    pub(crate) fn hold(&mut self, receiver: &str, id: u64, bytes: u64) {
        self.accounts.entry(receiver.to_owned()).or_default().held.insert(id, bytes);
    }

    /// Notes that a letter is being redriven no longer.
    pub(crate) fn release(&mut self, receiver: &str, id: u64) {
        if let Some(account) = self.accounts.get_mut(receiver) {
            account.held.remove(&id);
        }
    }

    pub(crate) fn is_held(&self, receiver: &str, id: u64) -> bool {
        self.accounts.get(receiver).is_some_and(|account| account.held.contains_key(&id))
    }

    /// The letters that are being redriven, and their bytes.
    pub(crate) fn held(&self, receiver: &str) -> (BTreeSet<u64>, u64) {
        let Some(Account { held, .. }) = self.accounts.get(receiver) else { return Default::default() };
        (held.keys().copied().collect(), held.values().copied().fold(0, u64::saturating_add))
    }
}

/// What the letters of a receiver take, by reading all but their messages.
fn count(open: &Open, receiver: &str) -> fjall::Result<Usage> {
    let mut usage = Usage::default();
    for entry in open.dead_letters.keyspace.range(layout::head_keys(receiver, 0, u64::MAX)) {
        let (key, head) = entry.into_inner()?;
        let Some(id) = layout::parse_head_key(receiver, &key) else { continue };
        usage.last_id = id;
        usage.count += 1;
        usage.bytes = usage.bytes.saturating_add(letter_bytes_of(open, receiver, id, &head)?);
    }
    Ok(usage)
}

/// What a letter counts in bytes, also one that can't be understood.
pub(super) fn letter_bytes_of(open: &Open, receiver: &str, id: u64, head: &[u8]) -> fjall::Result<u64> {
    let message = match Head::decode(head) {
        Ok(whole) => whole.message_bytes,
        Err(_) => open.dead_letters.keyspace.size_of(layout::message_key(receiver, id))?.unwrap_or(0),
    };
    Ok(letter_bytes(head.len(), message))
}

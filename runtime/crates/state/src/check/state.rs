//! The entries of the database of cursors, agents, dead letters and gap records.

use std::{collections::BTreeMap, path::Path};

use super::Findings;
use crate::{
    StateError, agents,
    dead_letters::layout::{Head, LetterKey, Usage, letter_bytes, parse_letter_key, parse_usage_key},
    gaps, layout, message_ids,
    store::open::Open,
    swaps,
};

/// What is in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateContent {
    /// The cursors of every receiver in every topic.
    pub cursors: Vec<CheckedCursors>,
    /// How many agents are known.
    pub agents: u64,
    /// For each topic, the offset below which what is known of agents reflects everything.
    pub reflected: Vec<(String, u64)>,
    /// The receivers that have dead letters, and how many whole ones.
    pub dead_letters: Vec<(String, u64)>,
    /// The receivers and topics that have gap records, and how many.
    pub gaps: Vec<(String, String, u64)>,
}

/// Cursors of a receiver in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedCursors {
    /// The receiver.
    pub receiver: String,
    /// The topic.
    pub topic: String,
    /// Every offset below is finished.
    pub lowest: u64,
    /// No offset from here on is finished.
    pub end: u64,
}

const REFUSED: &str = "the start is refused; restore the data directory from a backup";
const LEFT_OUT: &str = "it is left out";
const ONLY_DROPPED: &str = "it is listed as damaged, and can only be dropped";
const READ_BACK: &str = "the next start reads back more than it needs";
const COUNTED_ANEW: &str = "they are counted anew";

pub(super) fn read(dir: &Path, findings: &mut Findings<'_>) -> Result<StateContent, StateError> {
    let open = Open::at(dir)?;
    let mut content = StateContent::default();
    findings.entries("cursors", open.cursors.keyspace.iter(), |findings, key, value| {
        match layout::parse_key(key) {
            Err(error) => findings.add(error.to_string(), REFUSED),
            Ok((receiver, topic)) => match layout::decode(value) {
                Err(problem) => findings.add(
                    format!("the cursors of receiver {receiver:?} in topic {topic:?} can't be understood: {problem}"),
                    REFUSED,
                ),
                Ok(cursors) => content.cursors.push(CheckedCursors {
                    receiver: receiver.to_owned(),
                    topic: topic.to_owned(),
                    lowest: cursors.min_next(),
                    end: cursors.end(),
                }),
            },
        }
    });
    findings.entries("agents", open.agents.iter(), |findings, key, value| {
        match agents::decode_agent(key, value) {
            Ok(_) => content.agents = content.agents.saturating_add(1),
            Err(problem) => findings.add(format!("agent {}: {problem}", quoted(key)), LEFT_OUT),
        }
    });
    findings.entries(
        "presence",
        open.presence.iter(),
        |findings, key, value| match agents::decode_reflected(key, value) {
            Ok(reflected) => content.reflected.push(reflected),
            Err(problem) => findings.add(format!("presence in topic {}: {problem}", quoted(key)), LEFT_OUT),
        },
    );
    findings.entries("message ids", open.message_ids.keyspace.iter(), |findings, key, value| {
        if let Err(problem) = message_ids::decode(value) {
            let found = format!("from where on message ids of topic {} are known: {problem}", quoted(key));
            findings.add(found, READ_BACK);
        }
    });
    for (what, area) in [("versions", &open.versions), ("receipts", &open.receipts)] {
        findings.entries(what, area.keyspace.iter(), |findings, key, value| {
            if let Err(problem) = swaps::decode(value) {
                findings.add(format!("{what} {}: {problem}", quoted(key)), LEFT_OUT);
            }
        });
    }
    findings.entries("gap records", open.gaps.keyspace.iter(), |findings, key, value| {
        match gaps::layout::parse_topic(key).and_then(|topic| Ok((topic, gaps::layout::decode(value)?))) {
            Ok((topic, gaps)) => {
                let receiver = layout::parse_key(key).map_or("", |(receiver, _)| receiver).to_owned();
                content.gaps.push((receiver, topic, u64::try_from(gaps.len()).unwrap_or(u64::MAX)));
            }
            Err(problem) => findings.add(format!("gap records {}: {problem}", quoted(key)), LEFT_OUT),
        }
    });
    let mut letters = Letters::default();
    findings.entries("dead letters", open.dead_letters.keyspace.iter(), |findings, key, value| {
        letters.entry(findings, key, value);
    });
    content.dead_letters = letters.finish(findings);
    Ok(content)
}

fn quoted(key: &[u8]) -> String {
    format!("{:?}", key.escape_ascii().to_string())
}

/// The dead letters of all receivers. Their heads come first, then their messages, then what they take together.
#[derive(Default)]
struct Letters(BTreeMap<String, Account>);

#[derive(Default)]
struct Account {
    usage: Option<Usage>,
    letters: BTreeMap<u64, Letter>,
}

struct Letter {
    /// What its message has to have, if the head can be understood.
    message_bytes: Option<u32>,
    bytes: u64,
    has_message: bool,
}

impl Letters {
    fn entry(&mut self, findings: &mut Findings<'_>, key: &[u8], value: &[u8]) {
        match parse_letter_key(key) {
            Some((LetterKey::Head, receiver, id)) => {
                let head = Head::decode(value).map_err(|problem| {
                    findings
                        .add(format!("dead letter {id} of receiver {receiver:?}: {problem}"), ONLY_DROPPED);
                });
                let message_bytes = head.map(|head| head.message_bytes).ok();
                let bytes = letter_bytes(value.len(), message_bytes.unwrap_or(0));
                let letters = &mut self.0.entry(receiver.to_owned()).or_default().letters;
                letters.insert(id, Letter { message_bytes, bytes, has_message: false });
            }
            Some((LetterKey::Message, receiver, id)) => {
                let account = self.0.get_mut(receiver);
                let Some(letter) = account.and_then(|account| account.letters.get_mut(&id)) else {
                    let found = format!("a message of receiver {receiver:?} belongs to no dead letter: {id}");
                    return findings.add(found, LEFT_OUT);
                };
                letter.has_message = true;
                let found = u32::try_from(value.len()).unwrap_or(u32::MAX);
                match letter.message_bytes {
                    None => letter.bytes = letter.bytes.saturating_add(found.into()),
                    Some(expected) if expected == found => {}
                    Some(expected) => {
                        letter.message_bytes = None;
                        let found = format!(
                            "dead letter {id} of receiver {receiver:?}: its message has {found} bytes, expected {expected}"
                        );
                        findings.add(found, ONLY_DROPPED);
                    }
                }
            }
            None => match parse_usage_key(key) {
                Ok(receiver) => match Usage::decode(value) {
                    Ok(usage) => self.0.entry(receiver.to_owned()).or_default().usage = Some(usage),
                    Err(problem) => findings.add(
                        format!("what the dead letters of receiver {receiver:?} take: {problem}"),
                        COUNTED_ANEW,
                    ),
                },
                Err(problem) => findings.add(format!("dead letters: {problem}"), LEFT_OUT),
            },
        }
    }

    /// How many whole letters each receiver has.
    fn finish(self, findings: &mut Findings<'_>) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        for (receiver, Account { usage, letters }) in self.0 {
            for (id, _) in letters.iter().filter(|(_, letter)| !letter.has_message) {
                let found = format!("dead letter {id} of receiver {receiver:?}: its message is not there");
                findings.add(found, ONLY_DROPPED);
            }
            let count = u64::try_from(letters.len()).unwrap_or(u64::MAX);
            let bytes = letters.values().map(|letter| letter.bytes).fold(0, u64::saturating_add);
            if let Some(usage) = usage.filter(|usage| (usage.count, usage.bytes) != (count, bytes)) {
                let found = format!(
                    "receiver {receiver:?} has {count} dead letters of {bytes} bytes, and what is written down is {} of {} bytes",
                    usage.count, usage.bytes
                );
                findings.add(found, "the bounds of its dead letters are kept by what is written down");
            }
            let is_whole = |letter: &&Letter| letter.has_message && letter.message_bytes.is_some();
            let whole = letters.values().filter(is_whole).count();
            if !letters.is_empty() {
                counts.push((receiver, u64::try_from(whole).unwrap_or(u64::MAX)));
            }
        }
        counts
    }
}

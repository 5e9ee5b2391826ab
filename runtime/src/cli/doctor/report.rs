//! What a check found, as it is printed for programs.

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;
use wharf_log::TopicCheck;
use wharf_state::{CheckedCursors, StateContent, ValuesContent};

/// All that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub data_dir: PathBuf,
    /// Whether nothing is damaged.
    pub whole: bool,
    /// Whether the last run ended in an orderly way.
    pub stopped_cleanly: bool,
    pub topics: Vec<Topic>,
    pub cursors: Vec<Cursors>,
    pub agents: u64,
    pub dead_letters: Vec<DeadLetters>,
    pub gaps: Vec<Gaps>,
    pub values: Vec<Values>,
    pub compiled_components: u64,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
pub struct Topic {
    pub name: String,
    pub segments: u64,
    pub blocks: u64,
    pub records: u64,
    pub bytes: u64,
    /// Of what can be read.
    pub first: Option<u64>,
    pub last: Option<u64>,
    /// Every offset that was ever used is below.
    pub reserved: Option<u64>,
    pub closed_cleanly: bool,
}

#[derive(Debug, Serialize)]
pub struct Cursors {
    pub receiver: String,
    pub topic: String,
    /// Everything below is finished.
    pub lowest: u64,
    /// Nothing from here on is finished.
    pub end: u64,
}

#[derive(Debug, Serialize)]
pub struct DeadLetters {
    pub receiver: String,
    pub count: u64,
}

#[derive(Debug, Serialize)]
pub struct Gaps {
    pub receiver: String,
    pub topic: String,
    pub count: u64,
}

#[derive(Debug, Serialize)]
pub struct Values {
    pub receiver: String,
    pub values: u64,
    pub bytes: u64,
}

/// Something that is not as an orderly stop leaves it.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub file: PathBuf,
    /// What is wrong with it.
    pub found: String,
    /// The topic and the ranges of its offsets that can't be read.
    pub lost: Option<Lost>,
    /// What a start makes of it, and what to do.
    pub at_start: String,
    /// Whether it is damage, and not only what a crash leaves or what is of no concern.
    pub damage: bool,
}

#[derive(Debug, Serialize)]
pub struct Lost {
    pub topic: String,
    pub offsets: Vec<Range<u64>>,
    /// Receivers that have not finished all of them.
    pub unfinished_by: Vec<String>,
}

impl From<&TopicCheck> for Topic {
    fn from(checked: &TopicCheck) -> Self {
        Self {
            name: checked.topic.clone(),
            segments: checked.segments,
            blocks: checked.blocks,
            records: checked.records,
            bytes: checked.bytes,
            first: checked.offsets.map(|(first, _)| first),
            last: checked.offsets.map(|(_, last)| last),
            reserved: checked.reserved,
            closed_cleanly: checked.clean,
        }
    }
}

impl From<CheckedCursors> for Cursors {
    fn from(CheckedCursors { receiver, topic, lowest, end }: CheckedCursors) -> Self {
        Self { receiver, topic, lowest, end }
    }
}

impl Report {
    pub fn take_state(&mut self, content: StateContent) {
        self.cursors = content.cursors.into_iter().map(Cursors::from).collect();
        self.agents = content.agents;
        let letters = content.dead_letters.into_iter();
        self.dead_letters = letters.map(|(receiver, count)| DeadLetters { receiver, count }).collect();
        let gaps = content.gaps.into_iter();
        self.gaps = gaps.map(|(receiver, topic, count)| Gaps { receiver, topic, count }).collect();
    }

    pub fn take_values(&mut self, content: ValuesContent) {
        let values = content.receivers.into_iter();
        self.values = values.map(|(receiver, values, bytes)| Values { receiver, values, bytes }).collect();
    }
}

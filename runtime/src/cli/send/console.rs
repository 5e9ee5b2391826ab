//! What `wharf send` says to people while it works: progress where there is a terminal, and complaints in bounded number.
//! All of it goes to standard error; the summary has standard output for itself.

use std::{
    collections::BTreeMap,
    io::{Write, stderr},
};

use indicatif::ProgressBar;

use crate::cli::progress;

/// Complaints of one kind that are told; more of them say nothing new, and a million would hide everything else.
const MAX_TOLD: u32 = 10;

/// Standard error, shared between progress and complaints.
pub struct Console {
    bar: ProgressBar,
    told: BTreeMap<&'static str, u32>,
}

impl Console {
    /// Shows progress if standard error is a terminal.
    pub fn new() -> Self {
        Self { bar: progress::acknowledged(), told: BTreeMap::new() }
    }

    /// So many messages are acknowledged by now.
    pub fn progress(&self, accepted: u64) {
        self.bar.set_position(accepted);
    }

    /// Tells of a refusal, unless enough of its kind were told.
    pub fn complain(&mut self, code: &'static str, complaint: &str) {
        let told = self.told.entry(code).or_default();
        *told = told.saturating_add(1);
        match (*told).cmp(&MAX_TOLD) {
            std::cmp::Ordering::Less => self.say(complaint),
            std::cmp::Ordering::Equal => {
                self.say(complaint);
                self.say(&format!("more of {code} is counted, not told"));
            }
            std::cmp::Ordering::Greater => {}
        }
    }

    /// Tells of something that happens seldom.
    pub fn say(&self, text: &str) {
        // A server's words must not steer the terminal.
        let line = text.replace(char::is_control, "\u{fffd}");
        self.bar.suspend(|| {
            // Nobody is left to be told that standard error is gone.
            let _ = writeln!(stderr().lock(), "{line}");
        });
    }

    /// Ends the progress, so that nothing stands above the summary.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

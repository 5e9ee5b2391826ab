//! The dead letters of receivers, for operators: read, given to their receiver again, dropped. Those of a receiver that the
//! config does not have any more can be read and dropped too.

use std::ops::RangeInclusive;

use wharf_state::{DeadLetterEntry, DeadLetterPage, DeadLetterUsage, MAX_PAGE, Persist};

use super::{ControlError, Controls, listed, quoted};

/// Some of the dead letters of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that there are now.
    All,
    /// Those with these numbers, as far as there are such.
    Ids(Vec<RangeInclusive<u64>>),
}

/// How many dead letters a receiver has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letters {
    /// Its name.
    pub receiver: String,
    /// How many, and how many bytes.
    pub usage: DeadLetterUsage,
    /// Whether the config has it.
    pub configured: bool,
}

/// Where a dead letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterState {
    /// It is kept, and nothing else is done with it.
    Dead,
    /// It is to be given to its receiver again.
    Queued,
    /// It was given to its receiver again and is not finished yet.
    Redriving,
}

/// Some dead letters, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The letters, the oldest first.
    pub entries: Vec<(DeadLetterEntry, LetterState)>,
    /// Those that can't be understood.
    pub damaged: Vec<wharf_state::DamagedDeadLetter>,
    /// Where the next page begins, if there is more.
    pub next: Option<u64>,
}

/// A dead letter with its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What is known of it.
    pub entry: DeadLetterEntry,
    /// Where it is.
    pub state: LetterState,
    /// Its record, as the log had it.
    pub record: Vec<u8>,
}

/// What came of a redrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// How many are queued now that were not before.
    pub queued: usize,
    /// How many were queued or under way already.
    pub already: usize,
    /// How many can't be understood; they can only be dropped.
    pub damaged: usize,
}

impl Controls {
    /// The receivers that have dead letters. Does not wait for the disk.
    pub fn receivers_with_letters(&self) -> Vec<Letters> {
        let names = self.state.receivers_with_dead_letters().into_iter();
        let letters = names.map(|receiver| Letters {
            usage: self.state.dead_letter_usage(&receiver),
            configured: self.find(&receiver).is_ok(),
            receiver,
        });
        letters.collect()
    }

    /// How many dead letters a receiver has, and how many bytes. Does not wait for the disk.
    pub fn letter_usage(&self, receiver: &str) -> DeadLetterUsage {
        self.state.dead_letter_usage(receiver)
    }

    /// The dead letters of a receiver from a number on, at most so many. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ControlError::Unknown`], [`ControlError::State`].
    pub fn letters(
        &self,
        receiver: &str,
        ids: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Page, ControlError> {
        self.find_letters(receiver)?;
        // Before the letters: one whose redrive begins meanwhile is seen as queued or as redriving, never as neither.
        let queued = self.find(receiver).map(|steered| steered.redrives.queued()).unwrap_or_default();
        let DeadLetterPage { entries, damaged, next } = self.state.dead_letters(receiver, ids, limit)?;
        let entries = entries.into_iter().map(|entry| {
            let state = LetterState::of(&entry, queued.contains(&entry.id));
            (entry, state)
        });
        Ok(Page { entries: entries.collect(), damaged, next })
    }

    /// A dead letter with its message. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ControlError::Unknown`], [`ControlError::NoLetter`], [`ControlError::State`].
    pub fn letter(&self, receiver: &str, id: u64) -> Result<Shown, ControlError> {
        self.find_letters(receiver)?;
        let queued = self.find(receiver).is_ok_and(|steered| steered.redrives.queued().contains(&id));
        let (entry, record) = self
            .state
            .dead_letter(receiver, id)?
            .ok_or_else(|| ControlError::NoLetter { receiver: receiver.to_owned(), id })?;
        Ok(Shown { state: LetterState::of(&entry, queued), entry, record })
    }

    /// Queues dead letters to be given to their receiver again, whatever it is doing. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ControlError::Unknown`] for one that the config does not have, [`ControlError::State`]. Some may be queued then.
    pub fn redrive(&self, receiver: &str, which: Which) -> Result<Queued, ControlError> {
        let steered = self.find(receiver)?;
        let mut done = Queued::default();
        self.each_page(receiver, which, |page| {
            let found = page.entries.len();
            let dead = page.entries.iter().filter(|entry| !entry.redriving);
            let queued = steered.redrives.queue(dead.map(|entry| (entry.id, entry.death.lane)));
            done.queued = done.queued.saturating_add(queued);
            done.already = done.already.saturating_add(found.saturating_sub(queued));
            done.damaged = done.damaged.saturating_add(page.damaged.len());
            Ok(())
        })?;
        tracing::info!(
            receiver.name = receiver,
            queued = done.queued,
            already = done.already,
            "dead letters are queued to be given to their receiver again"
        );
        Ok(done)
    }

    /// Drops dead letters for good, also those that are damaged or being redriven, and says how many. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ControlError::Unknown`], [`ControlError::State`]. Some may be gone then.
    pub fn drop_letters(&self, receiver: &str, which: Which) -> Result<u64, ControlError> {
        self.find_letters(receiver)?;
        let steered = self.find(receiver).ok();
        let mut dropped = 0_u64;
        let outcome = self.each_page(receiver, which, |page| {
            let entries = page.entries.iter().map(|entry| entry.id);
            let ids: Vec<_> = entries.chain(page.damaged.iter().map(|damaged| damaged.id)).collect();
            dropped = dropped.saturating_add(self.state.drop_dead_letters(receiver, &ids, Persist::Sync)?);
            if let Some(steered) = &steered {
                steered.redrives.forget(&ids);
            }
            Ok(())
        });
        // Also after a failure: what is gone is gone.
        tracing::info!(receiver.name = receiver, dropped, "an operator dropped dead letters");
        outcome.map(|()| dropped)
    }

    /// Goes through letters, a page at a time. Of all, no more than there were at the beginning, so that it ends whatever a
    /// receiver does meanwhile.
    fn each_page(
        &self,
        receiver: &str,
        which: Which,
        mut each: impl FnMut(&DeadLetterPage) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let (ranges, mut left) = match which {
            Which::All => (vec![0..=u64::MAX], self.state.dead_letter_usage(receiver).count),
            Which::Ids(ranges) => (ranges, u64::MAX),
        };
        for range in ranges {
            let mut first = Some(*range.start());
            while let Some(from) = first.filter(|_| left > 0) {
                let limit = usize::try_from(left).unwrap_or(MAX_PAGE).min(MAX_PAGE);
                let page = self.state.dead_letters(receiver, from..=*range.end(), limit)?;
                each(&page)?;
                let seen = page.entries.len().saturating_add(page.damaged.len());
                left = left.saturating_sub(u64::try_from(seen).unwrap_or(u64::MAX));
                first = page.next;
            }
        }
        Ok(())
    }

    /// A receiver that the config has, or that has letters.
    fn find_letters(&self, receiver: &str) -> Result<(), ControlError> {
        if self.find(receiver).is_ok() {
            return Ok(());
        }
        let with_letters = self.state.receivers_with_dead_letters();
        if with_letters.iter().any(|name| name == receiver) {
            return Ok(());
        }
        let known = format!(
            "the config has {}, and dead letters are there of {}",
            listed(self.names().iter().map(String::as_str)),
            listed(with_letters.iter().map(String::as_str))
        );
        Err(ControlError::Unknown { name: quoted(receiver), known })
    }
}

impl LetterState {
    /// The word for it in the admin interface.
    pub const fn word(self) -> &'static str {
        match self {
            LetterState::Dead => "dead",
            LetterState::Queued => "queued",
            LetterState::Redriving => "redriving",
        }
    }

    fn of(entry: &DeadLetterEntry, queued: bool) -> LetterState {
        if entry.redriving {
            LetterState::Redriving
        } else if queued {
            LetterState::Queued
        } else {
            LetterState::Dead
        }
    }
}

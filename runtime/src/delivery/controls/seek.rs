//! Moving the cursors of a paused receiver, back so that it gets messages again, or on so that it does not get some at all.

use std::sync::Arc;

use wharf_log::Topic;
use wharf_state::{Cursors, KeyValue, Persist, Seek, State};

use super::{ControlError, Controls, Steered, listed, quoted};
use crate::delivery::halt::Patience;
use crate::delivery::progress::Progress;
use crate::unix_time::unix_milliseconds;

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// This offset; the start of the log if it does not reach back so far.
    Offset(u64),
    /// The first message of this time or later, Unix milliseconds, and perhaps some just before it.
    Time(u64),
    /// The oldest message that is kept.
    Oldest,
    /// The end: only what comes from now on.
    Newest,
}

/// What came of it in one data type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// The data type.
    pub data_type: String,
    /// Where all its cursors stand now.
    pub to: u64,
    /// The lowest offset that was not known to be finished before.
    pub lowest_before: u64,
    /// From the first to behind the last offset that was passed over without being known to be finished.
    pub gap: Option<(u64, u64)>,
}

/// What is to be moved in one data type.
struct Move {
    data_type: String,
    progress: Arc<Progress>,
    to: u64,
}

impl Controls {
    /// Moves the cursors of a paused receiver in all its data types, or in one, and writes down durably that `who` did so with
    /// `what`. Whoever calls it lets it come to its end.
    ///
    /// # Errors
    ///
    /// Nothing was changed, unless it is [`ControlError::State`] or [`ControlError::Task`]: then cursors of some data types
    /// may have been moved, as the log says.
    pub async fn seek(
        &self,
        receiver: &str,
        data_type: Option<&str>,
        to: SeekTo,
        who: &str,
        what: &str,
    ) -> Result<Vec<Sought>, ControlError> {
        let steered = self.find(receiver)?;
        let topics = steered.chosen(receiver, data_type, to)?;
        if !steered.breaker.is_paused() {
            return Err(ControlError::NotPaused { name: receiver.to_owned() });
        }
        let mut moves = Vec::with_capacity(topics.len());
        for (topic, progress) in topics {
            let to = target(receiver, topic, to).await?;
            moves.push(Move { data_type: topic.name().to_owned(), progress: progress.clone(), to });
        }
        // It is moved to the thread that writes the cursors, so that it lasts until that is done, whatever becomes of who asked.
        let halted = steered.halt.halt(Patience::UntilDone).await?;
        let (state, keyvalue) = (self.state.clone(), self.keyvalue.clone());
        let receiver = receiver.to_owned();
        let seek = Seek { who: who.to_owned(), what: what.to_owned(), count: None, now: unix_milliseconds() };
        let moving = tokio::task::spawn_blocking(move || {
            let _halted = halted;
            moves.into_iter().map(|one| one.carry_out(&state, keyvalue.as_ref(), &receiver, &seek)).collect()
        });
        moving.await?
    }
}

impl Steered {
    /// The topics whose cursors are to be moved.
    fn chosen(
        &self,
        receiver: &str,
        data_type: Option<&str>,
        to: SeekTo,
    ) -> Result<&[(Topic, Arc<Progress>)], ControlError> {
        let mapped = || listed(self.topics.iter().map(|(topic, _)| topic.name()));
        match data_type {
            Some(data_type) => {
                let found = self.topics.iter().find(|(topic, _)| topic.name() == data_type);
                found.map(std::slice::from_ref).ok_or_else(|| ControlError::NotMapped {
                    receiver: receiver.to_owned(),
                    data_type: quoted(data_type),
                    mapped: mapped(),
                })
            }
            None if matches!(to, SeekTo::Offset(_)) && self.topics.len() > 1 => {
                Err(ControlError::WhichType { receiver: receiver.to_owned(), mapped: mapped() })
            }
            None => Ok(&self.topics),
        }
    }
}

async fn target(receiver: &str, topic: &Topic, to: SeekTo) -> Result<u64, ControlError> {
    Ok(match to {
        SeekTo::Oldest => topic.start(),
        SeekTo::Newest => topic.end(),
        SeekTo::Time(time) => topic.offset_at(time).await?,
        SeekTo::Offset(offset) => {
            let end = topic.end();
            if offset > end {
                let (receiver, data_type) = (receiver.to_owned(), topic.name().to_owned());
                return Err(ControlError::BeyondEnd { receiver, data_type, offset, end });
            }
            offset.max(topic.start())
        }
    })
}

impl Move {
    /// Blocks on the disk.
    fn carry_out(
        self,
        state: &State,
        keyvalue: Option<&KeyValue>,
        receiver: &str,
        seek: &Seek,
    ) -> Result<Sought, ControlError> {
        let Move { data_type, progress, to } = self;
        let writing = progress.writing();
        let lowest_before = progress.lowest();
        let cursors = Cursors::at(to);
        let passed = if progress.is_volatile() {
            lowest_before..to
        } else {
            // What was finished a moment ago is not to be recorded as passed over.
            progress.save(&writing, state, keyvalue, Persist::Buffered)?;
            state.seek(receiver, &data_type, &cursors, seek.clone())?.offsets
        };
        progress.set(cursors);
        tracing::info!(
            receiver.name = receiver,
            log.topic = data_type,
            who = seek.who,
            what = seek.what,
            from = lowest_before,
            to,
            "an operator moved the cursors of a receiver"
        );
        let gap = (!passed.is_empty()).then_some((passed.start, passed.end));
        Ok(Sought { data_type, to, lowest_before, gap })
    }
}

//! Writes down what a receiver does not get: dead letters, with the cursors that pass them, and gaps in the log.
//!
//! Such a write is on the disk before the shared cursors move, and so before the log may delete the messages. If it fails
//! it is tried again until it works or the server stops: until then the messages count as not finished.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wharf_log::{Lane, LaneSet};
use wharf_state::{
    DeadLetter, DeadLetterLimits, Death, DeathKind, Gap, GapReason, KeyValue, MAX_BURIAL_BYTES, Persist,
    Redrive, State, StateError,
};

use super::batch::Key;
use super::caller::Evidence;
use super::progress::Progress;
use super::quota::{Quota, Taken};
use super::status::Status;
use super::window::Fate;
use super::{Stopped, or_stop};
use crate::backoff::Backoff;
use crate::config;
use crate::unix_time::unix_milliseconds;

/// The first and the longest pause before a write that failed is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A receiver's reason is cut to this length in the log.
const MAX_REASON_CHARS: usize = 1000;

/// A message that is dead for a receiver.
#[derive(Clone, Debug)]
pub struct Dead {
    /// The message.
    pub key: Key,
    /// Why.
    pub why: Why,
    /// How often it was given to the receiver alone, or rejected.
    pub attempts: u32,
}

/// Why a message is dead.
#[derive(Clone, Debug)]
pub enum Why {
    /// The receiver rejected it.
    Rejected(String),
    /// It failed alone as often as it may.
    Failed(Box<Evidence>),
    /// The receiver wanted it again, and it was too old for that.
    TooOld(String),
    /// Its record can't be read.
    Unreadable(String),
}

impl Why {
    fn kind(&self) -> DeathKind {
        match self {
            Why::Rejected(_) => DeathKind::Rejected,
            Why::Failed(_) => DeathKind::Faults,
            Why::TooOld(_) => DeathKind::TooOld,
            Why::Unreadable(_) => DeathKind::Unreadable,
        }
    }

    fn reason(&self) -> &str {
        match self {
            Why::Rejected(reason) | Why::TooOld(reason) | Why::Unreadable(reason) => reason,
            Why::Failed(evidence) => &evidence.what,
        }
    }
}

/// Where one worker writes down what its receiver does not get.
#[derive(Debug)]
pub struct Burials {
    receiver: String,
    digest: String,
    limits: DeadLetterLimits,
    state: State,
    /// What the receiver keeps, if it may: it must be as durable as the cursors that say what it came of.
    keyvalue: Option<KeyValue>,
    status: Arc<Status>,
    /// Lines that may be written about dead letters.
    lines: Quota,
}

impl Burials {
    /// For a worker of this receiver, whose component has this digest.
    pub fn new(
        settings: &config::Receiver,
        digest: &str,
        state: State,
        keyvalue: Option<KeyValue>,
        status: Arc<Status>,
    ) -> Burials {
        Burials {
            receiver: settings.name.clone(),
            digest: digest.to_owned(),
            limits: DeadLetterLimits { count: settings.dead_letters, bytes: settings.dead_letter_bytes },
            state,
            keyvalue: keyvalue.filter(|_| settings.keyvalue),
            status,
            lines: Quota::new(settings.log_lines),
        }
    }

    /// Buries messages and moves the cursors past them.
    pub async fn bury(
        &mut self,
        progress: &Arc<Progress>,
        dead: Vec<Dead>,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let mut rest = dead;
        while !rest.is_empty() {
            let mut bytes = 0_usize;
            let fit = rest.iter().take_while(|dead| {
                bytes = bytes.saturating_add(dead.key.record.len());
                bytes <= MAX_BURIAL_BYTES
            });
            let later = rest.split_off(fit.count().max(1));
            let some = Arc::new(std::mem::replace(&mut rest, later));
            let spans: Vec<_> = some.iter().map(|dead| (dead.key.lane, span_of(dead.key.offset))).collect();
            let deaths: Vec<_> = some.iter().map(|dead| self.death(dead)).collect();
            let (letters, receiver, limits) = (some.clone(), self.receiver.clone(), self.limits);
            let status = self.status.clone();
            self.write(progress, spans, Fate::Dead, stop, move |state, topic, cursors| {
                let letters: Vec<_> = letters
                    .iter()
                    .zip(&deaths)
                    .map(|(dead, death)| DeadLetter { death: death.clone(), message: &dead.key.record })
                    .collect();
                let cursors = cursors.iter().map(|(lane, cursor)| (*lane, cursor));
                let burial = state.bury(&receiver, topic, &letters, limits, cursors)?;
                status.dropped(&GapReason::DeadLettersFull, burial.fallen);
                Ok(())
            })
            .await?;
            for dead in some.iter() {
                self.tell(progress.topic(), dead);
            }
        }
        Ok(())
    }

    /// Records offsets that are not in the log any more, and moves the cursors of these lanes past them. What they have passed
    /// already was recorded by whoever let them: it may be read again for the sake of something near.
    pub async fn pass_gap(
        &mut self,
        progress: &Arc<Progress>,
        lanes: LaneSet,
        offsets: Range<u64>,
        reason: GapReason,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let offsets = progress.unfinished(lanes, offsets);
        if offsets.is_empty() {
            return Ok(());
        }
        self.status.lost.inc_by(offsets.end.saturating_sub(offsets.start));
        let (from, to) = (offsets.start, offsets.end);
        tracing::error!(
            receiver.name = self.receiver,
            log.topic = progress.topic(),
            from,
            to,
            reason = reason.word(),
            "these offsets are not in the log any more and can't be delivered"
        );
        let spans: Vec<_> = lanes.iter().map(|lane| (lane, offsets.clone())).collect();
        if progress.is_volatile() {
            // Nobody was promised that these are kept.
            progress.finish_as(&spans, Fate::Gap);
            return Ok(());
        }
        let receiver = self.receiver.clone();
        // How many of the offsets had a message for these lanes is not known any more.
        let gap = Gap::new(offsets, None, reason, unix_milliseconds());
        let status = self.status.clone();
        self.write(progress, spans, Fate::Gap, stop, move |state, topic, cursors| {
            let cursors = cursors.iter().map(|(lane, cursor)| (*lane, cursor));
            state.skip(&receiver, topic, std::slice::from_ref(&gap), cursors)?;
            status.dropped(&gap.reason, to.saturating_sub(from));
            Ok(())
        })
        .await
    }

    /// Begins to redrive a dead letter.
    pub async fn begin_redrive(&mut self, id: u64, stop: &CancellationToken) -> Result<Redrive, Stopped> {
        let receiver = self.receiver.clone();
        self.again(stop, move |state| match state.begin_redrive(&receiver, id) {
            // There is nothing that could be given to anybody.
            Err(error @ StateError::DamagedDeadLetter { .. }) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    receiver.name = receiver,
                    dead_letter.id = id,
                    error,
                    "failed to redrive a dead letter"
                );
                Ok(Redrive::Missing)
            }
            begun => begun,
        })
        .await
    }

    /// A redriven letter is finished: it goes. If the server crashes before that is on the disk, it is redriven once more by
    /// whoever asks for it again.
    pub async fn end_redrive(&mut self, id: u64, stop: &CancellationToken) -> Result<(), Stopped> {
        let receiver = self.receiver.clone();
        self.again(stop, move |state| state.drop_dead_letters(&receiver, &[id], Persist::Buffered).map(drop))
            .await
    }

    /// A redriven letter is dead again, unless it was dropped meanwhile.
    pub async fn rebury(
        &mut self,
        id: u64,
        topic: &str,
        dead: &Dead,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let (receiver, limits, death) = (self.receiver.clone(), self.limits, self.death(dead));
        let reburied =
            self.again(stop, move |state| state.rebury(&receiver, id, death.clone(), limits)).await?;
        if reburied {
            self.tell(topic, dead);
        }
        Ok(())
    }

    /// A redriven letter stays as it is.
    pub fn give_up_redrive(&self, id: u64) {
        self.state.give_up_redrive(&self.receiver, id);
    }

    /// Writes with the cursors as they will be when these spans are finished, and then lets them be so.
    async fn write<T: Send + 'static>(
        &self,
        progress: &Arc<Progress>,
        spans: Vec<(Lane, Range<u64>)>,
        fate: Fate,
        stop: &CancellationToken,
        write: impl Fn(&State, &str, &[(Lane, wharf_state::Cursor)]) -> Result<T, StateError>
        + Send
        + Sync
        + 'static,
    ) -> Result<(), Stopped> {
        let (progress, keyvalue) = (progress.clone(), self.keyvalue.clone());
        self.again(stop, move |state| {
            if let Some(keyvalue) = keyvalue.as_ref().filter(|keyvalue| keyvalue.is_dirty()) {
                keyvalue.sync()?;
            }
            let _writing = progress.writing();
            write(state, progress.topic(), &progress.with_finished(&spans))?;
            progress.finish_as(&spans, fate);
            Ok(())
        })
        .await
    }

    /// Does something with the database until it works.
    async fn again<T: Send + 'static>(
        &self,
        stop: &CancellationToken,
        work: impl Fn(&State) -> Result<T, StateError> + Send + Sync + 'static,
    ) -> Result<T, Stopped> {
        let (work, mut backoff) = (Arc::new(work), Backoff::new(PAUSES.0, PAUSES.1));
        let mut failing = false;
        loop {
            let (work, state) = (work.clone(), self.state.clone());
            match tokio::task::spawn_blocking(move || work(&state)).await {
                Ok(Ok(done)) => {
                    if failing {
                        tracing::info!(receiver.name = self.receiver, "the state database is written again");
                    }
                    return Ok(done);
                }
                Ok(Err(error)) => {
                    self.status.failed(&error);
                    if !failing {
                        failing = true;
                        let error: &dyn std::error::Error = &error;
                        tracing::error!(
                            receiver.name = self.receiver,
                            error,
                            "failed to write down what a receiver does not get; it waits until that works"
                        );
                    }
                }
                Err(error) => {
                    tracing::error!(receiver.name = self.receiver, %error, "a write to the state database ended early");
                }
            }
            or_stop(stop, sleep(backoff.next_pause())).await?;
        }
    }

    fn death(&self, dead: &Dead) -> Death {
        let evidence = match &dead.why {
            Why::Failed(evidence) => Some(evidence),
            _ => None,
        };
        Death {
            offset: dead.key.offset,
            lane: dead.key.lane,
            agent: dead.key.agent.clone(),
            received_at: dead.key.received_at,
            attempts: dead.attempts,
            kind: dead.why.kind(),
            reason: dead.why.reason().to_owned(),
            trap: evidence.map(|evidence| evidence.kind.to_owned()),
            backtrace: evidence.and_then(|evidence| evidence.backtrace.clone()),
            stderr: evidence.map(|evidence| evidence.stderr.clone()).unwrap_or_default(),
            digest: self.digest.clone(),
            died_at: unix_milliseconds(),
        }
    }

    fn tell(&mut self, topic: &str, dead: &Dead) {
        let Dead { key: Key { offset, agent, .. }, why, attempts } = dead;
        self.status.dead(why.kind());
        let reason: String = why.reason().chars().take(MAX_REASON_CHARS).collect();
        self.status
            .failed(&format_args!("offset {offset} became a dead letter ({}): {reason}", why.kind().word()));
        match self.lines.take() {
            Taken::One => {}
            // Whoever can send can make a receiver reject: the log must not be the way to fill a disk.
            Taken::None => return,
            Taken::OneAfter { dropped } => tracing::error!(
                receiver.name = self.receiver,
                dropped,
                "more messages became dead letters than `log-lines` lets be told one by one"
            ),
        }
        tracing::error!(
            receiver.name = self.receiver,
            log.topic = topic,
            log.offset = offset,
            agent.id = agent,
            kind = why.kind().word(),
            attempts,
            reason,
            "a message became a dead letter"
        );
    }
}

fn span_of(offset: u64) -> Range<u64> {
    offset..offset.saturating_add(1)
}

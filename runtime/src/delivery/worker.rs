//! One instance of a receiver and the lanes it owns: makes batches, has them called, deals with what comes back.
//!
//! A worker does one thing at a time, so its receiver sees the messages of an agent in order, retries included. It never
//! ends before it is told to.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use wharf_host::{FailureAction, Receiver, Redelivery};
use wharf_log::{Entry, LaneSet};

use super::batch::{self, Batch, Item, Said, Single};
use super::breaker::Breaker;
use super::caller::{Called, Caller};
use super::quota::{Quota, Taken};
use super::source::{Bounds, Source};
use super::status::Status;
use super::{LONGEST_PAUSE, Stopped, or_stop};
use crate::backoff::Backoff;
use crate::config;

/// The longest pause that a receiver can ask for with `retry`. Its later messages wait meanwhile.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// The instance that owns this lane is the one that ticks.
const TICKING_LANE: usize = 0;
/// How often an idle worker moves its cursors past what is not for it, so that a restart need not read that again.
const IDLE_ADVANCE: Duration = Duration::from_secs(1);
/// A receiver's reason is cut to this length in the log.
const MAX_REASON_CHARS: usize = 1000;

/// One instance and what it is fed with.
pub struct Worker {
    settings: config::Receiver,
    lanes: LaneSet,
    sources: Vec<Source>,
    status: Arc<Status>,
    breaker: Arc<Breaker>,
    stop: CancellationToken,
    caller: Caller,
    /// Whether the component wants to know of changes of presence.
    hears_presence: bool,
    /// When the component's `tick` is due, if this is the instance that ticks.
    ticks: Option<Interval>,
    /// Lines that may be written about skipped messages.
    lines: Quota,
    /// Which source is asked first: each in turn, so that a busy type does not starve a quiet one.
    turn: usize,
}

/// What there is to do.
enum Next {
    /// The source of this index has something to read.
    Read(usize),
    /// A tick is due.
    Tick,
}

impl Worker {
    /// A worker for these lanes.
    pub fn new(
        receiver: Receiver,
        settings: &config::Receiver,
        lanes: LaneSet,
        sources: Vec<Source>,
        status: Arc<Status>,
        breaker: Arc<Breaker>,
        stop: CancellationToken,
    ) -> Worker {
        Worker {
            settings: settings.clone(),
            lanes,
            sources,
            hears_presence: receiver.hears_presence(),
            ticks: None,
            lines: Quota::new(settings.log_lines),
            turn: 0,
            caller: Caller::new(
                receiver,
                settings.retry_pause,
                status.clone(),
                breaker.clone(),
                stop.clone(),
            ),
            status,
            breaker,
            stop,
        }
    }

    /// Where it reports what it does.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Feeds the instance until the server stops.
    pub async fn run(mut self) {
        let mut running = self.caller.start().await;
        if let Some(period) = self.settings.tick
            && self.lanes.iter().any(|lane| lane.index() == TICKING_LANE)
        {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            self.ticks = Some(ticks);
        }
        while running.is_ok() {
            running = self.step().await;
        }
        self.caller.end().await;
    }

    async fn step(&mut self) -> Result<(), Stopped> {
        match self.next().await? {
            Next::Tick => self.tick().await,
            Next::Read(index) => {
                let batch = self.next_batch(index).await?;
                self.deliver(batch).await
            }
        }
    }

    /// Waits for a tick that is due or a source that has something, asking each source first in turn.
    async fn next(&mut self) -> Result<Next, Stopped> {
        if let Some(ticks) = &mut self.ticks
            && ticks.tick().now_or_never().is_some()
        {
            return Ok(Next::Tick);
        }
        self.turn = (self.turn + 1) % self.sources.len().max(1);
        loop {
            let mut waiting: Vec<_> = self
                .sources
                .iter_mut()
                .enumerate()
                .map(|(index, source)| {
                    Box::pin(async move {
                        source.ready().await;
                        index
                    })
                })
                .collect();
            if waiting.is_empty() {
                self.stop.cancelled().await;
                return Err(Stopped);
            }
            waiting.rotate_left(self.turn);
            let tick = async {
                match &mut self.ticks {
                    Some(ticks) => drop(ticks.tick().await),
                    None => std::future::pending().await,
                }
            };
            let next = async {
                tokio::select! {
                    biased;
                    () = tick => Next::Tick,
                    (index, _, _) = select_all(waiting) => Next::Read(index),
                }
            };
            if let Ok(next) = timeout(IDLE_ADVANCE, or_stop(&self.stop, next)).await {
                return next;
            }
            // Nothing is being delivered, so what has been read is finished: also what went by in other lanes.
            for source in &self.sources {
                source.progress.advance(self.lanes, source.read_below());
            }
        }
    }

    async fn tick(&mut self) -> Result<(), Stopped> {
        let began = Instant::now();
        self.caller.tick().await?;
        if let Some(ticks) = &mut self.ticks
            && began.elapsed() >= ticks.period()
        {
            // The next one is due already, and would be so after each: messages would never have their turn.
            ticks.reset();
        }
        Ok(())
    }

    async fn next_batch(&mut self, index: usize) -> Result<Batch, Stopped> {
        let bounds = Bounds {
            entries: self.settings.max_messages,
            bytes: usize::try_from(self.settings.max_bytes).unwrap_or(usize::MAX),
            wait: self.settings.max_wait,
        };
        let Some(source) = self.sources.get_mut(index) else { return Err(Stopped) };
        let entries = source.read(bounds, &self.status, &self.stop).await?;
        let mut batch = Batch::new(index, &source.data_type);
        let mut rest = entries.into_iter();
        while let Some(entry) = rest.next() {
            match self.item(index, &entry) {
                Some(Item::Message(message)) => batch.push(entry.lane, message),
                Some(Item::Change(change)) if !batch.has_message_of(&change.agent) => {
                    batch.push_change(entry.lane, change);
                }
                // Changes come before the messages of a batch, so this one must wait for those of its agent.
                Some(Item::Change(_)) => {
                    if let Some(source) = self.sources.get_mut(index) {
                        source.hold(std::iter::once(entry).chain(rest));
                    }
                    break;
                }
                None => {}
            }
        }
        batch.end = self.sources.get(index).map_or(0, Source::read_below);
        Ok(batch)
    }

    /// What a record is to this receiver; nothing if it is finished already, not for it, or can't be read, which the log
    /// says.
    fn item(&self, index: usize, entry: &Entry) -> Option<Item> {
        let source = self.sources.get(index)?;
        if source.progress.is_finished(entry.lane, entry.offset) {
            return None;
        }
        let redelivery =
            if source.progress.is_repeated(entry.offset) { Redelivery::Again } else { Redelivery::None };
        match batch::item(entry, &source.data_type, self.settings.encoding, redelivery) {
            Ok(Item::Change(_)) if !self.hears_presence => None,
            Ok(item) => Some(item),
            Err(error) => {
                self.status.skipped.inc();
                self.status.failed(&error);
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    receiver.name = self.status.name,
                    log.topic = &*source.data_type,
                    log.offset = entry.offset,
                    error,
                    "skipped a record that this version can't read"
                );
                None
            }
        }
    }

    async fn deliver(&mut self, mut batch: Batch) -> Result<(), Stopped> {
        if let Some(changes) = batch.changes() {
            let alone = batch.changes_len() == 1;
            if let Called::Failed { what, counts } = self.caller.call(&changes).await? {
                let changes = batch.take_changes();
                self.deliver_singly(changes, (alone && counts).then_some(what)).await?;
            }
        }
        if batch.len() > 0 {
            let settled = match self.caller.call(&batch.given).await? {
                Called::Answered(said) => self.settle(&mut batch, said).await,
                Called::Failed { what, counts } => self.divide(&mut batch, what, counts).await,
            };
            // From the first call on they were delivered; a stop before it leaves them as new as they were.
            settled.inspect_err(|Stopped| self.status.interrupted())?;
        }
        self.finish_batch(&batch);
        Ok(())
    }

    /// After a fault: delivers the batch again, the left half first and each half in the same way, until what can't be handled
    /// is alone. A fault that is not of the messages divides nothing: they come again together, after a pause.
    async fn divide(&mut self, batch: &mut Batch, what: String, counts: bool) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(self.settings.retry_pause, LONGEST_PAUSE);
        let mut failed = Some((what, counts));
        let mut parts = vec![batch.take_again()];
        while let Some(mut part) = parts.pop() {
            if part.len() <= 1 {
                let failed = failed.take().and_then(|(what, counts)| counts.then_some(what));
                self.deliver_singly(part.take_singles(), failed).await?;
                continue;
            }
            let called = match failed.take() {
                Some((what, counts)) => Called::Failed { what, counts },
                None => self.caller.call(&part.given).await?,
            };
            match called {
                Called::Answered(said) => {
                    self.settle(&mut part, said).await?;
                    for single in part.take_singles() {
                        self.finish(&single);
                    }
                }
                Called::Failed { counts: true, .. } => {
                    let right = part.split_off_half();
                    parts.extend([right, part]);
                }
                Called::Failed { counts: false, .. } => {
                    or_stop(&self.stop, sleep(backoff.next_pause())).await?;
                    parts.push(part);
                }
            }
        }
        Ok(())
    }

    /// What follows an answer: everything that it does not list is finished, the rest is dealt with one by one, in order.
    async fn settle(&mut self, batch: &mut Batch, mut said: Said) -> Result<(), Stopped> {
        let finished = batch.len().saturating_sub(said.len());
        self.status.handled.inc_by(u64::try_from(finished).unwrap_or(u64::MAX));
        if said.is_empty() {
            return Ok(());
        }
        let mut unhandled = Vec::new();
        for single in batch.take_singles() {
            match said.remove(&single.offset) {
                Some((action, reason)) => unhandled.push((single, action, reason)),
                None => self.finish(&single),
            }
        }
        for (single, action, reason) in unhandled {
            match action {
                FailureAction::Reject => self.skip(&single, "the receiver rejected it", &reason),
                FailureAction::Retry(after) => {
                    self.status.retried.inc();
                    self.deliver_alone(&single, None, Some(pause_of(after))).await?;
                }
            }
            self.finish(&single);
        }
        Ok(())
    }

    /// One at a time, so that the one that can't be handled is found.
    /// `failed_alone`: what went wrong, if the batch was a single message and that counts against it.
    async fn deliver_singly(
        &mut self,
        singles: Vec<Single>,
        mut failed_alone: Option<String>,
    ) -> Result<(), Stopped> {
        let mut pause = Some(Duration::ZERO);
        for single in singles {
            self.deliver_alone(&single, failed_alone.take(), pause.take()).await?;
            self.finish(&single);
        }
        Ok(())
    }

    /// Delivers one message until it is handled or given up. `failed`: what went wrong when it was delivered alone before.
    /// `pause`: wait before the first try, at least so long.
    async fn deliver_alone(
        &mut self,
        single: &Single,
        mut failed: Option<String>,
        mut pause: Option<Duration>,
    ) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(self.settings.retry_pause, LONGEST_PAUSE);
        let mut attempts: u32 = 0;
        loop {
            if let Some(what) = failed.take() {
                attempts = attempts.saturating_add(1);
                if attempts >= self.settings.max_attempts {
                    self.breaker.failure();
                    self.skip(single, "it failed alone as often as it may", &what);
                    return Ok(());
                }
            }
            if let Some(at_least) = pause.take() {
                or_stop(&self.stop, sleep(backoff.next_pause().max(at_least))).await?;
            }
            pause = Some(Duration::ZERO);
            match self.caller.call(&single.given).await? {
                Called::Answered(said) => match said.into_values().next() {
                    None => {
                        self.status.handled.inc();
                        return Ok(());
                    }
                    Some((FailureAction::Reject, reason)) => {
                        self.skip(single, "the receiver rejected it", &reason);
                        return Ok(());
                    }
                    Some((FailureAction::Retry(after), _)) => {
                        self.status.retried.inc();
                        pause = Some(pause_of(after));
                    }
                },
                Called::Failed { what, counts } => failed = counts.then_some(what),
            }
        }
    }

    fn skip(&mut self, single: &Single, why: &str, reason: &str) {
        self.status.skipped.inc();
        match self.lines.take() {
            Taken::One => {}
            // Whoever can send can make a receiver reject: the log must not be the way to fill a disk.
            Taken::None => return,
            Taken::OneAfter { dropped } => tracing::error!(
                receiver.name = self.status.name,
                dropped,
                "skipped more messages than `log-lines` lets be told one by one"
            ),
        }
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        self.status.failed(&format_args!("skipped offset {}: {why}: {reason}", single.offset));
        tracing::error!(
            receiver.name = self.status.name,
            log.topic = &*single.data_type,
            log.offset = single.offset,
            agent.id = single.agent,
            why,
            reason,
            "skipped a message"
        );
    }

    fn finish(&self, single: &Single) {
        if let Some(source) = self.sources.get(single.source) {
            source.progress.finish(single.lane, single.offset);
        }
    }

    fn finish_batch(&self, batch: &Batch) {
        if let Some(source) = self.sources.get(batch.source) {
            source.progress.advance(self.lanes, batch.end);
        }
    }
}

/// The pause that a `retry` asks for, bounded.
fn pause_of(after: Option<u32>) -> Duration {
    Duration::from_millis(after.unwrap_or(0).into()).min(LONGEST_RETRY_AFTER)
}

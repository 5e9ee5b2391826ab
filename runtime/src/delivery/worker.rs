//! One instance of a receiver and the lanes it owns: makes batches, calls the component, deals with what comes back.
//!
//! A worker does one thing at a time, so its receiver sees the messages of an agent in order, retries included. It never
//! ends before it is told to: an instance that can't be made is tried again, for as long as it takes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use wharf_host::{Evidence, FailureAction, Fault, Instance, Message, Receiver, Redelivery};
use wharf_log::{Entry, LaneSet, Reader};

use super::Feed;
use super::batch::{self, Batch, Said, Single};
use super::progress::Progress;
use super::quota::{Quota, Taken};
use super::status::Status;
use crate::backoff::Backoff;
use crate::config;

/// The longest pause before a message or an instance is tried again on our own account.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that a receiver can ask for with `retry`. Its later messages wait meanwhile.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How often an idle worker moves its cursors past what is not for it, so that a restart need not read that again.
const IDLE_ADVANCE: Duration = Duration::from_secs(1);
/// A receiver's reason is cut to this length in the log.
const MAX_REASON_CHARS: usize = 1000;
/// The pause after the log could not be read: a disk that fails is not asked again at once.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// The messages of one data type for one worker.
#[derive(Debug)]
pub struct Source {
    data_type: Arc<str>,
    reader: Reader,
    progress: Arc<Progress>,
    /// Read, but too large for the batch that was being made: the first of the next one.
    held: Option<Entry>,
}

impl Source {
    /// The lanes of one topic, from the first message that is not finished.
    pub fn new(data_type: &str, feed: &Feed, lanes: LaneSet, progress: Arc<Progress>) -> Source {
        Source {
            data_type: data_type.into(),

            reader: feed.topic.reader(lanes, progress.next(lanes)),
            progress,
            held: None,
        }
    }

    /// Waits until there is something to read. A failure counts as something: reading tells it.
    async fn ready(&mut self) {
        if self.held.is_none() {
            let _ = self.reader.ready().await;
        }
    }

    /// Everything of the worker's lanes below has been read.
    fn read_below(&self) -> u64 {
        self.held.as_ref().map_or(self.reader.position(), |held| held.offset)
    }
}

/// The server stops: what is not finished stays in the log.
struct Stopped;

/// What a call came to.
enum Called {
    Answered(Said),
    /// `counts`: the messages may be the cause, so it counts as an attempt where one was alone.
    Failed {
        what: String,
        counts: bool,
    },
}

/// One instance and what it is fed with.
pub struct Worker {
    receiver: Receiver,
    settings: config::Receiver,
    lanes: LaneSet,
    sources: Vec<Source>,
    status: Arc<Status>,
    stop: CancellationToken,
    instance: Option<Instance>,
    /// Lines that may be written about skipped messages.
    lines: Quota,
    /// Which source is asked first: each in turn, so that a busy type does not starve a quiet one.
    turn: usize,
}

impl Worker {
    /// A worker for these lanes.
    pub fn new(
        receiver: Receiver,
        settings: &config::Receiver,
        lanes: LaneSet,
        sources: Vec<Source>,
        status: Arc<Status>,
        stop: CancellationToken,
    ) -> Worker {
        let lines = Quota::new(settings.log_lines);
        let settings = settings.clone();
        Worker { receiver, settings, lanes, sources, status, stop, instance: None, lines, turn: 0 }
    }

    /// Where it reports what it does.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Feeds the instance until the server stops.
    pub async fn run(mut self) {
        // The first instance is made at once and not with the first message, so that `init` fails early and visibly.
        let mut running = self.ensure_instance().await.map(drop);
        while running.is_ok() {
            running = match self.next_batch().await {
                Ok(batch) if batch.len() == 0 => {
                    self.finish_batch(&batch);
                    Ok(())
                }
                Ok(batch) => self.deliver(batch).await.inspect_err(|Stopped| self.status.interrupted()),
                Err(Stopped) => Err(Stopped),
            };
        }
        if let Some(instance) = self.instance.take()
            && let Err(fault) = instance.terminate().await
        {
            tracing::warn!(receiver.name = self.receiver.name(), %fault, "a receiver's terminate failed");
        }
    }

    async fn next_batch(&mut self) -> Result<Batch, Stopped> {
        let index = self.ready_source().await?;
        let deadline = Instant::now() + self.settings.max_wait;
        let max_messages = self.settings.max_messages;
        let max_bytes = usize::try_from(self.settings.max_bytes).unwrap_or(usize::MAX);
        let stop = self.stop.clone();
        let Some(source) = self.sources.get_mut(index) else { return Err(Stopped) };

        // Copies: an entry of the log keeps its whole block in memory, which may be a thousand times its size.
        let mut entries: Vec<Entry> = source.held.take().into_iter().collect();
        let mut bytes = entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        let mut first = entries.is_empty();
        while entries.len() < max_messages && bytes < max_bytes {
            let next = source.reader.next(max_messages - entries.len(), max_bytes - bytes);
            let read = if first {
                // Something is ready: this does not wait, or only for the disk.
                or_stop(&stop, next).await?
            } else {
                match timeout_at(deadline, or_stop(&stop, next)).await {
                    Ok(read) => read?,
                    Err(_) => break,
                }
            };
            first = false;
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    self.status.failed(&error);
                    read_failed(self.receiver.name(), &source.data_type, &error);
                    or_stop(&stop, sleep(READ_PAUSE)).await?;
                    break;
                }
            };
            for lost in read.lost {
                let count = lost.end.saturating_sub(lost.start);
                self.status.lost.inc_by(count);
                let data_type = &*source.data_type;
                tracing::error!(
                    receiver.name = self.receiver.name(),
                    log.topic = data_type,
                    from = lost.start,
                    to = lost.end,
                    "these offsets are lost and can't be delivered"
                );
            }
            for mut entry in read.entries {
                entry.payload = Bytes::copy_from_slice(&entry.payload);
                let size = entry.payload.len();
                // Only the last one read can be too large, and only when it would have come alone: it waits for its turn.
                if bytes > 0 && bytes.saturating_add(size) > max_bytes {
                    source.held = Some(entry);
                    break;
                }
                bytes = bytes.saturating_add(size);
                entries.push(entry);
            }
            if source.held.is_some() {
                break;
            }
        }
        let mut batch = Batch::new(index, &source.data_type, source.read_below());
        for entry in entries {
            let lane = entry.lane;
            if let Some(message) = self.message(index, entry) {
                batch.push(lane, message);
            }
        }
        Ok(batch)
    }

    /// Waits for a source that has something, asking each first in turn.
    async fn ready_source(&mut self) -> Result<usize, Stopped> {
        let count = self.sources.len();
        if count == 0 {
            self.stop.cancelled().await;
            return Err(Stopped);
        }
        self.turn = (self.turn + 1) % count;
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
            waiting.rotate_left(self.turn);
            let ready = timeout(IDLE_ADVANCE, or_stop(&self.stop, select_all(waiting))).await;
            if let Ok(ready) = ready.map(|ready| ready.map(|(index, _, _)| index)) {
                return ready;
            }
            // Nothing is being delivered, so what has been read is finished: also what went by in other lanes.
            for source in &self.sources {
                source.progress.advance(self.lanes, source.read_below());
            }
        }
    }

    /// The message of a record; none if it is finished already, or can't be read, which the log says.
    fn message(&self, index: usize, entry: Entry) -> Option<Message> {
        let source = self.sources.get(index)?;
        if source.progress.is_finished(entry.lane, entry.offset) {
            return None;
        }
        let offset = entry.offset;
        let redelivery =
            if source.progress.is_repeated(offset) { Redelivery::Again } else { Redelivery::None };
        match batch::message(entry, self.settings.encoding, redelivery) {
            Ok(message) => message,
            Err(error) => {
                self.status.skipped.inc();
                self.status.failed(&error);
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    receiver.name = self.receiver.name(),
                    log.topic = &*source.data_type,
                    log.offset = offset,
                    error,
                    "skipped a record that is not a message this version can read"
                );
                None
            }
        }
    }

    async fn deliver(&mut self, mut batch: Batch) -> Result<(), Stopped> {
        let alone = batch.len() == 1;
        match self.call(&batch.given).await? {
            Called::Answered(said) => self.settle(&mut batch, said).await?,
            Called::Failed { what, counts } => {
                self.deliver_singly(&mut batch, (alone && counts).then_some(what)).await?;
            }
        }
        self.finish_batch(&batch);
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

    /// After a fault of a whole batch: one message at a time, so that the one that can't be handled is found.
    /// `failed_alone`: what went wrong, if the batch was a single message and that counts against it.
    async fn deliver_singly(
        &mut self,
        batch: &mut Batch,
        mut failed_alone: Option<String>,
    ) -> Result<(), Stopped> {
        let mut pause = Some(Duration::ZERO);
        for single in batch.take_singles() {
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
                    self.skip(single, "it failed alone as often as it may", &what);
                    return Ok(());
                }
            }
            if let Some(at_least) = pause.take() {
                or_stop(&self.stop, sleep(backoff.next_pause().max(at_least))).await?;
            }
            pause = Some(Duration::ZERO);
            match self.call(&single.given).await? {
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

    /// Calls the component; after a fault the instance is gone.
    async fn call(&mut self, given: &wharf_host::Batch) -> Result<Called, Stopped> {
        let instance = self.ensure_instance().await?;
        match instance.handle(given).await {
            Ok(failures) => match batch::said(given, failures) {
                Ok(said) => Ok(Called::Answered(said)),
                Err(wrong) => {
                    self.fault(&wrong, None);
                    Ok(Called::Failed { what: wrong.to_string(), counts: true })
                }
            },
            Err(fault) => {
                self.fault(&fault, fault.evidence());
                Ok(Called::Failed { what: fault.to_string(), counts: is_of_the_messages(&fault) })
            }
        }
    }

    /// The instance, made anew if there is none.
    async fn ensure_instance(&mut self) -> Result<&mut Instance, Stopped> {
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.make_instance().await?,
        };
        Ok(self.instance.insert(instance))
    }

    async fn make_instance(&mut self) -> Result<Instance, Stopped> {
        let mut backoff = Backoff::new(self.settings.retry_pause, LONGEST_PAUSE);
        let mut restarting = false;
        let made = loop {
            match or_stop(&self.stop, self.receiver.instantiate()).await {
                Ok(Ok(instance)) => break Ok(instance),
                Ok(Err(fault)) => self.fault(&fault, fault.evidence()),
                Err(Stopped) => break Err(Stopped),
            }
            if !restarting {
                restarting = true;
                self.status.restarting();
            }
            if or_stop(&self.stop, sleep(backoff.next_pause())).await.is_err() {
                break Err(Stopped);
            }
        };
        if restarting {
            self.status.restarted();
        }
        if made.is_ok() {
            self.status.instances_started.inc();
        }
        made
    }

    /// What a fault leaves: no instance, a line in the log, a number.
    fn fault(&mut self, what: &dyn fmt::Display, evidence: Option<&Evidence>) {
        self.instance = None;
        self.status.faults.inc();
        self.status.failed(what);
        let backtrace = evidence.and_then(|evidence| evidence.backtrace.as_deref()).unwrap_or_default();
        let stderr = evidence.map(|evidence| evidence.stderr.join("\n")).unwrap_or_default();
        tracing::warn!(
            receiver.name = self.receiver.name(),
            fault = %what,
            stderr,
            backtrace,
            "a receiver failed; its instance is made anew"
        );
    }

    fn skip(&mut self, single: &Single, why: &str, reason: &str) {
        self.status.skipped.inc();
        match self.lines.take() {
            Taken::One => {}
            // Whoever can send can make a receiver reject: the log must not be the way to fill a disk.
            Taken::None => return,
            Taken::OneAfter { dropped } => tracing::error!(
                receiver.name = self.receiver.name(),
                dropped,
                "skipped more messages than `log-lines` lets be told one by one"
            ),
        }
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        self.status.failed(&format_args!("skipped offset {}: {why}: {reason}", single.offset));
        tracing::error!(
            receiver.name = self.receiver.name(),
            log.topic = single.given.data_type,
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

/// Whether a fault may be the fault of the messages that were being handled: not so where the host could not give an
/// instance or kept the guest waiting.
fn is_of_the_messages(fault: &Fault) -> bool {
    match fault {
        Fault::Trap { .. } | Fault::Deadline { .. } | Fault::OutOfMemory { .. } | Fault::Exit { .. } => true,
        Fault::HostCallDeadline { .. } | Fault::Init(_) | Fault::Pool(_) | Fault::Gone => false,
    }
}

fn read_failed(receiver: &str, data_type: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(receiver.name = receiver, log.topic = data_type, error, "failed to read the log");
}

/// The pause that a `retry` asks for, bounded.
fn pause_of(after: Option<u32>) -> Duration {
    Duration::from_millis(after.unwrap_or(0).into()).min(LONGEST_RETRY_AFTER)
}

async fn or_stop<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Result<T, Stopped> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Stopped),
        done = work => Ok(done),
    }
}

//! Delivers a batch: calls the component, and sorts its messages by what came of it into finished ones, dead letters, and
//! those that wait to be given again. A batch that fails is divided until what can't be handled is alone.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use wharf_host::FailureAction;

use super::Worker;
use crate::backoff::Backoff;
use crate::delivery::batch::{Batch, Given, Key, Said, Single};
use crate::delivery::burial::{Dead, Why};
use crate::delivery::caller::{Called, Evidence};
use crate::delivery::{LONGEST_PAUSE, Stopped, or_stop};
use crate::unix_time::unix_milliseconds;

/// The longest pause that a receiver can ask for with `retry`. The later messages of the agent wait meanwhile.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What a component says of one message that it did not handle.
type Unhandled = (FailureAction, String);

/// One batch on its way.
struct Delivery {
    /// The source that it is from.
    source: usize,
    /// Agents of which a message waits since: what comes after it may not be given.
    stalled: HashSet<String>,
    /// Whether it is given in parts.
    divided: bool,
}

impl Worker {
    /// Delivers what was read in order, and moves the cursors past it.
    pub(super) async fn deliver_new(&mut self, batch: Batch) -> Result<(), Stopped> {
        let source = batch.source;
        let places: Vec<_> = batch.places().collect();
        self.deliver(batch).await?;
        self.settle(source, &places);
        Ok(())
    }

    /// Delivers what is due of a source. Says whether all of it is finished.
    pub(super) async fn deliver_due(&mut self, source: usize) -> Result<bool, Stopped> {
        let Some(batch) = self.due_batch(source).await? else { return Ok(true) };
        let delivered = self.deliver(batch).await;
        self.show_waits();
        delivered
    }

    async fn deliver(&mut self, batch: Batch) -> Result<bool, Stopped> {
        self.caller.take_has_given();
        self.delivering.0 = batch.source;
        self.delivering.1.clear();
        self.delivering.1.extend(batch.places().map(|(_, offset)| offset));
        let delivered = self.deliver_all(batch).await?;
        self.delivering.1.clear();
        Ok(delivered)
    }

    async fn deliver_all(&mut self, mut batch: Batch) -> Result<bool, Stopped> {
        let mut delivery = Delivery { source: batch.source, stalled: HashSet::new(), divided: false };
        if let Some(mut changes) = batch.changes() {
            let called = self.call(None, &mut changes).await?;
            let changes = batch.take_changes();
            match called {
                Ok(_) => changes.iter().for_each(|change| self.finish(&delivery, &change.key)),
                Err(evidence) => {
                    let mut alone = (changes.len() == 1).then_some(evidence);
                    for change in changes {
                        let delivered = self.deliver_alone(change, alone.take(), &mut delivery).await;
                        delivered.inspect_err(|Stopped| self.left_unfinished())?;
                    }
                }
            }
            self.leave_stalled(&mut batch, &delivery);
        }
        if batch.len() > 0 {
            let sorted = match self.call(Some(delivery.source), &mut batch.given).await? {
                Ok(said) => self.sort(&mut batch, said, &mut delivery).await,
                Err(evidence) => self.divide(&mut batch, evidence, &mut delivery).await,
            };
            // From the first call on they were delivered; a stop before it leaves them as new as they were.
            sorted.inspect_err(|Stopped| self.left_unfinished())?;
        }
        Ok(delivery.stalled.is_empty())
    }

    /// Calls the component. A call that came to nothing because of the host says nothing of what was given: it is repeated
    /// whole, after a pause.
    ///
    /// `source` is what it was read of, if it is to be counted.
    pub(super) async fn call(
        &mut self,
        source: Option<usize>,
        given: &mut Given,
    ) -> Result<Result<Said, Box<Evidence>>, Stopped> {
        let mut backoff = Backoff::new(self.settings.retry_pause, LONGEST_PAUSE);
        let mut called = self.caller.call(given).await?;
        loop {
            if let Given::Messages(batch) = &*given
                && let Some(source) = source.and_then(|source| self.sources.get(source))
            {
                let said = if let Called::Answered(said) = &called { Some(said) } else { None };
                source.progress.counting().called(self.index, self.version, batch, said);
            }
            match called {
                Called::Answered(said) => return Ok(Ok(said)),
                Called::Failed(evidence) => return Ok(Err(evidence)),
                Called::Interrupted => {}
            }
            given.mark_again();
            let again = async {
                or_stop(&self.turn, sleep(backoff.next_pause())).await?;
                self.caller.call(given).await
            };
            called = again.await.inspect_err(|Stopped| self.left_unfinished())?;
        }
    }

    /// After a fault: delivers the batch again, the left half first and each half in the same way, until what can't be handled
    /// is alone.
    async fn divide(
        &mut self,
        batch: &mut Batch,
        evidence: Box<Evidence>,
        delivery: &mut Delivery,
    ) -> Result<(), Stopped> {
        let mut failed = Some(evidence);
        delivery.divided = true;
        let mut parts = vec![batch.take_again()];
        while let Some(mut part) = parts.pop() {
            self.leave_stalled(&mut part, delivery);
            if part.len() <= 1 {
                let mut failed = failed.take();
                for single in part.take_singles() {
                    self.deliver_alone(single, failed.take(), delivery).await?;
                }
                continue;
            }
            let called = match failed.take() {
                Some(evidence) => Err(evidence),
                None => self.call(Some(delivery.source), &mut part.given).await?,
            };
            match called {
                Ok(said) => self.sort(&mut part, said, delivery).await?,
                Err(_) => {
                    let right = part.split_off_half();
                    parts.extend([right, part]);
                }
            }
        }
        Ok(())
    }

    /// Delivers one message. `failed`: what went wrong when it was delivered alone a moment ago.
    async fn deliver_alone(
        &mut self,
        single: Single,
        failed: Option<Box<Evidence>>,
        delivery: &mut Delivery,
    ) -> Result<(), Stopped> {
        let Single { key, mut given } = single;
        if delivery.stalled.contains(&key.agent) {
            self.leave(&key, delivery);
            return Ok(());
        }
        let called = match failed {
            Some(evidence) => Err(evidence),
            None => self.call(Some(delivery.source), &mut given).await?,
        };
        let mut dead = Vec::new();
        match called {
            Ok(said) => {
                let unhandled = said.into_values().next();
                if unhandled.is_none() && matches!(given, Given::Messages(_)) {
                    self.status.handled.inc();
                }
                self.act(key, unhandled, delivery, &mut dead);
            }
            Err(evidence) => {
                let attempts = self.attempts(&key, delivery).saturating_add(1);
                if attempts >= self.settings.max_attempts {
                    let dead = vec![Dead { key, why: Why::Failed(evidence), attempts }];
                    self.bury(dead, delivery).await?;
                    // Only now: whoever sees the quarantine finds the dead letter.
                    self.breaker.failure();
                } else if let Some(source) = self.sources.get_mut(delivery.source) {
                    let Key { agent, lane, offset, .. } = key;
                    source.waiting.retry_alone(&agent, lane, offset, attempts, Instant::now());
                    delivery.stalled.insert(agent);
                }
            }
        }
        self.bury(dead, delivery).await
    }

    /// What follows an answer: everything that it does not list is finished, the rest is dealt with one by one, in order.
    async fn sort(
        &mut self,
        batch: &mut Batch,
        mut said: Said,
        delivery: &mut Delivery,
    ) -> Result<(), Stopped> {
        let finished = batch.len().saturating_sub(said.len());
        self.status.handled.inc_by(u64::try_from(finished).unwrap_or(u64::MAX));
        let waits = self.sources.get(delivery.source).is_some_and(|source| !source.waiting.is_empty());
        if said.is_empty() && !waits && !delivery.divided {
            // The cursors move past the whole batch at once.
            return Ok(());
        }
        let mut dead = Vec::new();
        let (finished, unhandled): (Vec<_>, Vec<_>) =
            batch.take_singles().into_iter().partition(|single| !said.contains_key(&single.key.offset));
        finished.iter().for_each(|single| self.finish(delivery, &single.key));
        for Single { key, .. } in unhandled {
            let answer = said.remove(&key.offset);
            self.act(key, answer, delivery, &mut dead);
        }
        self.bury(dead, delivery).await
    }

    /// What follows what the component said of one message.
    fn act(&mut self, key: Key, unhandled: Option<Unhandled>, delivery: &mut Delivery, dead: &mut Vec<Dead>) {
        match unhandled {
            None => self.finish(delivery, &key),
            Some((FailureAction::Reject, reason)) => {
                let attempts = self.attempts(&key, delivery).saturating_add(1);
                dead.push(Dead { key, why: Why::Rejected(reason), attempts });
            }
            Some((FailureAction::Retry(after), reason)) => {
                self.status.retried.inc();
                if self.is_too_old(&key) {
                    dead.push(Dead { key, why: Why::TooOld(reason), attempts: 1 });
                } else if let Some(source) = self.sources.get_mut(delivery.source) {
                    let Key { agent, lane, offset, .. } = key;
                    source.waiting.retry(&agent, lane, offset, pause_of(after), Instant::now());
                    delivery.stalled.insert(agent);
                }
            }
        }
    }

    async fn bury(&mut self, dead: Vec<Dead>, delivery: &Delivery) -> Result<(), Stopped> {
        let Some(source) = self.sources.get(delivery.source) else { return Err(Stopped) };
        if dead.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = dead.iter().map(|dead| dead.key.clone()).collect();
        self.burials.bury(&source.progress, dead, &self.turn).await?;
        keys.iter().for_each(|key| self.finish(delivery, key));
        Ok(())
    }

    /// Leaves out the messages of agents of which an earlier one waits.
    fn leave_stalled(&mut self, batch: &mut Batch, delivery: &Delivery) {
        if delivery.stalled.is_empty() {
            return;
        }
        for single in batch.take_if(|message| delivery.stalled.contains(&message.agent)) {
            self.leave(&single.key, delivery);
        }
    }

    fn leave(&mut self, key: &Key, delivery: &Delivery) {
        if let Some(source) = self.sources.get_mut(delivery.source) {
            source.waiting.park_given(&key.agent, key.lane, key.offset);
        }
    }

    fn finish(&mut self, delivery: &Delivery, key: &Key) {
        if let Some(source) = self.sources.get_mut(delivery.source) {
            source.finish(&key.agent, key.lane, key.offset);
        }
    }

    fn attempts(&self, key: &Key, delivery: &Delivery) -> u32 {
        let source = self.sources.get(delivery.source);
        source.map_or(0, |source| source.waiting.attempts(&key.agent, key.offset))
    }

    /// Whether a message may not wait any longer.
    pub(super) fn is_too_old(&self, key: &Key) -> bool {
        let age = Duration::from_millis(unix_milliseconds().saturating_sub(key.received_at));
        self.settings.max_age.is_some_and(|max_age| age >= max_age)
    }
}

/// The pause that a `retry` asks for, bounded.
pub(super) fn pause_of(after: Option<u32>) -> Duration {
    Duration::from_millis(after.unwrap_or(0).into()).min(LONGEST_RETRY_AFTER)
}

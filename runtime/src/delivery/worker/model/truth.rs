//! What was acknowledged and what became of it, kept beside the real thing, and the component that is played by it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use wharf_host::{Body, FailureAction, Redelivery};
use wharf_log::Lane;
use wharf_state::{Cursors, Death, GapReason, Persist, State};

use super::steps::{Call, Fate, Verdict};
use super::{RECEIVER, TOPIC};
use crate::delivery::batch::{Given, Said};
use crate::delivery::caller::{Called, Evidence};
use crate::delivery::progress::Progress;

/// A message that was acknowledged.
#[derive(Debug)]
pub struct Sent {
    pub agent: String,
    pub lane: Lane,
    pub body: String,
    /// Whether it was ever given to the receiver.
    pub given: bool,
    /// Whether the receiver is through with it: it handled it, or it is a dead letter, or an operator passed it over.
    pub finished: bool,
}

/// All of them by their offsets.
#[derive(Debug, Default)]
pub struct Truth {
    pub sent: BTreeMap<u64, Sent>,
    /// Everything that took an offset, changes of presence too.
    pub places: BTreeMap<u64, Lane>,
    pub calls: VecDeque<Call>,
    /// Dead letters up to this number are from before the cursors were set.
    pub old_letters: u64,
}

impl Truth {
    /// The offsets of dead letters, and of those that fell out.
    fn dead(&self, state: &State) -> BTreeSet<u64> {
        let fallen = gaps(state, |reason| *reason == GapReason::DeadLettersFull);
        self.deaths(state).into_iter().map(|death| death.offset).chain(fallen).collect()
    }

    fn deaths(&self, state: &State) -> Vec<Death> {
        let letters = state.dead_letters(RECEIVER, self.old_letters + 1.., usize::MAX).unwrap().entries;
        letters.into_iter().map(|letter| letter.death).collect()
    }

    /// All cursors were set to this offset, and what they pass by that is not finished is told in these gap records.
    pub fn seek(&mut self, state: &State, to: u64) {
        let last = state.dead_letters(RECEIVER, .., usize::MAX).unwrap().entries.pop();
        self.old_letters = last.map_or(self.old_letters, |letter| letter.id);
        let told = gaps(state, |reason| matches!(reason, GapReason::Seek { .. }));
        for (offset, sent) in &mut self.sent {
            let is_passed = *offset < to;
            assert!(!is_passed || sent.finished || told.contains(offset), "no gap record tells of {offset}");
            sent.finished = is_passed;
        }
    }

    /// What must hold of the disk at any moment, because the server may end at any moment.
    pub fn check_disk(&self, state: &State, start: u64) {
        let cursors = state.cursors(RECEIVER, TOPIC).unwrap().unwrap();
        let dead = self.dead(state);
        for (offset, sent) in self.sent.iter().filter(|(_, sent)| !sent.finished) {
            let is_passed = cursors.get(sent.lane).is_finished(*offset);
            assert!(!is_passed || dead.contains(offset), "the saved cursors pass {offset}: {sent:?}");
            assert!(*offset >= start, "{offset} is trimmed, the log starts at {start}: {sent:?}");
        }
        for death in self.deaths(state) {
            assert!(cursors.get(death.lane).is_finished(death.offset), "{death:?} would come again");
        }
        let missed = gaps(state, |reason| matches!(reason, GapReason::Trimmed | GapReason::Damaged));
        assert_eq!(missed, Vec::<u64>::new(), "what no receiver had finished is gone");
    }

    /// Takes over which messages died, and compares what is finished with the cursors as deliveries moved them.
    pub fn check_progress(&mut self, state: &State, cursors: &Cursors) {
        let dead = self.dead(state);
        for (offset, sent) in &mut self.sent {
            let is_passed = cursors.get(sent.lane).is_finished(*offset);
            assert!(is_passed || !sent.finished, "{offset} would come again: {sent:?}");
            assert!(!is_passed || sent.finished || dead.contains(offset), "{offset} is lost: {sent:?}");
            sent.finished = is_passed;
        }
    }

    /// A server begins with these cursors: what they do not tell is to come again.
    pub fn begin(&mut self, cursors: &Cursors) {
        for (offset, sent) in &mut self.sent {
            sent.finished &= cursors.get(sent.lane).is_finished(*offset);
        }
    }

    fn check_given(&mut self, batch: &wharf_host::Batch, state: &State) {
        let dead = self.dead(state);
        let together: BTreeSet<_> = batch.messages.iter().map(|message| message.offset).collect();
        let offsets = batch.messages.iter().map(|message| message.offset);
        assert!(offsets.is_sorted_by(|one, next| one < next), "{batch:?}");
        for message in &batch.messages {
            let offset = message.offset;
            let Some(sent) = self.sent.get_mut(&offset) else { panic!("{message:?} was never sent") };
            let Body::Json(body) = &message.body else { panic!("{message:?}") };
            assert_eq!((&message.agent, body), (&sent.agent, &sent.body), "{offset} was altered");
            assert!(!sent.finished, "{offset} comes again: {sent:?}");
            assert!(!sent.given || message.redelivery == Redelivery::Again, "{offset} is not marked");
            sent.given = true;
            let mut before = self.sent.range(..offset).filter(|(_, sent)| sent.agent == message.agent);
            let is_settled = |(offset, sent): (&u64, &Sent)| {
                sent.finished || together.contains(offset) || dead.contains(offset)
            };
            assert!(before.all(is_settled), "{offset} overtakes one of {:?}", message.agent);
        }
    }
}

/// The offsets in gap records of such reasons.
pub fn gaps(state: &State, which: impl Fn(&GapReason) -> bool) -> Vec<u64> {
    let known = state.gaps(RECEIVER).unwrap();
    let gaps = known.topics.into_iter().flat_map(|(_, gaps)| gaps);
    gaps.filter(|gap| which(&gap.reason)).flat_map(|gap| gap.offsets).collect()
}

/// What is called in place of a component.
#[derive(Clone)]
pub struct Play {
    pub truth: Arc<Mutex<Truth>>,
    pub progress: Arc<Progress>,
    pub state: State,
    /// Told when the server is to end in the middle of a call.
    pub crash: Arc<Notify>,
}

impl Play {
    pub fn call(&self, given: &Given) -> BoxFuture<'static, Called> {
        let Given::Messages(batch) = given else { panic!("{given:?}, which it does not want") };
        let mut truth = self.truth();
        truth.check_given(batch, &self.state);
        let handle = Call { fate: Fate::Answered, verdicts: vec![Verdict::Handled], saved_meanwhile: false };
        let Call { fate, verdicts, saved_meanwhile } = truth.calls.pop_front().unwrap_or(handle);
        if saved_meanwhile {
            self.progress.save(&self.progress.writing(), &self.state, None, Persist::Buffered).unwrap();
            truth.check_disk(&self.state, 0);
        }
        let called = match fate {
            Fate::Answered => {
                let mut said = Said::new();
                for (message, verdict) in batch.messages.iter().zip(verdicts.iter().cycle()) {
                    let action = match verdict {
                        Verdict::Handled => {
                            truth.sent.get_mut(&message.offset).unwrap().finished = true;
                            continue;
                        }
                        Verdict::Retry => FailureAction::Retry(None),
                        Verdict::Reject => FailureAction::Reject,
                    };
                    said.insert(message.offset, (action, "told to".to_owned()));
                }
                Called::Answered(said)
            }
            Fate::Failed => {
                let (what, stderr) = ("told to".to_owned(), String::new());
                Called::Failed(Box::new(Evidence { what, kind: "unreachable", backtrace: None, stderr }))
            }
            Fate::Interrupted => Called::Interrupted,
            Fate::Crashed => {
                self.crash.notify_one();
                return std::future::pending().boxed();
            }
        };
        std::future::ready(called).boxed()
    }

    pub fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The table against a model that is too simple to be wrong: lists, searched from end to end.

use proptest::prelude::*;
use tokio::sync::oneshot;
use wharf_log::AppendError;

use super::*;

const WINDOW: u64 = 10;
const MAX_STORED: usize = 4;

/// What happens to a table.
#[derive(Clone, Debug)]
enum Step {
    /// Messages with these ids come in one frame. They are put into the queue, or can't be.
    Frame { ids: Vec<u64>, queued: bool },
    /// One of the appends that are under way is stored or not, not always the first. Its connection sees that, or is gone.
    Answer { append: prop::sample::Index, stored: bool, seen: bool },
    /// What nobody has seen is looked at.
    Settle,
    /// Time passes.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let ids = prop::collection::vec(0..8_u64, 1..5);
    prop_oneof![
        4 => (ids, prop::bool::weighted(0.8)).prop_map(|(ids, queued)| Step::Frame { ids, queued }),
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.7), prop::bool::weighted(0.7))
            .prop_map(|(append, stored, seen)| Step::Answer { append, stored, seen }),
        1 => Just(Step::Settle),
        1 => (1..WINDOW).prop_map(Step::Wait),
    ]
}

type Answer = oneshot::Sender<Result<(), AppendError>>;

fn storing() -> (Answer, Storing) {
    let (answer, answered) = oneshot::channel();
    (answer, async { answered.await.unwrap_or(Err(AppendError::Full)) }.boxed().shared())
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    /// Id, when it was accepted, and where.
    stored: Vec<(u64, u64, u64)>,
    appends: Vec<ModelAppend>,
}

#[derive(Debug)]
struct ModelAppend {
    ids: Vec<u64>,
    at: u64,
    from: u64,
    storing: Storing,
    answer: Option<Answer>,
    outcome: Option<bool>,
    seen: bool,
}

impl Model {
    fn settle(&mut self, all: bool) {
        let is_settled = |append: &ModelAppend| append.outcome.is_some() && (all || append.seen);
        while self.appends.first().is_some_and(is_settled) {
            let append = self.appends.remove(0);
            if append.outcome == Some(true) {
                self.stored.extend(append.ids.iter().map(|id| (*id, append.at, append.from)));
            }
        }
        self.stored.retain(|(_, at, _)| at + WINDOW > self.now);
        let beyond = self.stored.len().saturating_sub(MAX_STORED);
        self.stored.drain(..beyond);
    }

    /// The append that has an id, unless it failed.
    fn append_of(&self, id: u64) -> Option<&ModelAppend> {
        self.appends.iter().find(|append| append.outcome != Some(false) && append.ids.contains(&id))
    }

    fn is_stored(&self, id: u64) -> bool {
        self.append_of(id).is_some_and(|append| append.outcome == Some(true))
            || self.stored.iter().any(|(stored, ..)| *stored == id)
    }

    /// Whoever asks for an id sees what became of it.
    fn see(&mut self, id: u64) {
        for append in self.appends.iter_mut().filter(|append| append.ids.contains(&id)) {
            append.seen |= append.outcome.is_some();
        }
    }

    fn from(&self) -> Option<u64> {
        let stored = self.stored.iter().map(|(_, _, from)| *from);
        stored.chain(self.appends.iter().map(|append| append.from)).min()
    }
}

fn key(id: u64) -> Key {
    // Halves that meet in the map, to see that both count.
    Key(id / 2, id)
}

proptest! {
    #[test]
    fn a_table_is_what_the_model_is(steps in prop::collection::vec(step(), 1..60)) {
        let mut table = Table::new(WINDOW, MAX_STORED);
        let mut model = Model::default();
        for (offset, step) in (0_u64..).zip(steps) {
            match step {
                Step::Wait(time) => model.now += time,
                Step::Answer { append, stored, seen } => {
                    let mut waiting: Vec<_> =
                        model.appends.iter_mut().filter(|append| append.answer.is_some()).collect();
                    if !waiting.is_empty() {
                        let append = append.index(waiting.len());
                        let append = &mut waiting[append];
                        append.outcome = Some(stored);
                        let outcome = if stored { Ok(()) } else { Err(AppendError::Full) };
                        append.answer.take().unwrap().send(outcome).unwrap();
                        append.seen = seen;
                        if seen {
                            append.storing.clone().now_or_never().unwrap().ok();
                        }
                    }
                }
                Step::Settle => {
                    table.settle(model.now);
                    model.settle(true);
                }
                Step::Frame { ids, queued } => {
                    table.settle_seen(model.now);
                    model.settle(false);
                    let mut new: Vec<u64> = Vec::new();
                    for id in ids {
                        match table.claim(key(id)) {
                            Claim::New => {
                                prop_assert!(!model.is_stored(id) && model.append_of(id).is_none());
                                prop_assert!(!new.contains(&id));
                                new.push(id);
                            }
                            Claim::Same => prop_assert!(new.contains(&id)),
                            Claim::Stored => prop_assert!(model.is_stored(id)),
                            Claim::Storing(storing) => {
                                let append = model.append_of(id).unwrap();
                                prop_assert!(append.outcome.is_none() && append.storing.ptr_eq(&storing));
                            }
                        }
                        model.see(id);
                    }
                    let (answer, storing) = storing();
                    if !queued {
                        table.give_up();
                        continue;
                    }
                    table.append(storing.clone(), model.now, offset);
                    if !new.is_empty() {
                        model.appends.push(ModelAppend {
                            ids: new,
                            at: model.now,
                            from: offset,
                            storing,
                            answer: Some(answer),
                            outcome: None,
                            seen: false,
                        });
                    }
                }
            }
            table.settle_seen(model.now);
            model.settle(false);
            prop_assert_eq!(table.stored(), model.stored.len());
            prop_assert_eq!(table.from(), model.from());
            let under_way: usize = table.storing.iter().map(|append| append.keys.len()).sum();
            prop_assert!(table.ids.len() <= table.stored() + under_way, "nothing is left behind");
        }
    }
}

#[test]
fn ids_of_an_earlier_run_fall_out_by_count_and_by_time() {
    let mut table = Table::new(WINDOW, 2);
    // The clock was set back in between.
    for (id, at) in [(1, 3), (2, 5), (3, 4)] {
        table.restore(key(id), at, id);
    }
    assert_eq!((table.stored(), table.from()), (2, Some(2)));
    table.settle(5 + WINDOW - 1);
    assert!(matches!(table.claim(key(1)), Claim::New));
    assert!(matches!(table.claim(key(2)), Claim::Stored));
    assert!(matches!(table.claim(key(3)), Claim::Stored));
    table.give_up();
    table.settle(5 + WINDOW);
    assert_eq!((table.stored(), table.from(), table.ids.len()), (0, None, 0));
}

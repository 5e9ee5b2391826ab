//! Compares the database with plain collections that do the same, over random operations, openings and limits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{layout::letter_bytes, *};
use crate::{Cursors, GapReason};

#[derive(Clone, Debug)]
enum Operation {
    /// For each letter the length of its message.
    Bury {
        receiver: usize,
        topic: usize,
        lengths: Vec<usize>,
        limits: DeadLetterLimits,
    },
    Drop {
        receiver: usize,
        ids: Vec<u64>,
    },
    Begin {
        receiver: usize,
        id: u64,
    },
    GiveUp {
        receiver: usize,
        id: u64,
    },
    Rebury {
        receiver: usize,
        id: u64,
        reason: usize,
        limits: DeadLetterLimits,
    },
    Reopen,
}

/// One name begins with the other.
const NAMES: [&str; 2] = ["r", "rr"];

fn limits() -> impl Strategy<Value = DeadLetterLimits> {
    // Some letters fit, few or none.
    (0_u64..6, 0_u64..3000).prop_map(|(count, bytes)| DeadLetterLimits { count, bytes })
}

fn operation() -> impl Strategy<Value = Operation> {
    let id = || 1_u64..20;
    prop_oneof![
        6 => (0_usize..2, 0_usize..2, prop::collection::vec(0_usize..700, 0..4), limits())
            .prop_map(|(receiver, topic, lengths, limits)| Operation::Bury { receiver, topic, lengths, limits }),
        2 => (0_usize..2, prop::collection::vec(id(), 0..4))
            .prop_map(|(receiver, ids)| Operation::Drop { receiver, ids }),
        3 => (0_usize..2, id()).prop_map(|(receiver, id)| Operation::Begin { receiver, id }),
        1 => (0_usize..2, id()).prop_map(|(receiver, id)| Operation::GiveUp { receiver, id }),
        2 => (0_usize..2, id(), 0_usize..700, limits())
            .prop_map(|(receiver, id, reason, limits)| Operation::Rebury { receiver, id, reason, limits }),
        1 => Just(Operation::Reopen),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Letter {
    topic: &'static str,
    death: Death,
    message: Vec<u8>,
}

impl Letter {
    fn bytes(&self) -> u64 {
        let message_bytes = u32::try_from(self.message.len()).unwrap();
        let head = Head { topic: self.topic.to_owned(), death: self.death.clone(), message_bytes };
        letter_bytes(head.encode().len(), message_bytes)
    }
}

/// What there should be of one receiver.
#[derive(Default)]
struct Model {
    last_id: u64,
    letters: BTreeMap<u64, Letter>,
    redriving: Vec<u64>,
    /// The topics and offsets of what fell out.
    fallen: Vec<(&'static str, u64)>,
    cursors: BTreeMap<&'static str, u64>,
}

impl Model {
    fn is_over(&self, new: &[(usize, Letter)], limits: DeadLetterLimits) -> bool {
        let new = new.iter().map(|(_, letter)| letter);
        let (mut count, mut bytes) = (0, 0);
        for letter in self.letters.values().chain(new) {
            count += 1;
            bytes += letter.bytes();
        }
        count > limits.count || bytes > limits.bytes
    }

    fn fall(&mut self, letter: &Letter) {
        self.fallen.push((letter.topic, letter.death.offset));
    }

    fn make_room(&mut self, new: &[(usize, Letter)], limits: DeadLetterLimits, keep: Option<u64>) {
        while self.is_over(new, limits) {
            let may_go = |id: &&u64| !self.redriving.contains(id) && Some(**id) != keep;
            let Some(oldest) = self.letters.keys().find(may_go).copied() else { break };
            let letter = self.letters.remove(&oldest).unwrap();
            self.fall(&letter);
        }
    }

    fn bury(&mut self, letters: Vec<Letter>, limits: DeadLetterLimits) -> Burial {
        if letters.is_empty() {
            return Burial::default();
        }
        let fallen = self.fallen.len();
        let mut ids = vec![None; letters.len()];
        let held: u64 = self.redriving.iter().map(|id| self.letters[id].bytes()).sum();
        let (fit, not): (Vec<_>, Vec<_>) = letters.into_iter().enumerate().partition(|(_, letter)| {
            letter.bytes() + held <= limits.bytes && (self.redriving.len() as u64) < limits.count
        });
        let mut new = fit;
        not.iter().for_each(|(_, letter)| self.fall(letter));
        self.make_room(&new, limits, None);
        while !new.is_empty() && self.is_over(&new, limits) {
            let (_, letter) = new.remove(0);
            self.fall(&letter);
        }
        for (place, letter) in new {
            self.last_id += 1;
            self.letters.insert(self.last_id, letter);
            ids[place] = Some(self.last_id);
        }
        Burial { ids, fallen: (self.fallen.len() - fallen) as u64 }
    }
}

/// The letters of a write, with offsets that were never used before.
fn letters(next: &mut u64, topic: &'static str, lengths: &[usize]) -> Vec<Letter> {
    let letter = |&length: &usize| {
        *next += 1;
        let death = Death {
            offset: *next,
            lane: Lane::new((*next % 64) as u8).unwrap(),
            agent: "é".to_owned(),
            received_at: *next,
            attempts: 1,
            kind: DeathKind::ALL[length % 4],
            reason: "r".repeat(length % 50),
            trap: (length % 2 == 0).then(|| "trap".to_owned()),
            backtrace: (length % 3 == 0).then(|| "0: f".to_owned()),
            stderr: "e".repeat(length % 7),
            digest: "d".to_owned(),
            died_at: *next,
        };
        Letter { topic, death, message: vec![7; length] }
    };
    lengths.iter().map(letter).collect()
}

fn apply(state: &State, models: &mut [Model; 2], next: &mut u64, operation: Operation) {
    match operation {
        Operation::Bury { receiver, topic, lengths, limits } => {
            let (name, topic, model) = (NAMES[receiver], NAMES[topic], &mut models[receiver]);
            let letters = letters(next, topic, &lengths);
            let given: Vec<_> = letters
                .iter()
                .map(|letter| DeadLetter { death: letter.death.clone(), message: &letter.message })
                .collect();
            let cursors = Cursors::at(*next);
            let burial = state.bury(name, topic, &given, limits, cursors.iter()).unwrap();
            assert_eq!(burial, model.bury(letters, limits));
            model.cursors.insert(topic, *next);
            // The bound holds, unless redrives alone are beyond it.
            let usage = state.dead_letter_usage(name);
            let is_within = usage.count <= limits.count && usage.bytes <= limits.bytes;
            assert!(
                lengths.is_empty()
                    || is_within
                    || model.letters.keys().all(|id| model.redriving.contains(id)),
                "{usage:?}"
            );
        }
        Operation::Drop { receiver, ids } => {
            let (name, model) = (NAMES[receiver], &mut models[receiver]);
            let dropped = state.drop_dead_letters(name, &ids, Persist::Buffered).unwrap();
            let there = ids.iter().filter(|id| model.letters.remove(id).is_some()).count();
            assert_eq!(dropped, there as u64);
            model.redriving.retain(|id| !ids.contains(id));
        }
        Operation::Begin { receiver, id } => {
            let model = &mut models[receiver];
            match state.begin_redrive(NAMES[receiver], id).unwrap() {
                Redrive::Begun { entry, message } => {
                    assert_eq!(
                        Letter { topic: model.letters[&id].topic, death: entry.death, message },
                        model.letters[&id]
                    );
                    assert!(!model.redriving.contains(&id));
                    model.redriving.push(id);
                }
                Redrive::UnderWay => assert!(model.redriving.contains(&id)),
                Redrive::Missing => assert!(!model.letters.contains_key(&id)),
            }
        }
        Operation::GiveUp { receiver, id } => {
            state.give_up_redrive(NAMES[receiver], id);
            models[receiver].redriving.retain(|other| *other != id);
        }
        Operation::Rebury { receiver, id, reason, limits } => {
            let model = &mut models[receiver];
            let Some(letter) = model.letters.get_mut(&id) else {
                let death = letters(&mut 0, "t", &[1]).remove(0).death;
                assert!(!state.rebury(NAMES[receiver], id, death, limits).unwrap());
                return;
            };
            letter.death.reason = "again ".repeat(reason);
            letter.death.attempts += 1;
            let death = letter.death.clone();
            letter.death.reason.truncate(MAX_REASON);
            assert!(state.rebury(NAMES[receiver], id, death, limits).unwrap());
            model.make_room(&[], limits, Some(id));
            model.redriving.retain(|other| *other != id);
        }
        Operation::Reopen => {}
    }
}

/// Everything is as in the model, and everything that fell out lies in a gap record.
fn check(state: &State, models: &[Model; 2]) {
    for (name, model) in NAMES.into_iter().zip(models) {
        let page = state.dead_letters(name, .., MAX_PAGE).unwrap();
        assert_eq!((page.damaged, page.next), (vec![], None));
        let mut found = BTreeMap::new();
        for entry in page.entries {
            let (whole, message) = state.dead_letter(name, entry.id).unwrap().unwrap();
            assert_eq!(whole, entry);
            assert_eq!(entry.redriving, model.redriving.contains(&entry.id));
            let topic = NAMES.into_iter().find(|topic| *topic == entry.topic).unwrap();
            found.insert(entry.id, Letter { topic, death: entry.death, message });
        }
        assert_eq!(found, model.letters);
        let bytes = model.letters.values().map(Letter::bytes).sum();
        let count = model.letters.len() as u64;
        assert_eq!(state.dead_letter_usage(name), DeadLetterUsage { count, bytes });

        let known = state.gaps(name).unwrap();
        assert_eq!(known.damaged, [""; 0]);
        let of = |topic: &str| -> Vec<_> {
            known.topics.iter().filter(|(other, _)| other == topic).flat_map(|(_, gaps)| gaps).collect()
        };
        for topic in NAMES {
            let gaps = of(topic);
            assert!(gaps.iter().all(|gap| gap.reason == GapReason::DeadLettersFull && gap.merged == 0));
            let counted: u64 = gaps.iter().map(|gap| gap.count.unwrap()).sum();
            let mut fallen: Vec<_> =
                model.fallen.iter().filter(|(other, _)| *other == topic).map(|(_, offset)| *offset).collect();
            fallen.sort_unstable();
            let mut recorded: Vec<_> = gaps.iter().flat_map(|gap| gap.offsets.clone()).collect();
            recorded.sort_unstable();
            assert_eq!((recorded, counted), (fallen.clone(), fallen.len() as u64));
            let next = state.cursors(name, topic).unwrap().map(|cursors| cursors.min_next());
            assert_eq!(next, model.cursors.get(topic).copied());
        }
    }
}

proptest! {
    // Each case opens a database several times, and syncs often.
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_collections_do(operations in prop::collection::vec(operation(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut state = State::open(&path).unwrap();
        let mut models = <[Model; 2]>::default();
        let mut next = 0;
        for operation in operations {
            if matches!(operation, Operation::Reopen) {
                drop(state);
                state = State::open(&path).unwrap();
                models.iter_mut().for_each(|model| model.redriving.clear());
                check(&state, &models);
            }
            apply(&state, &mut models, &mut next, operation);
        }
        check(&state, &models);
    }
}

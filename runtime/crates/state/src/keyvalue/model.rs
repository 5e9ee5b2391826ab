//! Compares the database with maps that do the same, over random operations, openings and limits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{layout::entry_bytes, *};

#[derive(Clone, Debug)]
enum Operation {
    Set(Target, Vec<u8>),
    Delete(Target),
    SetMany(Target, Vec<(String, Vec<u8>)>),
    DeleteMany(Target, Vec<String>),
    Increment(Target, i64),
    Look(Target),
    Swap(Target, Vec<u8>),
    List(Target, usize),
    Reopen,
}

/// One of two receivers, one of two buckets, one of a few keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    receiver: String,
    bucket: String,
    key: String,
}

/// Small enough to be met by a few of the values.
const LIMIT: u64 = 600;

fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[ab\u{0}é]{0,2}", Just("n".to_owned())]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..150),
        any::<i64>().prop_map(|number| number.to_le_bytes().to_vec())
    ]
}

fn target() -> impl Strategy<Value = Target> {
    ("[rs]", "b?", key()).prop_map(|(receiver, bucket, key)| Target { receiver, bucket, key })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (target(), value()).prop_map(|(target, value)| Operation::Set(target, value)),
        2 => target().prop_map(Operation::Delete),
        1 => (target(), prop::collection::vec((key(), value()), 0..4))
            .prop_map(|(target, pairs)| Operation::SetMany(target, pairs)),
        1 => (target(), prop::collection::vec(key(), 0..4))
            .prop_map(|(target, keys)| Operation::DeleteMany(target, keys)),
        2 => (target(), -9_i64..9).prop_map(|(target, delta)| Operation::Increment(target, delta)),
        2 => target().prop_map(Operation::Look),
        2 => (target(), value()).prop_map(|(target, value)| Operation::Swap(target, value)),
        1 => (target(), 0_usize..4).prop_map(|(target, limit)| Operation::List(target, limit)),
        1 => Just(Operation::Reopen),
    ]
}

/// What the database should hold, and what was last seen of each place: nothing since it was written.
#[derive(Default)]
struct Model {
    values: BTreeMap<Target, Vec<u8>>,
    seen: BTreeMap<Target, (Seen, bool)>,
}

impl Model {
    fn used(&self, receiver: &str) -> u64 {
        let of_receiver = self.values.iter().filter(|(target, _)| target.receiver == receiver);
        of_receiver.map(|(target, value)| entry_bytes(&target.bucket, &target.key, value.len())).sum()
    }

    /// Makes changes if they fit, and says whether they do.
    fn change(&mut self, receiver: &str, changes: Vec<(Target, Option<Vec<u8>>)>) -> bool {
        let (before, used) = (self.values.clone(), self.used(receiver));
        let mut touched = Vec::new();
        for (target, value) in changes {
            let changed = match value {
                Some(value) => {
                    self.values.insert(target.clone(), value);
                    true
                }
                None => self.values.remove(&target).is_some(),
            };
            if changed {
                touched.push(target);
            }
        }
        let after = self.used(receiver);
        if after > LIMIT && after > used {
            self.values = before;
            return false;
        }
        for target in touched {
            if let Some((_, fresh)) = self.seen.get_mut(&target) {
                *fresh = false;
            }
        }
        true
    }
}

fn fits(result: Result<(), KeyValueError>) -> bool {
    match result {
        Ok(()) => true,
        Err(KeyValueError::Refused(Refusal::Quota { .. })) => false,
        Err(error) => panic!("{error}"),
    }
}

fn bucket(database: &KeyValue, target: &Target) -> Bucket {
    database.store(&target.receiver, LIMIT).unwrap().bucket(&target.bucket).unwrap()
}

fn with_key(target: &Target, key: &str) -> Target {
    Target { key: key.to_owned(), ..target.clone() }
}

fn apply(database: &KeyValue, model: &mut Model, operation: Operation) {
    match operation {
        Operation::Set(target, value) => {
            let done = fits(bucket(database, &target).set(&target.key, &value));
            assert_eq!(done, model.change(&target.receiver, vec![(target.clone(), Some(value))]));
        }
        Operation::Delete(target) => {
            bucket(database, &target).delete(&target.key).unwrap();
            assert!(model.change(&target.receiver, vec![(target.clone(), None)]));
        }
        Operation::SetMany(target, pairs) => {
            let done = fits(bucket(database, &target).set_many(&pairs));
            let changes =
                pairs.into_iter().map(|(key, value)| (with_key(&target, &key), Some(value))).collect();
            assert_eq!(done, model.change(&target.receiver, changes));
        }
        Operation::DeleteMany(target, keys) => {
            bucket(database, &target).delete_many(&keys).unwrap();
            let changes = keys.iter().map(|key| (with_key(&target, key), None)).collect();
            assert!(model.change(&target.receiver, changes));
        }
        Operation::Increment(target, delta) => {
            let present = model
                .values
                .get(&target)
                .map_or(Some(0), |value| Some(i64::from_le_bytes(value.as_slice().try_into().ok()?)));
            let sum = present.and_then(|number| number.checked_add(delta));
            match (bucket(database, &target).increment(&target.key, delta), sum) {
                (Ok(found), Some(sum)) => {
                    assert_eq!(found, sum);
                    let value = Some(sum.to_le_bytes().to_vec());
                    assert!(model.change(&target.receiver, vec![(target.clone(), value)]));
                }
                (Err(KeyValueError::Refused(Refusal::Quota { .. })), Some(sum)) => {
                    let value = Some(sum.to_le_bytes().to_vec());
                    assert!(!model.change(&target.receiver, vec![(target.clone(), value)]));
                }
                (Err(KeyValueError::Refused(_)), None) => {}
                (found, sum) => panic!("found {found:?}, expected {sum:?}"),
            }
        }
        Operation::Look(target) => {
            let (seen, value) = bucket(database, &target).look(&target.key).unwrap();
            assert_eq!(value.as_ref(), model.values.get(&target));
            model.seen.insert(target, (seen, true));
        }
        Operation::Swap(target, value) => {
            let Some(&(seen, fresh)) = model.seen.get(&target) else { return };
            match bucket(database, &target).compare_and_swap(&target.key, seen, &value) {
                Ok(Swap::Done) => {
                    // What was absent when it was seen, and is absent again, counts as the same.
                    assert!(fresh || !model.values.contains_key(&target));
                    assert!(model.change(&target.receiver, vec![(target.clone(), Some(value))]));
                }
                Ok(Swap::Conflict(_)) => assert!(!fresh),
                Err(KeyValueError::Refused(Refusal::Quota { .. })) => {
                    assert!(!model.change(&target.receiver, vec![(target.clone(), Some(value))]));
                }
                Err(error) => panic!("{error}"),
            }
        }
        Operation::List(target, limit) => {
            let page = bucket(database, &target).list_keys(Some(&target.key), limit).unwrap();
            let mut expected: Vec<_> = model
                .values
                .keys()
                .filter(|other| (&other.receiver, &other.bucket) == (&target.receiver, &target.bucket))
                .map(|other| other.key.clone())
                .filter(|key| *key > target.key)
                .collect();
            let more = expected.len() > limit;
            expected.truncate(limit);
            assert_eq!(page, KeyPage { keys: expected, more });
        }
        Operation::Reopen => {}
    }
}

/// Everything is as in the model, and what is said to be in use is what is there.
fn check(database: &KeyValue, model: &Model) {
    for (target, value) in &model.values {
        assert_eq!(bucket(database, target).get(&target.key).unwrap().as_ref(), Some(value), "{target:?}");
    }
    for receiver in ["r", "s"] {
        let store = database.store(receiver, LIMIT).unwrap();
        let mut counted = 0;
        for name in ["", "b"] {
            let bucket = store.bucket(name).unwrap();
            for key in bucket.list_keys(None, MAX_KEYS).unwrap().keys {
                counted += entry_bytes(name, &key, bucket.get(&key).unwrap().unwrap().len());
            }
        }
        assert_eq!(counted, model.used(receiver));
        assert_eq!(store.used(), counted);
    }
    let stored = database.read(|open| Ok(open.usages()?)).unwrap();
    for (receiver, usage) in stored {
        assert_eq!(usage.bytes, model.used(&receiver));
    }
}

proptest! {
    // Each case opens a database several times.
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_maps_do(operations in prop::collection::vec(operation(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guests");
        let mut database = KeyValue::open(&path).unwrap();
        let mut model = Model::default();
        for operation in operations {
            if matches!(operation, Operation::Reopen) {
                drop(database);
                database = KeyValue::open(&path).unwrap();
                check(&database, &model);
            }
            apply(&database, &mut model, operation);
        }
        check(&database, &model);
    }
}

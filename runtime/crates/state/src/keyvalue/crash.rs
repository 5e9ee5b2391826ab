//! What is done with the values of receivers while the power fails.

use std::{collections::BTreeMap, path::Path};

use super::{processes::patiently, *};
use crate::{
    crash::{
        self, Life,
        stage::{Promise, Stage, Subject},
    },
    store::processes::{journal, limit_file_size},
};

const RECEIVERS: [&str; 2] = ["r", "s"];
const BUCKETS: [&str; 2] = ["", "b"];

#[derive(Debug, PartialEq)]
pub struct Contents {
    /// By receiver, bucket and key.
    values: BTreeMap<(&'static str, &'static str, String), Vec<u8>>,
    used: [u64; 2],
}

impl Subject for KeyValue {
    type Contents = Contents;

    fn open(dir: &Path) -> Result<Self, StateError> {
        Self::open(dir)
    }

    fn contents(&self) -> Contents {
        let mut values = BTreeMap::new();
        for (receiver, bucket) in
            RECEIVERS.into_iter().flat_map(|receiver| BUCKETS.map(|bucket| (receiver, bucket)))
        {
            let found = self::bucket(self, receiver, bucket);
            for key in patiently(|| found.list_keys(None, MAX_KEYS)).keys {
                let value = found.get(&key).unwrap().unwrap();
                values.insert((receiver, bucket, key), value);
            }
        }
        Contents { values, used: RECEIVERS.map(|receiver| self.store(receiver, u64::MAX).unwrap().used()) }
    }

    fn go_on(&self) {
        set(self, "s", "", "last", 3000);
        self.sync().unwrap();
    }
}

fn bucket(database: &KeyValue, receiver: &str, bucket: &str) -> Bucket {
    database.store(receiver, u64::MAX).unwrap().bucket(bucket).unwrap()
}

fn set(database: &KeyValue, receiver: &str, bucket: &str, key: &str, length: usize) {
    let value = vec![u8::try_from(length % 251).unwrap() + 1; length];
    self::bucket(database, receiver, bucket).set(key, &value).unwrap();
}

fn set_many(database: &KeyValue, bucket: &str, first: usize) {
    let pairs: Vec<_> =
        (first..first + 6).map(|number| (format!("k{number}"), vec![7; 400 * (number % 9)])).collect();
    self::bucket(database, "r", bucket).set_many(&pairs).unwrap();
}

fn delete_many(database: &KeyValue, bucket: &str, numbers: std::ops::Range<usize>) {
    let keys: Vec<_> = numbers.map(|number| format!("k{number}")).collect();
    self::bucket(database, "r", bucket).delete_many(&keys).unwrap();
}

fn sync(stage: &mut Stage<KeyValue>) {
    stage.call(Promise::Durable, |database| database.sync().unwrap());
}

/// Hands what is in memory to the worker, as happens when there is enough, and waits until it is in a file.
fn flush(stage: &Stage<KeyValue>) {
    let flush = |open: &Open| {
        open.guests.keyspace.rotate_memtable_and_wait().map_err(|error| open.write_error(error))
    };
    stage.subject().shared.with(flush).unwrap();
}

fn begin(stage: &mut Stage<KeyValue>) {
    use Promise::Kept;
    stage.open();
    stage.call(Kept, |database| set(database, "r", "", "a", 100));
    stage.call(Kept, |database| set(database, "s", "b", "a", 13_000));
    sync(stage);
    stage.call(Kept, |database| set_many(database, "", 0));
    stage.call(Kept, |database| assert_eq!(bucket(database, "s", "").increment("n", 5).unwrap(), 5));
    stage.call(Kept, |database| bucket(database, "r", "").delete("a").unwrap());
    // The worker syncs the journal before it writes what it was handed.
    flush(stage);
    stage.call(Kept, |database| delete_many(database, "", 2..5));
    stage.call(Kept, |database| set_many(database, "b", 3));
    sync(stage);
    stage.call(Kept, |database| set(database, "r", "b", "large", 30_000));
    stage.call(Kept, |database| set(database, "r", "b", "large", 20_000));
}

fn fail_to_write(stage: &mut Stage<KeyValue>) {
    use Promise::{Kept, Nothing};
    stage.open();
    stage.call(Kept, |database| set(database, "r", "", "a", 200));
    flush(stage);
    let is_watched = stage.is_watched();
    let dir = stage.dir().to_owned();
    stage.call(Nothing, |database| {
        if is_watched {
            let (_file, end) = journal(&dir);
            limit_file_size(Some(end + 300));
            let error = bucket(database, "r", "").set("a", &[9; 600]).unwrap_err();
            limit_file_size(None);
            assert!(matches!(error, KeyValueError::Failed(StateError::Write { .. })), "{error:?}");
        }
    });
    stage.call(Kept, |database| patiently(|| bucket(database, "r", "").set("a", &[8; 600])));
    sync(stage);
    stage.call(Kept, |database| set_many(database, "", 20));
    stage.close();
}

fn fail_to_sync(stage: &mut Stage<KeyValue>) {
    use Promise::{Kept, Nothing};
    stage.open();
    stage.call(Kept, |database| set_many(database, "b", 30));
    let is_watched = stage.is_watched();
    stage.call(Nothing, |database| {
        let synced = database.sync();
        let failed = matches!(synced, Err(StateError::Write { .. }));
        assert_eq!(failed, is_watched, "{synced:?}");
    });
    stage.call(Kept, |database| patiently(|| bucket(database, "s", "").increment("n", 1).map(drop)));
    sync(stage);
    stage.call(Kept, |database| set(database, "s", "", "a", 9_000));
    stage.close();
}

fn merge(stage: &mut Stage<KeyValue>) {
    stage.open();
    for round in 0..3 {
        stage.call(Promise::Kept, |database| set_many(database, "", 10 * round));
        stage.call(Promise::Kept, |database| delete_many(database, "b", 0..40));
        flush(stage);
    }
    sync(stage);
    stage.call(Promise::Kept, |database| set(database, "r", "", "a", 5_000));
}

fn end(stage: &mut Stage<KeyValue>) {
    stage.open();
    stage.call(Promise::Kept, |database| set(database, "r", "", "b", 1));
    stage.subject().close().unwrap();
    stage.close();
}

#[test]
fn it_survives_a_crash_behind_every_step() {
    let test = "keyvalue::crash::it_survives_a_crash_behind_every_step";
    crash::is_survived(test, Life { begin, fail_to_write, fail_to_sync, merge, end });
}

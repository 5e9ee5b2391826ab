//! Tests that need a process of their own: of failing writes and of ends without warning.

use std::{env, path::Path, process, thread, time::Instant};

use super::*;
use crate::store::processes::{DIR, journal, limit_file_size, run_child};

fn bucket(database: &KeyValue) -> Bucket {
    database.store("r", u64::MAX).unwrap().bucket("").unwrap()
}

/// Tries again while the database is left alone after a failure.
pub fn patiently<T>(mut work: impl FnMut() -> Result<T, KeyValueError>) -> T {
    let start = Instant::now();
    loop {
        match work() {
            Ok(value) => return value,
            Err(KeyValueError::Failed(StateError::Resting { .. }))
                if start.elapsed() < Duration::from_secs(60) =>
            {
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn opens_again_after_a_failed_write() {
    let Some(dir) = env::var_os(DIR) else {
        let dir = tempfile::tempdir().unwrap();
        return run_child("keyvalue::processes::opens_again_after_a_failed_write", dir.path(), 0);
    };
    let dir = Path::new(&dir).join("guests");
    let database = KeyValue::open(&dir).unwrap();
    let bucket = bucket(&database);
    bucket.set("k", &[1; 500]).unwrap();

    // The write is cut at several places within the batch.
    for (number, cut) in (2..).zip([0, 20, 300]) {
        let (_file, end) = journal(&dir);
        let used = bucket.used();
        limit_file_size(Some(end + cut));
        let error = bucket.set("k", &[number; 600]).unwrap_err();
        assert!(matches!(error, KeyValueError::Failed(StateError::Write { .. })), "{error:?}");
        let error = bucket.get("k").unwrap_err();
        assert!(matches!(error, KeyValueError::Failed(StateError::Resting { .. })), "{error:?}");

        limit_file_size(None);
        assert_eq!(patiently(|| bucket.get("k")).unwrap()[0], number - 1, "half of a write is there");
        assert_eq!(bucket.used(), used);
        assert!(database.is_dirty());
        database.sync().unwrap();
        bucket.set("k", &[number; 600]).unwrap();
    }

    drop((bucket, database));
    let database = KeyValue::open(&dir).unwrap();
    assert_eq!(self::bucket(&database).get("k").unwrap().unwrap(), [4; 600]);
}

#[test]
fn a_write_survives_the_end_of_the_process() {
    if let Some(dir) = env::var_os(DIR) {
        let database = KeyValue::open(&Path::new(&dir).join("guests")).unwrap();
        let bucket = bucket(&database);
        bucket.set("k", b"1").unwrap();
        bucket.set_many(&[("a".to_owned(), vec![2]), ("b".to_owned(), vec![3])]).unwrap();
        bucket.delete("b").unwrap();
        // No destructor runs: what only this process knows is lost.
        process::exit(7);
    }
    let dir = tempfile::tempdir().unwrap();
    run_child("keyvalue::processes::a_write_survives_the_end_of_the_process", dir.path(), 7);

    let database = KeyValue::open(&dir.path().join("guests")).unwrap();
    let bucket = bucket(&database);
    assert_eq!(bucket.list_keys(None, 10).unwrap().keys, ["a", "k"]);
    assert_eq!(bucket.get("k").unwrap().unwrap(), b"1");
    assert_eq!(bucket.used(), 2 * (2 + layout::ENTRY_OVERHEAD));
}

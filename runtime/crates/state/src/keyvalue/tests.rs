use std::{sync::atomic::AtomicBool, thread};

use super::{
    layout::{ENTRY_OVERHEAD, bucket_prefix, usage_key},
    *,
};

const NO_LIMIT: u64 = u64::MAX;

fn open(dir: &tempfile::TempDir) -> KeyValue {
    KeyValue::open(&dir.path().join("guests")).unwrap()
}

fn bucket(database: &KeyValue, receiver: &str, name: &str) -> Bucket {
    database.store(receiver, NO_LIMIT).unwrap().bucket(name).unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, KeyValueError>) -> Refusal {
    match result {
        Err(KeyValueError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket_of = |database: &KeyValue| bucket(database, "alarms", "");
    let first = bucket_of(&database);
    first.set("a", b"1").unwrap();
    first.set("b", b"").unwrap();
    first.set("c", b"3").unwrap();
    first.delete("c").unwrap();
    first.increment("n", -5).unwrap();
    let (seen, value) = first.look("a").unwrap();
    assert_eq!(value.unwrap(), b"1");
    let used = first.used();
    drop((first, database));

    let database = open(&dir);
    let second = bucket_of(&database);
    assert_eq!(second.used(), used);
    assert_eq!(second.get("a").unwrap().unwrap(), b"1");
    assert_eq!(second.get("b").unwrap().unwrap(), b"");
    assert_eq!(second.get("c").unwrap(), None);
    assert_eq!(second.increment("n", 1).unwrap(), -4);
    assert_eq!(second.compare_and_swap("a", seen, b"2").unwrap(), Swap::Done);
}

#[test]
fn receivers_and_buckets_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    // Each name begins with another one, or a key continues a name.
    let places = [("a", "", "bk"), ("a", "b", "k"), ("a", "bk", ""), ("ab", "", "k"), ("a", "", "b\0k")];
    for (number, (receiver, name, key)) in (0_u8..).zip(places) {
        bucket(&database, receiver, name).set(key, &[number]).unwrap();
    }
    for (number, (receiver, name, key)) in (0_u8..).zip(places) {
        assert_eq!(bucket(&database, receiver, name).get(key).unwrap().unwrap(), [number]);
    }
    let listed = |receiver, name| bucket(&database, receiver, name).list_keys(None, 10).unwrap().keys;
    assert_eq!(listed("a", ""), ["b\0k", "bk"]);
    assert_eq!(listed("a", "b"), ["k"]);
    assert_eq!(listed("a", "bk"), [""]);
    assert_eq!(listed("ab", ""), ["k"]);
    assert_eq!(listed("a", "other"), [""; 0]);
    bucket(&database, "a", "").delete("bk").unwrap();
    assert!(bucket(&database, "a", "b").exists("k").unwrap());
}

#[test]
fn the_empty_name_and_default_are_one_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    bucket(&database, "r", "").set("k", b"v").unwrap();
    assert_eq!(bucket(&database, "r", "default").get("k").unwrap().unwrap(), b"v");
}

#[test]
fn a_full_store_refuses_what_would_make_it_fuller() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let limit = 2 * (ENTRY_OVERHEAD + 10);
    let store = database.store("r", limit).unwrap();
    let bucket = store.bucket("").unwrap();
    bucket.set("a", b"123456789").unwrap();
    let of_another = store.bucket("b").unwrap();
    of_another.set("a", b"12345678").unwrap();
    assert_eq!(store.used(), limit);

    let refused = refusal(bucket.set("a", b"1234567890"));
    assert_eq!(refused, Refusal::Quota { asked: 1, used: 148, limit: 148 });
    assert_eq!(
        refused.to_string(),
        "keep 1 bytes more: 148 of the 148 bytes that this receiver may keep are in use; delete something, or raise \
         `keyvalue-bytes` in the receiver's config"
    );
    assert_eq!(bucket.get("a").unwrap().unwrap(), b"123456789", "a refused write changed something");
    refusal(bucket.set("new", b""));
    refusal(bucket.increment("new", 1));
    let (nothing, _) = bucket.look("new").unwrap();
    refusal(bucket.compare_and_swap("new", nothing, b""));
    refusal(bucket.set_many(&pairs(&[("a", ""), ("b", "1")])));
    assert_eq!(store.used(), limit);

    // As large as what it replaces, or smaller.
    bucket.set("a", b"987654321").unwrap();
    bucket.set_many(&pairs(&[("a", ""), ("a", "1")])).unwrap();
    of_another.delete("a").unwrap();
    assert_eq!(store.used(), ENTRY_OVERHEAD + 2);
    bucket.set("new", b"").unwrap();
}

#[test]
fn a_lowered_limit_still_lets_everything_be_read_and_made_less() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    bucket(&database, "r", "").set_many(&pairs(&[("a", "123"), ("b", "123")])).unwrap();
    let bucket = database.store("r", 1).unwrap().bucket("").unwrap();
    assert_eq!(bucket.get("a").unwrap().unwrap(), b"123");
    refusal(bucket.set("a", b"1234"));
    bucket.set("a", b"1").unwrap();
    bucket.delete_many(&keys(&["a", "b", "c"])).unwrap();
    assert_eq!(bucket.used(), 0);
}

#[test]
fn many_are_written_all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "");
    bucket.set_many(&pairs(&[("a", "1"), ("b", "2"), ("a", "3")])).unwrap();
    let read = bucket.get_many(&keys(&["b", "x", "a", "b"])).unwrap();
    assert_eq!(read, [Some(b"2".to_vec()), None, Some(b"3".to_vec()), Some(b"2".to_vec())]);

    let mut too_long = pairs(&[("c", "1"), ("d", "1")]);
    too_long[1].1 = vec![0; MAX_VALUE + 1];
    assert_eq!(refusal(bucket.set_many(&too_long)), Refusal::ValueLength { found: MAX_VALUE + 1 });
    assert!(!bucket.exists("c").unwrap());

    bucket.delete_many(&keys(&["a", "x", "a"])).unwrap();
    assert_eq!(bucket.list_keys(None, 10).unwrap().keys, ["b"]);
    bucket.set_many(&[]).unwrap();
    bucket.delete_many(&[]).unwrap();
}

#[test]
fn what_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "");
    let (longest, longer) = ("k".repeat(MAX_KEY), "k".repeat(MAX_KEY + 1));
    bucket.set(&longest, &vec![1; MAX_VALUE]).unwrap();
    assert_eq!(bucket.get(&longest).unwrap().unwrap().len(), MAX_VALUE);
    let too_long = Refusal::KeyLength { found: MAX_KEY + 1 };
    assert_eq!(refusal(bucket.get(&longer)), too_long);
    assert_eq!(refusal(bucket.list_keys(Some(&longer), 1)), too_long);
    assert_eq!(refusal(bucket.set_many(&pairs(&[(&longer, "")]))), too_long);

    let many = vec!["k".to_owned(); MAX_KEYS + 1];
    assert_eq!(refusal(bucket.get_many(&many)), Refusal::Keys { found: MAX_KEYS + 1 });
    assert_eq!(refusal(bucket.delete_many(&many)), Refusal::Keys { found: MAX_KEYS + 1 });
    assert_eq!(refusal(bucket.get_many(&[longest.clone(), longest.clone(), longest])), Refusal::Read);

    let store = database.store("r", NO_LIMIT).unwrap();
    store.bucket(&"b".repeat(MAX_BUCKET_NAME)).unwrap();
    let refused = store.bucket(&"b".repeat(MAX_BUCKET_NAME + 1)).unwrap_err();
    assert_eq!(refused, Refusal::BucketLength { found: MAX_BUCKET_NAME + 1 });
    assert_eq!(store.bucket("a\0b").unwrap_err(), Refusal::BucketName);
    for name in ["", "a\0b"] {
        assert!(matches!(database.store(name, 1), Err(StateError::Name { .. })), "{name:?}");
    }
}

#[test]
fn keys_are_listed_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "");
    bucket.set_many(&pairs(&[("a", ""), ("b", ""), ("c", ""), ("", "")])).unwrap();
    let page = |after, limit| bucket.list_keys(after, limit).unwrap();
    assert_eq!(page(None, 2), KeyPage { keys: keys(&["", "a"]), more: true });
    assert_eq!(page(Some("a"), 2), KeyPage { keys: keys(&["b", "c"]), more: false });
    assert_eq!(page(Some("aa"), 1), KeyPage { keys: keys(&["b"]), more: true });
    assert_eq!(page(Some("c"), 2), KeyPage { keys: vec![], more: false });
    assert_eq!(page(Some("\u{10ffff}"), 2), KeyPage { keys: vec![], more: false });
    assert_eq!(page(None, 0), KeyPage { keys: vec![], more: true });
}

#[test]
fn numbers_are_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "");
    assert_eq!(bucket.increment("n", 3).unwrap(), 3);
    assert_eq!(bucket.increment("n", -5).unwrap(), -2);
    assert_eq!(bucket.get("n").unwrap().unwrap(), (-2_i64).to_le_bytes());
    assert_eq!(refusal(bucket.increment("n", i64::MIN)), Refusal::Overflow { number: -2, delta: i64::MIN });
    bucket.set("text", b"17").unwrap();
    assert_eq!(refusal(bucket.increment("text", 1)), Refusal::NotANumber { found: 2 });
}

#[test]
fn a_swap_needs_what_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "");
    let (nothing, value) = bucket.look("k").unwrap();
    assert_eq!(value, None);
    assert_eq!(bucket.compare_and_swap("k", nothing, b"1").unwrap(), Swap::Done);
    let (one, _) = bucket.look("k").unwrap();
    assert_eq!(bucket.compare_and_swap("k", nothing, b"2").unwrap(), Swap::Conflict(one));
    // The same bytes again are another value.
    bucket.set("k", b"1").unwrap();
    let Swap::Conflict(again) = bucket.compare_and_swap("k", one, b"2").unwrap() else {
        panic!("a value that was written meanwhile was replaced");
    };
    bucket.delete("k").unwrap();
    assert_eq!(bucket.compare_and_swap("k", again, b"2").unwrap(), Swap::Conflict(nothing));
    assert_eq!(bucket.get("k").unwrap(), None);
}

#[test]
fn threads_do_not_lose_each_others_writes() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    bucket.increment("n", 1).unwrap();
                }
            });
        }
    });
    assert_eq!(bucket.increment("n", 0).unwrap(), 400);
}

#[test]
fn a_write_makes_it_dirty_and_a_sync_clean() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "");
    assert!(!database.is_dirty());
    bucket.set("k", b"1").unwrap();
    assert!(database.is_dirty());
    database.sync().unwrap();
    assert!(!database.is_dirty());
    bucket.get("k").unwrap();
    bucket.delete("other").unwrap();
    assert!(!database.is_dirty(), "nothing was written");
    bucket.delete("k").unwrap();
    assert!(database.is_dirty());
}

#[test]
fn more_than_fits_in_memory_goes_to_files() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "");
    let value = |number: u8| vec![number; 1 << 20];
    for number in 0..40 {
        bucket.set(&format!("{:02}", number % 20), &value(number)).unwrap();
    }
    for number in 20..40 {
        assert_eq!(bucket.get(&format!("{:02}", number % 20)).unwrap().unwrap(), value(number));
    }
    drop((bucket, database));
    let database = open(&dir);
    let bucket = self::bucket(&database, "r", "");
    assert_eq!(bucket.list_keys(None, 100).unwrap().keys.len(), 20);
    assert_eq!(bucket.get("07").unwrap().unwrap(), value(27));
}

#[test]
fn damaged_entries_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let bucket = bucket(&database, "r", "b");
    bucket.set("k", b"v").unwrap();
    let put = |key: &[u8], value: &[u8]| {
        let change = (key.to_vec(), Some(value.to_vec()));
        database.read(|open| Ok(open.write([change])?)).unwrap();
    };
    let failure = |result: Result<(), KeyValueError>| match result {
        Err(KeyValueError::Failed(error)) => error.to_string(),
        other => panic!("expected a failure, found {other:?}"),
    };
    let entry = |key: &str| [&bucket_prefix("r", "b"), key.as_bytes()].concat();

    put(&entry("k"), b"\x02whatever");
    let expected = "understand what is stored of the values of receiver \"r\": key \"k\" of bucket \"b\": its format is 2, this \
                    version knows format 1";
    assert_eq!(failure(bucket.get("k").map(drop)), expected);
    assert_eq!(failure(bucket.set("k", b"")), expected, "what it used is not known");
    assert_eq!(failure(bucket.delete("k")), expected);
    assert!(failure(bucket.set_many(&pairs(&[("new", ""), ("k", "")]))).contains("its format is 2"));
    assert_eq!(bucket.get("new").unwrap(), None);

    put(&entry("late"), b"\x01\0\0\0\0\0\0\0\x63v");
    assert!(failure(bucket.delete("late")).ends_with("it is of write 99, and there were only 1 writes"));

    put(&usage_key("r"), b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x63");
    assert!(
        failure(bucket.delete("late")).ends_with("it says that 1 bytes are in use, but 70 were found"),
        "{}",
        failure(bucket.delete("late"))
    );

    let bytes = [&bucket_prefix("r", "b")[..], b"\xff"].concat();
    put(&bytes, b"\x01\0\0\0\0\0\0\0\x01v");
    assert!(failure(bucket.list_keys(None, 10).map(drop)).contains("expected the key of an entry"));

    put(&usage_key("r"), b"\x03");
    assert!(failure(bucket.set("new", b"")).contains("its format is 3"));
    drop((bucket, database));
    let error = KeyValue::open(&dir.path().join("guests")).unwrap_err();
    assert!(matches!(error, StateError::DamagedValues { .. }), "{error}");
}

#[test]
fn a_closed_database_can_be_opened_by_another_and_is_used_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&dir);
    let of_first = bucket(&first, "r", "");
    of_first.set("k", b"1").unwrap();
    first.close().unwrap();
    let second = open(&dir);
    assert_eq!(bucket(&second, "r", "").get("k").unwrap().unwrap(), b"1");
    let errors = [of_first.get("k").unwrap_err(), of_first.set("k", b"2").unwrap_err()];
    for error in errors {
        assert!(matches!(error, KeyValueError::Failed(StateError::Closed { .. })), "{error:?}");
    }
    first.close().unwrap();
}

#[test]
fn a_second_opening_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _database = open(&dir);
    let error = KeyValue::open(&dir.path().join("guests")).unwrap_err();
    assert!(matches!(error, StateError::Open { .. }), "{error:?}");
}

#[test]
fn who_writes_a_lot_leaves_others_their_turn() {
    const THREADS: usize = 16;
    const WRITES: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let many: Vec<_> = (0..500).map(|number| (format!("key {number}"), vec![0; 100])).collect();
    let (finished, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let bucket = bucket(&database, "flood", "");
            let (many, finished, stopped) = (&many, &finished, &stopped);
            scope.spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    bucket.set_many(many).unwrap();
                    finished.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let bucket = bucket(&database, "calm", "");
        let mut between = 0;
        for _ in 0..WRITES {
            // In the midst of the others' writes, as one comes that has something else to do as well.
            let before = finished.load(Ordering::Relaxed) + 1;
            while finished.load(Ordering::Relaxed) < before {
                thread::yield_now();
            }
            bucket.set("key", b"value").unwrap();
            between += finished.load(Ordering::Relaxed) - before;
        }
        stopped.store(true, Ordering::Relaxed);
        assert!(between < 16 * WRITES, "{WRITES} writes waited for {between} of the others");
    });
}

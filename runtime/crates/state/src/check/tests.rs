use std::collections::BTreeMap;

use wharf_log::Lane;

use super::*;
use crate::{
    Cursors, DeadLetter, DeadLetterLimits, Death, DeathKind, Gap, GapReason, KeyValue, KnownAgent, Persist,
    State, UsedTopic, store::open::Open,
};

/// Every file below the folder with its contents.
fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for path in names_in(dir).unwrap() {
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

fn death(offset: u64) -> Death {
    Death {
        offset,
        lane: Lane::of("a"),
        agent: "a".to_owned(),
        received_at: 1,
        attempts: 1,
        kind: DeathKind::Rejected,
        reason: "no".to_owned(),
        trap: None,
        backtrace: None,
        stderr: String::new(),
        digest: "d".to_owned(),
        died_at: 2,
    }
}

/// A database with an entry of every kind.
fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    state.save("dashboard", "metrics", Cursors::at(3).iter(), Persist::Sync).unwrap();
    let mut cursors = Cursors::at(5);
    cursors.get_mut(Lane::of("a")).finish(9).unwrap();
    state.save("recorder", "metrics", cursors.iter(), Persist::Sync).unwrap();
    let topics = vec![UsedTopic { name: "metrics".to_owned(), told: Some(true) }];
    let agent = KnownAgent { id: "a".to_owned(), active: true, topics };
    state.save_agents(&[agent], &[], &[("metrics".to_owned(), 7)]).unwrap();
    let letters = [4, 5].map(|offset| DeadLetter { death: death(offset), message: b"message" });
    let limits = DeadLetterLimits { count: 9, bytes: 1 << 20 };
    state.bury("recorder", "metrics", &letters, limits, []).unwrap();
    state.skip("recorder", "metrics", &[Gap::new(1..3, Some(2), GapReason::Shed, 1)], []).unwrap();
    let values = KeyValue::open(&dir.path().join("guests")).unwrap();
    let bucket = values.store("recorder", 1 << 20).unwrap().bucket("b").unwrap();
    bucket.set("k\0", b"value").unwrap();
    bucket.set("other", b"").unwrap();
    values.close().unwrap();
    dir
}

/// Checks both databases, and that this changes nothing.
fn checked(dir: &tempfile::TempDir) -> (Checked<StateContent>, Checked<ValuesContent>) {
    let before = all_files(dir.path());
    let scratch = tempfile::tempdir().unwrap();
    let (state, guests) = (dir.path().join("state"), dir.path().join("guests"));
    let state = check_state(&state, scratch.path(), |_| {}).unwrap();
    let other = tempfile::tempdir().unwrap();
    let values = check_values(&guests, other.path(), |_| {}).unwrap();
    assert!(all_files(dir.path()) == before, "a check changed something");
    (state, values)
}

fn expected() -> (StateContent, ValuesContent) {
    let cursors = |receiver: &str, lowest, end| CheckedCursors {
        receiver: receiver.to_owned(),
        topic: "metrics".to_owned(),
        lowest,
        end,
    };
    let state = StateContent {
        cursors: vec![cursors("dashboard", 3, 3), cursors("recorder", 5, 10)],
        agents: 1,
        reflected: vec![("metrics".to_owned(), 7)],
        dead_letters: vec![("recorder".to_owned(), 2)],
        gaps: vec![("recorder".to_owned(), "metrics".to_owned(), 1)],
    };
    // Two values with names of 1 + 2 and 1 + 5 bytes, 5 bytes of value, and what each counts beside.
    (state, ValuesContent { receivers: vec![("recorder".to_owned(), 2, 14 + 2 * 64)] })
}

#[test]
fn what_is_whole_is_said_to_be_whole() {
    let dir = written();
    for _ in 0..3 {
        let (state, values) = checked(&dir);
        assert_eq!((state.problems, values.problems), (vec![], vec![]));
        assert_eq!((state.content.unwrap(), values.content.unwrap()), expected());
        assert!(state.bytes > 0 && values.bytes > 0);
        // From now on in tables.
        drop(State::open(&dir.path().join("state")).unwrap());
        drop(KeyValue::open(&dir.path().join("guests")).unwrap());
    }
}

#[test]
fn a_copy_of_an_open_database_is_whole_and_has_everything() {
    let dir = written();
    let copies = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    let values = KeyValue::open(&dir.path().join("guests")).unwrap();
    state.back_up(&copies.path().join("state")).unwrap();
    values.back_up(&copies.path().join("guests")).unwrap();
    // The originals can be written to, and the copies do not see it.
    state.save("recorder", "metrics", Cursors::at(100).iter(), Persist::Sync).unwrap();
    let bucket = values.store("recorder", 1 << 20).unwrap().bucket("b").unwrap();
    bucket.set("late", b"value").unwrap();
    let (state, values) = checked(&copies);
    assert_eq!((state.problems, values.problems), (vec![], vec![]));
    assert_eq!((state.content.unwrap(), values.content.unwrap()), expected());
}

/// More than is written at once, and more than waits in memory.
#[test]
fn a_large_copy_is_made_in_portions() {
    let dir = tempfile::tempdir().unwrap();
    let values = KeyValue::open(&dir.path().join("guests")).unwrap();
    let bucket = values.store("recorder", 1 << 30).unwrap().bucket("b").unwrap();
    for number in 0..24 {
        bucket.set(&format!("{number}"), &vec![number; 1 << 20]).unwrap();
    }
    let copies = tempfile::tempdir().unwrap();
    values.back_up(&copies.path().join("guests")).unwrap();
    let (_, checked) = checked(&copies);
    assert_eq!(checked.problems, []);
    assert_eq!(checked.content.unwrap().receivers[0].1, 24);
    let copy = KeyValue::open(&copies.path().join("guests")).unwrap();
    let bucket = copy.store("recorder", 1 << 30).unwrap().bucket("b").unwrap();
    assert_eq!(bucket.get("23").unwrap().unwrap(), vec![23; 1 << 20]);
}

#[test]
fn a_database_that_is_not_there_has_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (state, values) = checked(&dir);
    assert_eq!((state.problems, state.content), (vec![], None));
    assert_eq!((values.problems, values.content), (vec![], None));
}

#[test]
fn entries_that_wharf_does_not_write_are_named() {
    let dir = written();
    {
        let open = Open::at(&dir.path().join("state")).unwrap();
        open.cursors.keyspace.insert("recorder\0other", b"\x01\0").unwrap();
        open.cursors.keyspace.insert("recorder", b"\x01").unwrap();
        open.agents.insert("b", b"\x01\x07").unwrap();
        open.presence.insert("other", b"\x01").unwrap();
        open.message_ids.keyspace.insert("other", b"\x01\0").unwrap();
        open.gaps.keyspace.insert("recorder\0other", b"\x01\0").unwrap();
        open.dead_letters.keyspace.insert(b"mrecorder\0\0\0\0\0\0\0\0\x01", b"short").unwrap();
        open.dead_letters.keyspace.insert(b"mrecorder\0\0\0\0\0\0\0\0\x09", b"").unwrap();
        open.dead_letters.keyspace.remove(b"mrecorder\0\0\0\0\0\0\0\0\x02").unwrap();
        open.dead_letters.keyspace.insert("x", "y").unwrap();
    }
    {
        let open = crate::keyvalue::Open::at(&dir.path().join("guests")).unwrap();
        open.write([(b"erecorder\0b\0k".to_vec(), Some(vec![9]))]).unwrap();
        open.write([(b"ealone\0b\0k".to_vec(), Some(vec![1, 0, 0, 0, 0, 0, 0, 0, 1]))]).unwrap();
    }
    let (state, values) = checked(&dir);
    assert!(state.problems.iter().chain(&values.problems).all(|problem| problem.is_damage));
    let found =
        |problems: &[StateProblem]| problems.iter().map(|problem| problem.found.clone()).collect::<Vec<_>>();
    assert_eq!(
        found(&state.problems),
        [
            r#"understand the key "recorder" in the state database: expected the names of a receiver and a topic"#,
            r#"the cursors of receiver "recorder" in topic "other" can't be understood: lane 0 ends early"#,
            r#"agent "b": it is marked 7, expected 0 or 1"#,
            r#"presence in topic "other": its offset has 0 bytes, expected 8"#,
            r#"from where on message ids of topic "other" are known: its offset has 1 bytes, expected 8"#,
            r#"gap records "recorder\\x00other": record 0 ends early or has a text that is none"#,
            r#"dead letter 1 of receiver "recorder": its message has 5 bytes, expected 7"#,
            r#"a message of receiver "recorder" belongs to no dead letter: 9"#,
            r#"dead letters: "x" is not the key of a receiver"#,
            r#"dead letter 2 of receiver "recorder": its message is not there"#,
        ]
    );
    assert_eq!(
        found(&values.problems),
        [
            r#"a value of receiver "recorder" under "k": its format is 9, this version knows format 1"#,
            r#"receiver "alone" keeps 66 bytes, and what is written down is 0"#,
        ]
    );
    let content = state.content.unwrap();
    assert_eq!(content.cursors, expected().0.cursors, "what is whole is told all the same");
    assert_eq!(content.dead_letters, [("recorder".to_owned(), 0)]);
}

#[test]
fn damaged_files_are_named() {
    let dir = written();
    let state = dir.path().join("state");
    // Until the worker has written a table.
    let tables = loop {
        drop(State::open(&state).unwrap());
        let keyspaces = names_in(&state.join("keyspaces")).unwrap();
        let tables: Vec<_> = keyspaces
            .iter()
            .filter(|keyspace| !keyspace.ends_with("0"))
            .flat_map(|keyspace| names_in(&keyspace.join("tables")).unwrap())
            .collect();
        if !tables.is_empty() {
            break tables;
        }
    };
    let files = [tables[0].clone(), state.join("keyspaces/0/current")];
    for path in files {
        let whole = fs::read(&path).unwrap();
        for byte in [1, whole.len() / 2] {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            fs::write(&path, damaged).unwrap();
            let (state, _) = checked(&dir);
            assert!(!state.problems.is_empty(), "{path:?} {byte}");
            assert!(state.problems.iter().all(|problem| problem.is_damage));
        }
        fs::write(&path, whole).unwrap();
    }
    let (state, _) = checked(&dir);
    assert_eq!(state.problems, []);
}

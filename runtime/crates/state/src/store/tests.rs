use std::fs;

use super::*;

fn lane(index: u8) -> Lane {
    Lane::new(index).unwrap()
}

/// Cursors that differ from lane to lane, some with runs.
fn some_cursors() -> Cursors {
    let mut cursors = Cursors::at(100);
    for index in 0..64 {
        let cursor = cursors.get_mut(lane(index));
        cursor.advance_to(100 + u64::from(index));
        cursor.finish_span(200..200 + u64::from(index % 5)).unwrap();
        cursor.finish(1000).unwrap();
    }
    cursors
}

#[test]
fn what_was_saved_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    let mut cursors = some_cursors();

    let state = State::open(&dir).unwrap();
    assert_eq!(state.cursors("dashboard", "system").unwrap(), None);
    state.save("dashboard", "system", cursors.iter(), Persist::Sync).unwrap();
    drop(state);

    let state = State::open(&dir).unwrap();
    assert_eq!(state.cursors("dashboard", "system").unwrap().as_ref(), Some(&cursors));
    cursors.get_mut(lane(3)).advance_to(5000);
    state.save("dashboard", "system", [(lane(3), cursors.get(lane(3)))], Persist::Buffered).unwrap();
    assert_eq!(state.cursors("dashboard", "system").unwrap().as_ref(), Some(&cursors), "one lane moved");
    drop(state);

    let state = State::open(&dir).unwrap();
    assert_eq!(state.cursors("dashboard", "system").unwrap(), Some(cursors));
}

#[test]
fn pairs_are_apart_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    assert_eq!(state.list().unwrap(), []);
    // Each name begins with another one.
    let pairs = [("a", "b"), ("a", "bc"), ("ab", "b"), ("ab", "c")];
    for (next, (receiver, topic)) in (1..).zip(pairs) {
        state.save(receiver, topic, Cursors::at(next).iter(), Persist::Buffered).unwrap();
    }
    for (next, (receiver, topic)) in (1..).zip(pairs) {
        assert_eq!(state.cursors(receiver, topic).unwrap(), Some(Cursors::at(next)));
    }
    let listed = state.list().unwrap();
    assert_eq!(listed, pairs.map(|(receiver, topic)| (receiver.to_owned(), topic.to_owned())));
    assert_eq!(state.cursors("a", "c").unwrap(), None);
}

#[test]
fn what_is_forgotten_is_as_if_it_had_never_been_saved() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    let state = State::open(&dir).unwrap();
    for topic in ["t", "u"] {
        state.save("r", topic, Cursors::at(7).iter(), Persist::Sync).unwrap();
    }
    state.forget_cursors("r", "t").unwrap();
    state.forget_cursors("r", "never").unwrap();
    drop(state);
    let state = State::open(&dir).unwrap();
    assert_eq!(state.cursors("r", "t").unwrap(), None);
    assert_eq!(state.list().unwrap(), [("r".to_owned(), "u".to_owned())]);
}

#[test]
fn the_first_save_holds_all_lanes() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    let cursor = Cursor::at(1);
    let error = state.save("r", "t", [(lane(0), &cursor), (lane(0), &cursor)], Persist::Sync).unwrap_err();
    assert!(matches!(error, StateError::FirstSave { found: 1, .. }), "{error}");
    assert_eq!(state.cursors("r", "t").unwrap(), None);
}

#[test]
fn damaged_entries_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    let put = |key: &[u8], value: &[u8]| {
        state.lock().as_ref().unwrap().cursors.keyspace.insert(key, value).unwrap()
    };

    put(b"r\0t", b"\x02whatever");
    let expected = r#"understand the stored cursors of receiver "r" in topic "t": its format is 2, this version knows format 1"#;
    assert_eq!(state.cursors("r", "t").unwrap_err().to_string(), expected);
    let one = state.save("r", "t", [(lane(0), &Cursor::at(1))], Persist::Sync);
    assert_eq!(one.unwrap_err().to_string(), expected, "one lane cannot mend the others");
    state.save("r", "t", Cursors::at(1).iter(), Persist::Sync).unwrap();
    assert_eq!(state.cursors("r", "t").unwrap(), Some(Cursors::at(1)));

    put(b"nonsense", b"");
    let expected = r#"understand the key "nonsense" in the state database: expected the names of a receiver and a topic"#;
    assert_eq!(state.list().unwrap_err().to_string(), expected);
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let leftover = dir.path().join("state.unfinished");
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join("0.jnl"), "half").unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();

    let state = State::open(&dir.path().join("state")).unwrap();
    state.save("r", "t", Cursors::at(1).iter(), Persist::Sync).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn a_second_opening_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    let _state = State::open(&dir).unwrap();
    let error = State::open(&dir).unwrap_err();
    let StateError::Open { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, fjall::Error::Locked), "{source:?}");
}

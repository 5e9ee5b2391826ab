use super::{layout::letter_bytes, *};
use crate::{Cursors, Gap, GapReason};

const ROOMY: DeadLetterLimits = DeadLetterLimits { count: 1000, bytes: 64 << 20 };

fn open(dir: &tempfile::TempDir) -> State {
    State::open(&dir.path().join("state")).unwrap()
}

fn lane(index: u8) -> Lane {
    Lane::new(index).unwrap()
}

pub fn death(offset: u64) -> Death {
    Death {
        offset,
        lane: lane(3),
        agent: "node-7".to_owned(),
        received_at: 1000 + offset,
        attempts: 3,
        kind: DeathKind::Faults,
        reason: "run the guest: it panicked or aborted".to_owned(),
        trap: Some("unreachable".to_owned()),
        backtrace: Some("0: handle\n1: main".to_owned()),
        stderr: "thread panicked".to_owned(),
        digest: "9f86d081".to_owned(),
        died_at: 2000 + offset,
    }
}

pub fn letter(offset: u64, message: &[u8]) -> DeadLetter<'_> {
    DeadLetter { death: death(offset), message }
}

fn bury(state: &State, receiver: &str, offset: u64, message: &[u8], limits: DeadLetterLimits) -> Burial {
    state.bury(receiver, "t", &[letter(offset, message)], limits, []).unwrap()
}

/// What a letter of these tests counts beside its message.
fn overhead() -> u64 {
    letter_bytes(Head { topic: "t".to_owned(), death: death(0), message_bytes: 0 }.encode().len(), 0)
}

fn ids(state: &State, receiver: &str) -> Vec<u64> {
    let page = state.dead_letters(receiver, .., MAX_PAGE).unwrap();
    assert_eq!((page.damaged, page.next), (vec![], None));
    page.entries.iter().map(|entry| entry.id).collect()
}

fn fell_out(offsets: std::ops::Range<u64>, count: u64, since: u64, until: u64) -> Gap {
    Gap { since, ..Gap::new(offsets, Some(count), GapReason::DeadLettersFull, until) }
}

fn gaps(state: &State, receiver: &str) -> Vec<(String, Vec<Gap>)> {
    let known = state.gaps(receiver).unwrap();
    assert_eq!(known.damaged, [""; 0]);
    known.topics
}

#[test]
fn what_was_buried_is_there_after_opening_again_with_the_cursors() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let mut cursors = Cursors::at(5);
    cursors.get_mut(lane(3)).finish_span(5..8).unwrap();
    let letters = [letter(5, b"first"), letter(7, b"")];
    let burial = state.bury("alarms", "t", &letters, ROOMY, cursors.iter()).unwrap();
    assert_eq!(burial, Burial { ids: vec![Some(1), Some(2)], fallen: 0 });
    let usage = state.dead_letter_usage("alarms");
    assert_eq!(usage, DeadLetterUsage { count: 2, bytes: 5 + 2 * overhead() });
    drop(state);

    let state = open(&dir);
    assert_eq!(state.cursors("alarms", "t").unwrap(), Some(cursors));
    assert_eq!(state.dead_letter_usage("alarms"), usage);
    assert_eq!(state.receivers_with_dead_letters(), ["alarms"]);
    let entry = |id, offset, message_bytes| DeadLetterEntry {
        id,
        topic: "t".to_owned(),
        death: death(offset),
        message_bytes,
        redriving: false,
    };
    let page = state.dead_letters("alarms", .., 10).unwrap();
    assert_eq!(
        page,
        DeadLetterPage { entries: vec![entry(1, 5, 5), entry(2, 7, 0)], damaged: vec![], next: None }
    );
    assert_eq!(state.dead_letter("alarms", 1).unwrap(), Some((entry(1, 5, 5), b"first".to_vec())));
    assert_eq!(state.dead_letter("alarms", 3).unwrap(), None);
    assert_eq!(gaps(&state, "alarms"), []);
}

#[test]
fn an_id_is_not_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    (0..3).for_each(|offset| drop(bury(&state, "r", offset, b"", ROOMY)));
    assert_eq!(state.drop_dead_letters("r", &[3, 1, 3, 9], Persist::Sync).unwrap(), 2);
    assert_eq!(ids(&state, "r"), [2]);
    assert_eq!(state.drop_dead_letters("r", &[2, 3], Persist::Buffered).unwrap(), 1);
    assert_eq!(state.dead_letter_usage("r"), DeadLetterUsage::default());
    assert_eq!(state.receivers_with_dead_letters(), [""; 0]);
    drop(state);
    let state = open(&dir);
    assert_eq!(bury(&state, "r", 7, b"", ROOMY).ids, [Some(4)]);
}

#[test]
fn receivers_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    // Each name begins with another one.
    for (offset, receiver) in (0..).zip(["a", "ab", "abc"]) {
        bury(&state, receiver, offset, b"m", ROOMY);
    }
    for (offset, receiver) in (0..).zip(["a", "ab", "abc"]) {
        let page = state.dead_letters(receiver, .., 10).unwrap();
        let offsets: Vec<_> = page.entries.iter().map(|entry| entry.death.offset).collect();
        assert_eq!(offsets, [offset], "{receiver}");
    }
    state.drop_dead_letters("ab", &[1], Persist::Sync).unwrap();
    assert_eq!(state.receivers_with_dead_letters(), ["a", "abc"]);
    for name in ["", "a\0b"] {
        assert!(matches!(state.dead_letters(name, .., 1), Err(StateError::Name { .. })), "{name:?}");
        assert!(matches!(state.bury(name, "t", &[], ROOMY, []), Err(StateError::Name { .. })), "{name:?}");
    }
}

#[test]
fn letters_are_listed_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let letters: Vec<_> = (0..5).map(|offset| letter(offset, b"")).collect();
    state.bury("r", "t", &letters, ROOMY, []).unwrap();
    let page = |ids: (Bound<u64>, Bound<u64>), limit| {
        let page = state.dead_letters("r", ids, limit).unwrap();
        (page.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), page.next)
    };
    use Bound::{Excluded, Included, Unbounded};
    assert_eq!(page((Unbounded, Unbounded), 2), (vec![1, 2], Some(3)));
    assert_eq!(page((Included(3), Unbounded), 3), (vec![3, 4, 5], None));
    assert_eq!(page((Excluded(1), Included(3)), 2), (vec![2, 3], None));
    assert_eq!(page((Included(2), Excluded(3)), 2), (vec![2], None));
    assert_eq!(page((Unbounded, Unbounded), 0), (vec![1], Some(2)));
    assert_eq!(page((Included(3), Excluded(3)), 2), (vec![], None));
    assert_eq!(page((Included(4), Included(3)), 2), (vec![], None));
    assert_eq!(page((Excluded(u64::MAX), Unbounded), 2), (vec![], None));
    assert_eq!(page((Unbounded, Excluded(0)), 2), (vec![], None));
}

#[test]
fn a_page_ends_after_so_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let long = Death { backtrace: Some("b".repeat(MAX_BACKTRACE)), ..death(0) };
    let letters = vec![DeadLetter { death: long, message: b"" }; 100];
    state.bury("r", "t", &letters, ROOMY, []).unwrap();
    let page = state.dead_letters("r", .., 100).unwrap();
    assert!((60..70).contains(&page.entries.len()), "{}", page.entries.len());
    assert_eq!(page.next, Some(page.entries.last().unwrap().id + 1));
}

#[test]
fn at_the_bound_the_oldest_fall_out_into_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let limits = DeadLetterLimits { count: 3, bytes: u64::MAX };
    (0..3).for_each(|offset| assert_eq!(bury(&state, "r", offset, b"", limits).fallen, 0));
    let burial = state.bury("r", "u", &[letter(90, b""), letter(91, b"")], limits, []).unwrap();
    assert_eq!(burial, Burial { ids: vec![Some(4), Some(5)], fallen: 2 });
    assert_eq!(ids(&state, "r"), [3, 4, 5]);
    assert_eq!(state.dead_letter("r", 1).unwrap(), None);
    assert_eq!(gaps(&state, "r"), [("t".to_owned(), vec![fell_out(0..2, 2, 2091, 2091)])]);

    // More than there may be at all: of the new ones, too, the oldest.
    let letters: Vec<_> = (92..97).map(|offset| letter(offset, b"")).collect();
    let burial = state.bury("r", "u", &letters, limits, []).unwrap();
    assert_eq!(burial, Burial { ids: vec![None, None, Some(6), Some(7), Some(8)], fallen: 5 });
    drop(state);
    let state = open(&dir);
    assert_eq!(ids(&state, "r"), [6, 7, 8]);
    let of_t = ("t".to_owned(), vec![fell_out(0..3, 3, 2091, 2096)]);
    assert_eq!(gaps(&state, "r"), [of_t, ("u".to_owned(), vec![fell_out(90..94, 4, 2096, 2096)])]);
}

#[test]
fn bytes_are_bounded_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let limits = DeadLetterLimits { count: u64::MAX, bytes: 2 * (overhead() + 10) };
    bury(&state, "r", 0, &[0; 10], limits);
    assert_eq!(bury(&state, "r", 1, &[1; 10], limits).fallen, 0);
    assert_eq!(state.dead_letter_usage("r").bytes, limits.bytes);

    // What can have no room at all takes none from others.
    let large = vec![2; 30 + usize::try_from(overhead()).unwrap()];
    assert_eq!(bury(&state, "r", 2, &large, limits), Burial { ids: vec![None], fallen: 1 });
    assert_eq!(ids(&state, "r"), [1, 2]);
    assert_eq!(bury(&state, "r", 3, &[3; 11], limits), Burial { ids: vec![Some(3)], fallen: 2 });
    assert_eq!(state.dead_letter_usage("r"), DeadLetterUsage { count: 1, bytes: overhead() + 11 });
    assert_eq!(gaps(&state, "r"), [("t".to_owned(), vec![fell_out(0..3, 3, 2002, 2003)])]);

    assert_eq!(bury(&state, "r", 4, b"", DeadLetterLimits { count: 0, bytes: 0 }).fallen, 2);
    assert_eq!(ids(&state, "r"), [0; 0]);
}

#[test]
fn lowered_limits_hold_with_the_next_letter() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let letters: Vec<_> = (0..10).map(|offset| letter(offset, b"")).collect();
    state.bury("r", "t", &letters, ROOMY, []).unwrap();
    let burial = bury(&state, "r", 10, b"", DeadLetterLimits { count: 2, ..ROOMY });
    assert_eq!(burial, Burial { ids: vec![Some(11)], fallen: 9 });
    assert_eq!(ids(&state, "r"), [10, 11]);
}

#[test]
fn what_is_redriven_does_not_fall_out() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let limits = DeadLetterLimits { count: 2, bytes: u64::MAX };
    bury(&state, "r", 0, b"zero", limits);
    bury(&state, "r", 1, b"one", limits);
    let Redrive::Begun { entry, message } = state.begin_redrive("r", 1).unwrap() else { panic!() };
    assert_eq!((entry.id, entry.death.offset, entry.redriving, message), (1, 0, true, b"zero".to_vec()));
    assert_eq!(state.begin_redrive("r", 1).unwrap(), Redrive::UnderWay);
    assert_eq!(state.begin_redrive("r", 9).unwrap(), Redrive::Missing);
    let redriving = |state: &State| -> Vec<_> {
        let page = state.dead_letters("r", .., 10).unwrap();
        page.entries.iter().map(|entry| (entry.id, entry.redriving)).collect()
    };
    assert_eq!(redriving(&state), [(1, true), (2, false)]);

    assert_eq!(bury(&state, "r", 2, b"two", limits).ids, [Some(3)]);
    assert_eq!(redriving(&state), [(1, true), (3, false)], "the next oldest fell out");
    state.begin_redrive("r", 3).unwrap();
    assert_eq!(bury(&state, "r", 3, b"three", limits), Burial { ids: vec![None], fallen: 1 });
    assert_eq!(redriving(&state), [(1, true), (3, true)], "where all are redriven, the new one fell out");

    // Finished: it makes room. Given up: it may fall out again.
    assert_eq!(state.drop_dead_letters("r", &[1], Persist::Buffered).unwrap(), 1);
    state.give_up_redrive("r", 3);
    bury(&state, "r", 4, b"four", limits);
    bury(&state, "r", 5, b"five", limits);
    assert_eq!(redriving(&state), [(4, false), (5, false)]);
    assert_eq!(gaps(&state, "r"), [("t".to_owned(), vec![fell_out(1..4, 3, 2002, 2005)])]);

    state.begin_redrive("r", 4).unwrap();
    drop(state);
    assert_eq!(redriving(&open(&dir)), [(4, false), (5, false)], "redrives end with the server");
}

#[test]
fn a_letter_that_has_no_room_beside_redrives_takes_none_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let limits = DeadLetterLimits { count: 10, bytes: 3 * overhead() + 20 };
    bury(&state, "r", 0, &[0; 10], limits);
    bury(&state, "r", 1, b"", limits);
    state.begin_redrive("r", 1).unwrap();
    let large = vec![2; 11 + usize::try_from(overhead()).unwrap()];
    assert_eq!(bury(&state, "r", 2, &large, limits), Burial { ids: vec![None], fallen: 1 });
    assert_eq!(ids(&state, "r"), [1, 2]);
    assert_eq!(bury(&state, "r", 2, &large[1..], limits), Burial { ids: vec![Some(3)], fallen: 1 });
    assert_eq!(ids(&state, "r"), [1, 3]);
}

#[test]
fn a_message_that_is_dead_again_keeps_its_letter() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let limits = DeadLetterLimits { count: 10, bytes: 2 * overhead() + 10 };
    bury(&state, "r", 0, b"zero", limits);
    bury(&state, "r", 1, b"one", limits);
    state.begin_redrive("r", 1).unwrap();
    let again =
        Death { attempts: 6, reason: format!("{}, again", death(0).reason), died_at: 9000, ..death(0) };
    assert!(state.rebury("r", 1, again.clone(), limits).unwrap());
    let (entry, message) = state.dead_letter("r", 1).unwrap().unwrap();
    assert_eq!((entry.death, entry.redriving, message), (again.clone(), false, b"zero".to_vec()));
    assert_eq!(ids(&state, "r"), [1], "it has become larger, and another fell out for it");
    assert_eq!(state.dead_letter_usage("r"), DeadLetterUsage { count: 1, bytes: overhead() + 4 + 7 });
    assert_eq!(gaps(&state, "r"), [("t".to_owned(), vec![fell_out(1..2, 1, 9000, 9000)])]);

    state.begin_redrive("r", 1).unwrap();
    state.drop_dead_letters("r", &[1], Persist::Sync).unwrap();
    assert!(!state.rebury("r", 1, again, limits).unwrap(), "what was dropped came back");
    assert_eq!(state.dead_letter_usage("r"), DeadLetterUsage::default());
}

#[test]
fn too_much_for_one_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let half = vec![0; MAX_BURIAL_BYTES / 2 + 1];
    let error = state.bury("r", "t", &[letter(0, &half), letter(1, &half)], ROOMY, []).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bury messages of 67108866 bytes in one write: the limit is 67108864; bury fewer at a time"
    );
    let largest = vec![7; MAX_BURIAL_BYTES];
    let limits = DeadLetterLimits { count: 1, bytes: u64::MAX };
    assert_eq!(bury(&state, "r", 0, &largest, limits).ids, [Some(1)]);
    assert_eq!(state.dead_letter("r", 1).unwrap().unwrap().1, largest);
}

#[test]
fn many_large_letters_go_to_files_and_leave_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let limits = DeadLetterLimits { count: 8, bytes: u64::MAX };
    let message = |number: u8| vec![number; 1 << 20];
    for number in 0..40 {
        let cursors = Cursors::at(number.into());
        state.bury("r", "t", &[letter(number.into(), &message(number))], limits, cursors.iter()).unwrap();
    }
    assert_eq!(ids(&state, "r"), (33..=40).collect::<Vec<_>>());
    drop(state);
    let state = open(&dir);
    assert_eq!(state.cursors("r", "t").unwrap(), Some(Cursors::at(39)));
    assert_eq!(state.dead_letter("r", 33).unwrap().unwrap().1, message(32));
    assert_eq!(gaps(&state, "r"), [("t".to_owned(), vec![fell_out(0..32, 32, 2008, 2039)])]);
}

#[test]
fn nothing_is_written_if_the_cursors_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let cursor = Cursor::at(1);
    let error = state.bury("r", "t", &[letter(0, b"m")], ROOMY, [(lane(0), &cursor)]).unwrap_err();
    assert!(matches!(error, StateError::FirstSave { found: 1, .. }), "{error}");
    assert_eq!(state.dead_letter_usage("r"), DeadLetterUsage::default());
    assert_eq!(bury(&state, "r", 0, b"m", ROOMY).ids, [Some(1)]);
    assert_eq!(ids(&state, "r"), [1]);
}

#[test]
fn damaged_letters_are_named_count_and_can_be_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    (0..4).for_each(|offset| drop(bury(&state, "r", offset, b"12345", ROOMY)));
    let put = |key: Vec<u8>, value: &[u8]| {
        state.lock().as_ref().unwrap().dead_letters.keyspace.insert(key, value).unwrap();
    };
    let usage = state.dead_letter_usage("r");
    put(layout::head_key("r", 1), b"\x09");
    put(layout::message_key("r", 2), b"1234");
    state.lock().as_ref().unwrap().dead_letters.keyspace.remove(layout::message_key("r", 3)).unwrap();

    let page = state.dead_letters("r", .., 10).unwrap();
    let problem = "its format is 9, this version knows format 1".to_owned();
    assert_eq!(page.damaged, [DamagedDeadLetter { id: 1, problem }]);
    assert_eq!(page.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [2, 3, 4]);
    let error = |id| state.dead_letter("r", id).unwrap_err().to_string();
    assert_eq!(
        error(1),
        "understand the stored dead letter 1 of receiver \"r\": its format is 9, this version knows format 1; it can only be \
         dropped"
    );
    assert!(error(2).contains("its message has 4 bytes, expected 5"), "{}", error(2));
    assert!(error(3).contains("its message is not there"), "{}", error(3));
    assert!(matches!(state.begin_redrive("r", 2), Err(StateError::DamagedDeadLetter { id: 2, .. })));
    assert!(state.rebury("r", 1, death(0), ROOMY).is_err());

    assert_eq!(state.drop_dead_letters("r", &[1, 2, 3], Persist::Sync).unwrap(), 3);
    assert_eq!(state.dead_letter_usage("r").count, 1);
    assert!(state.dead_letter_usage("r").bytes < usage.bytes);

    // At the bound it goes, although nobody knows which message it was.
    put(layout::head_key("r", 4), b"");
    assert_eq!(bury(&state, "r", 9, b"", DeadLetterLimits { count: 1, ..ROOMY }).fallen, 1);
    assert_eq!(ids(&state, "r"), [5]);
    assert_eq!(gaps(&state, "r"), []);
}

#[test]
fn a_damaged_usage_is_counted_anew() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    (0..3).for_each(|offset| drop(bury(&state, "r", offset, b"12345", ROOMY)));
    state.drop_dead_letters("r", &[2], Persist::Sync).unwrap();
    let usage = state.dead_letter_usage("r");
    {
        let guard = state.lock();
        let keyspace = &guard.as_ref().unwrap().dead_letters.keyspace;
        keyspace.insert(layout::usage_key("r"), b"\x02").unwrap();
        keyspace.insert(b"u", b"\x02").unwrap();
    }
    drop(state);
    let state = open(&dir);
    assert_eq!(state.dead_letter_usage("r"), usage);
    assert_eq!(bury(&state, "r", 7, b"", ROOMY).ids, [Some(4)]);
}

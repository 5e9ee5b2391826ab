use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn open(dir: &tempfile::TempDir) -> State {
    State::open(&dir.path().join("state")).unwrap()
}

fn shed(offsets: Range<u64>, count: u64, now: u64) -> Gap {
    Gap::new(offsets, Some(count), GapReason::Shed, now)
}

fn seek(who: &str, what: &str) -> GapReason {
    GapReason::Seek { who: who.to_owned(), what: what.to_owned() }
}

fn added(gaps: &[Gap]) -> Vec<Gap> {
    let mut all = Vec::new();
    gaps.iter().for_each(|gap| merge::add(&mut all, gap.clone()));
    all
}

fn of_topic(state: &State, receiver: &str) -> Vec<Gap> {
    let KnownGaps { mut topics, damaged } = state.gaps(receiver).unwrap();
    assert_eq!((topics.len(), damaged), (1, vec![]));
    topics.remove(0).1
}

#[test]
fn a_value_is_laid_out_as_documented() {
    let gaps = [
        Gap { since: 3, merged: 5, ..shed(1..0x0102, 2, 4) },
        Gap::new(7..7, None, seek("é", "x"), 9),
        Gap::new(0..1, Some(1), GapReason::Trimmed, 0),
    ];
    let expected = [
        &b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01\x02\x01\0\0\0\0\0\0\0\x02"[..],
        b"\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\x05\0",
        b"\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x09\0\0\0\0\x04\0\0\0\x02\xc3\xa9\0\0\0\x01x",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\0\0\0\0\0\0\0\x01",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03",
    ];
    assert_eq!(layout::encode(&gaps), expected.concat());
    assert_eq!(layout::decode(&layout::encode(&gaps)).unwrap(), gaps);
}

#[test]
fn damaged_values_are_named() {
    let whole = layout::encode(&[Gap::new(1..2, Some(1), seek("who", "what"), 3)]);
    let with = |place: usize, byte| {
        let mut value = whole.clone();
        value[place] = byte;
        value
    };
    for (value, problem) in [
        (vec![], "it is empty"),
        (with(0, 2), "its format is 2, this version knows format 1"),
        (whole[..9].to_vec(), "record 0 ends early or has a text that is none"),
        (whole[..whole.len() - 1].to_vec(), "record 0 ends early or has a text that is none"),
        (with(51, 0xff), "record 0 ends early or has a text that is none"),
        ([&whole[..], &[0]].concat(), "record 1 ends early or has a text that is none"),
        (with(46, 5), "record 0 has a reason that no record can have"),
        (with(17, 0), "record 0 has a count that no record can have"),
        (with(17, 2), "record 0 has a count that no record can have"),
        (with(16, 0), "record 0 has offsets that no record can have"),
        (layout::encode(&vec![shed(0..1, 1, 0); MAX_GAPS + 1]), "it has more than 256 records"),
    ] {
        assert_eq!(layout::decode(&value).unwrap_err(), problem);
    }
}

#[test]
fn records_that_touch_become_one() {
    let gaps = added(&[shed(10..20, 5, 1), shed(30..40, 6, 2), shed(20..30, 7, 3)]);
    assert_eq!(gaps, [Gap { since: 1, ..shed(10..40, 18, 3) }]);

    let other = Gap::new(20..30, Some(7), GapReason::Trimmed, 3);
    let apart = [shed(10..20, 5, 1), other, shed(31..40, 6, 4)];
    assert_eq!(added(&apart), apart, "another reason, or a hole between them");

    let unknown = Gap::new(20..25, None, GapReason::Shed, 2);
    assert_eq!(added(&[shed(10..20, 5, 1), unknown])[0].count, None);
    let twice = added(&[shed(10..20, 10, 1), shed(15..25, 10, 2)]);
    assert_eq!(twice, [Gap { since: 1, ..shed(10..25, 15, 2) }], "no more messages than offsets");
}

#[test]
fn offsets_that_are_none_make_an_empty_record() {
    let backwards = Range { start: 9, end: 4 };
    let gaps = added(&[shed(backwards, 0, 1)]);
    assert_eq!(gaps, [shed(9..9, 0, 1)]);
    assert_eq!(layout::decode(&layout::encode(&gaps)).unwrap(), gaps);
}

#[test]
fn every_seek_is_recorded() {
    let gap = |now| Gap::new(0..5, None, seek("root", "seek newest"), now);
    assert_eq!(added(&[gap(1), gap(2)]), [gap(1), gap(2)]);
}

#[test]
fn beyond_the_bound_the_oldest_of_one_kind_become_one() {
    let first = Gap::new(0..1, Some(1), GapReason::Damaged, 0);
    let seeks = (1..=MAX_GAPS as u64 + 1)
        .map(|now| Gap::new(now..now + 1, Some(1), seek("root", &now.to_string()), now));
    let gaps = added(&[first.clone()].into_iter().chain(seeks).collect::<Vec<_>>());
    assert_eq!(gaps.len(), MAX_GAPS);
    let merged = Gap { since: 1, merged: 2, ..Gap::new(1..4, Some(3), seek("root", "3"), 3) };
    assert_eq!(gaps[..2], [first, merged], "the only one of its kind stays");
    assert_eq!(gaps[MAX_GAPS - 1].until, MAX_GAPS as u64 + 1);
}

proptest! {
    /// What was skipped stays covered, and nothing else is while no records had to be merged.
    #[test]
    fn nothing_that_was_skipped_is_forgotten(
        added in prop::collection::vec((0_u64..2000, 1_u64..4, 0_usize..4), 0..600)
    ) {
        let reasons = [GapReason::Shed, GapReason::DeadLettersFull, GapReason::Damaged, GapReason::Trimmed];
        let mut gaps = Vec::new();
        let mut skipped = vec![BTreeSet::new(); reasons.len()];
        for (now, (start, length, reason)) in (0..).zip(added) {
            let new: BTreeSet<_> = (start..start + length).collect();
            merge::add(&mut gaps, Gap::new(start..start + length, Some(length), reasons[reason].clone(), now));
            skipped[reason].extend(new);
            prop_assert!(gaps.len() <= MAX_GAPS);
        }
        for (reason, skipped) in reasons.iter().zip(&skipped) {
            let of_reason: Vec<_> = gaps.iter().filter(|gap| gap.reason == *reason).collect();
            let covered: BTreeSet<_> = of_reason.iter().flat_map(|gap| gap.offsets.clone()).collect();
            prop_assert!(skipped.is_subset(&covered));
            let exact = of_reason.iter().filter(|gap| gap.merged == 0);
            for gap in exact {
                prop_assert!(gap.offsets.clone().all(|offset| skipped.contains(&offset)));
                prop_assert_eq!(gap.count, Some(gap.offsets.end - gap.offsets.start));
            }
        }
        prop_assert_eq!(layout::decode(&layout::encode(&gaps)).unwrap(), gaps);
    }
}

#[test]
fn a_skip_is_there_after_opening_again_with_the_cursors() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    state.skip("r", "t", &[shed(0..9, 4, 1)], Cursors::at(9).iter()).unwrap();
    state.skip("r", "t", &[shed(9..12, 3, 2)], Cursors::at(12).iter().take(1)).unwrap();
    state.skip("rr", "u", &[shed(5..6, 1, 3)], []).unwrap();
    drop(state);
    let state = open(&dir);
    assert_eq!(of_topic(&state, "r"), [Gap { since: 1, ..shed(0..12, 7, 2) }]);
    assert_eq!(of_topic(&state, "rr"), [shed(5..6, 1, 3)]);
    assert_eq!(state.gaps("s").unwrap(), KnownGaps::default());
    let cursors = state.cursors("r", "t").unwrap().unwrap();
    assert_eq!(cursors.iter().map(|(_, cursor)| cursor.next()).take(2).collect::<Vec<_>>(), [12, 9]);
    assert_eq!(state.cursors("rr", "u").unwrap(), None);

    let one = state.skip("rr", "u", &[shed(6..7, 1, 3)], Cursors::at(7).iter().take(1)).unwrap_err();
    assert!(matches!(one, StateError::FirstSave { .. }), "{one}");
    assert_eq!(of_topic(&state, "rr"), [shed(5..6, 1, 3)], "half of a write is there");
    assert!(matches!(state.skip("r", "", &[], []), Err(StateError::Name { what: "topic", .. })));
}

#[test]
fn a_seek_moves_cursors_and_says_what_it_passed() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let seek_to = |to: &Cursors, what: &str| {
        let seek = Seek { who: "root".to_owned(), what: what.to_owned(), count: Some(2), now: 5 };
        let gap = state.seek("r", "t", to, seek).unwrap();
        assert_eq!(state.cursors("r", "t").unwrap().as_ref(), Some(to));
        assert_eq!(of_topic(&state, "r").last(), Some(&gap));
        assert_eq!(gap.reason, self::seek("root", what));
        (gap.offsets, gap.count)
    };
    assert_eq!(seek_to(&Cursors::at(7), "first"), (0..0, Some(0)), "nothing was to come before");
    let mut from = Cursors::at(7);
    from.get_mut(Lane::new(5).unwrap()).advance_to(9);
    from.get_mut(Lane::new(6).unwrap()).finish(20).unwrap();
    assert_eq!(seek_to(&from, "on"), (7..9, Some(2)));
    assert_eq!(seek_to(&Cursors::at(8), "on and back"), (7..8, Some(2)));
    assert_eq!(seek_to(&Cursors::at(2), "back"), (0..0, Some(0)));
    assert_eq!(of_topic(&state, "r").len(), 4);

    let damaged = |value: &[u8]| {
        let guard = state.lock();
        guard.as_ref().unwrap().cursors.keyspace.insert(key("r", "t").unwrap(), value).unwrap();
    };
    damaged(b"\x09");
    assert_eq!(seek_to(&Cursors::at(3), "mend"), (0..3, Some(2)), "where they were is not known");
}

#[test]
fn records_that_cannot_be_understood_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let put = |key: &[u8], value: &[u8]| {
        state.lock().as_ref().unwrap().gaps.keyspace.insert(key, value).unwrap();
    };
    put(b"r\0t", b"\x09");
    put(b"r\0\xff", b"\x01");
    state.skip("r", "u", &[shed(0..1, 1, 1)], []).unwrap();
    let known = state.gaps("r").unwrap();
    assert_eq!(known.topics, [("u".to_owned(), vec![shed(0..1, 1, 1)])]);
    assert_eq!(
        known.damaged,
        [
            r#""r\\x00t": its format is 9, this version knows format 1"#,
            r#""r\\x00\\xff": understand the key "r\\x00\\xff" in the state database: expected the names of a receiver and a topic"#
        ]
    );

    state.skip("r", "t", &[shed(4..5, 1, 1)], Cursors::at(5).iter()).unwrap();
    let known = state.gaps("r").unwrap();
    assert_eq!(known.topics[0], ("t".to_owned(), vec![shed(4..5, 1, 1)]));
    assert_eq!(known.damaged[0], r#""r\\x00t\\x00": it could not be understood and was set aside"#);
    let aside = state.lock().as_ref().unwrap().gaps.keyspace.get(b"r\0t\0").unwrap().unwrap();
    assert_eq!(&*aside, b"\x09");
}

#[test]
fn long_texts_are_cut() {
    let long = "é".repeat(MAX_WHAT);
    let gaps = layout::decode(&layout::encode(&[Gap::new(0..0, None, seek(&long, &long), 0)])).unwrap();
    assert_eq!(gaps[0].reason, seek(&"é".repeat(MAX_WHO / 2), &"é".repeat(MAX_WHAT / 2)));
}

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::layout;

/// Offsets of the model are below this, so that random spans meet each other.
const SPACE: u64 = 120;

#[derive(Clone, Debug)]
enum Step {
    Finish(u64),
    FinishSpan(Range<u64>),
    AdvanceTo(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..SPACE).prop_map(Step::Finish),
        3 => (0..SPACE, 0..20u64).prop_map(|(start, length)| Step::FinishSpan(start..(start + length).min(SPACE))),
        1 => (0..SPACE / 2).prop_map(Step::AdvanceTo),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn agrees_with_a_plain_set(start in 0..20u64, steps in steps()) {
        let mut truth: BTreeSet<u64> = (0..start).collect();
        let mut cursor = Cursor::at(start);
        for step in steps {
            match step {
                Step::Finish(offset) => {
                    truth.insert(offset);
                    cursor.finish(offset).unwrap();
                }
                Step::FinishSpan(span) => {
                    truth.extend(span.clone());
                    cursor.finish_span(span).unwrap();
                }
                Step::AdvanceTo(next) => {
                    truth.extend(0..next);
                    cursor.advance_to(next);
                }
            }

            for offset in 0..=SPACE {
                prop_assert_eq!(cursor.is_finished(offset), truth.contains(&offset), "offset {}", offset);
            }
            let next = (0..=SPACE).find(|offset| !truth.contains(offset)).unwrap();
            prop_assert_eq!(cursor.next(), next);
            let mut end_of_last = next;
            for run in cursor.runs() {
                prop_assert!(end_of_last < run.start && run.start < run.end, "runs touch or are empty: {:?}", cursor);
                end_of_last = run.end;
            }
            prop_assert_eq!(cursor.room(), MAX_RUNS - cursor.runs().len());
            let mut cursors = Cursors::at(3);
            cursors.get_mut(Lane::new(1).unwrap()).clone_from(&cursor);
            prop_assert_eq!(layout::decode(&layout::encode(&cursors)), Ok(cursors));
        }
    }
}

#[test]
fn a_full_cursor_refuses_only_what_needs_another_run() {
    let mut cursor = Cursor::at(0);
    for run in 1..=MAX_RUNS as u64 {
        cursor.finish(run * 10).unwrap();
    }
    assert_eq!(cursor.room(), 0);
    let full = cursor.clone();

    assert_eq!(cursor.finish(15), Err(CursorFull { offset: 15, next: 0 }));
    assert_eq!(cursor, full, "a refusal changes the cursor");

    cursor.finish(11).unwrap();
    cursor.finish(10).unwrap();
    assert_eq!(cursor.room(), 0, "offsets that touch a run need no room");

    cursor.finish_span(0..10).unwrap();
    assert_eq!((cursor.next(), cursor.room()), (12, 1));
    cursor.finish(15).unwrap();
}

#[test]
fn a_watermark_never_moves_down() {
    let mut cursor = Cursor::at(7);
    cursor.finish(9).unwrap();
    let before = cursor.clone();
    cursor.advance_to(3);
    assert_eq!(cursor, before);
    cursor.advance_to(8);
    assert_eq!(cursor, {
        let mut expected = Cursor::at(8);
        expected.finish(9).unwrap();
        expected
    });
    cursor.advance_to(9);
    assert_eq!(cursor, Cursor::at(10), "the run that the watermark touches joins it");
}

#[test]
fn the_last_offset_does_not_overflow() {
    let mut cursor = Cursor::at(0);
    cursor.finish(u64::MAX).unwrap();
    cursor.finish(u64::MAX - 1).unwrap();
    assert!(cursor.is_finished(u64::MAX - 1));
}

#[test]
fn cursors_of_a_topic_know_their_lowest() {
    let mut cursors = Cursors::at(5);
    assert_eq!(cursors.min_next(), 5);
    for (lane, next) in [(0, 9), (63, 4), (17, 90)] {
        *cursors.get_mut(Lane::new(lane).unwrap()) = Cursor::at(next);
    }
    assert_eq!(cursors.min_next(), 4);
    let moved: Vec<_> =
        cursors.iter().filter(|(_, cursor)| cursor.next() != 5).map(|(lane, _)| lane.index()).collect();
    assert_eq!(moved, [0, 17, 63]);
    assert_eq!(cursors.iter().count(), LANES);
}

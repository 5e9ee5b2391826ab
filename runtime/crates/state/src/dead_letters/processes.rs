//! Tests that need a process of their own: of failing writes and of ends without warning.

use std::{env, path::Path, process};

use super::{tests::*, *};
use crate::{
    Cursors, GapReason, KnownGaps,
    store::processes::{DIR, journal, limit_file_size, run_child},
};

const LIMITS: DeadLetterLimits = DeadLetterLimits { count: 2, bytes: u64::MAX };

/// Everything that a burial changes.
fn all(state: &State) -> (DeadLetterPage, DeadLetterUsage, Option<Cursors>, KnownGaps) {
    let page = state.dead_letters("r", .., MAX_PAGE).unwrap();
    for entry in &page.entries {
        let message = vec![u8::try_from(entry.death.offset).unwrap(); 300];
        assert_eq!(state.dead_letter("r", entry.id).unwrap().unwrap().1, message);
    }
    (page, state.dead_letter_usage("r"), state.cursors("r", "t").unwrap(), state.gaps("r").unwrap())
}

fn bury_next(state: &State, offset: u8) -> Result<Burial, StateError> {
    let message = vec![offset; 300];
    let cursors = Cursors::at(u64::from(offset) + 1);
    state.bury("r", "t", &[letter(offset.into(), &message)], LIMITS, cursors.iter())
}

#[test]
fn a_failed_burial_changes_nothing() {
    let Some(dir) = env::var_os(DIR) else {
        let dir = tempfile::tempdir().unwrap();
        return run_child("dead_letters::processes::a_failed_burial_changes_nothing", dir.path(), 0);
    };
    let dir = Path::new(&dir).join("state");
    let state = State::open(&dir).unwrap();
    bury_next(&state, 0).unwrap();
    bury_next(&state, 1).unwrap();
    // The write, of some 1,500 bytes, is cut at several places: in a head, a message, the cursors, the gap.
    for (offset, cut) in (2..).zip([0, 20, 300, 600, 900, 1200]) {
        let before = all(&state);
        let (_file, end) = journal(&dir);
        limit_file_size(Some(end + cut));
        let error = bury_next(&state, offset).unwrap_err();
        assert!(matches!(error, StateError::Write { .. }), "{error:?}");
        limit_file_size(None);
        assert_eq!(all(&state), before, "cut at {cut}: a part of a write is there");
        assert_eq!(bury_next(&state, offset).unwrap().fallen, 1);
        let (page, usage, cursors, gaps) = all(&state);
        let ids: Vec<_> = page.entries.iter().map(|entry| entry.id).collect();
        assert_eq!((ids, usage.count), (vec![offset.into(), u64::from(offset) + 1], 2));
        assert_eq!(cursors, Some(Cursors::at(u64::from(offset) + 1)));
        assert_eq!(gaps.topics[0].1[0].offsets, 0..u64::from(offset) - 1);
    }
    let before = all(&state);
    drop(state);
    assert_eq!(all(&State::open(&dir).unwrap()), before);
}

#[test]
fn a_burial_survives_the_end_of_the_process() {
    if let Some(dir) = env::var_os(DIR) {
        let state = State::open(&Path::new(&dir).join("state")).unwrap();
        (0..3).for_each(|offset| drop(bury_next(&state, offset).unwrap()));
        let gap = crate::Gap::new(9..12, Some(3), GapReason::Shed, 5);
        state.skip("r", "t", &[gap], Cursors::at(12).iter()).unwrap();
        state.begin_redrive("r", 2).unwrap();
        // No destructor runs: what only this process knows is lost.
        process::exit(7);
    }
    let dir = tempfile::tempdir().unwrap();
    run_child("dead_letters::processes::a_burial_survives_the_end_of_the_process", dir.path(), 7);

    let state = State::open(&dir.path().join("state")).unwrap();
    let (page, usage, cursors, gaps) = all(&state);
    let found: Vec<_> = page.entries.iter().map(|entry| (entry.id, entry.redriving)).collect();
    assert_eq!((found, usage.count), (vec![(2, false), (3, false)], 2));
    assert_eq!(cursors, Some(Cursors::at(12)));
    let offsets: Vec<_> = gaps.topics[0].1.iter().map(|gap| gap.offsets.clone()).collect();
    assert_eq!(offsets, [0..1, 9..12]);
    assert_eq!(bury_next(&state, 12).unwrap().ids, [Some(4)]);
}

use std::path::PathBuf;

use super::*;
use crate::{Cursors, Persist, State};

/// How many batches are written.
const BATCHES: u64 = 8;

/// A database with some batches in its journal, closed.
fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    for next in 0..BATCHES {
        state.save("recorder", "metrics", Cursors::at(next).iter(), Persist::Sync).unwrap();
    }
    dir
}

fn state_of(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("state")
}

fn journals(dir: &Path) -> Vec<PathBuf> {
    let names = names_in(dir).unwrap();
    names.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "jnl")).collect()
}

/// The journal, without the zeros at its end.
fn content(journal: &Path) -> Vec<u8> {
    let mut content = fs::read(journal).unwrap();
    content.truncate(content.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    content
}

fn kinds(dir: &Path) -> Vec<Kind> {
    problems(dir).unwrap().into_iter().map(|problem| problem.kind).collect()
}

#[test]
fn what_the_database_writes_is_understood() {
    let dir = written();
    let state = state_of(&dir);
    assert_eq!(problems(&state).unwrap(), []);
    for journal in journals(&state) {
        let mut walked = journal::Walked::default();
        walked.walk(&journal).unwrap();
        assert_eq!(walked.end, None, "it is walked over to its end");
    }
    // Opened again, what was in the journal is in tables, with a manifest that says so.
    drop(State::open(&state).unwrap());
    drop(State::open(&state).unwrap());
    assert_eq!(problems(&state).unwrap(), []);
    assert!(names_in(&state.join("keyspaces")).unwrap().len() > 3);
}

#[test]
fn a_journal_that_ends_anywhere_is_torn_there() {
    let dir = written();
    let state = state_of(&dir);
    let [journal] = &journals(&state)[..] else { panic!("there is one journal") };
    let whole = content(journal);
    // Where batches end.
    let ends: Vec<_> = (4..=whole.len()).filter(|end| whole[..*end].ends_with(b"FJL\x03")).collect();
    assert!(ends.len() as u64 >= BATCHES, "{}", ends.len());
    for length in (0..whole.len()).step_by(97).chain(whole.len() - 40..whole.len()) {
        let last = ends.iter().rfind(|end| **end <= length).copied().unwrap_or(0);
        for zeros in [0, 5000] {
            fs::write(journal, [&whole[..length], &vec![0; zeros]].concat()).unwrap();
            let rest = whole[last..length].iter().rposition(|byte| *byte != 0);
            let expected = rest.map(|_| Kind::Torn { position: last as u64 });
            assert_eq!(kinds(&state), Vec::from_iter(expected), "length {length}, {zeros} zeros");
        }
    }
}

#[test]
fn a_sector_that_was_never_written_is_no_damage() {
    let dir = written();
    let state = state_of(&dir);
    let [journal] = &journals(&state)[..] else { panic!("there is one journal") };
    let whole = content(journal);
    for sector in 1..whole.len() / 512 {
        let mut holed = whole.clone();
        holed[sector * 512..(sector + 1) * 512].fill(0);
        fs::write(journal, &holed).unwrap();
        assert!(matches!(kinds(&state)[..], [Kind::Torn { .. }]), "sector {sector}");
    }
}

#[test]
fn a_flipped_bit_is_damage() {
    let dir = written();
    let state = state_of(&dir);
    let [journal] = &journals(&state)[..] else { panic!("there is one journal") };
    let whole = content(journal);
    let end = whole.len() - 13;
    let last = whole[..end].windows(4).rposition(|bytes| bytes == b"FJL\x03").unwrap() + 4;
    // Its number may be any that is higher.
    let number = last + 5..last + 13;
    for byte in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        fs::write(journal, &damaged).unwrap();
        match kinds(&state)[..] {
            [Kind::Damage] => {}
            // Without its end, the last batch looks as if it had not been finished.
            [Kind::Torn { .. }] if byte >= end => {}
            [] if number.contains(&byte) => {}
            ref other => panic!("byte {byte}: {other:?}"),
        }
    }
}

#[test]
fn everything_that_the_database_trusts_is_looked_at() {
    let dir = written();
    let state = state_of(&dir);
    drop(State::open(&state).unwrap());
    let trusted: Vec<_> = [state.join("version")]
        .into_iter()
        .chain(names_in(&state.join("keyspaces")).unwrap().into_iter().flat_map(|keyspace| {
            let names = names_in(&keyspace).unwrap();
            let current = format!("v{}", fs::read(keyspace.join("current")).unwrap()[0]);
            // Older manifests may be there as well.
            let trusted = |path: &PathBuf| path.ends_with("current") || path.ends_with(&current);
            names.into_iter().filter(trusted).collect::<Vec<_>>()
        }))
        .collect();
    assert!(trusted.len() > 8, "{trusted:?}");
    for path in trusted {
        let whole = fs::read(&path).unwrap();
        for byte in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << (byte % 8);
            fs::write(&path, &damaged).unwrap();
            assert_eq!(kinds(&state), [Kind::Damage], "{path:?}, byte {byte}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(kinds(&state), [Kind::Damage], "{path:?} cut");
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(problems(&state).unwrap(), []);
    // As if something had been written to it.
    fs::write(state.join("keyspaces/1/tables/7"), "a table").unwrap();
    for missing in ["version", "keyspaces/0/current", "keyspaces/1/current"] {
        let path = state.join(missing);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(kinds(&state), [Kind::Damage], "{path:?}");
        fs::write(&path, whole).unwrap();
    }
}

//! What a check says of damage is what opening the log and reading it then comes to, and it changes nothing.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::{Effect, LogCheck, check};

/// Every so many bytes are tried: prime, so that it falls on every field of blocks of one size. With 1 all are, in a minute.
const STEP: usize = 19;

/// Every file below the directory with its contents.
fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

fn put(files: &BTreeMap<PathBuf, Vec<u8>>, dir: &Path) {
    fs::remove_dir_all(dir).unwrap();
    for (path, contents) in files {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
}

/// Twelve records in four segments, the last of which is not full.
async fn written(clean: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { segment_bytes: 400, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    for n in 0..11 {
        topic.append(vec![record(n % 3, format!("number {n:02}"))], LONG).await.unwrap();
    }
    if clean {
        log.close().await
    } else {
        crash(log)
    }
    assert_eq!(segments(dir.path()).len(), 4);
    dir
}

fn checked(dir: &Path) -> LogCheck {
    let before = all_files(dir);
    let checked = check(dir, |_| {}).unwrap();
    assert_eq!(all_files(dir), before, "a check changes nothing");
    checked
}

/// Checks, opens and reads, and gives the effects that the check told.
async fn compare(dir: &Path, what: &str) -> Vec<Effect> {
    let found = checked(dir).topics.remove(0);
    let effects: Vec<_> = found.findings.iter().map(|finding| finding.effect).collect();
    let lost_by = |effect| {
        let by = found.findings.iter().filter(move |finding| finding.effect == effect);
        by.flat_map(|finding| finding.lost.iter().cloned()).collect::<Vec<_>>()
    };
    let log = match Log::open(dir, vec![options(Durability::Os)]) {
        Ok(log) => log,
        Err(error) => {
            assert!(effects.contains(&Effect::Refused), "{what}: {error} was not foretold: {found:#?}");
            return effects;
        }
    };
    assert!(!effects.contains(&Effect::Refused), "{what}: opened all the same: {found:#?}");
    let report = report(&log).clone();
    let topic = log.topic(NAME).unwrap().clone();
    crash(log);
    let (entries, lost) = drain(&mut topic.reader(LaneSet::ALL, 0)).await;
    let offsets = |ranges: &[Range<u64>]| ranges.iter().cloned().flatten().collect::<Vec<_>>();
    assert_eq!(offsets(&lost_by(Effect::Skipped)), offsets(&lost), "{what}: {found:#?}");
    assert_eq!(found.records, entries.len() as u64, "{what}: {found:#?}");
    assert_eq!(
        found.offsets,
        entries.first().zip(entries.last()).map(|(first, last)| (first.offset, last.offset)),
        "{what}"
    );
    assert_eq!(effects.contains(&Effect::Cut), report.cut.is_some(), "{what}: {found:#?} {report:#?}");
    if let Some(cut) = &report.cut {
        assert_eq!(offsets(&lost_by(Effect::Cut)), offsets(&cut.offsets), "{what}");
    }
    assert_eq!(effects.contains(&Effect::FarAbove), report.bound_lost, "{what}: {found:#?} {report:#?}");
    assert_eq!(found.clean, report.clean, "{what}: {found:#?} {report:#?}");
    effects
}

#[tokio::test]
async fn a_whole_log_is_said_to_be_whole() {
    for clean in [true, false] {
        let dir = written(clean).await;
        let found = checked(dir.path());
        assert_eq!(found.ignored, Vec::<PathBuf>::new());
        let [topic] = &found.topics[..] else { panic!("{found:#?}") };
        assert_eq!((topic.topic.as_str(), topic.segments, topic.blocks, topic.records), (NAME, 4, 11, 11));
        assert_eq!((topic.offsets, topic.clean), (Some((0, 10)), clean));
        let bytes: u64 = segments(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(topic.bytes, bytes);
        assert_eq!(compare(dir.path(), "whole").await, []);
    }
}

#[tokio::test]
async fn flipped_bits_and_cuts_are_told_as_opening_tells_it() {
    let mut seen = Vec::new();
    for clean in [true, false] {
        let dir = written(clean).await;
        let whole = all_files(dir.path());
        for (path, contents) in whole.iter().filter(|(path, _)| !path.ends_with(".lock")) {
            for byte in (usize::from(clean)..contents.len()).step_by(STEP) {
                let flipped =
                    [&contents[..byte], &[contents[byte] ^ (1 << (byte % 8))], &contents[byte + 1..]];
                for (damage, damaged) in [("flipped", flipped.concat()), ("cut", contents[..byte].to_vec())] {
                    put(&whole, dir.path());
                    fs::write(path, damaged).unwrap();
                    let what = format!("{} {damage} at {byte}, clean {clean}", path.display());
                    let effects = compare(dir.path(), &what).await;
                    // The end of an unclean segment may end anywhere.
                    assert!(!effects.is_empty() || (damage == "cut" && !clean), "{what} was not noticed");
                    seen.extend(effects);
                }
            }
            put(&whole, dir.path());
            fs::remove_file(path).unwrap();
            seen.extend(compare(dir.path(), &format!("{} removed, clean {clean}", path.display())).await);
        }
    }
    for effect in [Effect::Cut, Effect::Skipped, Effect::FarAbove, Effect::Refused] {
        assert!(seen.contains(&effect), "{effect:?} never came about");
    }
}

#[tokio::test]
async fn what_was_trimmed_is_not_missed_and_what_is_strange_is_named() {
    let dir = written(true).await;
    let (log, topic) = open(dir.path(), options(Durability::Os));
    let everything = crate::Retention { retain: Some(Duration::ZERO), retain_bytes: None };
    assert_eq!(topic.trim(6, everything).await.unwrap().segments, 2);
    log.close().await;
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::write(dir.path().join(NAME).join("7.seg"), "not ours").unwrap();
    fs::write(dir.path().join(NAME).join("bound.unfinished"), "half").unwrap();

    let found = checked(dir.path());
    assert_eq!(found.ignored, [dir.path().join("notes.txt")]);
    let topic = &found.topics[0];
    assert_eq!(topic.ignored, [dir.path().join(NAME).join("7.seg")]);
    assert_eq!((topic.offsets, topic.segments, &topic.findings[..]), (Some((6, 10)), 2, &[][..]));
    assert_eq!(compare(dir.path(), "trimmed").await, []);
}

#[tokio::test]
async fn a_missing_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = check(&dir.path().join("log"), |_| {}).unwrap_err();
    assert!(matches!(error, crate::OpenError::Io { .. }), "{error:?}");
}

//! Damage to every kind of file: what is whole is served, what is not is told, and nothing is served altered.

use super::*;
use crate::OpenError;
use crate::bound::{JUMP, RESERVE};

const HEADER: usize = crate::segment::HEADER_BYTES;
const TEXTS: [&str; 5] = ["one", "the second", "3", "", "five is the last"];

/// Where the block of each of [`TEXTS`] ends in its segment.
fn ends() -> Vec<usize> {
    TEXTS
        .iter()
        .scan(HEADER, |end, text| {
            *end += crate::block::HEADER_BYTES + crate::block::ROW_BYTES + text.len();
            Some(*end)
        })
        .collect()
}

/// A log with the texts in one segment, a block each.
async fn written(clean: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    append_each(&topic, &TEXTS).await;
    if clean {
        log.close().await
    } else {
        crash(log)
    }
    assert_eq!(std::fs::metadata(last_segment(dir.path())).unwrap().len(), *ends().last().unwrap() as u64);
    dir
}

fn all_but(missing: impl Fn(usize) -> bool) -> Vec<(u64, String)> {
    let whole = TEXTS.iter().enumerate().filter(|(n, _)| !missing(*n));
    whole.map(|(n, text)| (n as u64, (*text).to_owned())).collect()
}

#[tokio::test]
async fn a_segment_torn_at_any_byte_gives_its_whole_blocks() {
    let dir = written(false).await;
    let segment = last_segment(dir.path());
    let bound = std::fs::read(dir.path().join(NAME).join("bound")).unwrap();
    let whole = std::fs::read(&segment).unwrap();
    for length in HEADER..=whole.len() {
        // As the crash left it.
        std::fs::remove_dir_all(dir.path().join(NAME)).unwrap();
        std::fs::create_dir(dir.path().join(NAME)).unwrap();
        std::fs::write(dir.path().join(NAME).join("bound"), &bound).unwrap();
        std::fs::write(&segment, &whole[..length]).unwrap();

        let (log, topic) = open(dir.path(), options(Durability::Os));
        let kept = ends().iter().filter(|end| **end <= length).count();
        let kept_bytes = ends()[..kept].last().copied().unwrap_or(HEADER);
        let report = report(&log).clone();
        assert_eq!((report.clean, report.end, report.next), (false, kept as u64, RESERVE + 1), "{length}");
        match &report.cut {
            None => assert_eq!(kept_bytes, length),
            Some(cut) => {
                assert_eq!((cut.position, cut.bytes), (kept_bytes as u64, (length - kept_bytes) as u64));
                assert!(cut.offsets.is_empty() || cut.offsets == [kept as u64..kept as u64 + 1], "{cut:?}");
            }
        }
        assert_eq!(report.lost, []);
        assert_eq!(std::fs::metadata(&segment).unwrap().len(), kept_bytes as u64);
        assert_eq!(append_each(&topic, &["more"]).await, [report.next..report.next + 1]);
        log.close().await;
        let (read, lost, _) = contents(dir.path(), Durability::Os).await;
        let mut expected = all_but(|n| n >= kept);
        expected.push((report.next, "more".into()));
        assert_eq!((read, lost), (expected, vec![]), "{length}");
    }
}

#[tokio::test]
async fn any_flipped_bit_costs_its_block_and_no_other() {
    for clean in [true, false] {
        let dir = written(clean).await;
        let segment = last_segment(dir.path());
        let whole = std::fs::read(&segment).unwrap();
        let bound = std::fs::read(dir.path().join(NAME).join("bound")).unwrap();
        for byte in HEADER..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << (byte % 8);
            std::fs::write(&segment, &damaged).unwrap();
            std::fs::write(dir.path().join(NAME).join("bound"), &bound).unwrap();

            let hit = ends().iter().position(|end| byte < *end).unwrap();
            let last = hit == TEXTS.len() - 1;
            let (log, topic) = open(dir.path(), options(Durability::Os));
            let report = report(&log).clone();
            crash(log);
            let (read, lost) = drain(&mut topic.reader(LaneSet::ALL, 0)).await;
            assert_eq!(texts(&read), all_but(|n| n == hit), "byte {byte}");
            let gone = [hit as u64..hit as u64 + 1];
            if last && !clean {
                // Looks like a write that the crash interrupted.
                assert!(report.cut.is_some());
                assert_eq!((lost, report.lost), (vec![], vec![]));
            } else {
                assert_eq!(report.cut, None);
                assert_eq!((&lost[..], &report.lost[..]), (&gone[..], &gone[..]), "byte {byte}");
                assert_eq!(std::fs::read(&segment).unwrap(), damaged, "it stays as it is");
            }
        }
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_told_to_whom_it_concerns() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    for n in 0..9 {
        topic.append(vec![record(n % 3, "same length"); 2], LONG).await.unwrap();
    }
    log.close().await;
    let segment = last_segment(dir.path());
    let mut bytes = std::fs::read(&segment).unwrap();
    let block = (bytes.len() - HEADER) / 9;
    // The body of block 4 (lane 1, offsets 8 and 9).
    bytes[HEADER + 5 * block - 1] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    let (log, topic) = open(dir.path(), options(Durability::Os));
    assert_eq!(report(&log).lost, [8..10]);
    assert!(report(&log).clean);
    let next = append_each(&topic, &["more"]).await[0].start;
    assert_eq!(next, 18, "the end of the segment is whole");
    let mut readers: Vec<_> = (0..3).map(|n| topic.reader(lane(n).into(), 0)).collect();
    let all = topic.reader(LaneSet::ALL, 0).next(100, 10_000).await.unwrap();
    assert_eq!((all.entries.len(), all.lost), (8, vec![]), "what lies before the damage comes before it");
    let mut from_within = topic.reader(LaneSet::ALL, 9);
    let mut from_behind = topic.reader(LaneSet::ALL, 10);
    log.close().await;
    assert_eq!(drain(&mut readers[0]).await.1, []);
    let (entries, lost) = drain(&mut readers[1]).await;
    assert_eq!(lost, [8..10]);
    assert_eq!(entries.iter().map(|e| e.offset).collect::<Vec<_>>(), [2, 3, 14, 15, 18]);
    assert_eq!(drain(&mut readers[2]).await.1, []);
    assert_eq!(drain(&mut from_within).await.1, [9..10]);
    assert_eq!(drain(&mut from_behind).await.1, []);
}

#[tokio::test]
async fn a_clean_segment_that_lost_its_end_is_told_and_left() {
    let dir = written(true).await;
    let segment = last_segment(dir.path());
    let whole = std::fs::read(&segment).unwrap();
    for length in [HEADER, ends()[1], ends()[3] + 5] {
        std::fs::write(&segment, &whole[..length]).unwrap();
        let kept = ends().iter().filter(|end| **end <= length).count() as u64;
        let (log, topic) = open(dir.path(), options(Durability::Os));
        assert_eq!(report(&log).lost, if kept < 4 { vec![kept..5] } else { vec![4..5] });
        assert_eq!((topic.end(), report(&log).next), (5, 5));
        crash(log);
        let (read, lost) = drain(&mut topic.reader(LaneSet::ALL, 0)).await;
        assert_eq!((texts(&read), lost), (all_but(|n| n as u64 >= kept), vec![kept..5]));
        assert_eq!(std::fs::metadata(&segment).unwrap().len(), length as u64);
    }
}

/// Many segments, and one of them is damaged, shortened or gone: found when it is read.
#[tokio::test]
async fn damage_in_an_older_segment_is_told_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { segment_bytes: 400, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    let names: Vec<_> = (0..20).map(|n| format!("number {n:02}")).collect();
    append_each(&topic, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    log.close().await;
    // 64 bytes of header and 3 blocks of 89 bytes each: offsets 6, 7 and 8 are in the third.
    let third = segments(dir.path())[2].clone();
    assert_eq!(third.file_name().unwrap(), "00000000000000000006.seg");
    let whole = std::fs::read(&third).unwrap();
    let expected = |gone: &Range<u64>| {
        let kept = names.iter().enumerate().filter(|(n, _)| !gone.contains(&(*n as u64)));
        kept.map(|(n, name)| (n as u64, name.clone())).collect::<Vec<_>>()
    };
    let check = async |gone: Range<u64>| {
        let (read, lost, report) = contents(dir.path(), Durability::Os).await;
        assert_eq!(read, expected(&gone));
        assert_eq!(lost, [gone]);
        assert!(report.clean && report.lost.is_empty());
    };

    std::fs::write(&third, &whole[..whole.len() - 1]).unwrap();
    check(8..9).await;
    std::fs::write(&third, &whole[..HEADER]).unwrap();
    check(6..9).await;
    let mut damaged = whole.clone();
    damaged[HEADER + 89 + 3] ^= 1;
    std::fs::write(&third, &damaged).unwrap();
    check(7..8).await;
    damaged[HEADER + 178 + 3] ^= 1;
    std::fs::write(&third, &damaged).unwrap();
    check(7..9).await;
    std::fs::remove_file(&third).unwrap();
    check(6..9).await;
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    assert_eq!(topic.start(), 9);
    log.close().await;
    check(0..9).await;
}

#[tokio::test]
async fn a_damaged_segment_header_is_refused_and_moving_the_file_helps() {
    let dir = written(true).await;
    let segment = last_segment(dir.path());
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let refused = Log::open(dir.path(), vec![options(Durability::Os)]).unwrap_err();
    assert!(matches!(refused, OpenError::Segment { .. }), "{refused}");
    let advice = refused.to_string();
    assert!(advice.contains(segment.to_str().unwrap()) && advice.contains("move it out"), "{advice}");

    std::fs::remove_file(&segment).unwrap();
    let (read, lost, report) = contents(dir.path(), Durability::Os).await;
    assert_eq!((read, lost), (vec![], vec![0..5]));
    assert_eq!(report.next, 5, "no offset is used again");
}

#[tokio::test]
async fn without_its_bound_a_topic_goes_on_far_above() {
    for damage in [true, false] {
        let dir = written(true).await;
        let bound = dir.path().join(NAME).join("bound");
        if damage {
            std::fs::write(&bound, "not a bound").unwrap();
        } else {
            std::fs::remove_file(&bound).unwrap();
        }
        let (log, topic) = open(dir.path(), options(Durability::Os));
        assert!(report(&log).bound_lost);
        assert_eq!(append_each(&topic, &["more"]).await, [5 + JUMP..6 + JUMP]);
        log.close().await;
        let (read, lost, report) = contents(dir.path(), Durability::Os).await;
        assert_eq!((read.len(), lost, report.bound_lost), (6, vec![], false));
    }
}

/// As a backup leaves it that copied the bound before the segments.
#[tokio::test]
async fn a_bound_older_than_the_segments_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    append_each(&topic, &["a"]).await;
    log.close().await;
    let bound = dir.path().join(NAME).join("bound");
    let old = std::fs::read(&bound).unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    append_each(&topic, &["b", "c"]).await;
    log.close().await;
    std::fs::write(&bound, old).unwrap();
    let (read, lost, report) = contents(dir.path(), Durability::Os).await;
    assert_eq!(read, [(0, "a".into()), (1, "b".into()), (2, "c".into())]);
    assert_eq!((lost, report.bound_lost, report.next), (vec![], true, 3 + JUMP));
}

#[tokio::test]
async fn a_damaged_bound_without_segments_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Memory));
    append_each(&topic, &["a"]).await;
    log.close().await;
    std::fs::write(dir.path().join(NAME).join("bound"), "not a bound").unwrap();
    let refused = Log::open(dir.path(), vec![options(Durability::Memory)]).unwrap_err();
    assert!(matches!(refused, OpenError::Bound { .. }), "{refused}");
}

#[tokio::test]
async fn files_of_others_are_left_alone_and_unfinished_ones_removed() {
    let dir = written(true).await;
    let topic_dir = dir.path().join(NAME);
    std::fs::write(topic_dir.join("notes.txt"), "mine").unwrap();
    std::fs::write(topic_dir.join("7.seg"), "not ours").unwrap();
    std::fs::write(topic_dir.join("bound.unfinished"), "half").unwrap();
    let (read, _, report) = contents(dir.path(), Durability::Os).await;
    assert_eq!(read.len(), TEXTS.len());
    assert_eq!(report.ignored, [topic_dir.join("7.seg"), topic_dir.join("notes.txt")]);
    assert!(!topic_dir.join("bound.unfinished").exists());
}

//! Retention: which segments go, what readers are told, and that neither is taken for damage.

use super::*;
use crate::{Retention, TrimError, Trimmed};

/// What is below the offset goes at once.
const NOTHING: Retention = Retention { retain: Some(Duration::ZERO), retain_bytes: None };
/// The length of a segment with one block of one record with one letter.
const ONE: u64 = 64 + 64 + 16 + 1;

fn one_a_segment(durability: Durability) -> TopicOptions {
    TopicOptions { segment_bytes: 1, tail_bytes: 1, ..options(durability) }
}

fn now() -> u64 {
    crate::segment::now()
}

/// Appends letters, each to a segment of its own.
async fn letters(topic: &Topic, letters: &str, time: u64) {
    for letter in letters.chars() {
        let record = Record { time, ..record(1, letter.to_string()) };
        topic.append(vec![record], LONG).await.unwrap();
    }
}

/// What the reader still reads, and what it is told to be trimmed and lost.
async fn gaps(reader: &mut Reader) -> (String, Vec<Range<u64>>, Vec<Range<u64>>) {
    let mut given = Given::default();
    given.drain(reader).await;
    (texts(&given.entries).into_iter().map(|(_, text)| text).collect(), given.trimmed, given.lost)
}

#[tokio::test]
async fn what_every_receiver_is_past_goes_and_stays_away() {
    for durability in [Durability::Fsync, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let (log, topic) = open(dir.path(), one_a_segment(durability));
        letters(&topic, "abcdef", now()).await;
        assert_eq!((topic.bytes(), topic.segments()), (6 * ONE, 6));
        assert_eq!(topic.trim(3, Retention::default()).await.unwrap(), Trimmed::default(), "all is kept");
        assert_eq!(topic.trim(3, NOTHING).await.unwrap(), Trimmed { segments: 3, bytes: 3 * ONE });
        assert_eq!(topic.trim(3, NOTHING).await.unwrap(), Trimmed::default());
        assert_eq!((topic.start(), topic.bytes(), segments(dir.path()).len()), (3, 3 * ONE, 3));
        let mut from_below = topic.reader(LaneSet::ALL, 1);
        log.close().await;
        assert_eq!(gaps(&mut from_below).await, ("def".into(), vec![1..3], vec![]));

        let (log, topic) = open(dir.path(), one_a_segment(durability));
        assert!(report(&log).clean && report(&log).lost.is_empty());
        assert_eq!(topic.start(), 3);
        let refused = {
            let closed = topic.clone();
            log.close().await;
            closed.trim(5, NOTHING).await.unwrap_err()
        };
        assert!(matches!(refused, TrimError::Closed { .. }), "{refused}");
        assert_eq!(gaps(&mut topic.reader(LaneSet::ALL, 0)).await, ("def".into(), vec![0..3], vec![]));
    }
}

#[tokio::test]
async fn a_segment_that_is_needed_in_part_stays() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { segment_bytes: 300, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    append_each(&topic, &["a"; 8]).await;
    // Two in each segment.
    topic.trim(3, NOTHING).await.unwrap();
    assert_eq!(topic.start(), 2);
    topic.trim(4, NOTHING).await.unwrap();
    assert_eq!(topic.start(), 4);
    log.close().await;
}

#[tokio::test]
async fn what_is_retained_goes_by_age_or_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3_600);
    let (log, topic) = open(dir.path(), one_a_segment(Durability::Os));
    letters(&topic, "ab", now() - 2 * 3_600_000).await;
    letters(&topic, "cdefg", now()).await;
    let by_age = Retention { retain: Some(hour), retain_bytes: None };
    topic.trim(1, by_age).await.unwrap();
    assert_eq!(topic.start(), 1);
    topic.trim(6, by_age).await.unwrap();
    assert_eq!(topic.start(), 2, "the others are not old enough");
    let by_bytes = Retention { retain: Some(hour), retain_bytes: Some(2 * ONE + 1) };
    topic.trim(5, by_bytes).await.unwrap();
    assert_eq!(topic.start(), 3, "two of three may stay");
    topic.trim(6, by_bytes).await.unwrap();
    assert_eq!(topic.start(), 4, "what is still needed does not count");
    log.close().await;

    // What another process wrote is as old as its last record, too.
    let (log, topic) = open(dir.path(), one_a_segment(Durability::Os));
    topic.trim(6, by_age).await.unwrap();
    assert_eq!(topic.start(), 4);
    topic.trim(6, Retention { retain: None, retain_bytes: Some(ONE) }).await.unwrap();
    assert_eq!(topic.start(), 5);
    log.close().await;
}

/// The last segment, too, but not while it is written to: making a new one is not free.
#[tokio::test]
async fn a_quiet_topic_keeps_nothing() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (log, topic) = open(dir.path(), options(Durability::Fsync));
        letters(&topic, "ab", now()).await;
        topic.trim(u64::MAX, NOTHING).await.unwrap();
        topic.trim(2, Retention { retain: None, retain_bytes: Some(0) }).await.unwrap();
        assert_eq!((topic.start(), topic.segments()), (0, 1), "it is not quiet");
        if clean {
            log.close().await
        } else {
            crash(log)
        }
        std::fs::remove_dir_all(dir.path().join(NAME)).unwrap();

        let (log, topic) = open(dir.path(), options(Durability::Fsync));
        letters(&topic, "ab", 1_000).await;
        topic.trim(1, NOTHING).await.unwrap();
        assert_eq!(topic.segments(), 1, "half of it is needed");
        let trimmed = topic.trim(2, NOTHING).await.unwrap();
        assert_eq!((trimmed.segments, topic.segments(), topic.bytes(), topic.start()), (1, 0, 0, 2));
        assert_eq!(segments(dir.path()).len(), 0);
        if clean {
            log.close().await
        } else {
            crash(log)
        }

        let (log, topic) = open(dir.path(), options(Durability::Fsync));
        assert_eq!((topic.start(), topic.end()), (2, 2));
        let next = report(&log).next;
        assert!(if clean { next == 2 } else { next > 2 }, "{next}");
        letters(&topic, "c", now()).await;
        log.close().await;
        let mut reader = topic.reader(LaneSet::ALL, 0);
        assert_eq!(gaps(&mut reader).await, ("c".into(), vec![0..2], vec![]));
        assert_eq!(contents(dir.path(), Durability::Fsync).await.0, [(next, "c".into())]);
    }
}

#[tokio::test]
async fn a_topic_goes_on_while_its_last_segment_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Fsync));
    for round in 0..5 {
        letters(&topic, "xy", 1_000).await;
        assert_eq!(topic.trim(u64::MAX, NOTHING).await.unwrap().segments, 1);
        assert_eq!((topic.start(), topic.end()), (2 * (round + 1), 2 * (round + 1)));
    }
    letters(&topic, "z", 1_000).await;
    log.close().await;
    assert_eq!(contents(dir.path(), Durability::Fsync).await.0, [(10, "z".into())]);
}

#[tokio::test]
async fn a_reader_within_a_trimmed_segment_reads_it_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), TopicOptions { tail_bytes: 1, ..options(Durability::Os) });
    // More than one trip to the files fetches.
    let large = "x".repeat(2 * 1024 * 1024);
    append_each(&topic, &[&large, "b", "c"]).await;
    let mut within = topic.reader(LaneSet::ALL, 0);
    assert_eq!(within.next(1, 1).await.unwrap().entries.len(), 1);
    let mut before = topic.reader(LaneSet::ALL, 1);
    assert_eq!(topic.trim(u64::MAX, NOTHING).await.unwrap().segments, 1);
    letters(&topic, "de", 1_000).await;
    log.close().await;
    assert_eq!(gaps(&mut within).await, ("bcde".into(), vec![], vec![]));
    assert_eq!(gaps(&mut before).await, ("de".into(), vec![1..3], vec![]));
}

/// Damage that lies behind what was trimmed is still told as lost.
#[tokio::test]
async fn a_gap_is_told_in_two_parts_if_one_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), one_a_segment(Durability::Os));
    letters(&topic, "abcdef", 1_000).await;
    topic.trim(2, NOTHING).await.unwrap();
    log.close().await;
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    let (log, topic) = open(dir.path(), one_a_segment(Durability::Os));
    assert_eq!(topic.start(), 3);
    let mut reader = topic.reader(LaneSet::ALL, 0);
    let read = reader.next(1, 1).await.unwrap();
    assert_eq!((read.trimmed, &read.lost[..]), (Some(0..2), &[2..3][..]));
    log.close().await;
    assert_eq!(gaps(&mut reader).await.1, []);
}

/// The directory is away while files are to be removed: they go later.
#[tokio::test]
async fn what_could_not_be_removed_is_removed_later() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), one_a_segment(Durability::Os));
    letters(&topic, "abcd", 1_000).await;
    // A directory in place of the file: it can't be removed as one.
    let first = segments(dir.path())[0].clone();
    let moved = dir.path().join("moved");
    std::fs::rename(&first, &moved).unwrap();
    std::fs::create_dir(&first).unwrap();
    let refused = topic.trim(2, NOTHING).await.unwrap_err();
    assert!(matches!(refused, TrimError::Io { .. }), "{refused}");
    assert_eq!((topic.start(), topic.segments(), topic.bytes()), (2, 2, 4 * ONE));
    std::fs::remove_dir(&first).unwrap();
    std::fs::rename(&moved, &first).unwrap();
    assert_eq!(topic.trim(2, NOTHING).await.unwrap().segments, 2);
    assert_eq!((topic.bytes(), segments(dir.path()).len()), (2 * ONE, 2));
    log.close().await;
}

#[tokio::test]
async fn a_topic_in_memory_is_not_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Memory));
    append_each(&topic, &["a"; 5]).await;
    assert_eq!(topic.trim(3, NOTHING).await.unwrap(), Trimmed::default());
    assert_eq!((topic.start(), topic.bytes(), topic.segments()), (0, 0, 0));
    log.close().await;
}

/// Segments go, the latest as well, while they are written, read and looked through.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn appends_readers_and_trims_do_not_disturb_each_other() {
    const APPENDS: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { segment_bytes: 400, tail_bytes: 300, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    let readers: Vec<_> = [1, 7, 1_000]
        .into_iter()
        .map(|records| {
            let topic = topic.clone();
            tokio::spawn(async move {
                let mut reader = topic.reader(LaneSet::ALL, 0);
                let mut passed = 0;
                while passed < APPENDS {
                    let read = reader.next(records, 1_000).await.unwrap();
                    assert_eq!(read.lost, []);
                    if let Some(trimmed) = read.trimmed {
                        assert_eq!(trimmed.start, passed);
                        passed = trimmed.end;
                    }
                    for entry in read.entries {
                        assert_eq!(entry.offset, passed, "each once, in order");
                        passed += 1;
                    }
                }
            })
        })
        .collect();
    let trims = tokio::spawn({
        let topic = topic.clone();
        async move {
            while topic.end() < APPENDS {
                topic.trim(u64::MAX, NOTHING).await.unwrap();
                topic.offset_at(1_000).await.unwrap();
                let mut reader = topic.reader(LaneSet::ALL, 0);
                if topic.end() > 0 {
                    assert_eq!(reader.next(1, 1).await.unwrap().lost, []);
                }
            }
        }
    });
    for n in 0..APPENDS {
        topic.append(vec![record(1, n.to_string())], LONG).await.unwrap();
    }
    trims.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    log.close().await;
}

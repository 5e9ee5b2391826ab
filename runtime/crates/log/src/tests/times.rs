//! Offsets by time, and times by offset.

use super::*;

fn at(time: u64) -> Vec<Record> {
    vec![Record { lane: lane(1), time, payload: "x".into() }]
}

async fn offsets(topic: &Topic, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut offsets = Vec::new();
    for time in times {
        offsets.push(topic.offset_at(time).await.unwrap());
    }
    offsets
}

#[tokio::test]
async fn the_first_block_of_a_time_or_later_is_found_in_files_and_in_memory() {
    for durability in [Durability::Os, Durability::Memory] {
        for tail_bytes in [1, 300, 1_000_000] {
            let dir = tempfile::tempdir().unwrap();
            let small = TopicOptions { segment_bytes: 400, tail_bytes, ..options(durability) };
            let (log, topic) = open(dir.path(), small.clone());
            assert_eq!(offsets(&topic, [0, 5]).await, [0, 0]);
            for n in 1..=20 {
                topic.append(at(n * 10), LONG).await.unwrap();
            }
            let expected = |time: u64| time.div_ceil(10).saturating_sub(1).max(topic.start());
            for time in 0..=201 {
                assert_eq!(topic.offset_at(time).await.unwrap(), expected(time), "{durability:?} {time}");
            }
            assert_eq!(offsets(&topic, [u64::MAX]).await, [20]);
            log.close().await;
            let (log, topic) = open(dir.path(), small);
            if durability == Durability::Os {
                assert_eq!(offsets(&topic, [0, 95, 200, 201]).await, [0, 9, 19, 20]);
            }
            log.close().await;
        }
    }
}

/// Nothing at or above the offset's place is missed, though later records may be older.
#[tokio::test]
async fn times_that_go_back_hide_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { segment_bytes: 200, tail_bytes: 100, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    for time in [50, 10, 70, 20, 60, 5] {
        topic.append(at(time), LONG).await.unwrap();
    }
    topic.append([at(1), at(90)].concat(), LONG).await.unwrap();
    assert_eq!(offsets(&topic, [0, 30, 51, 70, 71, 90, 91]).await, [0, 0, 2, 2, 6, 6, 8]);
    log.close().await;
}

/// Of segments that were surely written before, not even a header of a block is read.
#[tokio::test]
async fn segments_of_before_are_passed() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { segment_bytes: 100, tail_bytes: 1, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    append_each(&topic, &["a", "b", "c"]).await;
    let last = topic.offset_at(crate::segment::now() + 1_000).await.unwrap();
    assert_eq!(last, 3);
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert_eq!(topic.offset_at(crate::segment::now() + 1_000).await.unwrap(), 3);
    topic.offset_at(1_000).await.unwrap_err();
    log.close().await;
}

#[tokio::test]
async fn the_time_of_an_offset_is_that_of_its_block() {
    for durability in [Durability::Os, Durability::Memory] {
        for tail_bytes in [1, 300, 1_000_000] {
            let dir = tempfile::tempdir().unwrap();
            let small = TopicOptions { segment_bytes: 400, tail_bytes, ..options(durability) };
            let (log, topic) = open(dir.path(), small.clone());
            assert_eq!(topic.time_at(0).await.unwrap(), None);
            for n in 1..=10 {
                topic.append([at(n * 10), at(n * 10 + 5)].concat(), LONG).await.unwrap();
            }
            let expected = |offset: u64| Some((offset.max(topic.start()) / 2 + 1) * 10);
            for offset in 0..20 {
                assert_eq!(topic.time_at(offset).await.unwrap(), expected(offset), "{durability:?} {offset}");
            }
            assert_eq!(topic.time_at(20).await.unwrap(), None);
            log.close().await;
            let (log, topic) = open(dir.path(), small);
            if durability == Durability::Os {
                assert_eq!(topic.time_at(7).await.unwrap(), Some(40));
                topic.append(at(900), LONG).await.unwrap();
                assert_eq!(topic.time_at(19).await.unwrap(), Some(100));
                assert_eq!(topic.time_at(20).await.unwrap(), Some(900));
            }
            log.close().await;
        }
    }
}

#[tokio::test]
async fn the_time_of_what_was_deleted_is_that_of_the_first_that_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { segment_bytes: 100, tail_bytes: 1, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    for time in [10, 20, 30, 40] {
        topic.append(at(time), LONG).await.unwrap();
    }
    topic.trim(2, crate::Retention { retain: Some(Duration::ZERO), retain_bytes: None }).await.unwrap();
    assert_eq!(topic.start(), 2);
    assert_eq!(topic.time_at(0).await.unwrap(), Some(30));
    log.close().await;
}

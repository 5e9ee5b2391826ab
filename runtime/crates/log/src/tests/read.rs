//! Reading: lanes, limits, waiting, the change between memory and files, being overrun.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

/// Whether the future has to wait; it is dropped then.
fn waits<T>(future: impl Future<Output = T>) -> bool {
    matches!(pin!(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[tokio::test]
async fn only_the_lanes_asked_for_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    topic.append(vec![record(1, "a"), record(2, "b"), record(1, "c")], LONG).await.unwrap();
    topic.append(vec![record(2, "d")], LONG).await.unwrap();
    topic.append(vec![record(63, "e")], LONG).await.unwrap();

    let mut one = topic.reader(lane(1).into(), 0);
    assert_eq!(texts(&one.next(10, 10).await.unwrap().entries), [(0, "a".into()), (2, "c".into())]);
    assert_eq!(one.position(), 5, "nothing of the lane is left");
    assert!(waits(one.next(10, 10)));
    let mut others = topic.reader([lane(2), lane(63)].into_iter().collect(), 2);
    assert_eq!(texts(&others.next(10, 10).await.unwrap().entries), [(3, "d".into()), (4, "e".into())]);
    log.close().await;
}

#[tokio::test]
async fn a_read_keeps_to_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    topic.append(["aa", "bb", "cccccc", "d"].map(|text| record(1, text)).to_vec(), LONG).await.unwrap();
    let mut reader = topic.reader(LaneSet::ALL, 0);
    let mut next = async |records, bytes| texts(&reader.next(records, bytes).await.unwrap().entries);
    assert_eq!(next(0, 100).await, [(0, "aa".into())]);
    assert_eq!(next(100, 3).await, [(1, "bb".into())]);
    assert_eq!(next(100, 3).await, [(2, "cccccc".into())], "a larger one comes alone");
    assert_eq!(next(100, 0).await, [(3, "d".into())]);
    log.close().await;
}

#[tokio::test]
async fn a_waiting_reader_wakes_for_its_lanes_and_loses_nothing_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Fsync));
    let mut reader = topic.reader(lane(1).into(), 0);
    assert!(waits(reader.next(10, 100)));
    assert!(waits(reader.ready()));
    let waiting = tokio::spawn(async move {
        let read = reader.next(10, 100).await.unwrap();
        (reader, read)
    });
    topic.append(vec![record(2, "not for it")], LONG).await.unwrap();
    topic.append(vec![record(1, "for it")], LONG).await.unwrap();
    let (mut reader, read) = waiting.await.unwrap();
    assert_eq!(texts(&read.entries), [(1, "for it".into())]);
    assert!(waits(reader.ready()));
    log.close().await;
    assert!(matches!(reader.next(1, 1).await, Err(ReadError::Closed { .. })));
}

#[tokio::test]
async fn a_reader_that_falls_behind_reads_files_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { tail_bytes: 500, segment_bytes: 1_000, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    let mut behind = topic.reader(LaneSet::ALL, 0);
    let mut keeping_up = topic.reader(LaneSet::ALL, 0);
    let (mut expected, mut seen_behind, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..20 {
        for n in 0..10 {
            let text = format!("round {round}, number {n}");
            let offset = topic.append(vec![record(n, &text)], LONG).await.unwrap().start;
            expected.push((offset, text));
            seen.extend(texts(&keeping_up.next(100, 10_000).await.unwrap().entries));
        }
        if round % 4 == 3 {
            while seen_behind.len() < expected.len() {
                seen_behind.extend(texts(&behind.next(3, 10_000).await.unwrap().entries));
            }
        }
    }
    assert!(segments(dir.path()).len() > 5);
    assert_eq!(seen, expected);
    assert_eq!(seen_behind, expected);
    log.close().await;
}

#[tokio::test]
async fn a_trip_to_the_files_outlives_the_future_that_began_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    append_each(&topic, &["a", "b"]).await;
    log.close().await;
    let (log, topic) = open(dir.path(), options(Durability::Os));
    let mut reader = topic.reader(LaneSet::ALL, 0);
    assert!(waits(reader.next(10, 100)), "files are never read on an async thread");
    assert_eq!(reader.position(), 0);
    assert_eq!(texts(&reader.next(10, 100).await.unwrap().entries), [(0, "a".into()), (1, "b".into())]);
    log.close().await;
}

/// A segment whose first block fails is removed again, so that readers must not go there too early.
#[tokio::test]
async fn a_segment_without_a_readable_block_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    append_each(&topic, &["a"]).await;
    log.close().await;
    let full = TopicOptions { segment_bytes: 1, ..options(Durability::Os) };
    let (topic, mut writer) = prepare(dir.path(), full);
    writer.begin_segment();
    assert_eq!(segments(dir.path()).len(), 2);
    std::fs::remove_file(last_segment(dir.path())).unwrap();
    let mut reader = topic.reader(LaneSet::ALL, 0);
    assert_eq!(texts(&reader.next(10, 100).await.unwrap().entries), [(0, "a".into())]);
    assert!(waits(reader.next(10, 100)));
}

#[test]
fn a_reader_is_used_from_any_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (sockets, guests) = (runtime(), runtime());
    let small = TopicOptions { tail_bytes: 1, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    let mut reader = topic.reader(LaneSet::ALL, 0);
    sockets.block_on(append_each(&topic, &["a", "b", "c"]));
    let mut seen = Vec::new();
    for runtime in [&guests, &sockets, &guests] {
        let read = runtime.block_on(reader.next(1, 10)).unwrap();
        seen.extend(texts(&read.entries));
    }
    assert_eq!(seen, [(0, "a".into()), (1, "b".into()), (2, "c".into())]);
    let waiting = guests.spawn(async move { reader.next(1, 10).await.unwrap() });
    sockets.block_on(append_each(&topic, &["d"]));
    assert_eq!(texts(&guests.block_on(waiting).unwrap().entries), [(3, "d".into())]);
    sockets.block_on(log.close());
}

#[tokio::test]
async fn an_overrun_reader_of_a_memory_topic_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { tail_bytes: 300, ..options(Durability::Memory) };
    let (log, topic) = open(dir.path(), small);
    let mut reader = topic.reader(LaneSet::ALL, 0);
    append_each(&topic, &["a"; 10]).await;
    // A block of one record with one byte takes 81 bytes: three are kept.
    assert_eq!((topic.start(), topic.end()), (7, 10));
    let read = reader.next(1, 10).await.unwrap();
    assert_eq!(read.lost, [0..7]);
    assert_eq!(texts(&read.entries), [(7, "a".into())]);
    let rest = reader.next(10, 10).await.unwrap();
    assert_eq!(texts(&rest.entries), [(8, "a".into()), (9, "a".into())]);
    assert_eq!(rest.lost, [], "told once");
    log.close().await;

    let (_log, topic) = open(dir.path(), options(Durability::Memory));
    assert_eq!((topic.start(), topic.end()), (10, 10));
    let read = topic.reader(LaneSet::ALL, 4).next(1, 10).await.unwrap();
    assert_eq!(read.lost, [4..10]);
}

#[tokio::test]
async fn records_are_read_with_everything_that_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Fsync));
    let records: Vec<_> = (0..64)
        .map(|n| Record {
            lane: lane(n),
            time: u64::MAX - u64::from(n),
            payload: vec![n; usize::from(n)].into(),
        })
        .collect();
    topic.append(records.clone(), LONG).await.unwrap();
    let check = |entries: Vec<Entry>| {
        assert_eq!(entries.iter().map(|e| e.offset).collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
        let read: Vec<_> = entries
            .into_iter()
            .map(|Entry { lane, time, payload, .. }| Record { lane, time, payload })
            .collect();
        assert_eq!(read, records);
    };
    check(topic.reader(LaneSet::ALL, 0).next(100, 10_000).await.unwrap().entries);
    log.close().await;
    let (_log, topic) = open(dir.path(), options(Durability::Fsync));
    check(topic.reader(LaneSet::ALL, 0).next(100, 10_000).await.unwrap().entries);
}

//! Appending: offsets, groups, order, the bound of the queue, closing.

use std::time::Duration;

use super::*;
use crate::{AppendError, MAX_APPEND_BYTES, OpenError};

#[tokio::test]
async fn offsets_follow_each_other_and_outlive_a_clean_close() {
    for durability in [Durability::Fsync, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let (log, topic) = open(dir.path(), options(durability));
        assert_eq!((topic.start(), topic.end(), topic.reserved()), (0, 0, 0));
        assert_eq!(topic.append(vec![record(1, "a"), record(2, "b")], LONG).await.unwrap(), 0..2);
        assert_eq!(topic.append(vec![record(1, "c")], LONG).await.unwrap(), 2..3);
        assert_eq!(topic.append(Vec::new(), LONG).await.unwrap(), 3..3);
        assert_eq!((topic.start(), topic.end()), (0, 3));
        assert!(topic.reserved() >= 3);
        log.close().await;

        let (log, topic) = open(dir.path(), options(durability));
        assert!(report(&log).clean);
        assert_eq!((report(&log).end, report(&log).next), (3, 3));
        assert_eq!(append_each(&topic, &["d"]).await, [3..4]);
        log.close().await;
        assert_eq!(segments(dir.path()).len(), 1, "a clean close lets the segment go on");
        let (read, lost, _) = contents(dir.path(), durability).await;
        assert_eq!(read, [(0, "a".into()), (1, "b".into()), (2, "c".into()), (3, "d".into())]);
        assert_eq!(lost, []);
    }
}

#[tokio::test]
async fn after_a_crash_offsets_go_on_at_the_bound() {
    for durability in [Durability::Fsync, Durability::Os, Durability::Memory] {
        let dir = tempfile::tempdir().unwrap();
        let (log, topic) = open(dir.path(), options(durability));
        append_each(&topic, &["a"]).await;
        let reserved = topic.reserved();
        crash(log);

        let (log, topic) = open(dir.path(), options(durability));
        assert!(!report(&log).clean);
        assert_eq!(topic.reserved(), reserved, "a cursor of before the crash is still plausible");
        assert_eq!(append_each(&topic, &["b"]).await, [reserved..reserved + 1]);
        log.close().await;
        let (read, lost, report) = contents(dir.path(), durability).await;
        assert_eq!((report.clean, report.next), (true, reserved + 1));
        if durability != Durability::Memory {
            assert_eq!(read, [(0, "a".into()), (reserved, "b".into())]);
            assert_eq!(lost, [], "the offsets between were never used");
        }
    }
}

#[tokio::test]
async fn what_waits_is_written_as_one_block() {
    let dir = tempfile::tempdir().unwrap();
    let (topic, writer) = prepare(dir.path(), options(Durability::Fsync));
    let mut pending = Vec::new();
    for n in 0..100_u64 {
        let records = (0..=n % 3).map(|_| record(1, "x")).collect();
        pending.push(topic.enqueue(records, Duration::ZERO).await.unwrap());
    }
    let done = topic.close(true);
    writer.run();
    done.await.unwrap();
    let mut next = 0;
    for (n, pending) in pending.into_iter().enumerate() {
        let offsets = pending.await.unwrap();
        assert_eq!(offsets, next..next + n as u64 % 3 + 1, "in the order of the queue");
        next = offsets.end;
    }
    let bytes = std::fs::read(last_segment(dir.path())).unwrap();
    let magic = crate::block::MAGIC;
    assert_eq!(bytes.windows(magic.len()).filter(|window| *window == magic).count(), 1);
}

#[tokio::test]
async fn a_group_ends_at_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let (topic, writer) = prepare(dir.path(), options(Durability::Os));
    let mebibyte = vec![7; 1024 * 1024];
    let mut pending = Vec::new();
    for _ in 0..9 {
        pending.push(topic.enqueue(vec![record(1, &mebibyte)], LONG).await.unwrap());
    }
    // Larger than a group: alone.
    pending.push(topic.enqueue(vec![record(1, mebibyte.repeat(6))], LONG).await.unwrap());
    drop(topic.close(true));
    writer.run();
    for (n, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.await.unwrap().start, n as u64);
    }
    let bytes = std::fs::read(last_segment(dir.path())).unwrap();
    let magic = crate::block::MAGIC;
    assert_eq!(bytes.windows(magic.len()).filter(|window| *window == magic).count(), 4, "3 + 3 + 3 + 1");
}

#[tokio::test]
async fn a_full_queue_refuses_and_takes_again() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = TopicOptions { queue_bytes: 100, ..options(Durability::Os) };
    let (topic, writer) = prepare(dir.path(), tiny);
    let fifty = || vec![record(1, [0; 34])];
    let first = topic.enqueue(fifty(), Duration::ZERO).await.unwrap();
    let second = topic.enqueue(fifty(), Duration::ZERO).await.unwrap();
    let refused = topic.enqueue(fifty(), Duration::ZERO).await.unwrap_err();
    assert!(matches!(refused, AppendError::Overloaded { .. }), "{refused}");
    let refused = topic.enqueue(fifty(), Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(refused, AppendError::Overloaded { .. }), "{refused}");

    let running = std::thread::spawn(move || writer.run());
    assert_eq!(first.await.unwrap(), 0..1);
    assert_eq!(second.await.unwrap(), 1..2);
    assert_eq!(topic.append(fifty(), LONG).await.unwrap(), 2..3);
    let larger_than_the_queue = vec![record(1, [0; 5_000])];
    assert_eq!(topic.append(larger_than_the_queue, LONG).await.unwrap(), 3..4);
    drop(topic.close(true));
    running.join().unwrap();
}

#[tokio::test]
async fn too_large_an_append_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    let refused = topic.append(vec![record(1, vec![0; MAX_APPEND_BYTES - 15])], LONG).await.unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { .. }), "{refused}");
    assert_eq!(append_each(&topic, &["a"]).await, [0..1]);
    log.close().await;
}

#[tokio::test]
async fn a_closed_log_answers_what_was_queued_and_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Fsync));
    let pending = topic.enqueue(vec![record(1, "a")], LONG).await.unwrap();
    log.close().await;
    assert_eq!(pending.await.unwrap(), 0..1);
    let refused = topic.append(vec![record(1, "b")], LONG).await.unwrap_err();
    assert!(matches!(refused, AppendError::Closed { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_many_tasks_each_get_their_own_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { queue_bytes: 2_000, segment_bytes: 10_000, ..options(Durability::Os) };
    let (log, topic) = open(dir.path(), small);
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let topic = topic.clone();
            tokio::spawn(async move {
                let mut own = Vec::new();
                for n in 0..50 {
                    let texts = [format!("{task} {n} a"), format!("{task} {n} b")];
                    let records = texts.iter().map(|text| record(task, text)).collect();
                    let offsets = topic.append(records, LONG).await.unwrap();
                    own.extend(offsets.zip(texts));
                }
                own
            })
        })
        .collect();
    let mut expected = Vec::new();
    for task in tasks {
        let own = task.await.unwrap();
        assert!(own.is_sorted(), "one task's appends keep their order");
        expected.extend(own);
    }
    expected.sort();
    log.close().await;
    let (read, lost, _) = contents(dir.path(), Durability::Os).await;
    assert_eq!(read, expected);
    assert_eq!(lost, []);
}

#[test]
fn a_log_is_opened_once_and_with_good_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), options(Durability::Os));
    let refused = Log::open(dir.path(), vec![options(Durability::Os)]).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    drop(log);

    for name in ["", ".", "..", ".lock", "a/b", "ä", &"x".repeat(129)] {
        let refused = Log::open(dir.path(), vec![TopicOptions::new(name, Durability::Os)]).unwrap_err();
        assert!(matches!(refused, OpenError::Name { .. }), "{refused}");
    }
    let refused = Log::open(dir.path(), vec![options(Durability::Os); 2]).unwrap_err();
    assert!(matches!(refused, OpenError::Twice { .. }), "{refused}");
    open(dir.path(), options(Durability::Os));
}

#[tokio::test]
async fn topics_come_and_go_while_others_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, topic) = open(dir.path(), options(Durability::Fsync));
    let more = || crate::TopicOptions::new("more", Durability::Fsync);
    let added = log.add(more()).unwrap();
    assert!(matches!(log.add(more()), Err(OpenError::Twice { .. })));
    assert_eq!(append_each(&added, &["a"]).await, [0..1]);
    log.remove("more");
    assert!(log.topic("more").is_none());
    let closed = added.append(vec![record(1, "b")], LONG).await;
    assert!(matches!(closed, Err(AppendError::Closed { .. })), "{closed:?}");
    assert_eq!(append_each(&topic, &["c"]).await, [0..1], "the other one is open");
    // It was closed in an orderly way, so that no offset is skipped.
    let again = log.add(more()).unwrap();
    assert_eq!(append_each(&again, &["d"]).await, [1..2]);
    log.close().await;
}

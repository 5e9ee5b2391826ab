//! Failing disks, with the errors of real system calls: `/dev/full` refuses to be written, `/dev/null` to be
//! synced.

use std::fs::OpenOptions;

use super::*;
use crate::{AppendError, OpenError};

/// Runs a writer for appends that each must be answered before the next, then closes it cleanly.
async fn run(topic: &Topic, writer: Writer, texts: &[&str]) -> Vec<Result<Range<u64>, AppendError>> {
    let running = std::thread::spawn(move || writer.run());
    let mut answers = Vec::new();
    for text in texts {
        answers.push(topic.append(vec![record(1, text)], LONG).await);
    }
    drop(topic.close(true));
    running.join().unwrap();
    answers
}

/// A topic with these texts in one block each, whose segment then becomes this device.
async fn on_device(dir: &Path, before: &[&str], device: &str) -> (Topic, Writer) {
    let (log, topic) = open(dir, options(Durability::Fsync));
    append_each(&topic, before).await;
    log.close().await;
    let (topic, mut writer) = prepare(dir, options(Durability::Fsync));
    writer.replace_file(OpenOptions::new().write(true).open(device).unwrap());
    (topic, writer)
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_next_append_works() {
    let dir = tempfile::tempdir().unwrap();
    let (topic, writer) = on_device(dir.path(), &["a"], "/dev/full").await;
    let answers = run(&topic, writer, &["b", "c"]).await;
    assert!(matches!(answers[0], Err(AppendError::Full)), "{answers:?}");
    assert_eq!(answers[1].clone().unwrap(), 2..3, "the offset of the refused record is not used again");
    let (read, lost, report) = contents(dir.path(), Durability::Fsync).await;
    assert_eq!(read, [(0, "a".into()), (2, "c".into())]);
    assert_eq!((lost, report.lost), (vec![], vec![]), "what was refused is not lost");
    assert_eq!(segments(dir.path()).len(), 2);
}

#[tokio::test]
async fn a_failed_sync_is_not_taken_for_done() {
    let dir = tempfile::tempdir().unwrap();
    let (topic, writer) = on_device(dir.path(), &["a", "b"], "/dev/null").await;
    let mut reader = topic.reader(LaneSet::ALL, 2);
    let answers = run(&topic, writer, &["c", "d"]).await;
    assert!(matches!(answers[0], Err(AppendError::Io(_))), "{answers:?}");
    assert_eq!(answers[1].clone().unwrap(), 3..4);
    assert_eq!(texts(&drain(&mut reader).await.0), [(3, "d".into())], "it never became readable");
    let (read, lost, _) = contents(dir.path(), Durability::Fsync).await;
    assert_eq!(read, [(0, "a".into()), (1, "b".into()), (3, "d".into())]);
    assert_eq!(lost, []);
}

/// The worst case: the block of a failed append is whole in its file and could not be cut off.
#[tokio::test]
async fn a_refused_block_that_stays_in_its_file_is_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Fsync));
    append_each(&topic, &["a", "refused"]).await;
    log.close().await;
    let whole = std::fs::read(last_segment(dir.path())).unwrap();
    let refused = whole.len() - (64 + 16 + "refused".len());
    std::fs::write(last_segment(dir.path()), &whole[..refused]).unwrap();
    crate::bound::write(
        &SystemFiles,
        &dir.path().join(NAME),
        crate::recovery::topic_hash(NAME),
        crate::bound::Bound { bound: 2, end: 1, trimmed: 0, clean: true },
    )
    .unwrap();
    let first = last_segment(dir.path());
    std::fs::write(&first, &whole).unwrap();
    let (read, lost, report) = contents(dir.path(), Durability::Fsync).await;
    assert_eq!(
        (read, lost, report.lost),
        (vec![(0, "a".into())], vec![], vec![]),
        "told apart by the offsets"
    );
    assert_eq!(report.next, 2);
    let (log, topic) = open(dir.path(), options(Durability::Fsync));
    assert_eq!(append_each(&topic, &["b"]).await, [2..3]);
    log.close().await;
    assert_eq!(std::fs::read(&first).unwrap(), whole, "a new segment began");
    let (read, lost, _) = contents(dir.path(), Durability::Fsync).await;
    assert_eq!(read, [(0, "a".into()), (2, "b".into())]);
    assert_eq!(lost, []);
}

#[tokio::test]
async fn a_segment_that_failed_before_its_first_block_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (topic, mut writer) = prepare(dir.path(), options(Durability::Fsync));
    writer.begin_segment();
    writer.replace_file(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let answers = run(&topic, writer, &["a", "b"]).await;
    assert!(matches!(answers[0], Err(AppendError::Full)), "{answers:?}");
    assert_eq!(answers[1].clone().unwrap(), 1..2);
    assert_eq!(segments(dir.path()).len(), 1);
    assert_eq!(contents(dir.path(), Durability::Fsync).await.0, [(1, "b".into())]);
}

#[tokio::test]
async fn a_directory_that_is_away_for_a_while_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let small = TopicOptions { segment_bytes: 150, ..options(Durability::Fsync) };
    let (log, topic) = open(dir.path(), small);
    assert_eq!(append_each(&topic, &["a"]).await, [0..1]);
    let (here, away) = (dir.path().join(NAME), dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    for _ in 0..2 {
        let refused = topic.append(vec![record(1, "b")], LONG).await.unwrap_err();
        assert!(matches!(refused, AppendError::Io(_)), "{refused}");
    }
    std::fs::rename(&away, &here).unwrap();
    let offsets = append_each(&topic, &["c", "d"]).await;
    assert!(offsets[0].start >= 1 && offsets[1].start == offsets[0].end, "{offsets:?}");
    log.close().await;
    let (read, lost, report) = contents(dir.path(), Durability::Fsync).await;
    let read: Vec<_> = read.into_iter().map(|(_, text)| text).collect();
    assert_eq!((read, lost, report.clean), (vec!["a".into(), "c".into(), "d".into()], vec![], true));
}

#[tokio::test]
async fn a_durable_topic_is_not_opened_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Fsync));
    append_each(&topic, &["a"]).await;
    log.close().await;
    let refused = Log::open(dir.path(), vec![options(Durability::Memory)]).unwrap_err();
    assert!(matches!(refused, OpenError::DurableBefore { .. }), "{refused}");
}

//! What the writer tells of its work.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::{Group, Observer, Outcome};

fn observed(durability: Durability) -> (TopicOptions, Receiver<Group>) {
    let (told, groups) = channel();
    let observer = Observer::new(move |group| told.send(group).unwrap());
    (TopicOptions { observer: Some(observer), ..options(durability) }, groups)
}

/// What is the same in every run.
fn summary(groups: &Receiver<Group>) -> (usize, usize, usize, Outcome) {
    let group = groups.recv().unwrap();
    (group.appends.len(), group.records, group.bytes, group.outcome)
}

#[tokio::test]
async fn every_group_is_told_with_what_it_took() {
    for durability in [Durability::Fsync, Durability::Os, Durability::Memory] {
        let dir = tempfile::tempdir().unwrap();
        let (options, groups) = observed(durability);
        let (topic, writer) = prepare(dir.path(), options);
        // Both are in the queue before the writer begins, so that they are one group.
        let first = topic.enqueue(vec![record(1, "a"), record(2, "bc")], LONG).await.unwrap();
        let second = topic.enqueue(vec![record(1, "def")], LONG).await.unwrap();
        assert_eq!(topic.queued_bytes(), 6 + 3 * 16);
        let running = std::thread::spawn(move || writer.run());
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (0..2, 2..3));
        let group = groups.recv().unwrap();
        assert_eq!((group.appends.len(), group.records, group.bytes), (2, 3, 6 + 3 * 16));
        assert!(group.appends[0] >= group.appends[1], "{group:?}");
        let Outcome::Stored { write, sync } = group.outcome else { panic!("{group:?}") };
        assert_eq!(write.is_some(), durability != Durability::Memory);
        assert_eq!(sync.is_some(), durability == Durability::Fsync);
        assert_eq!(topic.queued_bytes(), 0);
        drop(topic.close(true));
        running.join().unwrap();
    }
}

#[tokio::test]
async fn what_was_refused_or_given_up_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let (options, groups) = observed(Durability::Os);
    let (log, topic) = open(dir.path(), options);
    topic.append(vec![record(1, "a")], LONG).await.unwrap();
    assert!(matches!(summary(&groups).3, Outcome::Stored { .. }));
    log.set_reserve(u64::MAX);
    topic.append(vec![record(1, "a")], LONG).await.unwrap_err();
    assert_eq!(summary(&groups), (1, 1, 17, Outcome::NoSpace));
    log.close().await;

    let (options, groups) = observed(Durability::Os);
    let (topic, mut writer) = prepare(dir.path(), options);
    writer.replace_file(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let running = std::thread::spawn(move || writer.run());
    topic.append(vec![record(1, "b")], LONG).await.unwrap_err();
    assert_eq!(summary(&groups), (1, 1, 17, Outcome::Abandoned));
    drop(topic.close(true));
    running.join().unwrap();
}

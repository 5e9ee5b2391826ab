//! The free space that is left on the disk.

use super::*;
use crate::AppendError;

#[tokio::test]
async fn appends_are_refused_before_the_disk_is_full_and_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Fsync));
    log.set_reserve(0);
    assert_eq!(append_each(&topic, &["a"]).await, [0..1]);
    log.set_reserve(u64::MAX);
    for _ in 0..2 {
        let refused = topic.append(vec![record(1, "b")], LONG).await.unwrap_err();
        assert!(matches!(refused, AppendError::Full), "{refused}");
    }
    let mut reader = topic.reader(LaneSet::ALL, 0);
    assert_eq!(texts(&reader.next(10, 100).await.unwrap().entries), [(0, "a".into())]);
    log.set_reserve(0);
    assert_eq!(append_each(&topic, &["c"]).await, [1..2], "what was refused used no offset");
    log.close().await;
    let (read, lost, _) = contents(dir.path(), Durability::Fsync).await;
    assert_eq!((read, lost), (vec![(0, "a".into()), (1, "c".into())], vec![]));
}

#[tokio::test]
async fn a_topic_in_memory_needs_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Memory));
    log.set_reserve(u64::MAX);
    assert_eq!(append_each(&topic, &["a"]).await, [0..1]);
    log.close().await;
}

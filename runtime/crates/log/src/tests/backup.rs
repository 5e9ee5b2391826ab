//! A copy that is made while a topic is written to has everything that was acknowledged before.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::{Retention, Topic};

const EVERYTHING: Retention = Retention { retain: Some(Duration::ZERO), retain_bytes: None };

fn small() -> TopicOptions {
    TopicOptions { segment_bytes: 400, ..options(Durability::Os) }
}

fn back_up(topic: &Topic, dir: &tempfile::TempDir) -> PathBuf {
    let to = dir.path().join("copy");
    fs::create_dir(&to).unwrap();
    topic.back_up(&to.join(NAME)).unwrap();
    to
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_has_everything_that_was_acknowledged_before() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(&dir.path().join("log"), small());
    let writing = topic.clone();
    let (sender, mut written) = tokio::sync::watch::channel(0_u64);
    let writer = tokio::spawn(async move {
        let mut number = 0;
        while !sender.is_closed() {
            let offsets = writing.append(vec![record(1, format!("number {number}"))], LONG).await.unwrap();
            assert_eq!(offsets, number..number + 1);
            number += 1;
            sender.send_replace(number);
        }
        number
    });
    for round in 0..20 {
        written.wait_for(|written| *written > round * 10).await.unwrap();
        let before = *written.borrow();
        let copies = tempfile::tempdir_in(dir.path()).unwrap();
        let copy = tokio::task::block_in_place(|| back_up(&topic, &copies));
        let after = *written.borrow();
        let found = crate::check(&copy, |_| {}).unwrap().topics.remove(0);
        assert!(found.findings.iter().all(|finding| !finding.is_damage()), "{found:#?}");
        let (read, lost, report) = contents(&copy, Durability::Os).await;
        assert_eq!(
            (lost, &report.lost[..], report.clean, report.bound_lost),
            (vec![], &[][..], false, false)
        );
        assert!((before..=after + 2).contains(&(read.len() as u64)), "{before} to {after}: {}", read.len());
        assert!(read.iter().all(|(offset, text)| *text == format!("number {offset}")));
        assert!(report.next >= read.len() as u64, "no offset is given twice: {report:?}");
    }
    drop(written);
    let total = writer.await.unwrap();
    log.close().await;
    let (read, lost, _) = contents(&dir.path().join("log"), Durability::Os).await;
    assert_eq!((read.len() as u64, lost), (total, vec![]), "the copies did it no harm");
}

#[tokio::test]
async fn full_segments_are_not_copied_and_outlive_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(&dir.path().join("log"), small());
    append_each(&topic, &["a"; 20]).await;
    let copy = back_up(&topic, &dir);
    let of =
        |path: &Path| segments(path).iter().map(|path| fs::metadata(path).unwrap().ino()).collect::<Vec<_>>();
    let (original, copied) = (of(&dir.path().join("log")), of(&copy));
    assert_eq!(original.len(), copied.len());
    assert_eq!(original[..original.len() - 1], copied[..copied.len() - 1]);
    assert_ne!(original.last(), copied.last(), "what is written to is shared");

    assert!(topic.trim(20, EVERYTHING).await.unwrap().segments > 0);
    append_each(&topic, &["b"; 5]).await;
    log.close().await;
    let (read, lost, _) = contents(&copy, Durability::Os).await;
    assert_eq!((read.len(), lost), (20, vec![]));
}

#[tokio::test]
async fn nothing_is_trimmed_while_somebody_holds_the_topic() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(&dir.path().join("log"), small());
    append_each(&topic, &["a"; 20]).await;
    let (first, second) = (topic.hold(), topic.hold());
    assert_eq!(topic.trim(20, EVERYTHING).await.unwrap().segments, 0);
    drop(first);
    assert_eq!(topic.trim(20, EVERYTHING).await.unwrap().segments, 0);
    drop(second);
    assert!(topic.trim(20, EVERYTHING).await.unwrap().segments > 0);
    // What is gone is not missed in a copy.
    let copy = back_up(&topic, &dir);
    log.close().await;
    let (read, lost, _) = contents(&copy, Durability::Os).await;
    assert!(read.len() < 20 && lost.is_empty(), "{read:?} {lost:?}");
}

#[tokio::test]
async fn a_topic_in_memory_has_only_its_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(&dir.path().join("log"), options(Durability::Memory));
    append_each(&topic, &["a"; 3]).await;
    let copy = back_up(&topic, &dir);
    log.close().await;
    let (read, _, report) = contents(&copy, Durability::Memory).await;
    assert!(read.is_empty() && report.next >= 3, "{report:?}");
}

//! How many bytes lie before a reader, against the files and the blocks in them.

use proptest::prelude::*;

use super::*;

/// The distance of the places that a segment remembers.
const MARKS: u64 = 256 * 1024;
/// The length of a segment's header, and of a block's.
const HEADER: u64 = 64;

/// Appends records of these sizes, each as a block of its own, and gives the blocks' lengths.
async fn append_sizes(topic: &Topic, sizes: &[usize]) -> Vec<u64> {
    for size in sizes {
        topic.append(vec![record(1, vec![7; *size])], LONG).await.unwrap();
    }
    sizes.iter().map(|size| HEADER + 16 + *size as u64).collect()
}

/// What lies at or above each offset from 0 to the end, if there is one block for each offset.
fn exactly(dir: &Path, blocks: &[u64]) -> Vec<u64> {
    let bases: Vec<u64> = segments(dir)
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    let mut above = vec![0];
    for (offset, block) in blocks.iter().enumerate().rev() {
        let header = if bases.contains(&(offset as u64)) { HEADER } else { 0 };
        above.push(above.last().unwrap() + block + header);
    }
    above.reverse();
    above
}

/// The largest difference to what is exact. What holds for every topic is asserted on the way.
fn error(dir: &Path, topic: &Topic, blocks: &[u64]) -> u64 {
    let exact = exactly(dir, blocks);
    let told: Vec<u64> = (0..).map(|offset| topic.bytes_from(offset)).take(exact.len()).collect();
    let files: u64 = segments(dir).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert_eq!(exact[0], files, "the test knows the files");
    assert_eq!(told[0], files);
    assert_eq!((told[blocks.len()], topic.bytes_from(u64::MAX)), (0, 0));
    assert!(told.is_sorted_by(|one, next| one >= next), "{told:?}");
    for base in segments(dir) {
        let base: usize = base.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!(told[base], exact[base], "at the border of a segment");
    }
    told.iter().zip(&exact).map(|(told, exact)| told.abs_diff(*exact)).max().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_before_a_reader_are_those_of_the_files(
        sizes in prop::collection::vec(0..700_usize, 1..60),
        segment_bytes in 1..3_000_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let small = TopicOptions { segment_bytes, ..options(Durability::Os) };
            let (log, topic) = open(dir.path(), small.clone());
            let blocks = append_sizes(&topic, &sizes).await;
            let largest = segment_bytes.max(HEADER + HEADER + 16 + 700);
            assert!(error(dir.path(), &topic, &blocks) <= largest);
            log.close().await;
            let (log, topic) = open(dir.path(), small);
            assert!(error(dir.path(), &topic, &blocks) <= largest);
            log.close().await;
        });
    }
}

#[tokio::test]
async fn within_a_segment_they_are_as_exact_as_what_was_walked() {
    let dir = tempfile::tempdir().unwrap();
    let segment_bytes = 4 * 1024 * 1024;
    let large = TopicOptions { segment_bytes, ..options(Durability::Os) };
    // Small records and then large ones, so that a place in proportion to the offsets is far off.
    let sizes: Vec<usize> = (0..600).map(|n| if n % 150 < 100 { 10 } else { 50_000 }).collect();
    let (log, topic) = open(dir.path(), large.clone());
    let blocks = append_sizes(&topic, &sizes).await;
    let within = MARKS + 50_100;
    assert!(error(dir.path(), &topic, &blocks) <= within);
    log.close().await;

    let (log, topic) = open(dir.path(), large);
    let unread = error(dir.path(), &topic, &blocks);
    assert!((within..=segment_bytes).contains(&unread), "{unread}");
    let mut reader = topic.reader(LaneSet::ALL, 0);
    while reader.position() < topic.end() {
        reader.next(1_000, usize::MAX).await.unwrap();
    }
    assert!(error(dir.path(), &topic, &blocks) <= within);
    log.close().await;
}

#[tokio::test]
async fn records_of_one_size_are_told_apart_also_in_a_segment_that_was_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), options(Durability::Os));
    let blocks = append_sizes(&topic, &[100; 50]).await;
    assert!(error(dir.path(), &topic, &blocks) <= HEADER);
    log.close().await;
    let (log, topic) = open(dir.path(), options(Durability::Os));
    assert!(error(dir.path(), &topic, &blocks) <= HEADER);
    log.close().await;
}

#[tokio::test]
async fn what_was_trimmed_is_not_before_anybody() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), TopicOptions { segment_bytes: 1, ..options(Durability::Os) });
    append_each(&topic, &["a"; 6]).await;
    let (all, half) = (topic.bytes(), topic.bytes() / 2);
    assert_eq!((topic.bytes_from(0), topic.bytes_from(3)), (all, half));
    let nothing = crate::Retention { retain: Some(Duration::ZERO), retain_bytes: None };
    topic.trim(3, nothing).await.unwrap();
    assert_eq!((topic.bytes_from(0), topic.bytes_from(3)), (half, half));
    log.close().await;
}

#[tokio::test]
async fn of_a_topic_in_memory_they_are_those_of_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let (log, topic) = open(dir.path(), TopicOptions { tail_bytes: 900, ..options(Durability::Memory) });
    assert_eq!(topic.bytes_from(0), 0);
    // Blocks of four records of 20 bytes: 208 bytes each.
    let block = || (0..4).map(|lane| record(lane, [0; 20])).collect();
    for _ in 0..3 {
        topic.append(block(), LONG).await.unwrap();
    }
    assert_eq!([0, 1, 4, 11, 12].map(|offset| topic.bytes_from(offset)), [624, 572, 416, 52, 0]);
    for _ in 0..3 {
        topic.append(block(), LONG).await.unwrap();
    }
    // What fell out is not counted.
    assert_eq!((topic.bytes_from(0), topic.bytes_from(20)), (4 * 208, 208));
    log.close().await;
}

use super::*;
use crate::files::SystemFiles;

const TOPIC: u64 = 42;

#[test]
fn what_is_created_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (made, _) = Segment::create(&SystemFiles, dir.path(), TOPIC, 1_000, 990).unwrap();
    assert_eq!(made.path.file_name().unwrap(), "00000000000000001000.seg");
    let opened = Segment::open(made.path.clone(), 1_000, TOPIC).unwrap();
    assert_eq!(opened.header, made.header);
    assert_eq!((opened.header.base, opened.header.previous_end), (1_000, 990));
}

#[test]
fn a_header_that_is_not_right_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (made, _) = Segment::create(&SystemFiles, dir.path(), TOPIC, 0, 0).unwrap();
    let open = || Segment::open(made.path.clone(), 0, TOPIC);
    assert!(matches!(Segment::open(made.path.clone(), 0, 43), Err(OpenError::Segment { .. })));
    assert!(matches!(Segment::open(made.path.clone(), 1, TOPIC), Err(OpenError::Segment { .. })));

    let whole = std::fs::read(&made.path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&made.path, &damaged).unwrap();
        assert!(matches!(open(), Err(OpenError::Segment { .. })), "bit {bit}");
    }
    std::fs::write(&made.path, &whole[..63]).unwrap();
    assert!(matches!(open(), Err(OpenError::Segment { .. })));

    let mut newer = whole.clone();
    newer[8] = 9;
    let checksum = xxh3_64(&newer[..CHECKSUM_AT]).to_le_bytes();
    newer[CHECKSUM_AT..].copy_from_slice(&checksum);
    std::fs::write(&made.path, &newer).unwrap();
    assert!(matches!(open(), Err(OpenError::Version { found: 9, known: 1, .. })));
}

#[test]
fn only_our_own_names_are_taken() {
    assert_eq!(base_in_name(Path::new("x/00000000000000000017.seg")), Some(17));
    assert_eq!(base_in_name(Path::new("18446744073709551615.seg")), Some(u64::MAX));
    for other in ["17.seg", "00000000000000000017.seg.unfinished", "+0000000000000000017.seg", "bound", ""] {
        assert_eq!(base_in_name(Path::new(other)), None, "{other}");
    }
}

#[test]
fn marks_are_kept_at_a_distance() {
    let dir = tempfile::tempdir().unwrap();
    let (segment, _) = Segment::create(&SystemFiles, dir.path(), TOPIC, 100, 100).unwrap();
    segment.mark(101, 70);
    segment.mark(200, 64 + MARK_EVERY_BYTES);
    segment.mark(150, 1_000);
    assert_eq!(segment.nearest(0), (100, 64));
    assert_eq!(segment.nearest(199), (100, 64));
    assert_eq!(segment.nearest(200), (200, 64 + MARK_EVERY_BYTES));
    assert_eq!(segment.nearest(u64::MAX), (200, 64 + MARK_EVERY_BYTES));
}

//! A model test: random appends, readers, closes, crashes and damage against a list of what was acknowledged.
//! Since each append is answered before the next, each is a block of its own, and the model knows where in
//! which file it lies.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::Retention;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u8, Vec<u8>)>),
    /// A reader that begins at one of the offsets so far, or behind them.
    Reader {
        lanes: u64,
        from: Index,
    },
    /// One of the readers takes some of what there is for it.
    Read {
        reader: Index,
        records: usize,
        bytes: usize,
    },
    /// Segments whose records are all below one of the offsets so far go, up to what may be kept.
    Trim {
        below: Index,
        keep: Option<u64>,
    },
    Close,
    Crash,
    /// The last segment is cut off at any byte behind its header, in a crash.
    Tear(Index),
    /// A bit of any segment is flipped, behind its header, while the log is closed cleanly or has crashed.
    Flip {
        clean: bool,
        segment: Index,
        byte: Index,
        bit: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        1 => (100..900_usize).prop_map(|length| vec![0xFE; length]),
    ];
    prop_oneof![
        12 => prop::collection::vec((0..64_u8, payload), 1..5).prop_map(Step::Append),
        3 => (prop_oneof![Just(u64::MAX), any::<u64>(), (0..64).prop_map(|lane| 1_u64 << lane)], any::<Index>())
            .prop_map(|(lanes, from)| Step::Reader { lanes, from }),
        8 => (any::<Index>(), 1..6_usize, 1..500_usize)
            .prop_map(|(reader, records, bytes)| Step::Read { reader, records, bytes }),
        2 => (any::<Index>(), prop::option::of(0..4_000_u64)).prop_map(|(below, keep)| Step::Trim { below, keep }),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
        1 => any::<Index>().prop_map(Step::Tear),
        1 => (any::<bool>(), any::<Index>(), any::<Index>(), 0..8_u8)
            .prop_map(|(clean, segment, byte, bit)| Step::Flip { clean, segment, byte, bit }),
    ]
}

/// A block that was acknowledged.
#[derive(Debug, Clone)]
struct Block {
    offsets: Range<u64>,
    records: Vec<(u8, Vec<u8>)>,
    file: PathBuf,
    bytes: Range<u64>,
    /// Whether it can still be read.
    whole: bool,
    /// Whether it was deleted on purpose.
    trimmed: bool,
}

impl Block {
    fn entries(&self, lanes: LaneSet, from: u64) -> impl Iterator<Item = (u64, u8, Vec<u8>)> {
        let entries = self.offsets.clone().zip(&self.records).map(|(o, (l, p))| (o, *l, p.clone()));
        entries.filter(move |(offset, index, _)| *offset >= from && lanes.contains(lane(*index)))
    }
}

/// A reader and what it gave.
struct Follower {
    reader: Reader,
    lanes: LaneSet,
    from: u64,
    given: Given,
}

struct Model {
    dir: tempfile::TempDir,
    options: TopicOptions,
    open: Option<(Log, Topic)>,
    blocks: Vec<Block>,
    followers: Vec<Follower>,
}

impl Model {
    fn new(durability: Durability) -> Self {
        // Small enough that segments roll and readers fall behind all the time.
        let options = TopicOptions { segment_bytes: 1_500, tail_bytes: 700, ..options(durability) };
        Self {
            dir: tempfile::tempdir().unwrap(),
            options,
            open: None,
            blocks: Vec::new(),
            followers: Vec::new(),
        }
    }

    fn topic(&mut self) -> Topic {
        let Self { dir, options, open: opened, .. } = self;
        opened.get_or_insert_with(|| open(dir.path(), options.clone())).1.clone()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append(records) => self.append(records).await,
            Step::Reader { lanes, from } => {
                let known = self.blocks.last().map_or(0, |last| last.offsets.end);
                let from = from.index(usize::try_from(known).unwrap_or(usize::MAX - 1) + 1) as u64;
                let lanes = LaneSet::from_bits(lanes);
                let reader = self.topic().reader(lanes, from);
                self.followers.push(Follower { reader, lanes, from, given: Given::default() });
            }
            Step::Read { reader, records, bytes } => {
                if !self.followers.is_empty() {
                    let index = reader.index(self.followers.len());
                    self.read(index, records, bytes).await;
                }
            }
            Step::Trim { below, keep } => self.trim(below, keep).await,
            Step::Close => self.end(true).await,
            Step::Crash => self.end(false).await,
            Step::Tear(at) => {
                self.end(false).await;
                self.tear(at);
            }
            Step::Flip { clean, segment, byte, bit } => {
                self.end(clean).await;
                self.flip(segment, byte, bit);
            }
        }
    }

    async fn append(&mut self, records: Vec<(u8, Vec<u8>)>) {
        let appended = records.iter().map(|(lane, payload)| record(*lane, payload)).collect();
        let offsets = self.topic().append(appended, LONG).await.unwrap();
        assert_eq!(offsets.end - offsets.start, records.len() as u64);
        let used = self.blocks.last().map_or(0, |last| last.offsets.end);
        assert!(offsets.start >= used, "{offsets:?} reuses offsets below {used}");
        let file = last_segment(self.dir.path());
        let end = std::fs::metadata(&file).unwrap().len();
        let length = 64 + records.iter().map(|(_, payload)| 16 + payload.len() as u64).sum::<u64>();
        self.blocks.push(Block {
            offsets,
            records,
            file,
            bytes: end - length..end,
            whole: true,
            trimmed: false,
        });
    }

    async fn read(&mut self, index: usize, records: usize, bytes: usize) {
        let follower = &mut self.followers[index];
        let left = self.blocks.iter().filter(|block| block.whole && !block.trimmed);
        let left = left.flat_map(|block| block.entries(follower.lanes, follower.reader.position())).count();
        if left == 0 {
            return;
        }
        let read = follower.reader.next(records, bytes).await.unwrap();
        let read_bytes = read.entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        assert!(read.entries.len() <= records && (read_bytes <= bytes || read.entries.len() == 1));
        follower.given.add(read);
    }

    /// Ends the log and compares what its readers gave with what they should have.
    async fn end(&mut self, clean: bool) {
        self.topic();
        let (log, topic) = self.open.take().unwrap();
        let mut followers = std::mem::take(&mut self.followers);
        followers.push(Follower {
            reader: topic.reader(LaneSet::ALL, 0),
            lanes: LaneSet::ALL,
            from: 0,
            given: Given::default(),
        });
        if clean {
            log.close().await
        } else {
            crash(log)
        }
        for mut follower in followers {
            follower.given.drain(&mut follower.reader).await;
            self.check(&follower);
        }
    }

    fn check(&self, follower: &Follower) {
        let Given { entries, trimmed, lost } = &follower.given;
        let read: Vec<_> = entries.iter().map(|e| (e.offset, e.lane.number(), e.payload.to_vec())).collect();
        let offsets: BTreeSet<u64> = read.iter().map(|(offset, ..)| *offset).collect();
        // The trimmed may still have been read.
        let readable = self.blocks.iter().filter(|block| block.whole);
        let expected: Vec<_> = readable
            .flat_map(|block| {
                let entries = block.entries(follower.lanes, follower.from);
                entries.filter(|(offset, ..)| !block.trimmed || offsets.contains(offset))
            })
            .collect();
        assert_eq!(read, expected);

        let skipped = |offset: &u64| trimmed.iter().any(|range| range.contains(offset));
        assert!(!offsets.iter().any(skipped), "{trimmed:?} was read");
        for block in self.blocks.iter().filter(|block| block.whole) {
            let told = block.offsets.clone().any(|offset| skipped(&offset));
            assert!(block.trimmed || !told, "{:?} was not trimmed", block.offsets);
            let mut missing = block.entries(follower.lanes, follower.from);
            assert!(missing.all(|(offset, ..)| offsets.contains(&offset) || skipped(&offset)), "{trimmed:?}");
        }

        let told: Vec<u64> = lost.iter().cloned().flatten().collect();
        let distinct: BTreeSet<_> = told.iter().copied().collect();
        assert_eq!(told.len(), distinct.len(), "told twice: {lost:?}");
        assert!(!told.iter().any(skipped), "{lost:?} and {trimmed:?}");
        let gone = self.blocks.iter().filter(|block| !block.whole);
        let gone: BTreeSet<_> = gone.flat_map(|block| block.offsets.clone()).collect();
        assert!(distinct.is_subset(&gone), "{:?} is not gone", distinct.difference(&gone));
        // What a whole block of the same segment follows can't be taken for a write that a crash interrupted.
        for (n, block) in self.blocks.iter().enumerate().filter(|(_, block)| !block.whole && !block.trimmed) {
            let followed = self.blocks[n..].iter().any(|later| later.whole && later.file == block.file);
            if followed && block.entries(follower.lanes, follower.from).next().is_some() {
                let mut offsets = block.offsets.clone().filter(|offset| *offset >= follower.from);
                assert!(offsets.all(|offset| distinct.contains(&offset)), "{:?} is not told", block.offsets);
            }
        }
    }

    async fn trim(&mut self, below: Index, keep: Option<u64>) {
        let known = self.blocks.last().map_or(0, |last| last.offsets.end);
        let below = below.index(usize::try_from(known).unwrap_or(usize::MAX - 1) + 1) as u64;
        let retain = keep.is_none().then_some(Duration::ZERO);
        let topic = self.topic();
        topic.trim(below, Retention { retain, retain_bytes: keep }).await.unwrap();
        let files = segments(self.dir.path());
        for block in self.blocks.iter_mut().filter(|block| !files.contains(&block.file)) {
            assert!(block.trimmed || !block.whole || block.offsets.end <= below, "{block:?} above {below}");
            block.trimmed = true;
        }
        assert!(self.blocks.is_sorted_by_key(|block| !block.trimmed), "the oldest go first");
        // Of what may go, no more is left than is to be kept. With damage, less may go.
        if self.blocks.iter().all(|block| block.whole) {
            let needed = self
                .blocks
                .iter()
                .find(|block| block.offsets.end > below && !block.trimmed)
                .map(|block| &block.file);
            let left = files.iter().take_while(|file| Some(*file) != needed);
            let left: u64 = left.map(|file| std::fs::metadata(file).unwrap().len()).sum();
            assert!(left <= keep.unwrap_or(0), "{left} bytes are left below {below}");
        }
        let lengths = files.iter().map(|file| std::fs::metadata(file).unwrap().len());
        let bytes = lengths.sum();
        assert_eq!((topic.bytes(), topic.segments()), (bytes, files.len()));
        assert_eq!(topic.bytes_from(0), if topic.end() == 0 { 0 } else { bytes });
    }

    fn tear(&mut self, at: Index) {
        let Some(last) = segments(self.dir.path()).pop() else { return };
        let file = std::fs::OpenOptions::new().write(true).open(&last).unwrap();
        let length = file.metadata().unwrap().len();
        let length = 64 + at.index(usize::try_from(length - 64).unwrap() + 1) as u64;
        file.set_len(length).unwrap();
        for block in self.blocks.iter_mut().filter(|block| block.file == last) {
            block.whole &= block.bytes.end <= length;
        }
    }

    fn flip(&mut self, segment: Index, byte: Index, bit: u8) {
        let segments = segments(self.dir.path());
        if segments.is_empty() {
            return;
        }
        let path = &segments[segment.index(segments.len())];
        let mut bytes = std::fs::read(path).unwrap();
        if bytes.len() == 64 {
            return;
        }
        let byte = 64 + byte.index(bytes.len() - 64);
        let hit = |block: &&mut Block| block.file == *path && block.bytes.contains(&(byte as u64));
        // A second flip could undo the first.
        if let Some(block) = self.blocks.iter_mut().find(hit).filter(|block| block.whole) {
            bytes[byte] ^= 1 << bit;
            std::fs::write(path, bytes).unwrap();
            block.whole = false;
        }
    }
}

/// Few enough for every run of the tests; as many as one likes with `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_served_as_it_was(
        fsync in prop::bool::weighted(0.2),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new(if fsync { Durability::Fsync } else { Durability::Os });
            for step in steps {
                model.step(step).await;
            }
            model.end(true).await;
        });
    }
}

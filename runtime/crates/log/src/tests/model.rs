//! A model test: random appends, readers, closes, crashes and damage against a list of what was acknowledged.
//! Since each append is answered before the next, each is a block of its own, and the model knows where in
//! which file it lies.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

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
    entries: Vec<(u64, u8, Vec<u8>)>,
    lost: Vec<Range<u64>>,
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
                self.followers.push(Follower { reader, lanes, from, entries: Vec::new(), lost: Vec::new() });
            }
            Step::Read { reader, records, bytes } => {
                if !self.followers.is_empty() {
                    let index = reader.index(self.followers.len());
                    self.read(index, records, bytes).await;
                }
            }
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
        self.blocks.push(Block { offsets, records, file, bytes: end - length..end, whole: true });
    }

    async fn read(&mut self, index: usize, records: usize, bytes: usize) {
        let follower = &mut self.followers[index];
        let left = self.blocks.iter().filter(|block| block.whole);
        let left = left.flat_map(|block| block.entries(follower.lanes, follower.reader.position())).count();
        if left == 0 {
            return;
        }
        let read = follower.reader.next(records, bytes).await.unwrap();
        let read_bytes = read.entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        assert!(read.entries.len() <= records && (read_bytes <= bytes || read.entries.len() == 1));
        follower.take(read.entries, read.lost);
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
            entries: Vec::new(),
            lost: Vec::new(),
        });
        if clean {
            log.close().await
        } else {
            crash(log)
        }
        for mut follower in followers {
            let (entries, lost) = drain(&mut follower.reader).await;
            follower.take(entries, lost);
            self.check(&follower);
        }
    }

    fn check(&self, follower: &Follower) {
        let expected: Vec<_> = self
            .blocks
            .iter()
            .filter(|block| block.whole)
            .flat_map(|block| block.entries(follower.lanes, follower.from))
            .collect();
        assert_eq!(follower.entries, expected);

        let told: Vec<u64> = follower.lost.iter().cloned().flatten().collect();
        let distinct: BTreeSet<_> = told.iter().copied().collect();
        assert_eq!(told.len(), distinct.len(), "told twice: {:?}", follower.lost);
        let gone = self.blocks.iter().filter(|block| !block.whole);
        let gone: BTreeSet<_> = gone.flat_map(|block| block.offsets.clone()).collect();
        assert!(distinct.is_subset(&gone), "{:?} is not gone", distinct.difference(&gone));
        // What a whole block of the same segment follows can't be taken for a write that a crash interrupted.
        for (n, block) in self.blocks.iter().enumerate().filter(|(_, block)| !block.whole) {
            let followed = self.blocks[n..].iter().any(|later| later.whole && later.file == block.file);
            if followed && block.entries(follower.lanes, follower.from).next().is_some() {
                let mut offsets = block.offsets.clone().filter(|offset| *offset >= follower.from);
                assert!(offsets.all(|offset| distinct.contains(&offset)), "{:?} is not told", block.offsets);
            }
        }
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

impl Follower {
    fn take(&mut self, entries: Vec<Entry>, lost: Vec<Range<u64>>) {
        let entries = entries.into_iter().map(|e| (e.offset, e.lane.number(), e.payload.to_vec()));
        self.entries.extend(entries);
        self.lost.extend(lost);
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

//! The latest blocks of a topic, kept in memory for readers that keep up. Bounded by bytes: the oldest block
//! goes first, and a reader that still needed it goes to the files, or is told that it was overrun if there
//! are none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::block::Block;
use crate::fields::length;
use crate::lane::LaneSet;
use crate::segment::share;

#[derive(Debug)]
pub(crate) struct Tail {
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// All readable records at or above this offset are in the blocks.
    from: u64,
}

/// What the tail knows of an offset.
#[derive(Debug)]
pub(crate) enum Sought {
    /// The first block that has records of the lanes at or above the offset, or might have.
    Block(Arc<Block>),
    /// There is none yet, and no record of the lanes below this offset.
    NotYet(u64),
    /// The offset is no longer kept; those from this one on are.
    Gone(u64),
}

impl Tail {
    /// An empty tail of a topic that has readable records up to `end` elsewhere.
    pub(crate) fn new(max_bytes: usize, end: u64) -> Self {
        Self { max_bytes, kept: Mutex::new(Kept { blocks: VecDeque::new(), bytes: 0, from: end }) }
    }

    /// Adds the latest block and lets the oldest go. The latest always stays, however large it is.
    pub(crate) fn push(&self, block: Arc<Block>) {
        let mut evicted = Vec::new();
        let mut kept = self.kept();
        kept.bytes += block.bytes();
        kept.blocks.push_back(block);
        while kept.bytes > self.max_bytes && kept.blocks.len() > 1 {
            let Some(oldest) = kept.blocks.pop_front() else { break };
            kept.bytes -= oldest.bytes();
            kept.from = oldest.header().end();
            evicted.push(oldest);
        }
        // The memory is given back when nobody waits for the lock.
        drop(kept);
        drop(evicted);
    }

    /// The lowest offset from which on everything is kept.
    pub(crate) fn from(&self) -> u64 {
        self.kept().from
    }

    /// How many bytes of the blocks lie at or above the offset: of the block that it lies in, in proportion to the offsets.
    pub(crate) fn bytes_from(&self, offset: u64) -> u64 {
        let kept = self.kept();
        let passed = kept.blocks.partition_point(|block| block.header().end() <= offset);
        let bytes = |block: &Arc<Block>| {
            let header = block.header();
            share(length(block.bytes()), header.end().saturating_sub(offset), header.count.into())
        };
        kept.blocks.range(passed..).map(bytes).sum()
    }

    pub(crate) fn seek(&self, offset: u64, lanes: LaneSet) -> Sought {
        let kept = self.kept();
        if offset < kept.from {
            return Sought::Gone(kept.from);
        }
        let passed = kept.blocks.partition_point(|block| block.header().end() <= offset);
        match kept.blocks.range(passed..).find(|block| block.header().lanes.intersects(lanes)) {
            Some(block) => Sought::Block(Arc::clone(block)),
            None => Sought::NotYet(kept.blocks.back().map_or(offset, |last| last.header().end().max(offset))),
        }
    }

    /// The lowest time of its first block.
    pub(crate) fn first_time(&self) -> Option<u64> {
        self.kept().blocks.front().map(|first| first.header().first_time)
    }

    /// Where the tail begins, and the first offset of its first block with a record of this time or later; its
    /// end, if there is none.
    pub(crate) fn seek_time(&self, time: u64) -> (u64, u64) {
        let kept = self.kept();
        let found = kept.blocks.iter().map(|block| block.header()).find(|header| header.last_time >= time);
        let end = || kept.blocks.back().map_or(kept.from, |last| last.header().end());
        (kept.from, found.map_or_else(end, |header| header.first))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Lane;
    use crate::topic::Record;

    fn block(first: u64, lane: u8) -> Arc<Block> {
        let record = Record { lane: Lane::new(lane).unwrap(), time: 0, payload: vec![0; 100].into() };
        Arc::new(Block::encode(first, [record].iter(), 0).unwrap().0)
    }

    fn lane(lane: u8) -> LaneSet {
        Lane::new(lane).unwrap().into()
    }

    #[test]
    fn the_oldest_goes_and_the_latest_stays() {
        let tail = Tail::new(2 * block(0, 0).bytes(), 7);
        assert_eq!(tail.from(), 7);
        for first in [10, 11, 12] {
            tail.push(block(first, 0));
        }
        assert_eq!(tail.from(), 11);
        assert!(matches!(tail.seek(10, LaneSet::ALL), Sought::Gone(11)));
        assert!(matches!(tail.seek(11, LaneSet::ALL), Sought::Block(found) if found.header().first == 11));

        let tiny = Tail::new(1, 0);
        tiny.push(block(3, 0));
        assert!(matches!(tiny.seek(0, LaneSet::ALL), Sought::Block(_)));
        tiny.push(block(4, 0));
        assert!(matches!(tiny.seek(0, LaneSet::ALL), Sought::Gone(4)));
    }

    #[test]
    fn blocks_without_the_lanes_are_passed() {
        let tail = Tail::new(1_000_000, 0);
        assert!(matches!(tail.seek(5, LaneSet::ALL), Sought::NotYet(5)));
        for (first, lane) in [(0, 1), (1, 2), (2, 1)] {
            tail.push(block(first, lane));
        }
        assert!(matches!(tail.seek(0, lane(2)), Sought::Block(found) if found.header().first == 1));
        assert!(matches!(tail.seek(2, lane(2)), Sought::NotYet(3)));
        assert!(matches!(tail.seek(9, LaneSet::ALL), Sought::NotYet(9)));
    }
}

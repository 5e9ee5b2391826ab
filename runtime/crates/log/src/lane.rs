//! Lanes: the fixed number of parts into which the agents of a topic are divided, and sets of them. Which
//! instance of a receiver owns which lane is decided here; what an agent is, is not known here.

use std::num::NonZeroUsize;

use xxhash_rust::xxh3::xxh3_64;

/// The number of lanes of every topic. Cursors are kept per lane and lanes are written into blocks, so that
/// this number is part of the data format; 64 lanes are one machine word and enough for more instances than a
/// machine has cores.
pub const LANES: usize = 64;

/// One of the [`LANES`] parts of a topic. All records of an agent are in one lane, in the order of their
/// offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u8);

impl Lane {
    /// The lane of an agent: the upper six bits of XXH3-64 (seed 0) of the id's UTF-8 bytes. It is stored in
    /// logs and cursors and never changes.
    pub fn of(agent: &str) -> Self {
        let [top, ..] = xxh3_64(agent.as_bytes()).to_be_bytes();
        Self(top >> 2)
    }

    /// The lane with this number, if there is one.
    pub fn new(index: u8) -> Option<Self> {
        (usize::from(index) < LANES).then_some(Self(index))
    }

    /// The number of the lane, below [`LANES`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn number(self) -> u8 {
        self.0
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

/// A set of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LaneSet(u64);

impl LaneSet {
    /// Every lane.
    pub const ALL: Self = Self(u64::MAX);
    /// No lane.
    pub const EMPTY: Self = Self(0);

    /// The lanes that instance number `instance` of `instances` owns: those whose number leaves the remainder
    /// `instance`. Each lane has exactly one owner; instances beyond [`LANES`] own none.
    pub fn owned_by(instance: usize, instances: NonZeroUsize) -> Self {
        Self::ALL.iter().filter(|lane| lane.index() % instances == instance).collect()
    }

    /// Whether the lane is in the set.
    pub fn contains(self, lane: Lane) -> bool {
        self.0 & lane.bit() != 0
    }

    /// Adds a lane.
    pub fn insert(&mut self, lane: Lane) {
        self.0 |= lane.bit();
    }

    /// Whether the two sets have a lane in common.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no lane is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The number of lanes in the set.
    pub fn len(self) -> usize {
        self.iter().count()
    }

    /// The lanes of the set, lowest number first.
    pub fn iter(self) -> impl Iterator<Item = Lane> {
        (0..).map_while(Lane::new).filter(move |lane| self.contains(*lane))
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl From<Lane> for LaneSet {
    fn from(lane: Lane) -> Self {
        Self(lane.bit())
    }
}

impl FromIterator<Lane> for LaneSet {
    fn from_iter<I: IntoIterator<Item = Lane>>(lanes: I) -> Self {
        let mut set = Self::EMPTY;
        lanes.into_iter().for_each(|lane| set.insert(lane));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers: a change here would move agents to other lanes in the data of every user.
    #[test]
    fn the_hash_of_an_agent_is_pinned() {
        let lanes: Vec<_> = ["", "a", "node-1", "node-2", "Ærøskøbing", "0123456789abcdef0123456789abcdef"]
            .map(|agent| Lane::of(agent).index())
            .to_vec();
        assert_eq!(lanes, [11, 57, 3, 7, 37, 0]);
    }

    #[test]
    fn agents_spread_over_all_lanes() {
        let mut count = [0; LANES];
        for agent in 0..6_400 {
            count[Lane::of(&format!("agent-{agent}")).index()] += 1;
        }
        assert!(count.iter().all(|&agents| (50..200).contains(&agents)), "{count:?}");
    }

    #[test]
    fn each_lane_has_one_owner() {
        for instances in 1..=70 {
            let instances = NonZeroUsize::new(instances).unwrap();
            let owned: Vec<_> = (0..instances.get()).map(|i| LaneSet::owned_by(i, instances)).collect();
            for lane in LaneSet::ALL.iter() {
                assert_eq!(owned.iter().filter(|set| set.contains(lane)).count(), 1);
            }
            let (least, most) = (owned.iter().map(|s| s.len()).min(), owned.iter().map(|s| s.len()).max());
            assert!(most.unwrap() - least.unwrap() <= 1);
        }
    }

    #[test]
    fn only_lanes_below_the_number_exist() {
        assert_eq!(Lane::new(63).map(Lane::index), Some(63));
        assert_eq!(Lane::new(64), None);
        assert_eq!(LaneSet::ALL.len(), LANES);
        assert!(LaneSet::EMPTY.is_empty());
    }
}

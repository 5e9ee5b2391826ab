//! The ids that are remembered of one topic, in memory: those of messages that are stored, bounded by time and by count,
//! and those of messages that are being stored. Reads no clock and appends nothing.
//!
//! An id takes 24 bytes in the map and 32 in the queue of its age, with what both keep free 70 to 90: 100,000 ids take
//! some 8 MiB. Nothing is taken before the first id comes.
//!
//! Appends are numbered, and the map says for each id which append brought it. So an append that is stored costs no look
//! into the map: its number is then below those of the appends that are under way, and what failed is removed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use futures_util::FutureExt;

use crate::presence::Storing;

#[cfg(test)]
mod tests;

/// What stands for an agent and the id of one of its messages: 128 bits of a keyed hash (see [`super::Dedup::key`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u64, pub u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // It is as evenly spread as any hash of it.
        state.write_u64(self.0);
    }
}

/// Takes the first half of a [`Key`] for its hash.
#[derive(Debug, Default)]
struct FirstHalf(u64);

impl Hasher for FirstHalf {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }

    /// Keys write numbers only.
    fn write(&mut self, _: &[u8]) {}
}

/// What is known of a message that is about to be appended.
#[derive(Debug)]
pub enum Claim {
    /// Nothing: it belongs to the append that is being put together.
    New,
    /// It is in this append already.
    Same,
    /// It is stored.
    Stored,
    /// It is being stored.
    Storing(Storing),
}

/// The ids of one topic. Times are milliseconds of whichever clock the caller has, and never decrease.
#[derive(Debug)]
pub struct Table {
    window: u64,
    max_stored: usize,
    /// The number of the append that brought each id.
    ids: HashMap<Key, u64, BuildHasherDefault<FirstHalf>>,
    /// The first was stored the longest ago.
    stored: VecDeque<Stored>,
    /// Appends that are under way, with numbers up to [`next`](Self::next), in the order in which they were put together.
    storing: VecDeque<Append>,
    /// The number of the append that is being put together, and what it has claimed.
    next: u64,
    claimed: Vec<Key>,
}

#[derive(Debug)]
struct Stored {
    key: Key,
    at: u64,
    from: u64,
}

#[derive(Debug)]
struct Append {
    storing: Storing,
    keys: Vec<Key>,
    at: u64,
    /// Its offsets are not below this.
    from: u64,
}

impl Table {
    /// Remembers at most so many ids of stored messages, each for `window`.
    pub fn new(window: u64, max_stored: usize) -> Table {
        Table {
            window,
            max_stored,
            ids: HashMap::default(),
            stored: VecDeque::new(),
            storing: VecDeque::new(),
            // Those that an earlier run stored have zero.
            next: 1,
            claimed: Vec::new(),
        }
    }

    /// The ids of stored messages that are remembered, as of the last [`settle`](Self::settle).
    pub fn stored(&self) -> usize {
        self.stored.len()
    }

    /// An offset below which there is no message whose id is remembered; none if no id is.
    pub fn from(&self) -> Option<u64> {
        let stored = self.stored.iter().map(|stored| stored.from);
        // Offsets increase in each queue, and nothing that is under way lies before what is stored.
        stored.chain(self.storing.iter().map(|append| append.from)).next()
    }

    /// Puts back an id of an earlier run, in the order of offsets.
    pub fn restore(&mut self, key: Key, at: u64, from: u64) {
        if let Entry::Vacant(vacant) = self.ids.entry(key) {
            vacant.insert(0);
            // If the clock was set back in between, ids are remembered for longer rather than in a wrong order.
            let at = self.stored.back().map_or(at, |last| last.at.max(at));
            self.stored.push_back(Stored { key, at, from });
            self.forget_beyond_count();
        }
    }

    /// Takes note of what has become of appends, and forgets what is out of the window.
    pub fn settle(&mut self, now: u64) {
        self.settle_as(now, |storing| storing.clone().now_or_never().map(|outcome| outcome.is_ok()));
    }

    /// As [`settle`](Self::settle), as far as the outcome of appends was seen by who waits for it. To look oneself would get
    /// into the way of the writer that is about to tell it.
    pub fn settle_seen(&mut self, now: u64) {
        self.settle_as(now, |storing| storing.peek().map(Result::is_ok));
    }

    fn settle_as(&mut self, now: u64, is_stored: impl Fn(&Storing) -> Option<bool>) {
        while let Some(Append { storing, .. }) = self.storing.front() {
            let Some(is_stored) = is_stored(storing) else { break };
            let number = self.first_storing();
            let Some(Append { keys, at, from, .. }) = self.storing.pop_front() else { break };
            for key in keys {
                match is_stored {
                    true => self.stored.push_back(Stored { key, at, from }),
                    false => self.forget(key, number),
                }
            }
        }
        while self.stored.front().is_some_and(|first| first.at.saturating_add(self.window) <= now) {
            self.forget_first();
        }
        self.forget_beyond_count();
    }

    /// Says what is known of a message, and takes it for the append that is being put together if nothing is.
    pub fn claim(&mut self, key: Key) -> Claim {
        let (first_storing, next) = (self.first_storing(), self.next);
        match self.ids.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(next);
            }
            Entry::Occupied(mut occupied) => {
                let number = *occupied.get();
                if number == next {
                    return Claim::Same;
                }
                let append = number
                    .checked_sub(first_storing)
                    .and_then(|place| self.storing.get(usize::try_from(place).ok()?));
                let Some(Append { storing, .. }) = append else { return Claim::Stored };
                match storing.clone().now_or_never() {
                    None => return Claim::Storing(storing.clone()),
                    Some(Ok(())) => return Claim::Stored,
                    // One before it has no answer yet, so that it was not settled.
                    Some(Err(_)) => _ = occupied.insert(next),
                }
            }
        }
        self.claimed.push(key);
        Claim::New
    }

    /// What was claimed is on its way from `now` on, to offsets that are not below `from`.
    pub fn append(&mut self, storing: Storing, now: u64, from: u64) {
        if self.claimed.is_empty() {
            return;
        }
        let keys = std::mem::take(&mut self.claimed);
        self.storing.push_back(Append { storing, keys, at: now, from });
        self.next = self.next.saturating_add(1);
    }

    /// What was claimed is not appended after all.
    pub fn give_up(&mut self) {
        for key in std::mem::take(&mut self.claimed) {
            self.forget(key, self.next);
        }
    }

    /// The number of the first append that is under way; that of the next one if none is.
    fn first_storing(&self) -> u64 {
        self.next.saturating_sub(u64::try_from(self.storing.len()).unwrap_or(u64::MAX))
    }

    fn forget(&mut self, key: Key, number: u64) {
        if let Entry::Occupied(occupied) = self.ids.entry(key)
            && *occupied.get() == number
        {
            occupied.remove();
        }
    }

    fn forget_beyond_count(&mut self) {
        while self.stored.len() > self.max_stored {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(Stored { key, .. }) = self.stored.pop_front() {
            self.ids.remove(&key);
        }
    }
}

//! A reader: follows some lanes of a topic from an offset on. It takes blocks from the tail in memory as long
//! as it keeps up and has them fetched from files when it does not; the change from one to the other does not
//! show.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backlog::{self, Fetched, Place};
use crate::block::Block;
use crate::error::ReadError;
use crate::lane::LaneSet;
use crate::tail::Sought;
use crate::topic::{Durability, Entry, Shared};

/// Follows some lanes of a topic. Belongs to no runtime: it reads files through whichever one awaits it.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    end: watch::Receiver<u64>,
    lanes: LaneSet,
    position: u64,
    /// Blocks to be read next, and the offset up to which they hold everything of the lanes.
    held: VecDeque<Arc<Block>>,
    held_to: u64,
    /// What is not told yet.
    trimmed: Option<Range<u64>>,
    lost: Vec<Range<u64>>,
    place: Option<Place>,
    /// A trip to the files. It goes on if the future that began it is dropped, and the next one takes its
    /// result.
    fetching: Option<JoinHandle<Result<Fetched, ReadError>>>,
}

/// What [`Reader::next`] gives: entries, or offsets that are gone, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Records of the reader's lanes, in the order of their offsets.
    pub entries: Vec<Entry>,
    /// Offsets that were deleted on purpose ([`Topic::trim`](crate::Topic::trim)) before the reader came to
    /// them. They lie before the lost ones and the entries. Each is told once; not all need have been used.
    pub trimmed: Option<Range<u64>>,
    /// Offsets that can't be served though nobody deleted them: a checksum was wrong, a file is missing or
    /// ends too early, or the reader of a topic in memory was overrun. They lie before the entries. Each is
    /// told once; not all need have belonged to the reader's lanes.
    pub lost: Vec<Range<u64>>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, lanes: LaneSet, from: u64) -> Self {
        let end = shared.end.clone();
        Self {
            shared,
            end,
            lanes,
            position: from,
            held: VecDeque::new(),
            held_to: from,
            trimmed: None,
            lost: Vec::new(),
            place: None,
            fetching: None,
        }
    }

    /// Everything of the reader's lanes with a lower offset was returned, or told as trimmed or lost.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Waits for something to read and returns what there is at once: at most `max_records` (at least one)
    /// with payloads of at most `max_bytes` together; an entry that is larger comes alone. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] after the last entry of a closed log. After another error the reader may be
    /// asked again.
    pub async fn next(&mut self, max_records: usize, max_bytes: usize) -> Result<Read, ReadError> {
        self.ready().await?;
        let (trimmed, lost) = (self.trimmed.take(), std::mem::take(&mut self.lost));
        let mut read = Read { entries: Vec::new(), trimmed, lost };
        let mut bytes = 0_usize;
        while read.entries.len() < max_records.max(1) {
            let Some(entry) = self.peek() else { break };
            bytes = bytes.saturating_add(entry.payload.len());
            if bytes > max_bytes && !read.entries.is_empty() {
                break;
            }
            self.position = entry.offset.saturating_add(1);
            read.entries.push(entry);
        }
        Ok(read)
    }

    /// Waits until [`next`](Self::next) would not have to. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub async fn ready(&mut self) -> Result<(), ReadError> {
        // A reader that always finds something must let others on its thread have a turn.
        tokio::task::coop::consume_budget().await;
        while self.trimmed.is_none() && self.lost.is_empty() && self.peek().is_none() {
            if let Some(fetching) = &mut self.fetching {
                let fetched = fetching.await;
                self.fetching = None;
                self.take(
                    fetched.map_err(|_| ReadError::Runtime { topic: self.shared.options.name.clone() })??,
                );
                continue;
            }
            // What becomes readable after this look ends the wait.
            match self.shared.tail.seek(self.position, self.lanes) {
                Sought::Block(_) => {}
                Sought::NotYet(_) => {
                    let closed = |_| ReadError::Closed { topic: self.shared.options.name.clone() };
                    self.end.changed().await.map_err(closed)?;
                }
                Sought::Gone(from) if self.shared.options.durability == Durability::Memory => {
                    self.lost.push(self.position..from);
                    self.position = from;
                }
                Sought::Gone(_) => self.fetch(),
            }
        }
        Ok(())
    }

    /// The next entry in memory, without taking it. Moves the position over what is not for this reader.
    fn peek(&mut self) -> Option<Entry> {
        loop {
            while let Some(block) = self.held.front() {
                if let Some(entry) = block.next(self.position, self.lanes) {
                    return Some(entry);
                }
                self.position = self.position.max(block.header().end());
                self.held.pop_front();
            }
            self.position = self.position.max(self.held_to);
            match self.shared.tail.seek(self.position, self.lanes) {
                Sought::Block(block) => {
                    self.place = None;
                    self.held.push_back(block);
                }
                Sought::NotYet(offset) => {
                    self.position = offset;
                    return None;
                }
                Sought::Gone(_) => return None,
            }
        }
    }

    fn fetch(&mut self) {
        let (shared, lanes, from) = (Arc::clone(&self.shared), self.lanes, self.position);
        let place = self.place.take();
        self.fetching =
            Some(tokio::task::spawn_blocking(move || backlog::fetch(&shared, lanes, from, place)));
    }

    fn take(&mut self, fetched: Fetched) {
        if let Some(lost) = &fetched.lost {
            tracing::error!(
                log.topic = self.shared.options.name, log.lost = ?lost, "offsets can't be read: they are damaged or missing"
            );
        }
        if let Some(trimmed) = &fetched.trimmed {
            tracing::info!(
                log.topic = self.shared.options.name, log.trimmed = ?trimmed, "a reader skips offsets that are no longer kept"
            );
        }
        self.held = fetched.blocks;
        self.held_to = fetched.reached;
        self.trimmed = fetched.trimmed;
        self.lost.extend(fetched.lost);
        self.place = fetched.place;
    }
}

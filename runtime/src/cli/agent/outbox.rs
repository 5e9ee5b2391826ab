//! Messages that the server has not acknowledged yet, oldest first, in bounded number. Does no I/O: the agent's loop
//! takes from here what to send and says here what was answered.

use std::collections::VecDeque;

/// A place in the order of everything that was ever put into an outbox.
pub type Sequence = u64;

/// The queue between the sampler and the connection.
#[derive(Debug)]
pub struct Outbox<M> {
    capacity: usize,
    next: Sequence,
    waiting: VecDeque<Entry<M>>,
    /// How many entries from the front are on their way: handed out, and not answered so far.
    in_flight: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Entry<M> {
    sequence: Sequence,
    message: M,
}

impl<M> Outbox<M> {
    /// An empty outbox that holds at most `capacity` messages, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), next: 0, waiting: VecDeque::new(), in_flight: 0, dropped: 0 }
    }

    /// Adds a message made from its place in the order. Where the outbox is full, the oldest message goes.
    pub fn push(&mut self, message: impl FnOnce(Sequence) -> M) {
        if self.waiting.len() >= self.capacity && self.waiting.pop_front().is_some() {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.dropped = self.dropped.saturating_add(1);
        }
        let sequence = self.next;
        self.next = self.next.saturating_add(1);
        self.waiting.push_back(Entry { sequence, message: message(sequence) });
    }

    /// The oldest message that is not on its way, and marks it as on its way.
    pub fn take_next(&mut self) -> Option<(Sequence, &M)> {
        let entry = self.waiting.get(self.in_flight)?;
        self.in_flight = self.in_flight.saturating_add(1);
        Some((entry.sequence, &entry.message))
    }

    /// Forgets a message, because the server has it or never wants it. One that was dropped meanwhile is no error.
    pub fn settle(&mut self, sequence: Sequence) {
        let Some(at) = self.waiting.iter().position(|entry| entry.sequence == sequence) else { return };
        self.waiting.remove(at);
        if at < self.in_flight {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// Nothing is on its way any more: whatever was not settled is taken again, in its order.
    pub fn rewind(&mut self) {
        self.in_flight = 0;
    }

    /// Messages that are kept.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many messages were dropped since the last call, because the outbox was full.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(capacity: usize, count: usize) -> Outbox<Sequence> {
        let mut outbox = Outbox::new(capacity);
        for _ in 0..count {
            outbox.push(|sequence| sequence);
        }
        outbox
    }

    fn take_all(outbox: &mut Outbox<Sequence>) -> Vec<Sequence> {
        std::iter::from_fn(|| outbox.take_next().map(|(sequence, _)| sequence)).collect()
    }

    #[test]
    fn messages_are_handed_out_once_and_in_order() {
        let mut outbox = filled(10, 3);
        assert_eq!(take_all(&mut outbox), [0, 1, 2]);
        assert!(outbox.take_next().is_none());
        outbox.push(|sequence| sequence);
        assert_eq!(take_all(&mut outbox), [3]);
        assert_eq!(outbox.len(), 4, "what is on its way is kept");
    }

    #[test]
    fn a_full_outbox_drops_the_oldest_and_counts_it() {
        let mut outbox = filled(3, 5);
        assert_eq!(outbox.len(), 3);
        assert_eq!(outbox.take_dropped(), 2);
        assert_eq!(outbox.take_dropped(), 0);
        assert_eq!(take_all(&mut outbox), [2, 3, 4]);
    }

    #[test]
    fn an_answer_to_a_dropped_message_changes_nothing() {
        let mut outbox = filled(3, 3);
        assert_eq!(take_all(&mut outbox), [0, 1, 2]);
        outbox.push(|sequence| sequence);
        outbox.settle(0);
        assert_eq!(outbox.len(), 3);
        assert_eq!(take_all(&mut outbox), [3]);
    }

    #[test]
    fn after_a_rewind_the_unsettled_come_again_in_order() {
        let mut outbox = filled(10, 5);
        take_all(&mut outbox);
        outbox.settle(0);
        outbox.settle(3);
        outbox.push(|sequence| sequence);
        assert_eq!(take_all(&mut outbox), [5]);
        outbox.rewind();
        assert_eq!(take_all(&mut outbox), [1, 2, 4, 5]);
    }

    #[test]
    fn an_outbox_holds_at_least_one() {
        let mut outbox = filled(0, 2);
        assert_eq!(take_all(&mut outbox), [1]);
    }
}

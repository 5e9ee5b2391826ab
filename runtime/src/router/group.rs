//! The messages of one frame that go to one topic: on their way from the frame into the topic's queue, without those that their
//! agents have sent before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_log::Lane;
use wharf_protocol::{AgentId, Message, Record, StoredMessage};

use super::{Counters, NotStored, Route, Router};
use crate::dedup::{First, Identified, Repeat};
use crate::presence::clock::Connection;
use crate::presence::{Queued, Sender, Storing};

/// Messages that are put together for an append.
pub struct Group<'a> {
    route: &'a Route,
    origins: Vec<Origin>,
    records: Vec<wharf_log::Record>,
    senders: Vec<Sender>,
    identified: Vec<Identified>,
}

/// Where a message comes from.
struct Origin {
    /// The place of its call in the frame.
    call: usize,
    body_bytes: usize,
}

/// Messages in a topic's queue, and calls that only repeat others.
pub struct Append {
    /// The calls, by their place in the frame, whose messages are in the queue or repeat one of these.
    pub calls: Vec<usize>,
    /// What becomes of them.
    pub queued: Result<Queued, NotStored>,
    /// How many messages are in the queue, and the bytes of their bodies.
    pub messages: usize,
    pub body_bytes: usize,
    /// Calls that repeat messages which are being stored, and what becomes of these.
    pub repeating: Vec<(Vec<usize>, Storing)>,
    /// How many calls repeat messages that are stored.
    pub repeated: usize,
    /// Where all of this is counted.
    pub counters: Arc<Counters>,
}

impl<'a> Group<'a> {
    /// No messages yet.
    pub fn new(route: &'a Route) -> Group<'a> {
        Group { route, origins: Vec::new(), records: Vec::new(), senders: Vec::new(), identified: Vec::new() }
    }

    /// Whether its messages go this way.
    pub fn goes(&self, route: &Route) -> bool {
        std::ptr::eq(self.route, route)
    }

    /// Whether its topic takes new messages.
    pub fn is_open(&self) -> bool {
        self.route.gate.is_open()
    }

    /// Adds the message of a call.
    pub fn add(&mut self, call: usize, message: Message, received_at: u64) {
        let place = self.records.len();
        let lane = Lane::of(message.agent.as_str());
        if let (Some(dedup), Some(id)) = (&self.route.dedup, &message.message_id) {
            self.identified.push(Identified { place, key: dedup.key(&message.agent, id) });
        }
        if self.senders.last().is_none_or(|sender| sender.agent != message.agent) {
            self.senders.push(Sender { agent: message.agent.clone(), first: place });
        }
        self.origins.push(Origin { call, body_bytes: message.body.bytes().len() });
        let record = Record::Message(StoredMessage {
            agent: message.agent,
            received_at,
            message_id: message.message_id,
            sent_at: message.sent_at,
            user: None,
            traceparent: message.traceparent,
            body: message.body,
        });
        self.records.push(wharf_log::Record { lane, time: received_at, payload: record.encode().into() });
    }

    /// Puts the messages into the topic's queue, waiting for its gate and for room until `deadline`.
    pub async fn enqueue(self, router: &Router, connection: &Connection, deadline: Instant) -> Append {
        let wait = || deadline.saturating_duration_since(Instant::now());
        if !self.is_open() && !self.opens(router, connection, wait()).await {
            return Append::new(Err(NotStored::Shut), self.origins, Vec::new(), self.route.counters.clone());
        }
        let Group { route, origins, records, senders, identified } = self;
        let presence = &router.presence;
        let room = presence.reserve(route.topic, &records, &senders, connection, wait()).await;
        let (queued, repeats) = match (room, &route.dedup) {
            (Err(error), _) => (Err(error), Vec::new()),
            (Ok(room), Some(dedup)) if !identified.is_empty() => {
                let mut silent = Vec::new();
                let appended = dedup.append(&identified, |repeats| {
                    let (records, senders) = leave_out(repeats, records, senders, &mut silent);
                    presence.enqueue(route.topic, room, records, &senders, connection)
                });
                silent.iter().for_each(|agent| presence.ping(agent, connection));
                appended
            }
            (Ok(room), _) => (presence.enqueue(route.topic, room, records, &senders, connection), Vec::new()),
        };
        Append::new(queued.map_err(NotStored::Failed), origins, repeats, route.counters.clone())
    }

    /// Waits for the gate to open, until the server stops.
    async fn opens(&self, router: &Router, connection: &Connection, wait: Duration) -> bool {
        // They are alive, whatever becomes of their messages, and must not expire while these wait.
        self.senders.iter().for_each(|sender| router.presence.ping(&sender.agent, connection));
        tokio::select! {
            opens = self.route.gate.opens(wait) => opens,
            () = router.stop.cancelled() => false,
        }
    }
}

/// Takes out messages that are not to be appended; `silent` are the agents that have no others.
fn leave_out(
    repeats: &[Repeat],
    mut records: Vec<wharf_log::Record>,
    senders: Vec<Sender>,
    silent: &mut Vec<AgentId>,
) -> (Vec<wharf_log::Record>, Vec<Sender>) {
    if repeats.is_empty() {
        return (records, senders);
    }
    let mut is_kept = vec![true; records.len()];
    for Repeat { place, .. } in repeats {
        if let Some(is_kept) = is_kept.get_mut(*place) {
            *is_kept = false;
        }
    }
    let mut of_record = is_kept.iter();
    records.retain(|_| of_record.next() == Some(&true));
    let ends: Vec<usize> = senders.iter().skip(1).map(|sender| sender.first).chain([is_kept.len()]).collect();
    let mut kept = Vec::with_capacity(senders.len());
    let mut first = 0;
    for (sender, end) in senders.into_iter().zip(ends) {
        let own = is_kept.get(sender.first..end).unwrap_or_default();
        match own.iter().filter(|is_kept| **is_kept).count() {
            0 => silent.push(sender.agent),
            count => {
                kept.push(Sender { agent: sender.agent, first });
                first = first.saturating_add(count);
            }
        }
    }
    (records, kept)
}

impl Append {
    fn new(
        queued: Result<Queued, NotStored>,
        origins: Vec<Origin>,
        repeats: Vec<Repeat>,
        counters: Arc<Counters>,
    ) -> Append {
        let mut append = Append {
            calls: Vec::with_capacity(origins.len()),
            queued,
            messages: 0,
            body_bytes: 0,
            repeating: Vec::new(),
            repeated: 0,
            counters,
        };
        let mut repeats = repeats.into_iter().peekable();
        for (place, Origin { call, body_bytes }) in origins.into_iter().enumerate() {
            match repeats.next_if(|repeat| repeat.place == place).map(|repeat| repeat.first) {
                None => {
                    append.calls.push(call);
                    append.messages = append.messages.saturating_add(1);
                    append.body_bytes = append.body_bytes.saturating_add(body_bytes);
                }
                Some(First::Same) => append.calls.push(call),
                Some(First::Stored) => append.repeated = append.repeated.saturating_add(1),
                Some(First::Storing(storing)) => match append.repeating.last_mut() {
                    Some((calls, same)) if same.ptr_eq(&storing) => calls.push(call),
                    _ => append.repeating.push((vec![call], storing)),
                },
            }
        }
        append
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> wharf_log::Record {
        wharf_log::Record { lane: Lane::of(name), time: 0, payload: name.to_owned().into() }
    }

    #[test]
    fn senders_begin_where_their_messages_are_left() {
        let left = |places: &[usize]| {
            let records = ["a0", "a1", "b2", "c3", "c4", "a5"].map(record).to_vec();
            let senders = [("a", 0), ("b", 2), ("c", 3), ("a", 5)];
            let agent = |name| AgentId::new(name).unwrap();
            let senders = senders.map(|(name, first)| Sender { agent: agent(name), first }).to_vec();
            let repeats: Vec<_> =
                places.iter().map(|&place| Repeat { place, first: First::Stored }).collect();
            let mut silent = Vec::new();
            let (records, senders) = leave_out(&repeats, records, senders, &mut silent);
            let records: Vec<_> =
                records.iter().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()).collect();
            let senders: Vec<_> =
                senders.iter().map(|sender| format!("{}{}", sender.agent, sender.first)).collect();
            let silent: Vec<_> = silent.iter().map(AgentId::to_string).collect();
            [records.join(" "), senders.join(" "), silent.join(" ")]
        };
        assert_eq!(left(&[]), ["a0 a1 b2 c3 c4 a5", "a0 b2 c3 a5", ""]);
        assert_eq!(left(&[0, 3]), ["a1 b2 c4 a5", "a0 b1 c2 a3", ""]);
        assert_eq!(left(&[1, 2, 3, 4]), ["a0 a5", "a0 a1", "b c"]);
        assert_eq!(left(&[0, 1, 2, 3, 4, 5]), ["", "", "a b c a"]);
    }
}

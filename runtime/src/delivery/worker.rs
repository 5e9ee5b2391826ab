//! One instance of a receiver and the lanes it owns: chooses what to do next and makes batches. How a batch is delivered
//! and what follows from that is in `deliver`.
//!
//! A worker does one thing at a time: it reads on, gives messages again whose time has come, redrives dead letters or ticks. It
//! never ends before it is told to.

mod callee;
mod deliver;
#[cfg(test)]
mod model;
mod redrive;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use wharf_host::{Instance, Receiver, Redelivery};
use wharf_log::{Entry, Lane, LaneSet};
use wharf_protocol::Record;

use super::batch::{self, Batch, Item, Key};
use super::breaker::Breaker;
use super::burial::{Burials, Dead, Why};
use super::caller::Caller;
use super::halt::{Halt, Turn};
use super::redrive::Redrives;
use super::source::{Bounds, Portion, Source};
use super::status::{Status, Waits};
use super::{Stopped, or_stop};
use crate::config;
use callee::Callee;

/// The instance that owns this lane is the one that ticks.
const TICKING_LANE: usize = 0;
/// How often an idle worker moves its cursors past what is not for it, so that a restart need not read that again.
const IDLE_ADVANCE: Duration = Duration::from_secs(1);
/// Room that a full cursor must have before its lane goes on, so that it does not stop again at once.
const ROOM_TO_GO_ON: usize = 64;

/// One instance and what it is fed with.
pub struct Worker {
    settings: config::Receiver,
    /// Which of the receiver's workers this is.
    index: usize,
    lanes: LaneSet,
    sources: Vec<Source>,
    status: Arc<Status>,
    breaker: Arc<Breaker>,
    burials: Burials,
    redrives: Arc<Redrives>,
    halt: Arc<Halt>,
    stop: CancellationToken,
    /// Cancelled when the lanes are to be left, for a while or because the server stops.
    turn: CancellationToken,
    caller: Callee,
    /// Which version of the receiver this is one of.
    version: u64,
    /// What is being delivered: the source and the offsets.
    delivering: (usize, Vec<u64>),
    /// Whether the component wants to know of changes of presence.
    hears_presence: bool,
    /// When the component's `tick` is due, if this is the instance that ticks.
    ticks: Option<Interval>,
    /// Which source is asked first: each in turn, so that a busy type does not starve a quiet one.
    asked_first: usize,
    /// Whether new messages go before those that are due: a receiver that fails with some must not starve the others.
    new_first: bool,
    /// Whether a dead letter was given again last: then messages have their turn.
    redrove: bool,
}

/// What a worker is made of.
pub struct Parts {
    /// Which of the receiver's workers it is.
    pub index: usize,
    /// Its lanes.
    pub lanes: LaneSet,
    /// What it reads.
    pub sources: Vec<Source>,
    /// Where it reports what it does.
    pub status: Arc<Status>,
    /// What decides whether the component may be called.
    pub breaker: Arc<Breaker>,
    /// Where it writes down what the receiver does not get.
    pub burials: Burials,
    /// Dead letters to be given again.
    pub redrives: Arc<Redrives>,
    /// Its turns.
    pub halt: Arc<Halt>,
    /// Its instance, if there is one already.
    pub instance: Option<Instance>,
    /// Which version of the receiver it is one of.
    pub version: u64,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

/// What there is to do.
enum Next {
    /// The source of this index has something to read.
    Read(usize),
    /// The time of an agent of the source of this index has come.
    Again(usize),
    /// A dead letter is to be given again.
    Redrive(u64),
    /// A tick is due.
    Tick,
}

impl Worker {
    /// A worker of these parts.
    pub fn new(receiver: Receiver, settings: &config::Receiver, mut parts: Parts) -> Worker {
        let (status, breaker, turn) = (parts.status.clone(), parts.breaker.clone(), parts.halt.turn());
        let (hears_presence, instance) = (receiver.hears_presence(), parts.instance.take());
        let caller = Caller::new(receiver, settings.retry_pause, status, breaker, turn, instance);
        Worker::calling(Callee::Component(Box::new(caller)), hears_presence, settings, parts)
    }

    fn calling(caller: Callee, hears_presence: bool, settings: &config::Receiver, parts: Parts) -> Worker {
        let Parts {
            index,
            lanes,
            sources,
            status,
            breaker,
            burials,
            redrives,
            halt,
            instance: _,
            version,
            stop,
        } = parts;
        let turn = halt.turn();
        Worker {
            settings: settings.clone(),
            index,
            lanes,
            sources,
            hears_presence,
            ticks: None,
            asked_first: 0,
            new_first: false,
            redrove: false,
            turn: turn.leave,
            caller,
            version,
            delivering: (0, Vec::new()),
            status,
            breaker,
            burials,
            redrives,
            halt,
            stop,
        }
    }

    /// Where it reports what it does.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Feeds the instance until the server stops.
    pub async fn run(mut self) {
        let mut running = self.caller.start().await;
        if let Some(period) = self.settings.tick
            && self.lanes.iter().any(|lane| lane.index() == TICKING_LANE)
        {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            self.ticks = Some(ticks);
        }
        loop {
            while running.is_ok() {
                running = self.step().await;
            }
            self.leave_lanes();
            let (turn, instance) =
                self.halt.arrive(self.index, self.caller.lay_down(), self.caller.is_anew()).await;
            self.caller.pick_up(instance);
            let Some(turn) = turn else { break };
            self.begin(turn);
            running = Ok(());
        }
        self.caller.end().await;
    }

    /// What was given and is not finished comes again: to whoever reads on here, or when the server is started again.
    fn leave_lanes(&mut self) {
        if self.sources.iter().any(|source| source.waiting.given() > 0) {
            self.left_unfinished();
        }
        let (delivering, offsets) = std::mem::take(&mut self.delivering);
        let was_given = self.caller.take_has_given();
        for (index, source) in self.sources.iter_mut().enumerate() {
            source.leave(if was_given && index == delivering { &offsets } else { &[] });
        }
    }

    /// Begins again at the cursors, wherever somebody has moved them to.
    fn begin(&mut self, turn: Turn) {
        self.turn = turn.leave.clone();
        self.caller.begin(turn);
        for source in &mut self.sources {
            source.restart(self.settings.retry_pause);
        }
        self.show_waits();
    }

    /// Messages were given and are not finished: if the server ends now, they are to be marked when they come again.
    fn left_unfinished(&self) {
        if self.stop.is_cancelled() {
            self.status.interrupted();
        }
    }

    /// One thing, from its beginning to its end.
    async fn step(&mut self) -> Result<(), Stopped> {
        let next = self.next().await?;
        self.redrove = matches!(next, Next::Redrive(_));
        match next {
            Next::Tick => self.tick().await,
            Next::Read(index) => {
                let batch = self.next_batch(index).await?;
                self.new_first = false;
                self.deliver_new(batch).await
            }
            Next::Again(index) => {
                let all_well = self.deliver_due(index).await?;
                self.new_first = !all_well;
                Ok(())
            }
            Next::Redrive(id) => self.redrive(id).await,
        }
    }

    /// Waits for a tick that is due, an agent whose time has come, or a source that has something, asking each source first in
    /// turn.
    async fn next(&mut self) -> Result<Next, Stopped> {
        if let Some(ticks) = &mut self.ticks
            && ticks.tick().now_or_never().is_some()
        {
            return Ok(Next::Tick);
        }
        self.make_room();
        self.asked_first = (self.asked_first + 1) % self.sources.len().max(1);
        loop {
            self.sources.iter_mut().for_each(|source| source.pass(Instant::now()));
            let (max_in_flight, max_parked) = self.shares();
            let due = self.sources.iter().map(|source| source.waiting.next_due()).enumerate();
            let first = due.filter_map(|(index, due)| Some((due?, index))).min();
            let due = async move {
                match first {
                    Some((due, index)) => {
                        sleep_until(due).await;
                        index
                    }
                    None => std::future::pending().await,
                }
            };
            let mut waiting: Vec<_> = self
                .sources
                .iter_mut()
                .enumerate()
                .filter(|(_, source)| {
                    source.waiting.given() < max_in_flight && source.waiting.parked() < max_parked
                })
                .map(|(index, source)| {
                    Box::pin(async move {
                        source.ready().await;
                        index
                    })
                })
                .collect();
            let first = self.asked_first.checked_rem(waiting.len()).unwrap_or(0);
            waiting.rotate_left(first);
            let new = async move {
                if waiting.is_empty() {
                    return std::future::pending().await;
                }
                select_all(waiting).await.0
            };
            let tick = async {
                match &mut self.ticks {
                    Some(ticks) => drop(ticks.tick().await),
                    None => std::future::pending().await,
                }
            };
            let new_first = self.new_first;
            let read_or_again = async {
                tokio::pin!(new, due);
                if new_first && let Some(index) = (&mut new).now_or_never() {
                    return Next::Read(index);
                }
                tokio::select! {
                    biased;
                    index = due => Next::Again(index),
                    index = new => Next::Read(index),
                }
            };
            let next = async {
                let redrive = self.redrives.next(self.index);
                if self.redrove {
                    tokio::select! {
                        biased;
                        () = tick => Next::Tick,
                        next = read_or_again => next,
                        id = redrive => Next::Redrive(id),
                    }
                } else {
                    tokio::select! {
                        biased;
                        () = tick => Next::Tick,
                        id = redrive => Next::Redrive(id),
                        next = read_or_again => next,
                    }
                }
            };
            if let Ok(next) = timeout(IDLE_ADVANCE, or_stop(&self.turn, next)).await {
                return next;
            }
            // Nothing is being delivered, so what has been read is finished or waits: also what went by in other lanes.
            for index in 0..self.sources.len() {
                self.settle(index, &[]);
            }
        }
    }

    async fn tick(&mut self) -> Result<(), Stopped> {
        let began = Instant::now();
        self.caller.tick().await?;
        if let Some(ticks) = &mut self.ticks
            && began.elapsed() >= ticks.period()
        {
            // The next one is due already, and would be so after each: messages would never have their turn.
            ticks.reset();
        }
        Ok(())
    }

    /// This worker's shares of the messages that may be in flight and that may be parked, per type.
    fn shares(&self) -> (usize, usize) {
        let instances = self.settings.instances.max(1);
        let share = |all: usize| all.div_ceil(instances);
        (share(self.settings.max_in_flight), share(self.settings.max_parked))
    }

    /// Reads the next messages of a source. Those of agents that wait are parked.
    async fn next_batch(&mut self, index: usize) -> Result<Batch, Stopped> {
        let (max_in_flight, _) = self.shares();
        let Some(source) = self.sources.get_mut(index) else { return Err(Stopped) };
        let bounds = Bounds {
            entries: self
                .settings
                .max_messages
                .min(max_in_flight.saturating_sub(source.waiting.given()).max(1)),
            bytes: usize::try_from(self.settings.max_bytes).unwrap_or(usize::MAX),
            wait: self.settings.max_wait,
        };
        let Portion { entries, gaps } = source.read(bounds, &self.status, &self.turn).await?;
        for (offsets, reason) in gaps {
            self.burials.pass_gap(&source.progress, self.lanes, offsets, reason, &self.turn).await?;
        }
        self.batch_of(index, entries, false).await
    }

    /// Makes a batch of entries. Of `again`, the agents wait and their time has come; what does not fit stays where it waits.
    async fn batch_of(&mut self, index: usize, entries: Vec<Entry>, again: bool) -> Result<Batch, Stopped> {
        let Some(source) = self.sources.get_mut(index) else { return Err(Stopped) };
        let mut batch = Batch::new(index, &source.data_type);
        let mut rooms = source.progress.rooms();
        let mut unreadable = Vec::new();
        let mut rest = entries.into_iter();
        while let Some(entry) = rest.next() {
            if source.progress.is_finished(entry.lane, entry.offset) {
                // Somebody else has moved the cursors, or the last run had finished it.
                continue;
            }
            let record = match Record::decode(entry.payload.clone()) {
                Ok(record) => record,
                Err(error) => {
                    unreadable.push(unreadable_of(entry, &error));
                    continue;
                }
            };
            let agent = batch::agent_of(&record);
            if !self.hears_presence && matches!(record, Record::Presence(_)) {
                continue;
            }
            let waits = source.waiting.contains(agent);
            if waits && !again {
                source.waiting.park(agent, entry.lane, entry.offset);
                continue;
            }
            // Every message may open a span of its own in the cursor, if those around it are not finished with it. Only what comes
            // first in its lane does not, so a full lane goes on with that.
            let room = rooms.get_mut(entry.lane.index());
            if room.is_some_and(|room| std::mem::replace(room, room.saturating_sub(1)) == 0) {
                if batch.places().any(|(lane, _)| lane == entry.lane) {
                    if again {
                        continue;
                    }
                    source.hold(std::iter::once(entry).chain(rest));
                    break;
                }
                if source.full.insert(entry.lane.index()) {
                    self.status.lane_full(&source.data_type, entry.lane);
                }
                if !source.waiting.is_first_in(entry.lane, entry.offset) {
                    match again {
                        true => source.waiting.wait_for_room(agent),
                        false => source.waiting.park(agent, entry.lane, entry.offset),
                    }
                    continue;
                }
            }
            let repeated =
                source.waiting.was_given(agent, entry.offset) || source.progress.is_repeated(entry.offset);
            let redelivery = if repeated { Redelivery::Again } else { Redelivery::None };
            match batch::item(record, entry.offset, &source.data_type, self.settings.encoding, redelivery) {
                Item::Message(message) => batch.push(entry.lane, entry.payload, message),
                Item::Change(change) if !batch.has_message_of(&change.agent) => {
                    batch.push_change(entry.lane, entry.payload, change);
                }
                // Changes come before the messages of a batch, so this one must wait for those of its agent.
                Item::Change(_) if again => break,
                Item::Change(_) => {
                    source.hold(std::iter::once(entry).chain(rest));
                    break;
                }
            }
        }
        if !unreadable.is_empty() {
            let progress = source.progress.clone();
            self.burials.bury(&progress, unreadable, &self.turn).await?;
        }
        Ok(batch)
    }

    /// Everything that was read of a source is finished or waits, with what `batch` was.
    fn settle(&mut self, index: usize, batch: &[(Lane, u64)]) {
        let Some(source) = self.sources.get_mut(index) else { return };
        let end = source.read_below();
        source.progress.settle(self.lanes, end, &source.waiting, batch.iter().copied());
        source.settled = end.max(source.settled);
        self.show_waits();
    }

    /// Lets lanes go on whose cursors have room again, and of the others what needs none.
    fn make_room(&mut self) {
        for source in self.sources.iter_mut().filter(|source| !source.full.is_empty()) {
            let rooms = source.progress.rooms();
            for lane in self.lanes.iter() {
                if !source.full.contains(&lane.index()) {
                    continue;
                }
                if rooms.get(lane.index()).is_some_and(|room| *room >= ROOM_TO_GO_ON) {
                    source.full.remove(&lane.index());
                    source.waiting.room_in(lane, Instant::now());
                } else {
                    source.waiting.room_for_first_in(lane, Instant::now());
                }
            }
        }
    }

    fn show_waits(&self) {
        let mut waits = Waits::default();
        for source in &self.sources {
            waits.agents += source.waiting.len();
            waits.given += source.waiting.given();
            waits.parked += source.waiting.parked();
        }
        self.status.waits(self.index, waits);
    }

    /// What is due of a source, read again; nothing if it is finished by now.
    async fn due_batch(&mut self, index: usize) -> Result<Option<Batch>, Stopped> {
        let Some(source) = self.sources.get_mut(index) else { return Err(Stopped) };
        let due = source.waiting.due(Instant::now(), self.settings.max_messages);
        let offsets: Vec<_> = due.iter().map(|(offset, _)| *offset).collect();
        let max_bytes = usize::try_from(self.settings.max_bytes).unwrap_or(usize::MAX);
        let (Portion { entries, gaps }, missing) =
            source.fetch(&offsets, max_bytes, &self.status, &self.turn).await?;
        for (span, reason) in gaps {
            self.burials.pass_gap(&source.progress, self.lanes, span, reason, &self.turn).await?;
        }
        for (offset, agent) in due {
            // Somebody else has moved the cursors past it, or it is not in the log any more.
            if missing.contains(&offset) || source.is_finished(&agent, offset) {
                source.finish_waiting(&agent, offset);
            }
        }
        let batch = self.batch_of(index, entries, true).await?;
        Ok((batch.len() + batch.changes_len() > 0).then_some(batch))
    }
}

/// A record that this version does not understand.
fn unreadable_of(entry: Entry, error: &(dyn std::error::Error + 'static)) -> Dead {
    let key = Key {
        lane: entry.lane,
        offset: entry.offset,
        agent: String::new(),
        received_at: entry.time,
        record: entry.payload,
    };
    Dead { key, why: Why::Unreadable(error.to_string()), attempts: 0 }
}

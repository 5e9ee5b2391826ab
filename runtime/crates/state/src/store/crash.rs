//! What is done with the state while the power fails: every kind of write, both ways of failing, and everything that the
//! database does by itself.
//!
//! The worker syncs the journal before it writes to a sorted file what it was handed. If it is handed more between the
//! two, that goes to the file as well, before it is synced in the journal: of writes that were only buffered, a later one may
//! survive an earlier one of another keyspace. Nobody is promised otherwise, but these tests expect an order, so they hand over
//! nothing that is not synced while the worker may be at it.

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fjall::Keyspace;
use wharf_log::Lane;

use crate::crash::{
    self, Life,
    disk::Thoroughness,
    stage::{How, Part, Promise, Stage, Subject},
};
use crate::{
    Cursors, DeadLetter, DeadLetterEntry, DeadLetterLimits, DeadLetterUsage, Gap, GapReason, KnownAgent,
    KnownAgents, KnownGaps, MAX_PAGE, Persist, Redrive, Seek, State, StateError, UsedTopic,
    dead_letters::tests::{death, letter},
    store::{
        open::Open,
        processes::{journal, limit_file_size},
    },
};

const RECEIVERS: [&str; 2] = ["r", "rr"];

/// Two letters are of more than a page together; the oldest fall out soon.
const LIMITS: DeadLetterLimits = DeadLetterLimits { count: 3, bytes: 1 << 20 };

#[derive(Debug, PartialEq)]
pub struct Contents {
    cursors: Vec<((String, String), Cursors)>,
    letters: BTreeMap<&'static str, Vec<(DeadLetterEntry, Vec<u8>)>>,
    usages: [DeadLetterUsage; 2],
    gaps: [KnownGaps; 2],
    agents: KnownAgents,
}

impl Subject for State {
    type Contents = Contents;

    fn open(dir: &Path) -> Result<Self, StateError> {
        Self::open(dir)
    }

    fn contents(&self) -> Contents {
        let cursors = |(receiver, topic): (String, String)| {
            let cursors = self.cursors(&receiver, &topic).unwrap().unwrap();
            ((receiver, topic), cursors)
        };
        let letters = |receiver| {
            let page = self.dead_letters(receiver, .., MAX_PAGE).unwrap();
            assert_eq!((page.damaged, page.next), (vec![], None));
            let whole = |entry: DeadLetterEntry| {
                let (entry, message) = self.dead_letter(receiver, entry.id).unwrap().unwrap();
                // That is not kept.
                (DeadLetterEntry { redriving: false, ..entry }, message)
            };
            (receiver, page.entries.into_iter().map(whole).collect())
        };
        Contents {
            cursors: self.list().unwrap().into_iter().map(cursors).collect(),
            letters: RECEIVERS.into_iter().map(letters).collect(),
            usages: RECEIVERS.map(|receiver| self.dead_letter_usage(receiver)),
            gaps: RECEIVERS.map(|receiver| self.gaps(receiver).unwrap()),
            agents: self.agents().unwrap(),
        }
    }

    fn go_on(&self) {
        bury(self, "rr", "last", &[99], 99);
    }
}

/// Bytes that are never zero, and not twice the same.
fn message(offset: u64, length: usize) -> Vec<u8> {
    let mut number = offset + 1;
    let mut next = || {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(number >> 56).unwrap() | 1
    };
    (0..length).map(|_| next()).collect()
}

/// Buries messages of these offsets: every third is of several pages.
fn bury(state: &State, receiver: &str, topic: &str, offsets: &[u64], next: u64) {
    let messages = offsets.iter().map(|&offset| message(offset, if offset % 3 == 0 { 13_000 } else { 300 }));
    let messages: Vec<_> = messages.collect();
    let letters: Vec<DeadLetter<'_>> =
        offsets.iter().zip(&messages).map(|(&offset, message)| letter(offset, message)).collect();
    state.bury(receiver, topic, &letters, LIMITS, Cursors::at(next).iter()).unwrap();
}

fn save(state: &State, topic: &str, next: u64, persist: Persist) {
    state.save("r", topic, Cursors::at(next).iter(), persist).unwrap();
}

/// Saves cursors of several pages.
fn save_many_runs(state: &State, topic: &str, next: u64, persist: Persist) {
    let mut cursors = Cursors::at(next);
    for index in 0..64 {
        let cursor = cursors.get_mut(Lane::new(index).unwrap());
        (1..17).for_each(|run| cursor.finish(next + 2 * run).unwrap());
    }
    state.save("r", topic, cursors.iter(), persist).unwrap();
}

fn save_one_lane(state: &State, topic: &str, next: u64) {
    let lane = Lane::new(7).unwrap();
    let cursors = Cursors::at(next);
    state.save("r", topic, [(lane, cursors.get(lane))], Persist::Buffered).unwrap();
}

fn save_agents(state: &State, offset: u64, forgotten: &[&str]) {
    let agent = |id: &str| KnownAgent {
        id: id.to_owned(),
        active: offset.is_multiple_of(2),
        topics: vec![UsedTopic { name: "t".to_owned(), told: Some(true) }],
    };
    let forgotten: Vec<_> = forgotten.iter().map(|id| (*id).to_owned()).collect();
    let changed = [agent("node-1"), agent(&format!("node-{offset}"))];
    state.save_agents(&changed, &forgotten, &[("t".to_owned(), offset), ("u".to_owned(), offset)]).unwrap();
}

fn skip(state: &State, receiver: &str, offsets: std::ops::Range<u64>, reason: GapReason) {
    let cursors = Cursors::at(offsets.end);
    let count = Some(offsets.end - offsets.start);
    state.skip(receiver, "t", &[Gap::new(offsets, count, reason, 7)], cursors.iter()).unwrap();
}

fn seek(state: &State, to: u64) {
    let seek = Seek { who: "ann".to_owned(), what: "seek r".to_owned(), count: None, now: 9 };
    state.seek("r", "t", &Cursors::at(to), seek).unwrap();
}

/// Hands what is in memory to the worker, as happens when there is enough, and does not wait for it.
fn hand_over(stage: &Stage<State>, keyspace: fn(&Open) -> &Keyspace) {
    let state = stage.subject();
    let mut guard = state.lock();
    keyspace(state.opened(&mut guard).unwrap()).rotate_memtable().unwrap();
}

/// Does that, and waits until the worker has written it to a file.
fn flush(stage: &Stage<State>, keyspace: fn(&Open) -> &Keyspace) {
    let state = stage.subject();
    let mut guard = state.lock();
    keyspace(state.opened(&mut guard).unwrap()).rotate_memtable_and_wait().unwrap();
}

const CURSORS: fn(&Open) -> &Keyspace = |open| &open.cursors.keyspace;
const DEAD_LETTERS: fn(&Open) -> &Keyspace = |open| &open.dead_letters.keyspace;
const GAPS: fn(&Open) -> &Keyspace = |open| &open.gaps.keyspace;
const AGENTS: fn(&Open) -> &Keyspace = |open| &open.agents;
const PRESENCE: fn(&Open) -> &Keyspace = |open| &open.presence;

fn begin(stage: &mut Stage<State>) {
    use Promise::{Durable, Kept};
    stage.open();
    stage.call(Durable, |state| save(state, "t", 1, Persist::Sync));
    stage.call(Kept, |state| save_one_lane(state, "t", 2));
    stage.call(Kept, |state| save(state, "u", 1, Persist::Buffered));
    stage.call(Kept, |state| save_agents(state, 2, &[]));
    stage.call(Durable, |state| bury(state, "r", "t", &[2, 3], 4));
    stage.call(Kept, |state| save_many_runs(state, "t", 5, Persist::Buffered));
    stage.call(Kept, |state| save_many_runs(state, "t", 6, Persist::Buffered));
    hand_over(stage, CURSORS);
    stage.call(Kept, |state| save_one_lane(state, "u", 3));
    stage.call(Durable, |state| bury(state, "r", "t", &[6, 7, 8], 9));
    flush(stage, DEAD_LETTERS);
    stage.call(Durable, |state| skip(state, "r", 9..20, GapReason::Shed));
    stage.call(Kept, |state| save_agents(state, 3, &["node-2"]));
    stage.call(Kept, |state| assert_eq!(state.drop_dead_letters("r", &[3], Persist::Buffered).unwrap(), 1));
    let redrive = stage.subject().begin_redrive("r", 4).unwrap();
    assert!(matches!(redrive, Redrive::Begun { .. }), "{redrive:?}");
    stage.call(Durable, |state| assert!(state.rebury("r", 4, death(77), LIMITS).unwrap()));
    stage.call(Durable, |state| save_many_runs(state, "t", 20, Persist::Sync));
    stage.call(Kept, |state| save_many_runs(state, "t", 21, Persist::Buffered));
}

fn fail_to_write(stage: &mut Stage<State>) {
    use Promise::{Durable, Kept, Nothing};
    // Opening hands over what the journal brought back, while the calls go on.
    stage.open();
    stage.call(Kept, |state| save(state, "t", 23, Persist::Buffered));
    stage.call(Durable, |state| bury(state, "rr", "t", &[23, 24], 25));
    for keyspace in [CURSORS, DEAD_LETTERS, GAPS] {
        flush(stage, keyspace);
    }
    let is_watched = stage.is_watched();
    let dir = stage.dir().to_owned();
    stage.call(Nothing, |state| {
        if is_watched {
            let (_file, end) = journal(&dir);
            limit_file_size(Some(end + 900));
            let cursors = Cursors::at(30);
            let death = letter(30, b"lost");
            let error = state.bury("r", "t", &[death], LIMITS, cursors.iter()).unwrap_err();
            limit_file_size(None);
            assert!(matches!(error, StateError::Write { .. }), "{error:?}");
        }
    });
    stage.call(Kept, |state| save_one_lane(state, "t", 24));
    stage.call(Durable, |state| bury(state, "rr", "t", &[25], 26));
    stage.call(Kept, |state| save_agents(state, 4, &[]));
    hand_over(stage, AGENTS);
    stage.call(Kept, |state| state.forget_topics(["u"].into_iter()).unwrap());
    stage.call(Kept, |state| save_many_runs(state, "u", 27, Persist::Buffered));
    stage.close();
}

fn fail_to_sync(stage: &mut Stage<State>) {
    use Promise::{Durable, Kept, Nothing};
    stage.open();
    stage.call(Kept, |state| save(state, "u", 40, Persist::Buffered));
    let is_watched = stage.is_watched();
    stage.call(Nothing, |state| {
        let saved = state.save("r", "t", Cursors::at(40).iter(), Persist::Sync);
        let failed = matches!(saved, Err(StateError::Write { .. }));
        assert_eq!(failed, is_watched, "{saved:?}");
    });
    stage.call(Durable, |state| save(state, "t", 40, Persist::Sync));
    stage.call(Durable, |state| bury(state, "r", "t", &[40], 41));
    stage.call(Durable, |state| seek(state, 10));
    stage.close();
}

fn merge(stage: &mut Stage<State>) {
    use Promise::{Durable, Kept};
    stage.open();
    for next in 50..53 {
        stage.call(Kept, |state| save(state, "t", next, Persist::Buffered));
        stage.call(Durable, |state| bury(state, "r", "t", &[next], next + 1));
        flush(stage, CURSORS);
        flush(stage, DEAD_LETTERS);
    }
    stage.call(Durable, |state| {
        let dropped = state.drop_dead_letters("r", &(0..20).collect::<Vec<_>>(), Persist::Sync).unwrap();
        assert_eq!(dropped, 3);
    });
    flush(stage, DEAD_LETTERS);
    stage.call(Kept, |state| save_one_lane(state, "t", 60));
    stage.call(Durable, |state| skip(state, "r", 60..61, GapReason::Trimmed));
    flush(stage, GAPS);
    stage.call(Kept, |state| save_many_runs(state, "t", 62, Persist::Buffered));
}

fn end(stage: &mut Stage<State>) {
    use Promise::{Durable, Kept};
    stage.open();
    stage.call(Kept, |state| save(state, "t", 70, Persist::Buffered));
    stage.call(Durable, |state| seek(state, 80));
    stage.close();
}

/// Nearly fills a journal, so that soon another one is begun.
fn fill(stage: &mut Stage<State>) {
    stage.open();
    stage.call(Promise::Durable, |state| save(state, "t", 1, Persist::Sync));
    {
        let state = stage.subject();
        let mut guard = state.lock();
        let open = state.opened(&mut guard).unwrap();
        // A key that nobody reads, of zeros, so that the journal is mostly a hole. Values would be compressed.
        for _ in 0..63_900_000 / u32::from(u16::MAX) {
            open.gaps.keyspace.insert([0; u16::MAX as usize], []).unwrap();
        }
    }
    flush(stage, GAPS);
    stage.call(Promise::Kept, |state| save_agents(state, 2, &[]));
    stage.call(Promise::Durable, |state| skip(state, "r", 10..20, GapReason::Shed));
    stage.close();
}

fn begin_another_journal(stage: &mut Stage<State>) {
    use Promise::{Durable, Kept};
    stage.open();
    stage.call(Durable, |state| bury(state, "r", "t", &[20], 21));
    stage.call(Kept, |state| save(state, "u", 22, Persist::Buffered));
    let large = message(23, 200_000);
    stage.call(Durable, |state| {
        state.bury("rr", "t", &[letter(23, &large)], LIMITS, Cursors::at(24).iter()).unwrap();
    });
    // Before it writes the file, the worker begins another journal. It removes the old one when nothing is in that alone.
    for keyspace in [DEAD_LETTERS, CURSORS, GAPS, AGENTS, PRESENCE] {
        flush(stage, keyspace);
    }
    let journals = || {
        let names = stage.dir().read_dir().unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|ending| ending == "jnl")).collect::<Vec<_>>()
    };
    let start = Instant::now();
    while journals() != [stage.dir().join("1.jnl")] {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", journals());
        thread::yield_now();
    }
    stage.call(Kept, |state| save(state, "t", 30, Persist::Buffered));
    stage.call(Durable, |state| bury(state, "r", "t", &[30], 31));
}

#[test]
fn it_survives_a_crash_behind_every_step_of_another_journal() {
    let parts = [
        Part { play: fill, how: How::Untraced },
        Part { play: begin_another_journal, how: How::Traced },
        Part { play: end, how: How::Traced },
    ];
    let test = "store::crash::it_survives_a_crash_behind_every_step_of_another_journal";
    let names = crash::survives(test, &parts, Thoroughness::Coarse);
    let journals = ["database/0.jnl", "database/1.jnl"].map(|name| names[Path::new(name)]);
    assert_eq!(journals, [false, true], "the first journal is not removed");
}

#[test]
fn it_survives_a_crash_behind_every_step() {
    let test = "store::crash::it_survives_a_crash_behind_every_step";
    crash::is_survived(test, Life { begin, fail_to_write, fail_to_sync, merge, end });
}

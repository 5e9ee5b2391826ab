//! Compares cursors and gap records with plain sets that do the same, over random operations, while the process that has the
//! database open is killed between any two of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use proptest::prelude::*;

use super::{processes::DIR, *};
use crate::{Gap, GapReason, Seek};

const TEST: &str = "store::model::no_kill_takes_anything_back";

/// A receiver and a topic. One name begins with another.
const PAIRS: [(&str, &str); 3] = [("r", "t"), ("r", "tt"), ("rr", "t")];

/// Offsets are below this, so that random spans meet each other.
const SPACE: u64 = 120;

#[derive(Clone, Debug)]
enum Operation {
    /// A receiver finishes offsets in some lanes.
    Finish {
        pair: usize,
        lanes: u64,
        offsets: Range<u64>,
        persist: Persist,
    },
    Skip {
        pair: usize,
        offsets: Range<u64>,
    },
    Seek {
        pair: usize,
        to: u64,
    },
    Kill,
    Close,
}

fn operation() -> impl Strategy<Value = Operation> {
    let pair = || 0..PAIRS.len();
    let offsets = || (0..SPACE, 1..20_u64).prop_map(|(start, length)| start..(start + length).min(SPACE));
    let persist = prop_oneof![3 => Just(Persist::Buffered), 1 => Just(Persist::Sync)];
    prop_oneof![
        8 => (pair(), any::<u64>(), offsets(), persist)
            .prop_map(|(pair, lanes, offsets, persist)| Operation::Finish { pair, lanes, offsets, persist }),
        1 => (pair(), offsets()).prop_map(|(pair, offsets)| Operation::Skip { pair, offsets }),
        1 => (pair(), 0..SPACE).prop_map(|(pair, to)| Operation::Seek { pair, to }),
        2 => Just(Operation::Kill),
        1 => Just(Operation::Close),
    ]
}

/// What there should be of a pair.
#[derive(Clone, Debug)]
struct Truth {
    /// The finished offsets of each lane.
    finished: Vec<BTreeSet<u64>>,
    skipped: BTreeSet<u64>,
    /// What operators asked for.
    seeks: BTreeSet<String>,
}

impl Truth {
    fn new() -> Self {
        let (skipped, seeks) = Default::default();
        Self { finished: vec![BTreeSet::new(); 64], skipped, seeks }
    }

    fn finish(&mut self, lanes: u64, offsets: Range<u64>) {
        let lanes = self.finished.iter_mut().enumerate().filter(|(lane, _)| lanes >> lane & 1 == 1);
        lanes.for_each(|(_, finished)| finished.extend(offsets.clone()));
    }
}

/// What the process does that is killed.
fn serve(dir: &Path) {
    let state = State::open(dir).unwrap();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let number = |place: usize| words[place].parse::<u64>().unwrap();
        let (receiver, topic) = PAIRS[words[1].parse::<usize>().unwrap()];
        let stored = state.cursors(receiver, topic).unwrap();
        let mut cursors = stored.clone().unwrap_or_else(|| Cursors::at(0));
        match words[0] {
            "finish" => {
                let bits = number(2);
                let lanes: LaneSet =
                    LaneSet::ALL.iter().filter(|lane| bits >> lane.index() & 1 == 1).collect();
                lanes
                    .iter()
                    .for_each(|lane| cursors.get_mut(lane).finish_span(number(3)..number(4)).unwrap());
                let persist = if words[5] == "sync" { Persist::Sync } else { Persist::Buffered };
                // The first save holds all lanes.
                let changed = cursors.iter().filter(|(lane, _)| stored.is_none() || lanes.contains(*lane));
                state.save(receiver, topic, changed, persist).unwrap();
            }
            "skip" => {
                let offsets = number(2)..number(3);
                LaneSet::ALL.iter().for_each(|lane| cursors.get_mut(lane).advance_to(offsets.end));
                let gap = Gap::new(offsets.clone(), Some(offsets.end - offsets.start), GapReason::Shed, 1);
                state.skip(receiver, topic, &[gap], cursors.iter()).unwrap();
            }
            "seek" => {
                let seek = Seek { who: "ann".to_owned(), what: words[3].to_owned(), count: None, now: 2 };
                state.seek(receiver, topic, &Cursors::at(number(2)), seek).unwrap();
            }
            "close" => return,
            word => panic!("{word:?}"),
        }
        println!("done");
    }
}

/// The process, and how it is spoken to.
struct Server {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]).env(DIR, dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, requests, answers }
    }

    fn ask(&mut self, request: &str) {
        writeln!(self.requests, "{request}").unwrap();
        // What the test harness prints comes between.
        let mut answers = self.answers.by_ref().lines();
        assert!(answers.any(|line| line.unwrap().ends_with("done")), "no answer to {request:?}");
    }

    fn end(mut self, is_killed: bool) {
        if is_killed {
            self.child.kill().unwrap();
        } else {
            writeln!(self.requests, "close 0").unwrap();
        }
        self.child.wait().unwrap();
    }
}

/// Everything is as in the truth.
fn check(dir: &Path, truth: &BTreeMap<usize, Truth>) {
    let state = State::open(dir).unwrap();
    assert_eq!(state.list().unwrap().len(), truth.len());
    for (pair, truth) in truth {
        let (receiver, topic) = PAIRS[*pair];
        let cursors = state.cursors(receiver, topic).unwrap().unwrap();
        for ((lane, cursor), finished) in cursors.iter().zip(&truth.finished) {
            let found: BTreeSet<_> = (0..SPACE).filter(|offset| cursor.is_finished(*offset)).collect();
            assert_eq!(found, *finished, "lane {} of {receiver} in {topic}", lane.index());
        }
        let known = state.gaps(receiver).unwrap();
        let gaps: Vec<_> =
            known.topics.into_iter().filter(|(other, _)| other == topic).flat_map(|(_, gaps)| gaps).collect();
        let skipped = gaps.iter().filter(|gap| gap.reason == GapReason::Shed);
        let skipped: BTreeSet<_> = skipped.flat_map(|gap| gap.offsets.clone()).collect();
        assert_eq!(skipped, truth.skipped);
        let seeks = gaps.iter().filter_map(|gap| match &gap.reason {
            GapReason::Seek { what, .. } => Some(what.clone()),
            _ => None,
        });
        assert_eq!(seeks.collect::<BTreeSet<_>>(), truth.seeks);
    }
}

fn drive(dir: &Path, operations: Vec<Operation>) {
    let (mut truth, mut server) = (BTreeMap::<usize, Truth>::new(), None);
    for (number, operation) in operations.into_iter().enumerate() {
        let mut ask = |request: String| server.get_or_insert_with(|| Server::start(dir)).ask(&request);
        match operation {
            Operation::Finish { pair, lanes, offsets: Range { start, end }, persist } => {
                let persist = if persist == Persist::Sync { "sync" } else { "buffered" };
                // A save without lanes does nothing, unless it is the first, which holds all.
                let lanes = lanes | 1;
                ask(format!("finish {pair} {lanes} {start} {end} {persist}"));
                truth.entry(pair).or_insert_with(Truth::new).finish(lanes, start..end);
            }
            Operation::Skip { pair, offsets: Range { start, end } } => {
                ask(format!("skip {pair} {start} {end}"));
                truth.entry(pair).or_insert_with(Truth::new).finish(u64::MAX, 0..end);
                truth.entry(pair).or_insert_with(Truth::new).skipped.extend(start..end);
            }
            Operation::Seek { pair, to } => {
                ask(format!("seek {pair} {to} {number}"));
                truth.entry(pair).or_insert_with(Truth::new).finished = vec![(0..to).collect(); 64];
                truth.entry(pair).or_insert_with(Truth::new).seeks.insert(number.to_string());
            }
            Operation::Kill | Operation::Close => {
                if let Some(server) = server.take() {
                    server.end(matches!(operation, Operation::Kill));
                    check(dir, &truth);
                }
            }
        }
    }
    server.into_iter().for_each(|server| server.end(true));
    check(dir, &truth);
}

#[test]
fn no_kill_takes_anything_back() {
    if let Some(dir) = env::var_os(DIR) {
        return serve(&PathBuf::from(dir));
    }
    // Each case starts some processes, and opens a database more often.
    let config =
        ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::with_source_file(file!()) };
    proptest!(config, |(operations in prop::collection::vec(operation(), 1..40))| {
        let dir = tempfile::tempdir().unwrap();
        drive(&dir.path().join("state"), operations);
    });
}

//! A model test of the log and the cursors together: random work of the real workers on a real log and a real state database,
//! with clean stops and crashes between any two operations and in the middle of calls, against a list of what was
//! acknowledged. Only the component is played.
//!
//! A crash takes all that is in memory. What it would find on the disk is compared with the truth after every operation, while
//! calls run, and while something is about to be written down, so that a moment at which no crash is tried is looked at too.

use std::num::NonZeroUsize;
use std::path::Path;
use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;
use proptest::sample::Index;
use wharf_log::{Durability, Log, Record as Stored, Retention, Topic, TopicOptions};
use wharf_protocol::{AgentId, Body, Encoding, Limits, PresenceRecord, StoredMessage};
use wharf_state::{Persist, State};

use super::*;
use crate::config::Start;
use crate::data_dir::DataDir;
use crate::delivery::controls::Steered;
use crate::delivery::progress::{Keeper, Places, Progress};
use crate::delivery::{Controls, Feed, SeekTo};
use crate::gate::Gate;
use crate::telemetry::Metrics;
use steps::{Call, Fate, Step, Verdict, step};
use truth::{Play, Sent, Truth};

mod steps;
mod truth;

const RECEIVER: &str = "journal";
const TOPIC: &str = "metrics";
/// Far more operations than any backlog of these needs.
const MAX_ROUNDS: usize = 1_000;

const AGENTS: usize = 6;
/// Several times what the databases and the reserve of the log take.
const MEMORY_BYTES: u64 = 1024 * 1024 * 1024;

/// Two agents of one lane, and some of others.
fn agents() -> [String; AGENTS] {
    let first = "agent-0".to_owned();
    let same = (1..).map(|n| format!("agent-{n}")).find(|name| Lane::of(name) == Lane::of(&first)).unwrap();
    [first, same, "b".to_owned(), "c".to_owned(), "d".to_owned(), "e".to_owned()]
}

/// A folder in memory, where there is enough of it: nothing here tells it from a disk, which takes five times as long.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let free =
        rustix::fs::statvfs(memory).map_or(0, |memory| memory.f_bavail.saturating_mul(memory.f_frsize));
    if free >= MEMORY_BYTES { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// A server, as far as the delivery of one data type to one receiver goes.
struct Run {
    log: Log,
    workers: Vec<Worker>,
    play: Play,
    controls: Controls,
    status: Arc<Status>,
    breaker: Arc<Breaker>,
    halt: Arc<Halt>,
    stop: CancellationToken,
}

impl Run {
    fn topic(&self) -> &Topic {
        self.log.topic(TOPIC).unwrap()
    }
}

struct Model {
    folder: tempfile::TempDir,
    truth: Arc<std::sync::Mutex<Truth>>,
    run: Option<Run>,
    bodies: usize,
    /// Whether the last run ended in an orderly way, and everything that was given was finished.
    clean: bool,
}

impl Model {
    fn new() -> Model {
        let (folder, truth) = (folder(), Arc::default());
        let mut model = Model { folder, truth, run: None, bodies: 0, clean: true };
        model.start(1);
        model
    }

    fn start(&mut self, instances: usize) {
        let data_dir = Arc::new(DataDir::open(self.folder.path()).unwrap());
        // Small, so that much is read from files, and segments can be trimmed.
        let options = TopicOptions {
            segment_bytes: 1_500,
            tail_bytes: 700,
            ..TopicOptions::new(TOPIC, Durability::Os)
        };
        let log = Log::open(&data_dir.log(), vec![options]).unwrap();
        let state = State::open(&data_dir.state()).unwrap();
        let topic = log.topic(TOPIC).unwrap().clone();
        let settings = config::Receiver {
            start: Start::Oldest,
            instances,
            max_messages: 4,
            max_bytes: 400,
            max_wait: Duration::ZERO,
            max_in_flight: 6,
            max_parked: 8,
            max_attempts: 2,
            retry_pause: Duration::ZERO,
            dead_letters: 5,
            ..config::Receiver::new(RECEIVER.to_owned(), "j.wasm".into(), vec![TOPIC.to_owned()])
        };
        let again_below = if self.clean { 0 } else { topic.end() };
        let feed = Feed { topic: topic.clone(), durability: Durability::Os, gate: Gate::new(), again_below };
        let progress = Arc::new(Progress::take_up(&settings, TOPIC, &feed, false, &state).unwrap());
        let breaker = Arc::new(Breaker::new(&settings, true));
        let topics = vec![(topic, progress.clone())];
        let status = Status::new(&settings, "digest", topics.clone(), breaker.clone(), &Metrics::new(), None);
        let (status, stop) = (Arc::new(status), CancellationToken::new());
        let halt = Arc::new(Halt::new(0, Duration::ZERO, stop.clone()));
        let redrives = Arc::new(Redrives::new(Vec::new()));
        let controls = Controls::open(data_dir, state.clone(), None).unwrap();
        let (redrives_too, halt_too) = (redrives.clone(), halt.clone());
        let steered = Steered { breaker: breaker.clone(), redrives: redrives_too, halt: halt_too, topics };
        controls.put(RECEIVER, Arc::new(steered));
        let (truth, crash) = (self.truth.clone(), Arc::default());
        let play = Play { truth, progress: progress.clone(), state: state.clone(), crash };
        let worker = |index| {
            let lanes = LaneSet::owned_by(index, NonZeroUsize::new(instances).unwrap());
            let parts = Parts {
                index,
                lanes,
                sources: vec![Source::new(&feed, lanes, progress.clone(), settings.retry_pause)],
                status: status.clone(),
                breaker: breaker.clone(),
                burials: Burials::new(&settings, "digest", state.clone(), None, status.clone()),
                redrives: redrives.clone(),
                halt: halt.clone(),
                instance: None,
                version: 1,
                stop: stop.clone(),
            };
            let play = play.clone();
            Worker::calling(Callee::Played(Box::new(move |given| play.call(given))), false, &settings, parts)
        };
        let workers = (0..instances).map(worker).collect();
        play.truth().begin(&progress.cursors());
        self.run = Some(Run { log, workers, play, controls, status, breaker: breaker.clone(), halt, stop });
    }

    async fn step(&mut self, step: Step) {
        let run = self.run.as_mut().unwrap();
        match step {
            Step::Append(records) => self.append(records).await,
            Step::Work { worker, due_first, keeper_between, mut calls } => {
                // There is one keeper.
                calls.iter_mut().for_each(|call| call.saved_meanwhile &= !keeper_between);
                run.play.truth().calls = calls.into();
                let instances = run.workers.len();
                if let Worked::Crashed = work(run, worker % instances, due_first, keeper_between).await {
                    self.crash(instances);
                }
            }
            Step::Save => run.save(),
            Step::Trim => {
                let at_once = Retention { retain: Some(Duration::ZERO), retain_bytes: None };
                run.topic().trim(run.play.progress.saved_lowest(), at_once).await.unwrap();
            }
            Step::Seek(to) => run.seek(to).await,
            Step::Stop { instances } => self.stop(instances).await,
            Step::Crash { instances } => self.crash(instances),
        }
        let run = self.run.as_ref().unwrap();
        let mut truth = run.play.truth();
        truth.check_progress(&run.play.state, &run.play.progress.cursors());
        truth.check_disk(&run.play.state, run.topic().start());
    }

    async fn append(&mut self, records: Vec<(usize, bool)>) {
        let run = self.run.as_ref().unwrap();
        let mut stored = Vec::new();
        for (agent, is_presence) in records {
            let agent = AgentId::new(agents()[agent].clone()).unwrap();
            self.bodies += 1;
            let text =
                format!(r#"{{"number":{},"padding":"{}"}}"#, self.bodies, "x".repeat(self.bodies * 37 % 200));
            let (lane, sent) = (Lane::of(agent.as_str()), (agent.as_str().to_owned(), text.clone()));
            let record = if is_presence {
                Record::Presence(PresenceRecord { agent, active: true, at: 0 })
            } else {
                let body = Body::new(Encoding::Json, text.into(), &Limits::default()).unwrap();
                let (message_id, sent_at, user, traceparent) = (None, None, None, None);
                Record::Message(StoredMessage {
                    agent,
                    received_at: 0,
                    message_id,
                    sent_at,
                    user,
                    traceparent,
                    body,
                })
            };
            // Of long ago, so that nothing is kept for its age.
            let record = Stored { lane, time: 0, payload: Bytes::from(record.encode()) };
            stored.push((record, (!is_presence).then_some(sent)));
        }
        let (records, sent): (Vec<_>, Vec<_>) = stored.into_iter().unzip();
        let lanes: Vec<_> = records.iter().map(|record| record.lane).collect();
        let offsets = run.topic().append(records, Duration::ZERO).await.unwrap();
        let mut truth = run.play.truth();
        let last = truth.places.last_key_value().map(|(offset, _)| *offset);
        assert!(last.is_none_or(|last| last < offsets.start), "{offsets:?} after {last:?}");
        for ((offset, lane), sent) in offsets.zip(lanes).zip(sent) {
            truth.places.insert(offset, lane);
            if let Some((agent, body)) = sent {
                truth.sent.insert(offset, Sent { agent, lane, body, given: false, finished: false });
            }
        }
    }

    /// Stops as [`Delivery::stop`](crate::delivery::Delivery::stop) does, and starts again.
    async fn stop(&mut self, instances: usize) {
        let Run { log, workers, play, status, stop, .. } = self.run.take().unwrap();
        stop.cancel();
        for worker in workers {
            worker.run().await;
        }
        let keeper = Keeper::new(
            Arc::new(Places::new(vec![play.progress.clone()])),
            play.state.clone(),
            None,
            Duration::ZERO,
        );
        let saved = keeper.run(stop).await;
        assert!(saved);
        self.clean = !status.is_interrupted() && !play.progress.is_repeating();
        let cursors = play.state.cursors(RECEIVER, TOPIC).unwrap().unwrap();
        play.truth().check_progress(&play.state, &cursors);
        log.close().await;
        drop(play);
        self.start(instances);
    }

    fn crash(&mut self, instances: usize) {
        self.run = None;
        self.clean = false;
        self.start(instances);
    }

    /// Everything that is not finished comes, and nothing comes after that.
    async fn end(&mut self) {
        for _ in 0..2 {
            let run = self.run.as_mut().unwrap();
            run.play.truth().calls.clear();
            for index in 0..run.workers.len() {
                let mut rounds = 0;
                while matches!(work(run, index, true, false).await, Worked::Something) {
                    rounds += 1;
                    assert!(rounds < MAX_ROUNDS, "worker {index} never ends");
                }
            }
            run.play.truth().check_progress(&run.play.state, &run.play.progress.cursors());
            for (offset, sent) in &run.play.truth().sent {
                assert!(sent.finished, "{offset} never came: {sent:?}");
            }
            self.stop(1).await;
        }
    }
}

impl Run {
    fn save(&self) {
        let Play { progress, state, .. } = &self.play;
        progress.save(&progress.writing(), state, None, Persist::Buffered).unwrap();
    }

    async fn seek(&mut self, to: Option<Index>) {
        let end = self.topic().end();
        let to = match to.map(|to| to.index(usize::try_from(end).unwrap() + 1) as u64) {
            None => SeekTo::Oldest,
            Some(to) if to == end => SeekTo::Newest,
            Some(to) => SeekTo::Offset(to),
        };
        assert!(self.breaker.is_paused());
        let sought = self.controls.seek(RECEIVER, None, to, "me@here", "wharf seek").await.unwrap();
        for worker in &mut self.workers {
            worker.begin(self.halt.turn());
        }
        self.play.truth().seek(&self.play.state, sought[0].to);
    }
}

enum Worked {
    Something,
    Nothing,
    Crashed,
}

/// One thing that a worker does, chosen as [`Worker::step`] does. What is due is so at once.
async fn work(run: &mut Run, index: usize, due_first: bool, keeper_between: bool) -> Worked {
    let Run { workers, play, log, .. } = run;
    let (worker, topic) = (&mut workers[index], log.topic(TOPIC).unwrap());
    let (max_in_flight, max_parked) = worker.shares();
    let source = &worker.sources[0];
    let is_due = source.waiting.next_due().is_some();
    let has_room = source.waiting.given() < max_in_flight && source.waiting.parked() < max_parked;
    let from = source.read_below().max(topic.start());
    let is_new = has_room && play.truth().places.range(from..).any(|(_, lane)| worker.lanes.contains(*lane));
    let reads_on = is_new && !(is_due && due_first);
    let batch = if reads_on { worker.next_batch(0).await.ok() } else { None };
    let mut work = pin!(async {
        match batch {
            Some(batch) => drop(worker.deliver_new(batch).await),
            None if is_due => drop(worker.deliver_due(0).await),
            None => worker.settle(0, &[]),
        }
    });
    if keeper_between {
        // Whatever is to be written down next, the cursors are saved before it.
        let writing = play.progress.writing();
        if work.as_mut().now_or_never().is_some() {
            return Worked::Something;
        }
        play.progress.save(&writing, &play.state, None, Persist::Buffered).unwrap();
        play.truth().check_disk(&play.state, topic.start());
    }
    tokio::select! {
        biased;
        () = play.crash.notified() => Worked::Crashed,
        () = work => if is_due || is_new { Worked::Something } else { Worked::Nothing },
    }
}

/// Few enough for every run of the tests; as many as one likes with `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32)
}

fn play(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut model = Model::new();
        for step in steps {
            model.step(step).await;
        }
        model.end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(), max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn what_was_acknowledged_is_finished_or_accounted_for_whatever_happens(
        steps in prop::collection::vec(step(), 1..100),
    ) {
        play(steps);
    }
}

#[test]
fn what_was_trimmed_between_two_retries_is_not_missed() {
    let work = |verdict| {
        let (fate, verdicts) = (Fate::Answered, vec![verdict]);
        let calls = vec![Call { fate, verdicts, saved_meanwhile: false }];
        Step::Work { worker: 0, due_first: true, keeper_between: false, calls }
    };
    let retried = [Step::Append(vec![(0, false)]), work(Verdict::Retry), work(Verdict::Handled)];
    let many = vec![Step::Append(vec![(1, false); 8]); 3];
    let handled = vec![work(Verdict::Handled); 16];
    play([&retried, &many[..], &handled, &[Step::Save, Step::Trim], &retried].concat());
}

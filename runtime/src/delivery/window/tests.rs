use std::path::Path;
use std::time::Duration;

use wharf_host::{Batch, FailureAction, Message};
use wharf_log::{Durability, Log, Record as Stored, TopicOptions};
use wharf_protocol::{AgentId, Body, Encoding, Limits, PresenceRecord, StoredMessage};
use wharf_state::State;

use super::*;
use crate::config;
use crate::delivery::Feed;
use crate::gate::Gate;

const TOPIC: &str = "metrics";
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
/// The versions around the swap.
const OLD: u64 = 3;
const NEW: u64 = 4;

/// A topic and a receiver that gets all of it.
struct Site {
    _dir: tempfile::TempDir,
    log: Log,
    progress: Progress,
}

impl Site {
    fn open() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let (log, progress) = Site::open_in(dir.path());
        Site { _dir: dir, log, progress }
    }

    fn open_in(dir: &Path) -> (Log, Progress) {
        let log = Log::open(&dir.join("log"), vec![TopicOptions::new(TOPIC, Durability::Os)]).unwrap();
        let state = State::open(&dir.join("state")).unwrap();
        let topic = log.topic(TOPIC).unwrap().clone();
        let feed = Feed { topic, durability: Durability::Os, gate: Gate::new(), again_below: 0 };
        let settings = config::Receiver::new("r".to_owned(), "r.wasm".into(), vec![TOPIC.to_owned()]);
        let progress = Progress::take_up(&settings, TOPIC, &feed, false, &state).unwrap();
        (log, progress)
    }

    fn topic(&self) -> &Topic {
        self.log.topic(TOPIC).unwrap()
    }

    /// Appends messages of these agents; of an agent that is named in capitals, a change of presence.
    async fn append(&self, agents: &str) {
        let records = agents.chars().map(|agent| {
            let id = AgentId::new(agent.to_string()).unwrap();
            let record = if agent.is_uppercase() {
                Record::Presence(PresenceRecord { agent: id, active: true, at: 0 })
            } else {
                message(id, "{}")
            };
            Stored { lane: lane(agent), time: 0, payload: record.encode().into() }
        });
        self.topic().append(records.collect(), LONG).await.unwrap();
    }

    fn open_window(&self) -> Arc<Window> {
        self.progress.open_window(OLD, self.topic())
    }

    /// A call of this version of worker 0 with these offsets that returned, of which it refused some.
    fn called(&self, version: u64, offsets: &[(u64, Redelivery)], refused: &[u64]) {
        let said = refused.iter().map(|offset| (*offset, (FailureAction::Reject, "no".to_owned()))).collect();
        self.progress.counting().called(0, version, &batch(offsets), Some(&said));
    }

    /// What became of everything up to the end of the log, in the one lane that it is about.
    async fn count(&self, window: &Window) -> LaneCount {
        let counts = self.counts(window).await;
        let [(_, count)] = &counts[..] else { panic!("one lane: {counts:?}") };
        count.clone()
    }

    async fn counts(&self, window: &Window) -> Vec<(Lane, LaneCount)> {
        let accepted = window.accepted(self.topic(), window.to(self.topic().end())).await.unwrap();
        window.count(&accepted, &self.progress)
    }

    fn finish(&self, agent: char, offsets: std::ops::Range<u64>) {
        self.progress.finish(lane(agent), offsets);
    }
}

fn message(agent: AgentId, body: &str) -> Record {
    let limits = Limits { max_depth: 1, max_calls: 1 };
    let body = Body::new(Encoding::Json, body.to_owned().into(), &limits).unwrap();
    let (message_id, sent_at, user, traceparent) = (None, None, None, None);
    Record::Message(StoredMessage { agent, received_at: 0, message_id, sent_at, user, traceparent, body })
}

/// A batch of agent `a`.
fn batch(offsets: &[(u64, Redelivery)]) -> Batch {
    let messages = offsets.iter().map(|(offset, redelivery)| Message {
        offset: *offset,
        agent: "a".to_owned(),
        received_at: 0,
        redelivery: *redelivery,
        id: None,
        sent_at: None,
        user: None,
        trace: None,
        body: wharf_host::Body::Json("{}".to_owned()),
    });
    Batch { data_type: TOPIC.to_owned(), messages: messages.collect() }
}

fn lane(agent: char) -> Lane {
    Lane::of(&agent.to_ascii_lowercase().to_string())
}

/// These offsets, given for the first time.
fn first(offsets: std::ops::Range<u64>) -> Vec<(u64, Redelivery)> {
    offsets.map(|offset| (offset, Redelivery::None)).collect()
}

#[tokio::test]
async fn every_message_counts_as_what_became_of_it() {
    let site = Site::open();
    site.append("aaaaaaaaaa").await;
    site.called(OLD, &first(0..2), &[]);
    site.finish('a', 0..2);
    let window = site.open_window();
    site.called(OLD, &first(2..4), &[]);
    site.finish('a', 2..4);
    site.called(NEW, &[(4, Redelivery::Again), (5, Redelivery::None), (6, Redelivery::None)], &[6]);
    site.finish('a', 4..6);
    site.progress.finish_as(&[(lane('a'), 6..7)], Fate::Dead);
    site.progress.finish_as(&[(lane('a'), 7..8)], Fate::Gap);
    // Whoever moved the cursor said nothing of it.
    site.finish('a', 8..9);
    let counts = Counts {
        accepted: 8,
        by_old: 2,
        by_new: 2,
        by_both: 0,
        redelivered: 1,
        dead: 1,
        gaps: 1,
        pending: 1,
        lost: 1,
    };
    let expected = LaneCount { from: 2, last_by_old: Some(3), first_by_new: Some(4), counts };
    assert_eq!(site.count(&window).await, expected);
    // A version that follows the new one counts as new.
    site.called(NEW + 1, &first(9..10), &[]);
    site.finish('a', 9..10);
    assert_eq!(
        site.count(&window).await,
        LaneCount { counts: Counts { by_new: 3, pending: 0, ..counts }, ..expected }
    );
}

#[tokio::test]
async fn a_call_that_returned_just_before_is_of_the_old_version() {
    let site = Site::open();
    site.append("aa").await;
    site.called(OLD, &first(0..1), &[]);
    let window = site.open_window();
    // The cursor moves a moment later, and nothing more is said of it.
    site.finish('a', 0..1);
    let count = site.count(&window).await;
    assert_eq!(
        (count.counts.by_old, count.last_by_old, count.counts.pending, count.counts.lost),
        (1, Some(0), 1, 0)
    );
    // What the call before that one handled is not remembered: its cursor has moved.
    site.called(OLD, &first(1..2), &[]);
    assert_eq!(site.count(&site.open_window()).await.counts.by_old, 1);
}

#[tokio::test]
async fn what_a_failed_call_was_about_is_not_handled() {
    let site = Site::open();
    site.append("aa").await;
    let window = site.open_window();
    site.progress.counting().called(0, OLD, &batch(&first(0..2)), None);
    let count = site.count(&window).await;
    assert_eq!((count.counts.by_old, count.counts.pending), (0, 2));
}

#[tokio::test]
async fn a_message_that_both_versions_handled_is_told_of() {
    let site = Site::open();
    site.append("aa").await;
    let window = site.open_window();
    site.called(OLD, &first(0..1), &[]);
    site.called(NEW, &[(0, Redelivery::Again), (1, Redelivery::None)], &[]);
    site.finish('a', 0..2);
    let count = site.count(&window).await;
    assert_eq!(
        (count.counts.accepted, count.counts.by_old, count.counts.by_new, count.counts.by_both),
        (2, 1, 1, 1)
    );
    assert_eq!((count.counts.redelivered, count.last_by_old, count.first_by_new), (1, Some(0), Some(0)));
}

#[tokio::test]
async fn lanes_are_counted_apart_and_changes_of_presence_are_no_messages() {
    let site = Site::open();
    site.append("AaBbbc").await;
    assert_ne!(lane('a'), lane('b'));
    site.finish('b', 3..4);
    let window = site.open_window();
    let counts = site.counts(&window).await.into_iter();
    let mut counts: Vec<_> =
        counts.map(|(lane, count)| (lane.index(), count.counts.accepted, count.counts.pending)).collect();
    counts.sort_unstable();
    let mut expected = ['a', 'b', 'c'].map(|agent| (lane(agent).index(), 1, 1));
    expected.sort_unstable();
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn what_happens_after_it_was_closed_is_not_noted() {
    let site = Site::open();
    site.append("aa").await;
    let window = site.open_window();
    site.called(OLD, &first(0..1), &[]);
    site.progress.counting().close(&window);
    site.called(NEW, &first(1..2), &[]);
    site.finish('a', 0..2);
    let count = site.count(&window).await;
    assert_eq!((count.counts.by_old, count.counts.by_new, count.counts.lost), (1, 0, 1));
}

#[tokio::test]
async fn it_spans_so_many_bytes_and_no_more() {
    let site = Site::open();
    let body = format!("{{\"padding\":\"{}\"}}", "x".repeat(1024 * 1024));
    let count = MAX_SPAN_BYTES / (1024 * 1024) + 2;
    for _ in 0..count {
        let record = message(AgentId::new("a").unwrap(), &body);
        let stored = Stored { lane: lane('a'), time: 0, payload: record.encode().into() };
        site.topic().append(vec![stored], LONG).await.unwrap();
    }
    // The receiver is at the beginning: what lies far ahead of it is not in the window.
    let ahead = site.open_window();
    assert_eq!(ahead.from(), 0);
    let to = ahead.to(count);
    assert!((count - 5..count).contains(&to), "{to}");
    site.called(NEW, &first(to - 1..to + 1), &[]);
    assert_eq!(ahead.count(&[(lane('a'), to - 1), (lane('a'), to)], &site.progress)[0].1.counts.by_new, 1);
    // One lane is at the end, and others are far behind it.
    site.finish('a', 0..count);
    let behind = site.open_window();
    assert_eq!(behind.to(count), count);
    assert!((1..5).contains(&behind.from()), "{}", behind.from());
}

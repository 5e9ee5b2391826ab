use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use wharf_log::{Durability, Lane, LaneSet, Log, Record, TopicOptions};
use wharf_state::{Cursors, DeadLetter, DeadLetterLimits, Death, DeathKind, GapReason, MAX_PAGE};

use super::*;
use crate::config;
use crate::delivery::Feed;
use crate::delivery::waiting::WaitingAgents;
use crate::gate::Gate;

fn controls(data_dir: &Arc<DataDir>, state: &State) -> (Controls, Arc<Breaker>) {
    let controls = Controls::open(data_dir.clone(), state.clone(), None).unwrap();
    let settings = config::Receiver::new("journal".to_owned(), "j.wasm".into(), Vec::new());
    let breaker = Arc::new(Breaker::new(&settings, controls.starts_paused("journal")));
    let redrives = Arc::new(Redrives::new(Vec::new()));
    let halt = Arc::new(Halt::new(0, settings.deadline, CancellationToken::new()));
    let steered = Steered { breaker: breaker.clone(), redrives, halt, topics: Vec::new() };
    controls.put("journal", Arc::new(steered));
    (controls, breaker)
}

#[test]
fn a_pause_is_still_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = Arc::new(DataDir::open(folder.path()).unwrap());
    let state = State::open(&data_dir.state()).unwrap();
    let (first, breaker) = controls(&data_dir, &state);
    first.pause("journal").unwrap();
    first.pause("journal").unwrap();
    assert!(breaker.is_paused());
    let (second, breaker) = controls(&data_dir, &state);
    assert!(breaker.is_paused());
    second.resume("journal").unwrap();
    assert!(!breaker.is_paused());
    assert!(!controls(&data_dir, &state).1.is_paused());
}

#[test]
fn what_is_written_down_is_so_whoever_was_faster() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = Arc::new(DataDir::open(folder.path()).unwrap());
    let state = State::open(&data_dir.state()).unwrap();
    let (controls, breaker) = controls(&data_dir, &state);
    for _ in 0..20 {
        std::thread::scope(|scope| {
            scope.spawn(|| controls.pause("journal").unwrap());
            scope.spawn(|| controls.resume("journal").unwrap());
        });
        assert_eq!(breaker.is_paused(), !data_dir.paused_receivers().unwrap().is_empty());
    }
}

#[test]
fn a_receiver_that_is_not_there_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = Arc::new(DataDir::open(folder.path()).unwrap());
    let state = State::open(&data_dir.state()).unwrap();
    let (controls, _) = controls(&data_dir, &state);
    let refusal = controls.pause("jurnal").unwrap_err().to_string();
    assert_eq!(refusal, r#"find the receiver "jurnal": the config has journal"#);
    assert!(!controls.starts_paused("jurnal"));
}

/// Topics `a` (on disk) and `b` (in memory) with ten messages each, a receiver of both that has finished the first five, and
/// what it needs.
struct Two {
    controls: Controls,
    state: State,
    breaker: Arc<Breaker>,
    redrives: Arc<Redrives>,
    topics: Vec<(Topic, Arc<Progress>)>,
    _folder: tempfile::TempDir,
}

async fn two() -> Two {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = Arc::new(DataDir::open(folder.path()).unwrap());
    let state = State::open(&data_dir.state()).unwrap();
    let kinds = [("a", Durability::Fsync), ("b", Durability::Memory)];
    let options = kinds.map(|(name, durability)| TopicOptions::new(name, durability)).to_vec();
    let log = Log::open(&data_dir.log(), options).unwrap();
    let types = vec!["a".to_owned(), "b".to_owned()];
    let settings = config::Receiver::new("journal".to_owned(), "j.wasm".into(), types);
    let mut topics = Vec::new();
    for (name, durability) in kinds {
        let topic = log.topic(name).unwrap().clone();
        let feed = Feed { topic: topic.clone(), durability, gate: Gate::new(), again_below: 0 };
        let progress = Progress::take_up(&settings, name, &feed, false, &state).unwrap();
        let record = |time| Record { lane: Lane::of("agent"), time, payload: Bytes::from_static(b"x") };
        for time in 0..10 {
            // One at a time, because a time is found to the precision of a block.
            topic.append(vec![record(time * 1000)], Duration::from_secs(10)).await.unwrap();
        }
        progress.settle(
            LaneSet::ALL,
            topic.start() + 5,
            &WaitingAgents::new(settings.retry_pause),
            std::iter::empty(),
        );
        topics.push((topic, Arc::new(progress)));
    }
    let breaker = Arc::new(Breaker::new(&settings, false));
    let redrives = Arc::new(Redrives::new(vec![LaneSet::ALL]));
    let controls = Controls::open(data_dir, state.clone(), None).unwrap();
    let halt = Arc::new(Halt::new(0, settings.deadline, CancellationToken::new()));
    let steered =
        Steered { breaker: breaker.clone(), redrives: redrives.clone(), halt, topics: topics.clone() };
    controls.put("journal", Arc::new(steered));
    Two { controls, state, breaker, redrives, topics, _folder: folder }
}

impl Two {
    async fn seek(&self, data_type: Option<&str>, to: SeekTo) -> Result<Vec<Sought>, String> {
        let sought = self.controls.seek("journal", data_type, to, "me@here", "wharf seek").await;
        sought.map_err(|error| error.to_string())
    }

    fn bury(&self, receiver: &str, count: u64) {
        let limits = DeadLetterLimits { count: u64::MAX, bytes: u64::MAX };
        for offset in 0..count {
            let death = Death {
                offset,
                lane: Lane::of("agent"),
                agent: "agent".to_owned(),
                received_at: 1,
                attempts: 1,
                kind: DeathKind::Rejected,
                reason: String::new(),
                trap: None,
                backtrace: None,
                stderr: String::new(),
                digest: String::new(),
                died_at: 2,
            };
            let letter = DeadLetter { death, message: b"x" };
            self.state.bury(receiver, "a", &[letter], limits, []).unwrap();
        }
    }

    fn there(&self, receiver: &str) -> Vec<(u64, LetterState)> {
        let page = self.controls.letters(receiver, 0..=u64::MAX, usize::MAX).unwrap();
        page.entries.into_iter().map(|(entry, state)| (entry.id, state)).collect()
    }
}

#[tokio::test]
async fn cursors_are_moved_back_and_on_in_every_data_type_with_a_record_of_who_and_what() {
    let two = two().await;
    let [(a, in_a), (_, in_b)] = &two.topics[..] else { unreachable!() };
    two.breaker.pause();
    let start = a.start();
    let back = two.seek(None, SeekTo::Oldest).await.unwrap();
    let expected = |data_type: &str, to, lowest_before, gap| Sought {
        data_type: data_type.to_owned(),
        to: start + to,
        lowest_before: start + lowest_before,
        gap,
    };
    assert_eq!(back, [expected("a", 0, 5, None), expected("b", 0, 5, None)]);
    assert_eq!([in_a.lowest(), in_b.lowest()], [start; 2]);
    assert_eq!(two.state.cursors("journal", "a").unwrap(), Some(Cursors::at(start)));
    assert!(
        in_a.is_repeated(start + 4) && !in_a.is_repeated(start + 5),
        "it was given the first five before"
    );

    let on = two.seek(Some("a"), SeekTo::Newest).await.unwrap();
    assert_eq!(on, [expected("a", 10, 0, Some((start, start + 10)))]);
    let on = two.seek(Some("b"), SeekTo::Newest).await.unwrap();
    assert_eq!(on, [expected("b", 10, 0, Some((start, start + 10)))]);
    assert_eq!(
        two.state.cursors("journal", "b").unwrap(),
        None,
        "what is in memory has no cursors on the disk"
    );

    let gaps = two.state.gaps("journal").unwrap().topics;
    let [(topic, gaps)] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(topic, "a");
    let offsets: Vec<_> = gaps.iter().map(|gap| gap.offsets.clone()).collect();
    assert_eq!(offsets, [0..0, start..start + 10]);
    let by_me = GapReason::Seek { who: "me@here".to_owned(), what: "wharf seek".to_owned() };
    assert!(gaps.iter().all(|gap| gap.reason == by_me), "{gaps:?}");
}

#[tokio::test]
async fn a_time_is_found_and_an_offset_is_bounded_by_what_is_kept() {
    let two = two().await;
    two.breaker.pause();
    let (a, progress) = &two.topics[0];
    let start = a.start();
    let found = two.seek(Some("a"), SeekTo::Offset(start + 3)).await.unwrap();
    assert_eq!(
        (found[0].to, found[0].gap),
        (start + 3, None),
        "the first five are finished, if not yet saved"
    );
    let found = two.seek(Some("a"), SeekTo::Time(7_000)).await.unwrap();
    assert_eq!(found[0].to, start + 7);
    let found = two.seek(Some("a"), SeekTo::Time(u64::MAX)).await.unwrap();
    assert_eq!(found[0].to, a.end());
    let found = two.seek(Some("a"), SeekTo::Offset(start + 3)).await.unwrap();
    assert_eq!(found[0].to, start + 3);
    assert_eq!(
        two.seek(Some("a"), SeekTo::Offset(a.end() + 1)).await.unwrap_err(),
        format!(
            r#"move the cursors of receiver "journal" to offset {} of "a", which ends at {}"#,
            a.end() + 1,
            a.end()
        )
    );
    assert_eq!(progress.lowest(), start + 3, "a refusal moves nothing");
}

#[tokio::test]
async fn a_seek_that_is_not_clear_or_of_a_receiver_that_works_is_refused() {
    let two = two().await;
    assert_eq!(
        two.seek(None, SeekTo::Oldest).await.unwrap_err(),
        r#"move the cursors of receiver "journal" while it is not paused: pause it first: wharf pause journal"#
    );
    two.breaker.pause();
    assert_eq!(
        two.seek(None, SeekTo::Offset(1)).await.unwrap_err(),
        r#"move the cursors of receiver "journal" to an offset of each of its data types: choose one of a, b with --type"#
    );
    assert_eq!(
        two.seek(Some("c"), SeekTo::Newest).await.unwrap_err(),
        r#"move the cursors of receiver "journal" in "c": its data types are a, b"#
    );
    assert_eq!(two.topics[0].1.lowest(), two.topics[0].0.start() + 5);
    assert_eq!(two.state.gaps("journal").unwrap().topics, []);
}

#[tokio::test]
async fn letters_are_queued_once_and_shown_where_they_are() {
    let two = two().await;
    two.bury("journal", 5);
    let some = Which::Ids(vec![1..=2, 4..=9]);
    let queued = two.controls.redrive("journal", some).unwrap();
    assert_eq!(queued, Queued { queued: 4, already: 0, damaged: 0 });
    let queued = two.controls.redrive("journal", Which::All).unwrap();
    assert_eq!(queued, Queued { queued: 1, already: 4, damaged: 0 });
    let order: Vec<_> = std::iter::from_fn(|| two.redrives.take(0)).collect();
    assert_eq!(order, [1, 2, 4, 5, 3]);

    two.controls.redrive("journal", Which::Ids(vec![2..=2])).unwrap();
    two.state.begin_redrive("journal", 4).unwrap();
    use LetterState::{Dead, Queued as Waiting, Redriving};
    assert_eq!(two.there("journal"), [(1, Dead), (2, Waiting), (3, Dead), (4, Redriving), (5, Dead)]);
    assert_eq!(two.controls.letter("journal", 4).unwrap().state, Redriving);
    assert!(matches!(two.controls.letter("journal", 6), Err(ControlError::NoLetter { id: 6, .. })));
    let queued = two.controls.redrive("journal", Which::All).unwrap();
    assert_eq!(queued, Queued { queued: 3, already: 2, damaged: 0 }, "one that is under way is not queued");
}

#[tokio::test]
async fn dropped_letters_are_gone_from_the_queue_too() {
    let two = two().await;
    two.bury("journal", 5);
    two.controls.redrive("journal", Which::All).unwrap();
    assert_eq!(two.controls.drop_letters("journal", Which::Ids(vec![2..=3, 7..=8])).unwrap(), 2);
    assert_eq!(two.redrives.queued(), HashSet::from([1, 4, 5]));
    assert_eq!(two.controls.drop_letters("journal", Which::All).unwrap(), 3);
    assert_eq!((two.redrives.take(0), two.there("journal")), (None, Vec::new()));
}

#[tokio::test]
async fn more_letters_than_a_page_are_all_meant() {
    let two = two().await;
    let count = u64::try_from(MAX_PAGE).unwrap() + 3;
    two.bury("journal", count);
    let all = usize::try_from(count).unwrap();
    assert_eq!(two.controls.redrive("journal", Which::All).unwrap().queued, all);
    assert_eq!(two.controls.drop_letters("journal", Which::All).unwrap(), count);
}

#[tokio::test]
async fn letters_of_a_receiver_that_is_gone_can_be_read_and_dropped_but_not_redriven() {
    let two = two().await;
    two.bury("gone", 2);
    assert_eq!(two.there("gone").len(), 2);
    let letters = two.controls.receivers_with_letters();
    assert_eq!((letters.len(), letters[0].usage.count, letters[0].configured), (1, 2, false));
    assert!(matches!(two.controls.redrive("gone", Which::All), Err(ControlError::Unknown { .. })));
    assert_eq!(
        two.controls.letters("gnoe", 0..=9, 9).unwrap_err().to_string(),
        r#"find the receiver "gnoe": the config has journal, and dead letters are there of gone"#
    );
    assert_eq!(two.controls.drop_letters("gone", Which::All).unwrap(), 2);
    assert!(matches!(two.controls.drop_letters("gone", Which::All), Err(ControlError::Unknown { .. })));
}

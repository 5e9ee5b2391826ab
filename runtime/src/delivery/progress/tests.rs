use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wharf_log::{Log, TopicOptions};

use super::*;
use crate::gate::Gate;

const EVERY: Duration = Duration::from_secs(600);

fn state(dir: &std::path::Path, name: &str) -> State {
    State::open(&dir.join(name)).unwrap()
}

/// The cursors of a receiver in an empty topic, begun in this database.
fn progress(log: &Log, topic: &str, state: &State) -> Arc<Progress> {
    let settings = config::Receiver::new("journal".to_owned(), "j.wasm".into(), vec![topic.to_owned()]);
    let durability = Durability::Os;
    let feed =
        Feed { topic: log.topic(topic).unwrap().clone(), durability, gate: Gate::new(), again_below: 0 };
    Arc::new(Progress::take_up(&settings, topic, &feed, false, state).unwrap())
}

fn log(dir: &std::path::Path) -> Log {
    let options = ["a", "b"].map(|name| TopicOptions::new(name, Durability::Os));
    Log::open(&dir.join("log"), options.to_vec()).unwrap()
}

fn lane(index: u8) -> Lane {
    Lane::new(index).unwrap()
}

#[tokio::test]
async fn a_last_save_that_failed_for_some_is_not_taken_for_one_that_told_all() {
    let dir = tempfile::tempdir().unwrap();
    let (log, whole, other) = (log(dir.path()), state(dir.path(), "whole"), state(dir.path(), "other"));
    // In the first database nothing is known of this one, and a part of its cursors is not taken for all of them.
    let (a, b) = (progress(&log, "a", &other), progress(&log, "b", &whole));
    a.finish(lane(0), 0..1);
    b.finish(lane(0), 0..1);
    let stop = CancellationToken::new();
    stop.cancel();
    for (order, all_saved) in [(vec![a.clone(), b.clone()], false), (vec![b], true)] {
        let keeper = Keeper::new(Arc::new(Places::new(order)), whole.clone(), None, EVERY);
        assert_eq!(keeper.run(stop.clone()).await, all_saved);
    }
}

#[tokio::test]
async fn what_all_lanes_have_finished_is_not_left_of_a_span() {
    let dir = tempfile::tempdir().unwrap();
    let (log, state) = (log(dir.path()), state(dir.path(), "state"));
    let progress = progress(&log, "a", &state);
    let both: LaneSet = [lane(0), lane(1)].into_iter().collect();
    let left = |span| progress.unfinished(both, span);
    assert_eq!(left(3..9), 3..9);
    progress.finish(lane(0), 2..9);
    assert_eq!(left(3..9), 3..9, "the other lane has not");
    progress.finish(lane(1), 0..6);
    assert_eq!((left(3..9), left(7..9)), (6..9, 7..9));
    progress.finish(lane(1), 7..20);
    assert_eq!((left(3..9), left(7..9), left(7..12)), (6..9, 9..9, 9..12));
}

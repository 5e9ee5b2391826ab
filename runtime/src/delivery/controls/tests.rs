use tokio_util::sync::CancellationToken;

use super::*;
use crate::config;

fn controls(data_dir: &Arc<DataDir>, state: &State) -> (Controls, Arc<Breaker>) {
    let mut controls = Controls::open(data_dir.clone(), state.clone()).unwrap();
    let settings = config::Receiver::new("journal".to_owned(), "j.wasm".into(), Vec::new());
    let breaker = Arc::new(Breaker::new(&settings, controls.starts_paused("journal")));
    let redrives = Arc::new(Redrives::new(Vec::new()));
    let halt = Arc::new(Halt::new(0, settings.deadline, CancellationToken::new()));
    controls.add("journal", Steered { breaker: breaker.clone(), redrives, halt, topics: Vec::new() });
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

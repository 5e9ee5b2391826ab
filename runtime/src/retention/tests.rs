use std::path::Path;

use wharf_state::{Cursors, Persist};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A data directory with cursors of `slow` in `metrics` at 7 and of `fast` in `metrics` at 9.
fn site() -> (tempfile::TempDir, DataDir, State) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(folder.path()).unwrap();
    let state = State::open(&data_dir.state()).unwrap();
    for (receiver, next) in [("slow", 7), ("fast", 9)] {
        state.save(receiver, "metrics", Cursors::at(next).iter(), Persist::Buffered).unwrap();
    }
    (folder, data_dir, state)
}

/// A config with the receiver `fast`, and `more`.
fn config(more: &str) -> Config {
    let text = format!(
        "auth = \"off\"\n[log]\nabsent-grace = \"2h\"\n[types.metrics]\n[types.other]\n\
         [receivers.fast]\ncomponent = \"f.wasm\"\ntypes = [\"metrics\"]\n{more}"
    );
    Config::parse(&text, Path::new("wharf.toml")).unwrap()
}

fn left(absent: &Absent) -> Duration {
    absent.until.unwrap().saturating_duration_since(Instant::now())
}

#[tokio::test]
async fn a_receiver_is_absent_from_the_first_start_without_it_until_it_is_back() {
    let (_folder, data_dir, state) = site();
    let slow = ("slow".to_owned(), "metrics".to_owned());
    let first = absent(&state, &data_dir, &config("")).unwrap();
    assert_eq!(first.iter().map(|of| (of.receiver.as_str(), of.from)).collect::<Vec<_>>(), [("slow", 7)]);
    assert!(left(&first[0]) > HOUR && first[0].is_waited_for());
    let since = data_dir.absent_receivers().unwrap()[&slow];

    // As if that had been a while ago.
    let hour = u64::try_from(HOUR.as_millis()).unwrap();
    data_dir.note_absent(&Absences::from([(slow.clone(), since - hour)])).unwrap();
    let second = absent(&state, &data_dir, &config("")).unwrap();
    assert!(left(&second[0]) <= HOUR && second[0].is_waited_for());
    data_dir.note_absent(&Absences::from([(slow.clone(), since - 2 * hour)])).unwrap();
    assert!(!absent(&state, &data_dir, &config("")).unwrap()[0].is_waited_for());
    // The clock may have been wrong before.
    data_dir.note_absent(&Absences::from([(slow.clone(), since + hour)])).unwrap();
    assert!(left(&absent(&state, &data_dir, &config("")).unwrap()[0]) > HOUR);

    let back = config("[receivers.slow]\ncomponent = \"s.wasm\"\ntypes = [\"metrics\"]\n");
    assert_eq!(absent(&state, &data_dir, &back).unwrap(), []);
    assert_eq!(data_dir.absent_receivers().unwrap(), Absences::new());
}

#[tokio::test]
async fn a_receiver_of_other_types_is_absent_too() {
    let (_folder, data_dir, state) = site();
    let mapped_elsewhere = config("[receivers.slow]\ncomponent = \"s.wasm\"\ntypes = [\"other\"]\n");
    let absent = absent(&state, &data_dir, &mapped_elsewhere).unwrap();
    assert_eq!((absent.len(), absent[0].receiver.as_str(), absent[0].topic.as_str()), (1, "slow", "metrics"));
}

#[tokio::test]
async fn what_is_kept_follows_the_config_and_who_left() {
    let folder = tempfile::tempdir().unwrap();
    let options = wharf_log::TopicOptions::new("metrics", wharf_log::Durability::Os);
    let log = wharf_log::Log::open(folder.path(), vec![options]).unwrap();
    let topic = log.topic("metrics").unwrap().clone();
    let old = config("");
    let gone = |from| Absent { receiver: "slow".into(), topic: "metrics".into(), from, until: None };
    let retained = Retained::new(vec![Kept::new(topic, &old.types[0], &[gone(7)])]);
    let below = |needed| retained.due(|_| needed)[0].2;
    assert_eq!([below(Some(9)), below(Some(5)), below(None)], [7, 5, 7]);
    // It is back.
    let text = "auth = \"off\"\n[types.metrics]\nretain = \"1m\"";
    retained.set(&Config::parse(text, Path::new("wharf.toml")).unwrap(), &[]);
    assert_eq!([below(Some(9)), below(None)], [9, u64::MAX]);
    assert_eq!(retained.due(|_| None)[0].1.retain, Some(Duration::from_secs(60)));
    let late = Absent { until: Some(Instant::now()), ..gone(3) };
    retained.set(&old, &[late, Absent { topic: "other".into(), ..gone(1) }]);
    assert_eq!(below(Some(9)), 9, "the one was waited for long enough, the other is another topic's");
}

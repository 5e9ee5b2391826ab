//! `handover`: what one instance knows reaches others, and every way in which it does not.

use std::time::Duration;

use wharf_host::{
    Fault, FolderGrant, Grants, Instance, KeyValueGrant, LiveOptions, MAX_SNAPSHOT_BYTES, Receiver,
    ReceiverOptions, SavedState, TrapKind,
};
use wharf_state::KeyValue;

use crate::fixtures::{Fixture, Log, batch, component, options, printed};

/// For guests that copy megabytes, on a busy machine.
const LONG: Duration = Duration::from_secs(20);

async fn load(fixture: &Fixture, guest: &str, settings: &[(&str, &str)]) -> Receiver {
    let mut options = options(guest);
    options.settings = settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    fixture.host.load(options).await.unwrap()
}

async fn counter(fixture: &Fixture, settings: &[(&str, &str)]) -> Instance {
    load(fixture, "counter", settings).await.instantiate().await.unwrap()
}

async fn next(fixture: &Fixture, settings: &[(&str, &str)]) -> Instance {
    load(fixture, "counter-next", settings).await.instantiate().await.unwrap()
}

/// Lets an instance handle so many messages of one agent.
async fn count(instance: &mut Instance, messages: usize) {
    assert_eq!(instance.handle(&batch(&vec!["{}"; messages])).await.unwrap(), []);
}

/// The last count of the log, with the version that counted.
fn last_count(log: &Log) -> String {
    let line = printed(log).pop().unwrap();
    line.split_once(r#""version":"#).unwrap().1.to_owned()
}

fn saved(format: &str, payload: &str) -> SavedState {
    SavedState { format: format.into(), payload: payload.into() }
}

#[tokio::test]
async fn what_one_version_knows_the_next_one_goes_on_with() {
    let log = Log::start();
    let fixture = Fixture::new();
    let (mut first, mut second) = (counter(&fixture, &[]).await, counter(&fixture, &[]).await);
    count(&mut first, 3).await;
    count(&mut second, 4).await;
    let states = [first.snapshot().await.unwrap().unwrap(), second.snapshot().await.unwrap().unwrap()];
    assert_eq!(states[0], saved("counter/1", r#"{"agent-1":3}"#));
    let mut new = next(&fixture, &[]).await;
    for state in &states {
        assert_eq!(new.restore(state).await.unwrap(), Ok(()));
    }
    count(&mut new, 1).await;
    assert_eq!(last_count(&log), r#""counter-next","count":8}"#);
    // The swap may be given up after all.
    count(&mut first, 1).await;
    assert_eq!(last_count(&log), r#""counter","count":4}"#);
    first.terminate().await.unwrap();
}

#[tokio::test]
async fn a_receiver_can_refuse_what_it_does_not_know() {
    let fixture = Fixture::new();
    let mut new = next(&fixture, &[]).await;
    let refused = new.restore(&saved("counter/0", "{}")).await.unwrap();
    assert_eq!(refused, Err(r#"found the format "counter/0", expected "counter/1""#.into()));
    let refused = new.restore(&saved("counter/1", "\n")).await.unwrap().unwrap_err();
    assert!(refused.starts_with("failed to read counts: "), "{refused}");
    count(&mut new, 1).await;
    new.terminate().await.unwrap();
}

#[tokio::test]
async fn a_receiver_without_it_gives_nothing_and_takes_nothing() {
    let fixture = Fixture::new();
    let receiver = fixture.load("recorder").await;
    assert!(!receiver.hands_over() && fixture.load("counter").await.hands_over());
    let mut instance = receiver.instantiate().await.unwrap();
    assert_eq!(instance.snapshot().await.unwrap(), None);
    let refused = instance.restore(&saved("counter/1", "{}")).await.unwrap();
    assert_eq!(refused, Err("the component does not export `wharf:receiver/handover`".into()));
    count(&mut instance, 1).await;
}

#[tokio::test]
async fn both_can_fail_as_any_call_can() {
    let fixture = Fixture::new();
    let state = saved("counter/1", "{}");
    let mut trapping = counter(&fixture, &[("counter.snapshot", "trap"), ("counter.restore", "trap")]).await;
    let fault = trapping.snapshot().await.unwrap_err();
    assert!(matches!(fault, Fault::Trap { kind: TrapKind::Unreachable, .. }), "{fault:?}");
    let stderr = &fault.evidence().unwrap().stderr;
    assert!(stderr.iter().any(|line| line.contains("told to trap in snapshot")), "{stderr:?}");
    assert!(matches!(trapping.snapshot().await, Err(Fault::Gone)));
    assert!(matches!(trapping.restore(&state).await, Err(Fault::Gone)));

    let mut hanging = next(&fixture, &[("counter-next.restore", "hang")]).await;
    let fault = hanging.restore(&state).await.unwrap_err();
    assert!(matches!(fault, Fault::HostCallDeadline { .. }), "{fault:?}");
    assert!(hanging.is_gone());
}

#[tokio::test]
async fn a_large_state_is_handed_over_and_one_beyond_the_bound_is_a_fault() {
    let fixture = Fixture::with(|options| options.max_memory = 200 << 20);
    let padded = async |guest: &str, bytes: usize| {
        let mut options = options(guest);
        (options.memory, options.deadline) = (200 << 20, LONG);
        options.settings = vec![("counter.pad".into(), bytes.to_string())];
        fixture.host.load(options).await.unwrap().instantiate().await.unwrap()
    };
    // The payload of a counter that counted nothing is `{}`.
    let mut largest = padded("counter", MAX_SNAPSHOT_BYTES - 2).await;
    let state = largest.snapshot().await.unwrap().unwrap();
    assert_eq!(state.payload.len(), MAX_SNAPSHOT_BYTES);
    assert_eq!(padded("counter-next", 0).await.restore(&state).await.unwrap(), Ok(()));
    count(&mut largest, 1).await;

    // One byte more is still copied, because there is room for a long format; a thousand are not.
    for beyond in [1, 1_000] {
        let mut larger = padded("counter", MAX_SNAPSHOT_BYTES - 2 + beyond).await;
        let fault = larger.snapshot().await.unwrap_err();
        assert!(matches!(fault, Fault::Trap { kind: TrapKind::HostLimit, .. }), "{fault:?}");
        assert!(larger.is_gone());
    }
}

#[tokio::test]
async fn a_format_is_a_short_line() {
    let fixture = Fixture::new();
    let longest = "x".repeat(128);
    let mut instance = counter(&fixture, &[("counter.format", longest.as_str())]).await;
    assert_eq!(instance.snapshot().await.unwrap().unwrap().format, longest);
    for (format, shown) in [("", r#""""#), ("a\u{1b}[31m", r"\u{1b}[31m"), (&"x".repeat(129), "xxx…")] {
        let mut instance = counter(&fixture, &[("counter.format", format)]).await;
        let fault = instance.snapshot().await.unwrap_err();
        assert!(matches!(fault, Fault::Trap { kind: TrapKind::HostLimit, .. }), "{fault:?}");
        assert!(fault.to_string().contains(shown), "{fault}");
    }
}

#[tokio::test]
async fn the_example_of_the_page_for_authors_hands_its_number_on() {
    let log = Log::start();
    let dir = tempfile::tempdir().unwrap();
    let database = KeyValue::open(&dir.path().join("guests")).unwrap();
    let fixture = Fixture::with(|options| options.keyvalue = Some(database));
    let grants = Grants {
        live: Some(LiveOptions::default()),
        keyvalue: Some(KeyValueGrant { max_bytes: 1 << 20 }),
        files: vec![FolderGrant { host: dir.path().into(), guest: "/out".into(), write: true }],
        ..Grants::default()
    };
    let options =
        ReceiverOptions { grants, deadline: LONG, ..ReceiverOptions::new("tour", component("tour")) };
    let receiver = fixture.host.load(options).await.unwrap();
    let mut old = receiver.instantiate().await.unwrap();
    count(&mut old, 3).await;
    let state = old.snapshot().await.unwrap().unwrap();
    assert_eq!((state.format.as_str(), &state.payload[..]), ("tour/1", &6_u64.to_le_bytes()[..]));
    let mut new = receiver.instantiate().await.unwrap();
    for _ in 0..2 {
        assert_eq!(new.restore(&state).await.unwrap(), Ok(()));
    }
    let refused = new.restore(&saved("tour/2", "")).await.unwrap().unwrap_err();
    assert!(refused.contains(r#""tour/2""#), "{refused}");
    new.terminate().await.unwrap();
    assert!(log.guest_lines().iter().any(|line| line.contains("leaving after 12 bytes")));
}

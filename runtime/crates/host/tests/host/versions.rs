//! One version of a receiver beside another: what both share, what each has for itself, and what is known of their
//! difference.

use std::fs;
use std::time::Duration;

use wharf_host::{
    ComponentFile, FolderGrant, Grant, Grants, HttpGrant, KeyValueGrant, LiveOptions, LoadError, Metric,
    MetricValue, Origin, Receiver, ReceiverOptions,
};
use wharf_state::KeyValue;

use crate::fixtures::{Fixture, Log, batch, guest, options, printed};

/// Lets a new instance of the receiver handle these bodies. Gives the reasons of its failures.
async fn handle(receiver: &Receiver, bodies: &[&str]) -> Vec<String> {
    let failures = receiver.instantiate().await.unwrap().handle(&batch(bodies)).await.unwrap();
    failures.into_iter().map(|failure| failure.reason).collect()
}

async fn beside(fixture: &Fixture, running: &Receiver, options: ReceiverOptions) -> Receiver {
    fixture.host.load_beside(options, running).await.unwrap()
}

#[tokio::test]
async fn listeners_and_kept_values_survive_and_the_limits_are_the_new_ones() {
    let fixture = Fixture::new();
    let old = fixture.load("page").await;
    let mut listener = old.live().unwrap().subscribe();
    handle(&old, &[r#"{"v":1}"#]).await;
    let mut less = options("page");
    less.grants.live = Some(LiveOptions { max_keys: 0, ..LiveOptions::default() });
    let new = beside(&fixture, &old, less).await;
    handle(&new, &[r#"{"v":2}"#]).await;
    for expected in [r#"{"v":1}"#, r#"{"v":2}"#] {
        assert_eq!(listener.next().await.as_deref(), Some(expected));
    }
    // The old one is as it was: it still keeps a value, which also those find who come by way of the new one.
    handle(&old, &[r#"{"v":3}"#]).await;
    let mut later = new.live().unwrap().subscribe();
    assert_eq!(later.next().await.as_deref(), Some(r#"{"v":3}"#));
    drop(old);
    handle(&new, &[r#"{"v":4}"#]).await;
    assert_eq!(listener.next().await.as_deref(), Some(r#"{"v":3}"#));
    assert_eq!(listener.next().await.as_deref(), Some(r#"{"v":4}"#));
}

#[tokio::test]
async fn metrics_lines_and_usage_count_on() {
    let fixture = Fixture::new();
    let old = fixture.load("tools").await;
    let bodies = [r#"{"do":"count","name":"seen","labels":[],"by":3}"#, r#"{"do":"settings"}"#];
    handle(&old, &bodies).await;
    let (lines, busy) = (old.log_lines(), old.busy_time());
    let mut options = options("tools");
    (options.metric_series, options.log_lines_per_second) = (1, 0);
    let new = beside(&fixture, &old, options).await;
    assert_eq!((new.log_lines(), new.busy_time()), (lines, busy));
    handle(&new, &[bodies[0], r#"{"do":"set","name":"more","value":1}"#]).await;
    let seen = Metric { name: "seen".into(), labels: Vec::new(), value: MetricValue::Counter(6) };
    assert_eq!(new.metrics(), std::slice::from_ref(&seen));
    assert_eq!((old.metrics(), old.metrics_refused()), (vec![seen], 1));
    // The refusal was a line too, which the new rate does not allow.
    assert_eq!((old.log_lines(), old.log_lines_dropped()), (lines, 1));
    assert!(old.busy_time() > busy);
}

#[tokio::test]
async fn the_key_value_store_has_one_account() {
    let dir = tempfile::tempdir().unwrap();
    let database = KeyValue::open(&dir.path().join("guests")).unwrap();
    let fixture = Fixture::with(|options| options.keyvalue = Some(database));
    let named = |max_bytes| ReceiverOptions {
        grants: Grants { keyvalue: Some(KeyValueGrant { max_bytes }), ..Grants::default() },
        // Each operation goes to another thread, which a busy machine may keep waiting.
        deadline: Duration::from_secs(10),
        ..options("keyvalue")
    };
    let old = fixture.host.load(named(1_000)).await.unwrap();
    let set = |key| format!(r#"{{"do":"set","key":"{key}","value":"v"}}"#);
    assert_eq!(handle(&old, &[&set("a")]).await, ["()"]);
    let new = beside(&fixture, &old, named(100)).await;
    assert_eq!((old.keyvalue_bytes(), new.keyvalue_bytes()), (Some(66), Some(66)));
    let [refused] = &handle(&new, &[&set("b")]).await[..] else { panic!("one message") };
    assert!(refused.contains("100"), "{refused}");
    assert_eq!(handle(&new, &[r#"{"do":"get","key":"a"}"#]).await, [r#"Some("v")"#]);
    assert_eq!(handle(&old, &[&set("b")]).await, ["()"]);
    assert_eq!((old.keyvalue_bytes(), new.keyvalue_bytes()), (Some(132), Some(132)));
}

#[tokio::test]
async fn requests_that_failed_count_on_and_go_where_the_new_grant_says() {
    let log = Log::start();
    let fixture = Fixture::new();
    let granted = |origin: &str| {
        let grant = HttpGrant {
            origins: vec![Origin::parse(origin).unwrap()],
            max_in_flight: 1,
            timeout: Duration::from_secs(20),
            max_request_bytes: 1_000,
            max_response_bytes: 1_000,
        };
        let grants = Grants { http: Some(grant), ..Grants::default() };
        ReceiverOptions { grants, deadline: Duration::from_secs(20), ..options("fetch") }
    };
    let old = fixture.host.load(granted("http://one.invalid")).await.unwrap();
    handle(&old, &[r#"{"url":"http://two.invalid/"}"#]).await;
    let same = beside(&fixture, &old, granted("http://one.invalid")).await;
    let new = beside(&fixture, &same, granted("http://two.invalid")).await;
    assert_eq!(new.outgoing_failed(), Some(1));
    handle(&new, &[r#"{"url":"http://one.invalid/"}"#]).await;
    let lines = log.guest_lines();
    for origin in ["http://one.invalid", "http://two.invalid"] {
        let refused = |line: &&String| line.contains("stream=host") && line.contains(origin);
        assert_eq!(lines.iter().filter(refused).count(), 1, "{lines:#?}");
    }
    assert_eq!((old.outgoing_failed(), old.outgoing_in_flight()), (Some(2), Some(0)));
}

#[cfg(unix)]
#[tokio::test]
async fn granted_folders_stay_open_until_the_grant_changes() {
    let log = Log::start();
    let fixture = Fixture::new();
    let root = fixture.dir.path();
    for name in ["granted", "other"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("name"), name).unwrap();
    }
    let with = |guest: &str| {
        let folder = FolderGrant { host: root.join("granted"), guest: guest.into(), write: false };
        let grants = Grants { files: vec![folder], ..Grants::default() };
        // Each operation waits for the disk, which may be busy.
        ReceiverOptions { grants, deadline: Duration::from_secs(10), ..options("tools") }
    };
    let old = fixture.host.load(with("/in")).await.unwrap();
    // What another receiver with a folder above could do.
    fs::rename(root.join("granted"), root.join("moved")).unwrap();
    std::os::unix::fs::symlink("other", root.join("granted")).unwrap();
    let same = beside(&fixture, &old, with("/in")).await;
    let changed = beside(&fixture, &old, with("/there")).await;
    handle(&same, &[r#"{"do":"read","path":"/in/name"}"#]).await;
    handle(&changed, &[r#"{"do":"read","path":"/there/name"}"#]).await;
    assert_eq!(printed(&log), [r#"read Ok("granted")"#, r#"read Ok("other")"#]);
}

#[tokio::test]
async fn what_is_not_the_receivers_is_of_each_version() {
    let log = Log::start();
    let fixture = Fixture::new();
    let with =
        |text: &str| ReceiverOptions { settings: vec![("colour".into(), text.into())], ..options("tools") };
    let old = fixture.host.load(with("red")).await.unwrap();
    let new = beside(&fixture, &old, with("green")).await;
    for receiver in [&new, &old] {
        handle(receiver, &[r#"{"do":"setting","key":"colour"}"#]).await;
    }
    let lines = printed(&log);
    assert!(lines[0].contains("green") && lines[1].contains("red"), "{lines:?}");
}

#[tokio::test]
async fn a_version_that_cannot_be_loaded_changes_nothing() {
    let fixture = Fixture::new();
    let old = fixture.load("page").await;
    let mut listener = old.live().unwrap().subscribe();
    let mut odd = options("page");
    odd.component = guest("odd-import");
    let error = fixture.host.load_beside(odd, &old).await.err().unwrap();
    assert!(matches!(error, LoadError::Refused { .. }), "{error:?}");
    handle(&old, &[r#"{"v":1}"#]).await;
    assert_eq!(listener.next().await.as_deref(), Some(r#"{"v":1}"#));
}

#[tokio::test]
async fn imports_are_listed_with_the_grants_that_they_need() {
    let fixture = Fixture::new();
    let (counter, page) = (fixture.load("counter").await, fixture.load("page").await);
    let inspected = fixture.host.inspect(&guest("page")).await.unwrap();
    assert_eq!(page.imports(), inspected.imports);
    let interfaces = |receiver: &Receiver| -> Vec<String> {
        receiver.imports().iter().map(|import| import.interface().to_owned()).collect()
    };
    let known = interfaces(&counter);
    assert!(known.contains(&"wharf:receiver/types".into()), "{known:?}");
    let gained: Vec<_> = page
        .imports()
        .iter()
        .filter(|import| !known.contains(&import.interface().to_owned()) && import.standing.grant().is_some())
        .map(|import| (import.name.as_str(), import.standing.grant()))
        .collect();
    assert_eq!(gained, [("wharf:receiver/live@0.1.0", Some(Grant::Live))]);
}

#[tokio::test]
async fn a_file_is_read_with_its_digest_and_a_bound() {
    let path = guest("counter");
    let bytes = fs::read(&path).unwrap();
    let limit = bytes.len() as u64;
    let file = ComponentFile::read(&path, limit).await.unwrap();
    assert_eq!(file.bytes, bytes);
    assert_eq!(file.digest, Fixture::new().load("counter").await.digest());
    let error = ComponentFile::read(&path, limit - 1).await.err().unwrap();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error:?}");
}

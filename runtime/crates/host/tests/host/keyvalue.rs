//! `wasi:keyvalue` as a guest sees it. What the store itself promises is tested in `wharf-state`.

use std::time::Duration;

use wharf_host::{Fault, Grants, Instance, KeyValueGrant, Receiver, ReceiverOptions, TrapKind};
use wharf_state::KeyValue;

use crate::fixtures::{Fixture, batch, options};

/// Much more than these tests need.
const MAX_BYTES: u64 = 1 << 20;

fn with(database: &KeyValue) -> Fixture {
    Fixture::with(|options| options.keyvalue = Some(database.clone()))
}

fn database(dir: &tempfile::TempDir) -> KeyValue {
    KeyValue::open(&dir.path().join("guests")).unwrap()
}

fn named(name: &str, max_bytes: u64) -> ReceiverOptions {
    let grants = Grants { keyvalue: Some(KeyValueGrant { max_bytes }), ..Grants::default() };
    // Each operation goes to another thread, which a busy machine may keep waiting.
    let deadline = Duration::from_secs(10);
    ReceiverOptions { name: name.into(), grants, deadline, ..options("keyvalue") }
}

async fn load(fixture: &Fixture, name: &str, max_bytes: u64) -> Receiver {
    fixture.host.load(named(name, max_bytes)).await.unwrap()
}

/// What the guest says that came of an order.
async fn obey(instance: &mut Instance, order: &str) -> String {
    let failures = instance.handle(&batch(&[order])).await.unwrap();
    failures.into_iter().next().unwrap().reason
}

/// Runs orders one after the other in one instance, each with what should come of it.
async fn expect(instance: &mut Instance, orders: &[(&str, &str)]) {
    for (order, expected) in orders {
        assert_eq!(obey(instance, order).await, *expected, "{order}");
    }
}

#[tokio::test]
async fn values_come_back_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = with(&database(&dir));
    let receiver = load(&fixture, "alarms", MAX_BYTES).await;
    let mut instance = receiver.instantiate().await.unwrap();
    assert_eq!(receiver.keyvalue_bytes(), Some(0));
    expect(
        &mut instance,
        &[
            (r#"{"do":"get","key":"k"}"#, "None"),
            (r#"{"do":"set","key":"k","value":"v"}"#, "()"),
            (r#"{"do":"get","key":"k"}"#, r#"Some("v")"#),
            (r#"{"do":"get","key":"k","bucket":"default"}"#, r#"Some("v")"#),
            (r#"{"do":"get","key":"k","bucket":"other"}"#, "None"),
            (r#"{"do":"exists","key":"k"}"#, "true"),
        ],
    )
    .await;
    assert_eq!(receiver.keyvalue_bytes(), Some(66));
    expect(
        &mut instance,
        &[
            (r#"{"do":"delete","key":"k"}"#, "()"),
            (r#"{"do":"delete","key":"k"}"#, "()"),
            (r#"{"do":"exists","key":"k"}"#, "false"),
        ],
    )
    .await;
    assert_eq!(receiver.keyvalue_bytes(), Some(0));
}

#[tokio::test]
async fn a_store_is_private_to_a_receiver_and_shared_by_its_instances() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = with(&database(&dir));
    let receiver = load(&fixture, "alarms", MAX_BYTES).await;
    let mut first = receiver.instantiate().await.unwrap();
    let mut second = receiver.instantiate().await.unwrap();
    let mut stranger = load(&fixture, "other", MAX_BYTES).await.instantiate().await.unwrap();
    expect(&mut first, &[(r#"{"do":"set","key":"k","value":"v"}"#, "()")]).await;
    expect(&mut second, &[(r#"{"do":"get","key":"k"}"#, r#"Some("v")"#)]).await;
    expect(
        &mut stranger,
        &[
            (r#"{"do":"get","key":"k"}"#, "None"),
            (r#"{"do":"list"}"#, "KeyResponse { keys: [], cursor: None }"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_was_written_outlives_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let first = database(&dir);
    {
        let fixture = with(&first);
        let mut instance = load(&fixture, "alarms", MAX_BYTES).await.instantiate().await.unwrap();
        expect(&mut instance, &[(r#"{"do":"set","key":"k","value":"v"}"#, "()")]).await;
        assert!(first.is_dirty());
        first.close().unwrap();
        let said = obey(&mut instance, r#"{"do":"get","key":"k"}"#).await;
        assert_eq!(said, "the store failed; the server's log says why", "nothing of the host is told");
    }
    let fixture = with(&database(&dir));
    let mut instance = load(&fixture, "alarms", MAX_BYTES).await.instantiate().await.unwrap();
    expect(&mut instance, &[(r#"{"do":"get","key":"k"}"#, r#"Some("v")"#)]).await;
}

#[tokio::test]
async fn a_full_store_says_so_to_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = with(&database(&dir));
    let mut instance = load(&fixture, "alarms", 1000).await.instantiate().await.unwrap();
    expect(
        &mut instance,
        &[
            (r#"{"do":"fill","key":"k","bytes":900}"#, "()"),
            (
                r#"{"do":"fill","key":"l","bytes":900}"#,
                "failed to keep 965 bytes more: 965 of the 1000 bytes that this receiver may keep are in use; delete \
                 something, or raise `keyvalue-bytes` in the receiver's config",
            ),
            (r#"{"do":"exists","key":"l"}"#, "false"),
            (r#"{"do":"delete","key":"k"}"#, "()"),
            (r#"{"do":"fill","key":"l","bytes":900}"#, "()"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_swap_needs_that_nobody_else_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = with(&database(&dir));
    let mut instance = load(&fixture, "alarms", MAX_BYTES).await.instantiate().await.unwrap();
    expect(
        &mut instance,
        &[
            (r#"{"do":"swap","key":"k","value":"1"}"#, "swapped"),
            (r#"{"do":"get","key":"k"}"#, r#"Some("1")"#),
            (r#"{"do":"swap","key":"k","value":"2","meanwhile":"3"}"#, r#"conflict with Some("3")"#),
            (r#"{"do":"get","key":"k"}"#, r#"Some("3")"#),
            (r#"{"do":"look-again","key":"k","value":"4","meanwhile":"5"}"#, r#"saw Some("5"), swapped"#),
            (r#"{"do":"get","key":"k"}"#, r#"Some("4")"#),
        ],
    )
    .await;
}

#[tokio::test]
async fn numbers_are_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = with(&database(&dir));
    let mut instance = load(&fixture, "alarms", MAX_BYTES).await.instantiate().await.unwrap();
    expect(
        &mut instance,
        &[
            (r#"{"do":"increment","key":"n","delta":2}"#, "2"),
            (r#"{"do":"increment","key":"n","delta":-5}"#, "-3"),
            (
                r#"{"do":"increment","key":"n","delta":-9223372036854775807}"#,
                "failed to add -9223372036854775807 to -3: the sum does not fit 64 bits with a sign",
            ),
            (r#"{"do":"set","key":"n","value":"12"}"#, "()"),
            (
                r#"{"do":"increment","key":"n","delta":1}"#,
                "failed to add to a number: the value has 2 bytes, expected the 8 of a signed number, the lowest byte first",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn keys_come_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = with(&database(&dir));
    let mut instance = load(&fixture, "alarms", MAX_BYTES).await.instantiate().await.unwrap();
    let longest = format!(r#"{{"do":"list","cursor":"{}"}}"#, "c".repeat(100_000));
    expect(
        &mut instance,
        &[
            (r#"{"do":"count"}"#, "[0]"),
            (r#"{"do":"set-numbered","count":2001}"#, "()"),
            (r#"{"do":"count"}"#, "[1000, 1000, 1]"),
            (
                r#"{"do":"list","cursor":"001998"}"#,
                r#"KeyResponse { keys: ["001999", "002000"], cursor: None }"#,
            ),
            (r#"{"do":"list","cursor":"no such \u0000 key"}"#, "KeyResponse { keys: [], cursor: None }"),
            (&longest, "failed to use a key: it has 100000 bytes, the limit is 1024"),
        ],
    )
    .await;
}

#[tokio::test]
async fn many_keys_go_in_one_call() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = with(&database(&dir));
    let mut instance = load(&fixture, "alarms", MAX_BYTES).await.instantiate().await.unwrap();
    expect(
        &mut instance,
        &[
            (r#"{"do":"set-many","pairs":[["a","1"],["b","2"],["c","3"]]}"#, "()"),
            (r#"{"do":"delete-many","keys":["b","x"]}"#, "()"),
            (
                r#"{"do":"get-many","keys":["c","b","a"]}"#,
                r#"[("c", Some("3")), ("b", None), ("a", Some("1"))]"#,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn buckets_are_counted_as_resources() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = with(&database(&dir));
    let mut instance = load(&fixture, "alarms", MAX_BYTES).await.instantiate().await.unwrap();
    let fault = instance.handle(&batch(&[r#"{"do":"leak"}"#])).await.unwrap_err();
    assert!(matches!(fault, Fault::Trap { kind: TrapKind::HostLimit, .. }), "{fault}");
}

#[tokio::test]
async fn without_a_database_a_receiver_loads_and_makes_no_instance() {
    let fixture = Fixture::new();
    let receiver = load(&fixture, "alarms", MAX_BYTES).await;
    assert_eq!(receiver.keyvalue_bytes(), None);
    let Err(fault) = receiver.instantiate().await else { panic!("an instance without a store") };
    assert_eq!(fault.to_string(), "initialise the receiver: its key-value store is not open");
}

//! Calls of `handle` and of the lifecycle: what they give, every way in which they fail, and that one failure is nobody
//! else's.

use std::time::{Duration, Instant};

use wharf_host::{Evidence, FailureAction, Fault, Redelivery, TrapKind};

use crate::fixtures::{DEADLINE, Fixture, batch, guest, message, options, order};

/// Gives the puppet an order that it does not survive.
async fn fault(what: &str) -> Fault {
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    let fault = instance.handle(&order(what)).await.unwrap_err();
    assert!(instance.is_gone());
    assert!(matches!(instance.handle(&batch(&["{}"])).await, Err(Fault::Gone)));
    fault
}

#[tokio::test]
async fn a_batch_is_handled_and_the_instance_is_kept() {
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    for _ in 0..3 {
        assert_eq!(instance.handle(&batch(&["{}", r#"{"a":1}"#])).await.unwrap(), []);
    }
    instance.terminate().await.unwrap();
}

#[tokio::test]
async fn failures_come_back_as_the_guest_gave_them() {
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    let mut batch = batch(&[
        r#"{"do":"retry","milliseconds":250}"#,
        "{}",
        r#"{"do":"reject"}"#,
        r#"{"do":"retry-once"}"#,
    ]);
    let failures = instance.handle(&batch).await.unwrap();
    let actions: Vec<_> = failures.iter().map(|failure| (failure.offset, failure.action)).collect();
    let expected =
        [(1, FailureAction::Retry(Some(250))), (3, FailureAction::Reject), (4, FailureAction::Retry(None))];
    assert_eq!(actions, expected);
    assert!(failures.iter().all(|failure| failure.reason == "told to"));

    batch.messages = vec![message(4, r#"{"do":"retry-once"}"#)];
    batch.messages[0].redelivery = Redelivery::Again;
    assert_eq!(instance.handle(&batch).await.unwrap(), []);
    assert_eq!(instance.handle(&order("double")).await.unwrap().len(), 2);
    assert_eq!(instance.handle(&order("stray")).await.unwrap()[0].offset, u64::MAX);
}

#[tokio::test]
async fn a_panic_leaves_its_text_and_where_it_was() {
    let fault = fault("trap").await;
    let Fault::Trap { kind: TrapKind::Unreachable, evidence, .. } = &fault else { panic!("{fault:?}") };
    assert!(evidence.stderr.iter().any(|line| line.contains("told to trap at offset 1")), "{evidence:?}");
    assert!(evidence.backtrace.as_ref().unwrap().contains("guest_puppet"), "{evidence:?}");
    assert_eq!(fault.to_string(), "run the guest: it panicked or aborted");
}

#[tokio::test]
async fn the_evidence_is_of_the_failed_call_only() {
    let fixture = Fixture::new();
    let receiver = fixture.load("puppet").await;
    let mut instance = receiver.instantiate().await.unwrap();
    instance.handle(&order("trap")).await.unwrap_err();
    let mut instance = receiver.instantiate().await.unwrap();
    let fault = instance.handle(&order("exit")).await.unwrap_err();
    assert_eq!(fault.evidence().unwrap().stderr, Vec::<String>::new());
}

#[tokio::test]
async fn a_loop_ends_at_the_deadline() {
    let start = Instant::now();
    let fault = fault("loop").await;
    let Fault::Deadline { limit: DEADLINE, evidence: Evidence { backtrace: Some(backtrace), .. } } = &fault
    else {
        panic!("{fault:?}")
    };
    assert!(backtrace.contains("wharf:receiver/handler@0.1.0#handle"), "{backtrace}");
    // The component is compiled in that time too.
    assert!(start.elapsed() > DEADLINE);
}

#[tokio::test]
async fn a_loop_takes_hardly_more_than_its_deadline() {
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    let start = Instant::now();
    instance.handle(&order("loop")).await.unwrap_err();
    let took = start.elapsed();
    assert!(took >= DEADLINE && took < DEADLINE * 2, "{took:?}");
}

#[tokio::test]
async fn endless_allocation_is_out_of_memory() {
    let fault = fault("allocate").await;
    let Fault::OutOfMemory { asked, limit, .. } = fault else { panic!("{fault:?}") };
    assert_eq!(limit, 16 << 20);
    assert!(asked > limit && asked < 2 * limit, "{asked}");
}

#[tokio::test]
async fn deep_recursion_is_told_from_a_panic() {
    let fault = fault("recurse").await;
    let kind = match &fault {
        Fault::Trap { kind, .. } => *kind,
        _ => panic!("{fault:?}"),
    };
    assert!(matches!(kind, TrapKind::MemoryOutOfBounds | TrapKind::StackOverflow), "{fault:?}");
}

#[tokio::test]
async fn an_exit_is_a_fault_even_when_it_claims_success() {
    let fault = fault("exit").await;
    assert!(matches!(fault, Fault::Exit { code: 0, .. }), "{fault:?}");
}

#[tokio::test]
async fn waiting_for_the_host_is_another_fault_than_computing() {
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    assert_eq!(instance.handle(&batch(&[r#"{"do":"sleep","milliseconds":1}"#])).await.unwrap(), []);
    let start = Instant::now();
    let fault = instance.handle(&batch(&[r#"{"do":"sleep","milliseconds":60000}"#])).await.unwrap_err();
    assert!(matches!(fault, Fault::HostCallDeadline { limit: DEADLINE, .. }), "{fault:?}");
    assert!(start.elapsed() < DEADLINE * 2, "{:?}", start.elapsed());
    assert!(instance.is_gone());
}

/// On one thread, so that the looping guest is beside the other one and not on another processor.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_looping_guest_lets_others_work() {
    let fixture = Fixture::new();
    let receiver = fixture.load("puppet").await;
    let mut looping = receiver.instantiate().await.unwrap();
    let mut working = receiver.instantiate().await.unwrap();
    let looping = tokio::spawn(async move { looping.handle(&order("loop")).await });
    let working = tokio::spawn(async move {
        for _ in 0..10 {
            assert_eq!(working.handle(&batch(&["{}"])).await.unwrap(), []);
            // Timers are looked at only between tasks, which a guest that never pauses must not prevent.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let waited = looping.is_finished();
        (waited, looping.await.unwrap())
    });
    let (waited, outcome) = working.await.unwrap();
    assert!(matches!(outcome, Err(Fault::Deadline { .. })), "{outcome:?}");
    assert!(!waited, "the working guest had to wait until the looping one was stopped");
}

#[tokio::test]
async fn a_call_that_is_given_up_ends_the_instance() {
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    let batch = batch(&[r#"{"do":"sleep","milliseconds":60000}"#]);
    let given_up = tokio::time::timeout(Duration::from_millis(20), instance.handle(&batch)).await;
    assert!(given_up.is_err());
    assert!(matches!(instance.handle(&batch).await, Err(Fault::Gone)));
}

#[tokio::test]
async fn an_error_of_init_is_the_fault() {
    let fixture = Fixture::new();
    let fault = fixture.load("init-fails").await.instantiate().await.err().unwrap();
    assert!(matches!(&fault, Fault::Init(reason) if reason == "the database is on holiday"), "{fault:?}");
    assert_eq!(fault.to_string(), "initialise the receiver: the database is on holiday");
}

#[tokio::test]
async fn no_more_instances_than_the_host_has_room_for() {
    let fixture = Fixture::with(|options| options.max_instances = 2);
    let receiver = fixture.load("puppet").await;
    let _first = receiver.instantiate().await.unwrap();
    let mut second = receiver.instantiate().await.unwrap();
    let fault = receiver.instantiate().await.err().unwrap();
    assert!(matches!(fault, Fault::Pool(_)), "{fault:?}");
    second.handle(&order("trap")).await.unwrap_err();
    receiver.instantiate().await.unwrap();
}

#[tokio::test]
async fn every_instance_fits_the_pool_at_once() {
    let fixture = Fixture::new();
    let receiver = fixture.load("puppet").await;
    let mut instances = Vec::new();
    for _ in 0..8 {
        instances.push(receiver.instantiate().await.unwrap());
    }
    for instance in &mut instances {
        assert_eq!(instance.handle(&batch(&["{}"])).await.unwrap(), []);
    }
}

#[tokio::test]
async fn what_is_published_reaches_listeners() {
    let fixture = Fixture::new();
    let receiver = fixture.load("page").await;
    let live = receiver.live().unwrap().clone();
    let mut instance = receiver.instantiate().await.unwrap();
    instance.handle(&batch(&[r#"{"v":1}"#])).await.unwrap();
    let mut listener = live.subscribe();
    receiver.instantiate().await.unwrap().handle(&batch(&[r#"{"v":2}"#])).await.unwrap();
    for expected in [r#"{"v":1}"#, r#"{"v":2}"#] {
        assert_eq!(listener.next().await.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn the_name_of_a_receiver_is_not_its_component() {
    let fixture = Fixture::new();
    let mut options = options("puppet");
    options.name = "my-receiver".into();
    let receiver = fixture.host.load(options).await.unwrap();
    assert_eq!(receiver.name(), "my-receiver");
    assert_eq!(receiver.digest().len(), 64);
    assert_eq!(receiver.digest(), fixture.load("puppet").await.digest());
    assert!(!receiver.serves_pages() && receiver.live().is_none() && receiver.warnings().is_empty());
    assert!(guest("puppet").exists());
}

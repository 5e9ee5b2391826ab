//! The agent against a server that refuses, hangs up and comes back.

use wharf_protocol::Refusal;

use super::*;
use crate::client::fake::{Fake, Served};

fn args(server: &Fake) -> Args {
    Args {
        url: server.endpoint(),
        id: Some(AgentId::new("host-1").unwrap()),
        interval: Duration::from_millis(200),
        format: Format::Msgpack,
    }
}

async fn message(served: &mut Served) -> Message {
    match served.frame().await.expect("a frame").remove(0).call {
        Call::Data(message) => message,
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn reports_the_host_and_says_good_bye() {
    let server = Fake::start().await;
    let shutdown = CancellationToken::new();
    let serve = async {
        let mut served = server.accept().await;
        let message = message(&mut served).await;
        assert_eq!((message.agent.as_str(), message.data_type.as_str()), ("host-1", "system_metrics"));
        assert!(message.sent_at.is_some());
        let data: serde_json::Value = serde_json::from_str(&message.body.to_json()).unwrap();
        assert_eq!(data["type"], "statistics");
        for number in ["cpu_load", "memory_usage", "memory_total_bytes"] {
            assert!(data["body"][number].is_number(), "no {number} in {data}");
        }
        served.accept(1).await;
        shutdown.cancel();
        loop {
            match served.frame().await.expect("a good-bye").remove(0).call {
                Call::Bye { agent } => break assert_eq!(agent.as_str(), "host-1"),
                Call::Data(_) => served.accept(1).await,
                other => panic!("unexpected {other:?}"),
            }
        }
        served.accept(1).await;
        assert!(served.frame().await.is_none());
    };
    let (ended, ()) = tokio::join!(run(args(&server), shutdown.clone()), serve);
    ended.unwrap();
}

#[tokio::test]
async fn what_a_lost_connection_left_unanswered_comes_again_first_and_under_its_id() {
    let server = Fake::start().await;
    let shutdown = CancellationToken::new();
    let serve = async {
        let mut served = server.accept().await;
        let first = message(&mut served).await;
        served.accept(1).await;
        let (second, third) = (message(&mut served).await, message(&mut served).await);
        drop(served);
        let mut served = server.accept().await;
        assert_ne!(first.message_id, second.message_id);
        assert_eq!(message(&mut served).await, second);
        assert_eq!(message(&mut served).await, third);
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(run(args(&server), shutdown.clone()), serve);
    ended.unwrap();
}

#[tokio::test]
async fn what_an_overloaded_server_refuses_comes_again_and_other_refusals_do_not() {
    let server = Fake::start().await;
    let shutdown = CancellationToken::new();
    let serve = async {
        let mut served = server.accept().await;
        message(&mut served).await;
        served.refuse(Refusal::unknown_type("system_metrics", ["other"])).await;
        let second = message(&mut served).await;
        served.refuse(Refusal::overloaded(1)).await;
        assert_eq!(message(&mut served).await, second);
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(run(args(&server), shutdown.clone()), serve);
    ended.unwrap();
}

#[test]
fn intervals_have_a_unit_and_bounds() {
    assert_eq!(interval("200ms"), Ok(Duration::from_millis(200)));
    assert_eq!(interval("1day"), Ok(LONGEST_INTERVAL));
    insta::assert_snapshot!(interval("199ms").unwrap_err(), @"expected 200ms to 1day");
    for text in ["", "1", "0s", "2days", "soon"] {
        assert!(interval(text).is_err(), "{text:?} was taken");
    }
}

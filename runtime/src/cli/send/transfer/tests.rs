//! Transfers to a server that refuses, hangs up and comes back.

use wharf_protocol::{Body, Limits};

use super::*;
use crate::{
    cli::send::input::LineError,
    client::fake::{Fake, Served},
};

fn settings(endpoint: Endpoint, batch: usize) -> Settings {
    Settings {
        endpoint,
        agent: AgentId::new("node-7").unwrap(),
        data_type: "ethereum_metrics".to_owned(),
        encoding: Encoding::Json,
        batch,
    }
}

/// Lines 1 to `count`, all there at once.
fn lines(count: u64) -> mpsc::Receiver<Vec<Line>> {
    let lines = (1..=count).map(|number| Line { number, body: Ok(body(number)) }).collect();
    let (blocks, receiver) = mpsc::channel(1);
    blocks.try_send(lines).unwrap();
    receiver
}

fn body(number: u64) -> Body {
    Body::new(Encoding::Json, format!(r#"{{"line":{number}}}"#).into(), &Limits::default()).unwrap()
}

fn messages(requests: Vec<Request>) -> Vec<Message> {
    let message = |request: Request| match request.call {
        Call::Data(message) => message,
        other => panic!("unexpected {other:?}"),
    };
    requests.into_iter().map(message).collect()
}

/// The line numbers in a frame, by what the messages say and by their ids.
async fn frame(served: &mut Served) -> Vec<u64> {
    let messages = messages(served.frame().await.expect("a frame"));
    let line = |message: &Message| {
        let (_, number) = message.message_id.as_ref().unwrap().rsplit_once('-').unwrap();
        let number = number.parse().unwrap();
        assert_eq!(message.body, body(number));
        number
    };
    messages.iter().map(line).collect()
}

fn summary(transfer: Transfer) -> String {
    let text = transfer.into_tally().summary(Duration::ZERO).to_string();
    text.split_once(" in ").unwrap().0.to_owned()
}

#[tokio::test]
async fn lines_go_in_batches_and_the_connection_is_closed_after_the_last_answer() {
    let server = Fake::start().await;
    let mut transfer = Transfer::new(settings(server.endpoint(), 4));
    let serve = async {
        let mut served = server.accept().await;
        for expected in [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9]] {
            assert_eq!(frame(&mut served).await, expected);
            served.accept(expected.len()).await;
        }
        assert!(served.frame().await.is_none());
    };
    let (ended, ()) = tokio::join!(transfer.run(lines(9)), serve);
    ended.unwrap();
    assert_eq!(summary(transfer), "sent 9, accepted 9, refused 0");
}

#[tokio::test]
async fn what_is_refused_is_counted_by_code_and_the_rest_goes_on() {
    let server = Fake::start().await;
    let mut transfer = Transfer::new(settings(server.endpoint(), 3));
    let (blocks, receiver) = mpsc::channel(2);
    blocks.try_send(vec![Line { number: 1, body: Err(LineError::TooLong) }]).unwrap();
    blocks.try_send((2..=5).map(|number| Line { number, body: Ok(body(number)) }).collect()).unwrap();
    drop(blocks);
    let serve = async {
        let mut served = server.accept().await;
        assert_eq!(frame(&mut served).await, [2, 3, 4]);
        let refusal = Refusal::invalid_field("data", "too dull");
        served.answer(Answer::Batch { reference: None, accepted: 2, errors: vec![(1, refusal)] }).await;
        assert_eq!(frame(&mut served).await, [5]);
        served.refuse(Refusal::unknown_type("ethereum_metrics", ["other"])).await;
        served.frame().await;
    };
    let (ended, ()) = tokio::join!(transfer.run(receiver), serve);
    ended.unwrap();
    assert_eq!(
        summary(transfer),
        "sent 4, accepted 2, refused 3 (bad_line 1, invalid_field 1, unknown_type 1)"
    );
}

#[tokio::test]
async fn what_an_overloaded_server_refuses_comes_again_in_the_order_of_the_lines() {
    let server = Fake::start().await;
    let mut transfer = Transfer::new(settings(server.endpoint(), 2));
    let serve = async {
        let mut served = server.accept().await;
        assert_eq!(frame(&mut served).await, [1, 2]);
        assert_eq!(frame(&mut served).await, [3, 4]);
        assert_eq!(frame(&mut served).await, [5]);
        let asked = Instant::now();
        let errors = vec![(1, Refusal::overloaded(400))];
        served.answer(Answer::Batch { reference: None, accepted: 1, errors }).await;
        served.accept(2).await;
        served.refuse(Refusal::shutting_down()).await;
        assert_eq!(frame(&mut served).await, [2, 5]);
        assert!(asked.elapsed() >= Duration::from_millis(400), "came after {:?}", asked.elapsed());
        served.accept(2).await;
        served.frame().await;
    };
    let (ended, ()) = tokio::join!(transfer.run(lines(5)), serve);
    ended.unwrap();
    assert_eq!(summary(transfer), "sent 5, accepted 5, refused 0");
}

#[tokio::test]
async fn after_a_lost_connection_the_unanswered_come_again_under_their_ids() {
    let server = Fake::start().await;
    let mut transfer = Transfer::new(settings(server.endpoint(), 2));
    let serve = async {
        let mut served = server.accept().await;
        assert_eq!(frame(&mut served).await, [1, 2]);
        served.accept(2).await;
        let before = messages(served.frame().await.unwrap());
        drop(served);
        let mut served = server.accept().await;
        let after = messages(served.frame().await.unwrap());
        assert_eq!(before, after);
        served.accept(2).await;
        assert_eq!(frame(&mut served).await, [5]);
        served.accept(1).await;
        served.frame().await;
    };
    let (ended, ()) = tokio::join!(transfer.run(lines(5)), serve);
    ended.unwrap();
    assert_eq!(summary(transfer), "sent 5, accepted 5, refused 0");
}

#[tokio::test]
async fn a_message_that_is_refused_as_overload_again_and_again_is_given_up() {
    let mut transfer = Transfer::new(settings("ws://127.0.0.1:1".parse().unwrap(), 1));
    transfer.take_in(vec![Line { number: 1, body: Ok(body(1)) }]);
    for refusals in 0..=MAX_REFUSALS {
        let (_, batch) =
            transfer.next_frame().unwrap_or_else(|| panic!("given up after {refusals} refusals"));
        transfer.settle(batch, Answer::Error { reference: None, refusal: Refusal::overloaded(0) });
        transfer.resume();
    }
    assert!(transfer.next_frame().is_none());
    assert_eq!(summary(transfer), "sent 1, accepted 0, refused 1 (overloaded 1)");
}

#[tokio::test]
async fn whoever_is_not_authorized_stops_at_once() {
    let server = Fake::start().await;
    let mut transfer = Transfer::new(settings(server.endpoint(), 2));
    let serve = async {
        let mut served = server.accept().await;
        served.frame().await;
        served.refuse(Refusal::unauthorized("no token")).await;
        served.close(4401).await;
    };
    let (ended, ()) = tokio::join!(transfer.run(lines(5)), serve);
    assert!(!ended.unwrap_err().is_worth_another_try());
    let tally = transfer.into_tally();
    assert_eq!((tally.accepted(), tally.refused()), (0, 2), "{tally:?}");
}

#[test]
fn a_batch_is_bounded_in_bytes_but_takes_one_large_message() {
    let outgoing = |line, bytes| {
        let origin = Origin { line, bytes, sent: false, refusals: 0 };
        Outgoing { origin, request: Request::from(Call::Ping { agent: AgentId::new("node-7").unwrap() }) }
    };
    let mut transfer = Transfer::new(settings("ws://127.0.0.1:1".parse().unwrap(), 10));
    let half = MAX_BATCH_BYTES / 2;
    transfer.waiting.extend([
        outgoing(1, half),
        outgoing(2, half),
        outgoing(3, 1),
        outgoing(4, MAX_BATCH_BYTES * 2),
    ]);
    let sizes: Vec<usize> =
        std::iter::from_fn(|| transfer.next_frame().map(|(_, batch)| batch.requests.len())).collect();
    assert_eq!(sizes, [2, 1, 1]);
}

//! The client against a server of a few lines, which misbehaves as each test needs it.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio_tungstenite::{accept_async, tungstenite::protocol::frame::coding::CloseCode};
use wharf_protocol::{AgentId, Call, Code, Refusal};

use super::*;

type Served = WebSocketStream<TcpStream>;

/// Runs the script on the first connection, and gives the address to connect to.
async fn serve<F: Future<Output = ()> + Send + 'static>(
    script: impl FnOnce(Served) -> F + Send + 'static,
) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        script(accept_async(socket).await.unwrap()).await;
    });
    format!("http://{address}").parse().unwrap()
}

fn ping(encoding: Encoding) -> Frame {
    Frame::encode(&[Request::from(Call::Ping { agent: AgentId::new("node-7").unwrap() })], encoding)
}

fn success(encoding: Encoding) -> Message {
    message(&Answer::Success { reference: None, token: None }, encoding)
}

fn message(answer: &Answer, encoding: Encoding) -> Message {
    let bytes = answer.encode(encoding);
    match encoding {
        Encoding::Json => Message::text(String::from_utf8(bytes).unwrap()),
        Encoding::Msgpack => Message::binary(bytes),
    }
}

#[tokio::test]
async fn answers_come_with_the_tags_of_their_frames_in_order() {
    let endpoint = serve(|mut socket| async move {
        while let Some(Ok(frame)) = socket.next().await {
            let encoding = if frame.is_text() { Encoding::Json } else { Encoding::Msgpack };
            socket.send(success(encoding)).await.unwrap();
        }
    })
    .await;
    let mut connection = Connection::open(&endpoint, 8).await.unwrap();
    for tag in 0..8 {
        assert!(connection.has_room());
        connection.send(ping(if tag % 2 == 0 { Encoding::Json } else { Encoding::Msgpack }), tag).await;
    }
    assert!(!connection.has_room());
    for tag in 0..8 {
        let (answered, answer) = connection.answer().await.unwrap();
        assert_eq!(answered, tag);
        assert!(matches!(answer, Answer::Success { .. }), "{answer:?}");
    }
    assert_eq!(connection.in_flight(), 0);
}

#[tokio::test]
async fn what_was_not_answered_when_the_connection_ended_is_handed_back() {
    let endpoint = serve(|mut socket| async move {
        for _ in 0..3 {
            socket.next().await.unwrap().unwrap();
        }
        socket.send(success(Encoding::Json)).await.unwrap();
        // The socket is dropped without a good-bye, as when a server is killed.
    })
    .await;
    let mut connection = Connection::open(&endpoint, 8).await.unwrap();
    for tag in ["a", "b", "c"] {
        connection.send(ping(Encoding::Json), tag).await;
    }
    assert_eq!(connection.answer().await.unwrap().0, "a");
    let error = connection.answer().await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }) && error.is_worth_another_try(), "{error:?}");
    assert_eq!(connection.into_unanswered(), ["b", "c"]);
}

#[tokio::test]
async fn answers_that_came_before_a_broken_write_are_not_lost() {
    let (closed, hung_up) = tokio::sync::oneshot::channel();
    let endpoint = serve(|mut socket| async move {
        socket.next().await.unwrap().unwrap();
        socket.send(success(Encoding::Json)).await.unwrap();
        let frame = CloseFrame { code: CloseCode::Size, reason: "too large".into() };
        socket.close(Some(frame)).await.unwrap();
        drop(socket);
        closed.send(()).unwrap();
    })
    .await;
    let mut connection = Connection::open(&endpoint, 1_000).await.unwrap();
    // The frame goes out because an answer is waited for, though nobody waits for long.
    connection.send(ping(Encoding::Json), 0).await;
    let first = timeout(Duration::ZERO, connection.answer()).await;
    hung_up.await.unwrap();
    for tag in 1..1_000 {
        connection.send(Frame(Message::binary(vec![0_u8; 4 * 1024])), tag).await;
    }
    let (tag, answer) = match first {
        Ok(answer) => answer.unwrap(),
        Err(_) => connection.answer().await.unwrap(),
    };
    assert_eq!(tag, 0);
    assert!(matches!(answer, Answer::Success { .. }), "{answer:?}");
    let error = connection.answer().await.unwrap_err();
    assert_eq!(error.to_string(), "keep the connection: the server closed it with code 1009, \"too large\"");
    assert_eq!(connection.into_unanswered().len(), 999);
}

#[tokio::test]
async fn a_server_that_wants_its_answers_read_before_it_reads_on_is_served() {
    const FRAMES: usize = 64;
    let endpoint = serve(|mut socket| async move {
        let answer =
            Answer::Error { reference: None, refusal: Refusal::new(Code::Internal, "x".repeat(1 << 20)) };
        let answer = message(&answer, Encoding::Json);
        while let Some(Ok(Message::Binary(_))) = socket.next().await {
            socket.send(answer.clone()).await.unwrap();
        }
    })
    .await;
    let mut connection = Connection::open(&endpoint, FRAMES).await.unwrap();
    // Neither direction fits into the buffers of a socket, so both ends would wait for each other.
    for tag in 0..FRAMES {
        connection.send(Frame(Message::binary(vec![0_u8; 1 << 20])), tag).await;
    }
    for tag in 0..FRAMES {
        assert_eq!(connection.answer().await.unwrap().0, tag);
    }
}

#[tokio::test]
async fn a_dropped_wait_loses_no_answer() {
    let (go, gone) = tokio::sync::oneshot::channel();
    let endpoint = serve(|mut socket| async move {
        socket.next().await.unwrap().unwrap();
        gone.await.unwrap();
        socket.send(success(Encoding::Json)).await.unwrap();
        socket.next().await;
    })
    .await;
    let mut connection = Connection::open(&endpoint, 1).await.unwrap();
    connection.send(ping(Encoding::Json), "a").await;
    assert!(timeout(Duration::ZERO, connection.answer()).await.is_err());
    go.send(()).unwrap();
    assert_eq!(connection.answer().await.unwrap().0, "a");
}

#[tokio::test]
async fn whoever_is_not_authorized_need_not_try_again() {
    let endpoint = serve(|mut socket| async move {
        let frame = CloseFrame { code: CLOSE_UNAUTHORIZED.into(), reason: "".into() };
        socket.close(Some(frame)).await.unwrap();
    })
    .await;
    let mut connection = Connection::<()>::open(&endpoint, 1).await.unwrap();
    let error = connection.answer().await.unwrap_err();
    assert!(!error.is_worth_another_try());
    assert_eq!(error.to_string(), "keep the connection: the server closed it with code 4401");
}

#[tokio::test]
async fn what_is_no_answer_and_what_nobody_asked_for_ends_the_connection() {
    for (sent, said) in [
        (Message::text("{}"), "understand an answer of the server"),
        (Message::binary(vec![0xc1_u8]), "understand an answer of the server"),
    ] {
        let endpoint = serve(|mut socket| async move {
            socket.next().await.unwrap().unwrap();
            socket.send(sent).await.unwrap();
            socket.next().await;
        })
        .await;
        let mut connection = Connection::open(&endpoint, 1).await.unwrap();
        connection.send(ping(Encoding::Json), ()).await;
        let error = connection.answer().await.unwrap_err();
        assert_eq!(error.to_string(), said);
        assert!(!error.is_worth_another_try());
    }

    let endpoint = serve(|mut socket| async move {
        socket.send(success(Encoding::Json)).await.unwrap();
        socket.next().await;
    })
    .await;
    let mut connection = Connection::<()>::open(&endpoint, 1).await.unwrap();
    assert!(matches!(connection.answer().await, Err(ClientError::Unasked)));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint: Endpoint = format!("ws://{address}").parse().unwrap();
    let error = Connection::<()>::open(&endpoint, 1).await.err().unwrap();
    assert_eq!(
        error.with_causes(),
        format!("connect to ws://{address}/agent: Connection refused (os error 111)")
    );
    assert!(error.is_worth_another_try());
}

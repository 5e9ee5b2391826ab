//! Frames of every shape, right, odd and hostile: each gets its answer, in order, and nobody else notices.

use e2e::agent::End;
use e2e::calls::{data, ping, success};
use e2e::{Agent, Config, Encoding, Server, Site, within};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

async fn server() -> (Site, Server) {
    let site = Site::new(Config::new());
    let server = site.start().await;
    (site, server)
}

#[tokio::test]
async fn a_frame_in_fragments_is_put_together() {
    let (_site, server) = server().await;
    let mut agent = Agent::connect(server.agents).await;
    for encoding in Encoding::ALL {
        // Cut in the middle of a character.
        let bytes = encoding.encode(&data("é", json!({ "text": "ünïcödé" })));
        let parts: Vec<&[u8]> = bytes.chunks(3).collect();
        agent.send_fragments(encoding, &parts).await;
        assert_eq!(agent.answer().await, (encoding, success()));

        // A WebSocket ping may come in between.
        let (first, second) = bytes.split_at(5);
        let data = if encoding == Encoding::Json { Data::Text } else { Data::Binary };
        for message in [
            Message::Frame(Frame::message(first.to_vec(), OpCode::Data(data), false)),
            Message::Ping(b"still there?".as_slice().into()),
            Message::Frame(Frame::message(second.to_vec(), OpCode::Data(Data::Continue), true)),
        ] {
            agent.try_send(message).await.unwrap();
        }
        assert_eq!(agent.answer().await, (encoding, success()));
    }
}

#[tokio::test]
async fn a_ref_comes_back_whatever_the_answer() {
    let (_site, server) = server().await;
    let mut agent = Agent::connect(server.agents).await;
    for encoding in Encoding::ALL {
        for reference in [json!(0), json!(-7), json!(u64::MAX), json!(i64::MIN), json!(""), json!("näme")] {
            let with_ref = |mut frame: Value| {
                frame["ref"] = reference.clone();
                frame
            };
            let answer = agent.call(encoding, &with_ref(ping("a"))).await;
            assert_eq!(answer, json!({ "result": "success", "ref": reference }));
            let answer = agent.call(encoding, &with_ref(data("a", json!({})))).await;
            assert_eq!(answer, json!({ "result": "success", "ref": reference }));
            let answer = agent.call(encoding, &with_ref(ping(""))).await;
            assert_eq!((&answer["result"], &answer["ref"]), (&json!("error"), &reference), "{answer}");
            let answer = agent.call(encoding, &json!([with_ref(ping("a")), ping("a")])).await;
            assert_eq!(answer, json!({ "result": "success", "ref": reference, "accepted": 2 }));
        }
    }
}

#[tokio::test]
async fn a_batch_says_which_of_its_calls_failed_and_keeps_the_others() {
    let (_site, server) = server().await;
    let mut agent = Agent::connect(server.agents).await;
    for encoding in Encoding::ALL {
        assert_eq!(agent.call(encoding, &json!([])).await, json!({ "result": "success", "accepted": 0 }));
        let batch = json!([
            data("a", json!({ "n": 0 })),
            { "call": "data", "id": "a", "type": "nonsense", "data": {} },
            ping("b"),
            7,
            { "call": "dance" },
            data("c", json!({ "n": 5 })),
            { "call": "data", "id": "a", "type": "metrics" },
        ]);
        let answer = agent.call(encoding, &batch).await;
        assert_eq!((&answer["result"], &answer["accepted"]), (&json!("partial"), &json!(3)), "{answer}");
        let errors: Vec<_> =
            answer["errors"].as_array().unwrap().iter().map(|e| (&e["index"], &e["code"])).collect();
        let expected = [(1, "unknown_type"), (3, "bad_frame"), (4, "unknown_call"), (6, "missing_field")];
        let expected = expected.map(|(index, code)| (json!(index), json!(code)));
        assert_eq!(errors, expected.iter().map(|(index, code)| (index, code)).collect::<Vec<_>>());
        assert!(answer["errors"][0]["message"].as_str().unwrap().contains("nonsense"), "{answer}");
    }
    assert_eq!(server.status().await["types"][0]["accepted"], 4);
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let (_site, server) = server().await;
    let mut agent = Agent::connect(server.agents).await;
    for encoding in Encoding::ALL {
        let mut frame = data("a", json!({}));
        frame["colour"] = json!({ "deep": [[[]]] });
        assert_eq!(agent.call(encoding, &frame).await, success());
    }
}

#[tokio::test]
async fn many_frames_at_once_are_answered_in_order_each_in_its_encoding() {
    const FRAMES: usize = 1_000;
    let (_site, server) = server().await;
    let mut agent = Agent::connect(server.agents).await;
    let encoding_of = |index: usize| if index.is_multiple_of(3) { Encoding::Msgpack } else { Encoding::Json };
    for index in 0..FRAMES {
        let mut frame = match index % 4 {
            0 => ping("a"),
            1 => json!({ "call": "dance" }),
            _ => data("a", json!({ "index": index })),
        };
        frame["ref"] = index.into();
        agent.send(encoding_of(index), &frame).await;
    }
    for index in 0..FRAMES {
        let (encoding, answer) = agent.answer().await;
        assert_eq!((encoding, &answer["ref"]), (encoding_of(index), &json!(index)));
        assert_eq!(answer["result"], if index % 4 == 1 { "error" } else { "success" });
    }
    assert_eq!(server.status().await["types"][0]["accepted"], FRAMES / 2);
}

/// What a server may hold of a client that does not read: its own buffers and those of two sockets, with much to spare.
const MOST_BUFFERED: usize = 64 * 1024 * 1024;

/// A write that has waited so long waits for the server. If it only was slow, less was sent than could have been, which
/// fails no test.
const STALLED: Duration = Duration::from_millis(500);

#[tokio::test]
async fn an_agent_that_does_not_read_its_answers_is_not_read_either() {
    let (_site, server) = server().await;
    let mut agent = Agent::connect(server.agents).await;
    let reference = "r".repeat(100);
    let frame = |index: usize| {
        let mut frame = ping("a");
        frame["ref"] = format!("{reference}{index}").into();
        frame
    };
    let size = Encoding::Json.encode(&frame(0)).len();
    let mut sent = 0;
    let whole_frames = loop {
        // A frame that was given up here is partly in the socket's buffer: it is the last one.
        let sending = async { agent.send(Encoding::Json, &frame(sent)).await };
        if tokio::time::timeout(STALLED, sending).await.is_err() {
            break sent;
        }
        sent += 1;
        assert!(sent * size < MOST_BUFFERED, "the server reads and reads");
    };
    for index in 0..whole_frames {
        let (_, answer) = agent.answer().await;
        assert_eq!(answer["ref"], format!("{reference}{index}"));
    }
    let mut neighbour = Agent::connect(server.agents).await;
    assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success());
}

/// A message whose body is written by hand.
fn data_of_bytes(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    const HERE: &str = "here";
    let frame = encoding.encode(&data("a", HERE.into()));
    let here = encoding.encode(&HERE.into());
    let at = frame.windows(here.len()).position(|window| window == here).unwrap();
    [&frame[..at], body, &frame[at + here.len()..]].concat()
}

/// A body with so many objects or lists within each other.
fn nested(encoding: Encoding, levels: usize, open: &[u8], innermost: &[u8], close: &[u8]) -> Vec<u8> {
    let (head, tail): (&[u8], &[u8]) = match encoding {
        Encoding::Json => (br#"{"x":"#, b"}"),
        Encoding::Msgpack => (&[0x81, 0xa1, b'x'], b""),
    };
    data_of_bytes(encoding, &[head, &open.repeat(levels), innermost, &close.repeat(levels), tail].concat())
}

#[tokio::test]
async fn nesting_is_bounded() {
    let (_site, server) = server().await;
    let mut agent = Agent::connect(server.agents).await;
    for levels in [50, 70, 1_000, 1_000_000] {
        let frames = [
            nested(Encoding::Json, levels, b"[", b"", b"]"),
            nested(Encoding::Json, levels, br#"{"x":"#, b"0", b"}"),
            nested(Encoding::Msgpack, levels, &[0x91], &[0xc0], b""),
            nested(Encoding::Msgpack, levels, &[0x81, 0xa1, b'x'], &[0xc0], b""),
        ];
        for (frame, encoding) in frames.into_iter().zip([0, 0, 1, 1].map(|index| Encoding::ALL[index])) {
            let answer = agent.call_bytes(encoding, frame).await;
            if levels == 50 {
                assert_eq!(answer, success());
            } else {
                assert_eq!(
                    answer["error"]["code"], "invalid_field",
                    "{encoding:?}, {levels} levels: {answer}"
                );
                assert!(answer["error"]["message"].as_str().unwrap().contains("data"), "{answer}");
            }
        }
    }
    // Opened a million times and never closed, as the frame itself.
    for (encoding, open) in
        [(Encoding::Json, b"[".as_slice()), (Encoding::Json, br#"{"a":"#), (Encoding::Msgpack, &[0x91])]
    {
        let answer = agent.call_bytes(encoding, open.repeat(1_000_000)).await;
        assert_eq!(answer["error"]["code"], "bad_frame", "{answer}");
    }
}

#[tokio::test]
async fn what_has_no_form_in_json_is_refused() {
    let (_site, server) = server().await;
    let mut agent = Agent::connect(server.agents).await;
    let msgpack = |body: &[u8]| data_of_bytes(Encoding::Msgpack, body);
    // {1: nil, "1": nil}, {"x": "\xff"}, {"\xff": nil}
    let refused: [&[u8]; 3] =
        [&[0x82, 0x01, 0xc0, 0xa1, b'1', 0xc0], &[0x81, 0xa1, b'x', 0xa1, 0xff], &[0x81, 0xa1, 0xff, 0xc0]];
    for body in refused {
        let answer = agent.call_bytes(Encoding::Msgpack, msgpack(body)).await;
        assert_eq!(answer["error"]["code"], "invalid_field", "{body:x?}: {answer}");
    }
    // {"x": binary}, {"x": NaN}, {1: nil}, {"x": extension}
    let accepted: [&[u8]; 4] = [
        &[0x81, 0xa1, b'x', 0xc4, 0x01, 0xff],
        &[0x81, 0xa1, b'x', 0xca, 0x7f, 0xc0, 0, 0],
        &[0x81, 0x01, 0xc0],
        &[0x81, 0xa1, b'x', 0xd4, 0x05, 0xff],
    ];
    for body in accepted {
        assert_eq!(agent.call_bytes(Encoding::Msgpack, msgpack(body)).await, success(), "{body:x?}");
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_the_connection() {
    let (_site, server) = server().await;
    let mut neighbour = Agent::connect(server.agents).await;
    for bytes in [&b"\xff\xfe"[..], b"{\"call\":\"ping\",\"id\":\"\xc3\"}", b"{\"id\":\"\xed\xa0\x80\"}"] {
        let mut agent = Agent::connect(server.agents).await;
        agent.send_bytes(Encoding::Json, bytes).await;
        assert_eq!(end_of(&mut agent, "bad_frame").await, 1007);
        assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success());
    }
}

/// The code of the server's close. Before it there may be one answer with this error.
async fn end_of(agent: &mut Agent, error: &str) -> u16 {
    match agent.try_answer().await {
        Ok((_, answer)) => {
            assert_eq!(answer["error"]["code"], error, "{answer}");
            agent.close_code().await
        }
        Err(End::Closed(Some(code))) => code,
        Err(end) => panic!("got {end:?} in place of a close with a code"),
    }
}

#[tokio::test]
async fn a_broken_websocket_is_closed() {
    let (_site, server) = server().await;
    let mut neighbour = Agent::connect(server.agents).await;
    let reserved_bit = {
        let mut frame = Frame::message(b"{}".to_vec(), OpCode::Data(Data::Text), true);
        frame.header_mut().rsv1 = true;
        frame
    };
    let stray_continuation = Frame::message(b"{}".to_vec(), OpCode::Data(Data::Continue), true);
    for frame in [reserved_bit, stray_continuation] {
        let mut agent = Agent::connect(server.agents).await;
        agent.try_send(Message::Frame(frame)).await.unwrap();
        assert_eq!(agent.close_code().await, 1002);
        assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success());
    }
}

#[tokio::test]
async fn random_bytes_are_answered() {
    const FRAMES: usize = 2_000;
    let (_site, server) = server().await;
    let mut neighbour = Agent::connect(server.agents).await;
    let mut agent = Agent::connect(server.agents).await;
    let mut random = StdRng::seed_from_u64(0x57_48_41_52_46);
    for index in 0..FRAMES {
        let encoding = Encoding::ALL[index % 2];
        let bytes = hostile(&mut random, encoding);
        agent.send_bytes(encoding, bytes.clone()).await;
        let answer = within("an answer", agent.try_answer()).await;
        let (answered_in, answer) =
            answer.unwrap_or_else(|end| panic!("{encoding:?} {bytes:x?} ended in {end:?}"));
        assert_eq!(answered_in, encoding);
        let result = answer["result"].as_str().unwrap_or_else(|| panic!("{bytes:x?} got {answer}"));
        assert!(["success", "partial", "error"].contains(&result), "{bytes:x?} got {answer}");
    }
    assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success());
    assert_eq!(agent.call(Encoding::Msgpack, &ping("a")).await, success());
}

/// Random bytes, or a right frame with some of its bytes changed, as text where it must be.
fn hostile(random: &mut StdRng, encoding: Encoding) -> Vec<u8> {
    let mut bytes = if random.random_bool(0.5) {
        let mut bytes = vec![0; random.random_range(0..200)];
        random.fill(&mut bytes[..]);
        bytes
    } else {
        let calls = json!([data("agent", json!({ "n": 1, "list": [1.5, null, "text"] })), ping("agent")]);
        let mut bytes = encoding.encode(&if random.random() { calls[0].clone() } else { calls });
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        bytes
    };
    if encoding == Encoding::Json {
        bytes = String::from_utf8_lossy(&bytes).into_owned().into_bytes();
    }
    bytes
}

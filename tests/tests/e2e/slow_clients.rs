//! Clients that begin and do not end, that send and do not read: each is bounded in time and in bytes, and nobody else notices.

use std::iter::repeat;
use std::time::Duration;

use e2e::calls::{data, ping, success};
use e2e::{Agent, Config, Encoding, Raw, Rest, Server, Site, eventually};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const FRAMES_TIMED_OUT: &str = r#"wharf_connections_timed_out_total{waited_for="frame"}"#;
const WRITES_TIMED_OUT: &str = r#"wharf_connections_timed_out_total{waited_for="write"}"#;
const UNANSWERED: &str = "wharf_unanswered_bytes";
const ARRIVING: &str = "wharf_arriving_bytes";

const TEXT: u8 = 1;
const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const LAST: u8 = 0x80;

/// The head of a frame of a client, with a mask that changes nothing.
fn head(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    if length < 126 {
        bytes.push(0x80 | u8::try_from(length).unwrap());
    } else {
        bytes.push(0x80 | 127);
        bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, payload.len()), payload].concat()
}

fn message(call: &Value) -> Vec<u8> {
    frame(LAST | TEXT, &Encoding::Json.encode(call))
}

/// A message of at least so many bytes.
fn large(agent: &str, bytes: usize) -> Value {
    data(agent, json!({ "padding": "x".repeat(bytes) }))
}

/// The connection was closed with 1008 and the reason.
fn assert_closed_for_its_frame(said: &[u8]) {
    let reason = b"a frame that had begun did not end within limits.frame-timeout";
    let close = [&[0x88, u8::try_from(2 + reason.len()).unwrap(), 0x03, 0xf0], &reason[..]].concat();
    assert!(said.ends_with(&close), "{:?}", String::from_utf8_lossy(said));
}

async fn eventually_number(server: &Server, series: &str, number: f64) {
    let what = format!("{series} to be {number}");
    eventually(&what, async || (server.metrics().await.get(series) == number).then_some(())).await;
}

#[tokio::test]
async fn a_frame_that_does_not_end_is_not_waited_for() {
    let server = Site::new(Config::new().set("limits.frame-timeout", "500ms")).start().await;
    let mut idle = Agent::connect(server.agents).await;
    let never_used = Raw::websocket(server.agents).await;
    let begun = [
        vec![LAST | TEXT],
        head(LAST | TEXT, 50),
        [head(LAST | TEXT, 50), b"{\"call\"".to_vec()].concat(),
        head(LAST | TEXT, 1_000_000),
        [head(LAST | TEXT, 1_000_000), vec![b' '; 500_000]].concat(),
        head(TEXT, 1_000_000),
        frame(TEXT, b"{"),
        [frame(TEXT, b"{"), frame(LAST | PING, b"")[..3].to_vec()].concat(),
        vec![LAST | PING],
    ];
    let mut connections = Vec::new();
    for bytes in &begun {
        let mut raw = Raw::websocket(server.agents).await;
        raw.write(bytes).await;
        connections.push(raw);
    }
    for raw in connections {
        assert_closed_for_its_frame(&raw.ended().await);
    }
    let metrics = server.metrics().await;
    assert_eq!(metrics.get(FRAMES_TIMED_OUT), 9.0);
    assert_eq!(metrics.get(ARRIVING), 0.0);
    // The time-out is for frames: who sends nothing may do so for ever.
    assert_eq!(idle.call(Encoding::Json, &ping("a")).await, success());
    let mut never_used = never_used;
    never_used.write(message(&ping("a"))).await;
    never_used.write(frame(LAST | CLOSE, b"")).await;
    assert!(never_used.closed().await.contains("success"));
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_is_not_waited_for() {
    let server = Site::new(Config::new().set("limits.frame-timeout", "500ms")).start().await;
    let mut neighbour = Agent::connect(server.agents).await;
    for (begin, rest) in [
        (head(LAST | TEXT, 1_000_000), b"x".to_vec()),
        // Fragments that add nothing to a message that does not end.
        (frame(TEXT, b""), frame(CONTINUATION, b"")),
        (frame(TEXT, b"{"), frame(CONTINUATION, b" ")),
        // Each ping ends, and the message that they interrupt does not.
        (frame(TEXT, b"{"), frame(LAST | PING, b"")),
    ] {
        let raw = Raw::websocket(server.agents).await;
        let parts = std::iter::once(begin).chain(repeat(rest));
        let said = raw
            .trickle(parts, async || assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success()))
            .await;
        assert_closed_for_its_frame(&said);
    }
}

#[tokio::test]
async fn what_can_only_be_too_large_is_refused_before_it_is_read() {
    let server = Site::new(Config::new().set("limits.max-frame", "64KiB")).start().await;
    let fragment = 40 * 1024;
    for (begun, code) in [
        // Control frames are small, and take no room.
        (head(LAST | PING, 126), 1002_u16),
        (head(LAST | PING, 64 * 1024), 1002),
        (head(LAST | CLOSE, 64 * 1024), 1002),
        ([frame(TEXT, b"{"), head(LAST | PING, 64 * 1024)].concat(), 1002),
        (head(LAST | TEXT, 64 * 1024 + 1), 1009),
        (head(LAST | TEXT, usize::MAX), 1009),
        (head(LAST | PING, usize::MAX), 1009),
        ([frame(TEXT, &vec![b' '; fragment]), head(CONTINUATION, fragment)].concat(), 1009),
    ] {
        let mut raw = Raw::websocket(server.agents).await;
        raw.write(&begun).await;
        let said = raw.ended().await;
        let closed = |code: u16| {
            let code = code.to_be_bytes();
            said.windows(4).any(|said| said[0] == 0x88 && said[2..] == code)
        };
        assert!(closed(code), "{:x?}: {:?}", &begun[..2], String::from_utf8_lossy(&said));
    }
    let metrics = server.metrics().await;
    assert_eq!((metrics.get(FRAMES_TIMED_OUT), metrics.get(ARRIVING)), (0.0, 0.0));
}

#[tokio::test]
async fn empty_fragments_without_end_are_not_read_for_ever() {
    let server = Site::new(Config::new().set("limits.frame-timeout", "500ms")).start().await;
    let mut neighbour = Agent::connect(server.agents).await;
    let raw = Raw::websocket(server.agents).await;
    let fragments = repeat(frame(CONTINUATION, b"").repeat(10_000));
    let flood = raw.trickle(std::iter::once(frame(TEXT, b"")).chain(fragments), async || {});
    let meanwhile = async {
        for _ in 0..10 {
            assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success());
        }
    };
    let (said, ()) = tokio::join!(flood, meanwhile);
    assert_closed_for_its_frame(&said);
}

#[tokio::test]
async fn a_message_of_ten_thousand_fragments_is_one_message() {
    let server = Site::new(Config::new()).start().await;
    let mut agent = Agent::connect(server.agents).await;
    for encoding in Encoding::ALL {
        let bytes = encoding.encode(&large("a", 10_000));
        let parts: Vec<&[u8]> = bytes.chunks(1).collect();
        agent.send_fragments(encoding, &parts).await;
        assert_eq!(agent.answer().await, (encoding, success()));
    }
    assert_eq!(server.metrics().await.get(ARRIVING), 0.0);
}

#[tokio::test]
async fn large_frames_between_small_ones_are_taken_whole() {
    let server = Site::new(Config::new()).start().await;
    let mut agent = Agent::connect(server.agents).await;
    // Sizes around that of the read buffer, all in the sockets at once.
    let sizes = [0, 7_000, 8_100, 8_192, 100, 9_000, 20_000, 1_000_000, 1, 70_000, 16_384, 0, 300_000];
    for encoding in Encoding::ALL {
        let sending = async {
            for size in sizes {
                let frame = encoding.encode(&large("a", size));
                agent.send_bytes(encoding, frame.clone()).await;
                agent.try_send(Message::Ping(b"p".as_slice().into())).await.unwrap();
                agent.send_fragments(encoding, &frame.chunks(5_000).collect::<Vec<_>>()).await;
            }
        };
        sending.await;
        for size in sizes {
            for _ in 0..2 {
                assert_eq!(agent.answer().await, (encoding, success()), "{size}");
            }
        }
    }
    let metrics = server.metrics().await;
    assert_eq!((metrics.get(ARRIVING), metrics.get(UNANSWERED)), (0.0, 0.0));
}

#[tokio::test]
async fn large_frames_wait_for_room_and_small_ones_do_not() {
    let config = Config::new()
        .set("limits.max-frame", "64KiB")
        .set("limits.max-arriving-bytes", "64KiB")
        .set("limits.frame-timeout", "1s");
    let server = Site::new(config).start().await;
    // It takes all the room there is, and the next has to wait for the first one's end.
    let mut first = Raw::websocket(server.agents).await;
    first.write([head(LAST | TEXT, 64 * 1024), vec![b' '; 40_000]].concat()).await;
    eventually_number(&server, ARRIVING, 65_536.0).await;
    let mut second = Raw::websocket(server.agents).await;
    second.write(frame(TEXT, &[b' '; 9_000])).await;
    let mut waiting = Agent::connect(server.agents).await;
    waiting.send(Encoding::Json, &large("a", 20_000)).await;
    let rest = Rest::new(server.agents);
    let call = large("a", 20_000);
    let posting = rest.call("/data", Encoding::Json, &call);
    let small = async {
        let mut small = Agent::connect(server.agents).await;
        assert_eq!(small.call(Encoding::Json, &large("b", 7_000)).await, success());
        assert_eq!(rest.call("/data", Encoding::Json, &large("b", 7_000)).await.status, 200);
        assert_eq!(server.metrics().await.get(ARRIVING), 65_536.0, "the first one still has the room");
    };
    let (posted, ()) = tokio::join!(posting, small);
    assert_closed_for_its_frame(&first.ended().await);
    assert_closed_for_its_frame(&second.ended().await);
    // It has waited for longer than a frame may take, but was not being read.
    assert_eq!(waiting.answer().await, (Encoding::Json, success()));
    assert_eq!(posted.status, 200, "{}", posted.text());
    eventually_number(&server, ARRIVING, 0.0).await;
}

#[tokio::test]
async fn what_is_only_announced_takes_no_room() {
    const LARGEST: usize = 1024 * 1024;
    let config = Config::new()
        .set("limits.max-frame", "1MiB")
        .set("limits.max-arriving-bytes", "2MiB")
        .set("limits.request-timeout", "1h")
        .set("limits.frame-timeout", "1h");
    let server = Site::new(config).start().await;
    let host = server.agents;
    let post = format!("POST /data HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
    let mut connections = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::websocket(host).await;
        raw.write([head(LAST | TEXT, LARGEST), vec![b' '; 8_000]].concat()).await;
        connections.push(raw);
        let mut raw = Raw::websocket(host).await;
        raw.write([frame(TEXT, &[b' '; 8_000]), head(CONTINUATION, LARGEST - 8_000)].concat()).await;
        connections.push(raw);
        for length in [format!("Content-Length: {LARGEST}"), "Transfer-Encoding: chunked".to_owned()] {
            let mut raw = Raw::connect(host).await;
            raw.write(format!("{post}{length}\r\n\r\n")).await;
            connections.push(raw);
        }
    }
    let large = large("a", LARGEST - 1_000);
    let mut agent = Agent::connect(host).await;
    for encoding in Encoding::ALL {
        assert_eq!(agent.call(encoding, &large).await, success());
        assert_eq!(Rest::new(host).call("/data", encoding, &large).await.status, 200);
    }
}

#[tokio::test]
async fn large_frames_that_come_in_turns_do_not_wait_for_each_other() {
    let config = Config::new().set("limits.max-frame", "64KiB").set("limits.max-arriving-bytes", "160KiB");
    let server = Site::new(config).start().await;
    let bytes = message(&large("a", 60_000));
    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(Raw::websocket(server.agents).await);
    }
    for part in bytes.chunks(10_000) {
        for raw in &mut connections {
            raw.write(part).await;
        }
    }
    for raw in &mut connections {
        raw.hear("success").await;
    }
    eventually_number(&server, ARRIVING, 0.0).await;
}

const MAX_UNANSWERED_BYTES: usize = 32 * 1024;
/// What one frame of the next test takes of that, at most: one is always taken.
const UNANSWERED_FRAME: usize = 8 * 1024;

#[tokio::test]
async fn bytes_that_wait_for_their_answers_are_bounded() {
    // Few enough that the sockets hold all the answers.
    const FRAMES: usize = 400;
    let config = Config::new()
        .set("limits.max-unanswered", 100_000)
        .set("limits.max-unanswered-bytes", format!("{}KiB", MAX_UNANSWERED_BYTES / 1024));
    let server = Site::new(config).start().await;
    let store = Encoding::Json.encode(&data("a", json!({})));
    // What is kept for the answer of the second kind is many times what the frame is.
    for call in [large("a", 4_000), json!(vec![0; 20])] {
        let mut agent = Agent::connect(server.agents).await;
        let bytes = Encoding::Json.encode(&call);
        let mut most: f64 = 0.0;
        for _ in 0..10 {
            let flood = async {
                for index in 0..FRAMES {
                    // What is stored takes its time, and the others wait behind it.
                    let bytes = if index % 50 == 0 { &store } else { &bytes };
                    agent.send_bytes(Encoding::Json, bytes.clone()).await;
                }
                for _ in 0..FRAMES {
                    agent.answer().await;
                }
            };
            let sampling = async {
                loop {
                    most = most.max(server.metrics().await.get(UNANSWERED));
                }
            };
            tokio::select! {
                () = flood => {}
                () = sampling => unreachable!(),
            }
        }
        assert!(most <= (MAX_UNANSWERED_BYTES + UNANSWERED_FRAME) as f64, "{most} bytes waited");
        assert!(most > 0.0, "nothing was ever seen waiting");
        eventually_number(&server, UNANSWERED, 0.0).await;
    }
}

/// What a server may read of a client that does not read: what fits into its own buffers and those of two sockets, with much
/// to spare.
const MOST_READ: usize = 64 * 1024 * 1024;
/// A write that has waited so long waits for the server. If it only was slow, less was sent than could have been, which
/// fails no test.
const STALLED: Duration = Duration::from_millis(500);

/// Writes the same again and again and reads nothing, until the server does not read it any more.
async fn write_until_stalled(raw: &mut Raw, bytes: &[u8]) {
    let mut written = 0;
    while tokio::time::timeout(STALLED, raw.write(bytes)).await.is_ok() {
        written += bytes.len();
        assert!(written < MOST_READ, "the server reads and reads");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let server = Site::new(Config::new().set("limits.frame-timeout", "2s")).start().await;
    let mut neighbour = Agent::connect(server.agents).await;
    let mut answered = ping("a");
    answered["ref"] = "r".repeat(120).into();
    let get = |address, path| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    let floods = [
        (Raw::websocket(server.agents).await, message(&answered)),
        (Raw::websocket(server.agents).await, message(&json!(vec![0; 1_000]))),
        // Replies to pings are not owed by the protocol's layer but by the WebSocket's.
        (Raw::websocket(server.agents).await, frame(LAST | PING, &[b'p'; 125])),
        (Raw::connect(server.agents).await, get(server.agents, "/")),
        (Raw::connect(server.admin).await, get(server.admin, "/metrics")),
    ];
    let count = floods.len();
    let mut connections = Vec::new();
    for (mut raw, bytes) in floods {
        let many = bytes.repeat(16 * 1024 / bytes.len() + 1);
        write_until_stalled(&mut raw, &many).await;
        assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success());
        connections.push(raw);
    }
    eventually_number(&server, WRITES_TIMED_OUT, count as f64).await;
    eventually_number(&server, UNANSWERED, 0.0).await;
    eventually_number(&server, r#"wharf_connections{listener="agents"}"#, 1.0).await;
    assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success());
}

#[tokio::test]
async fn pings_are_replied_to_however_many() {
    let server = Site::new(Config::new()).start().await;
    let mut agent = Agent::connect(server.agents).await;
    for _ in 0..10_000 {
        agent.try_send(Message::Ping(b"p".as_slice().into())).await.unwrap();
    }
    assert_eq!(agent.call(Encoding::Json, &ping("a")).await, success());
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_not_waited_for() {
    let server = Site::new(Config::new().set("limits.request-timeout", "500ms")).start().await;
    let mut neighbour = Agent::connect(server.agents).await;
    let mut trickle = async |address, begin: String, rest: &str| {
        let raw = Raw::connect(address).await;
        let parts = std::iter::once(begin.into_bytes()).chain(repeat(rest.as_bytes().to_vec()));
        let said = raw
            .trickle(parts, async || assert_eq!(neighbour.call(Encoding::Json, &ping("b")).await, success()))
            .await;
        String::from_utf8(said).unwrap()
    };
    for address in [server.agents, server.admin] {
        let said = trickle(address, format!("GET / HTTP/1.1\r\nHost: {address}\r\nX: "), "x").await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    let host = server.agents;
    let post = format!("POST /ping HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
    for (length, part) in [("Content-Length: 1000000", "x"), ("Transfer-Encoding: chunked", "1\r\nx\r\n")] {
        let said = trickle(server.agents, format!("{post}{length}\r\n\r\n"), part).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{said}");
        assert!(said.contains("the body did not arrive within"), "{said}");
    }
    assert_eq!(server.metrics().await.get(ARRIVING), 0.0);
}

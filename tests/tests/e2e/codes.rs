//! Each code of the protocol that a single wrong call can meet, in both encodings, over WebSocket and REST. Codes that need
//! the server to be in trouble are in `overload` and `shutdown`; those of accounts can't be met while accounts are off.

use e2e::calls::{data, ping, success};
use e2e::rest::{Answered, send};
use e2e::{Agent, Config, Encoding, Rest, Site};
use reqwest::Method;
use serde_json::{Value, json};

/// A wrong call, the code that it gets, and what the message must name.
struct Wrong {
    call: &'static str,
    fields: Value,
    code: &'static str,
    names: &'static [&'static str],
}

impl Wrong {
    /// As a frame of a WebSocket.
    fn frame(&self) -> Value {
        let mut frame = self.fields.clone();
        frame["call"] = self.call.into();
        frame
    }
}

fn wrong(call: &'static str, fields: Value, code: &'static str, names: &'static [&'static str]) -> Wrong {
    Wrong { call, fields, code, names }
}

/// A right message with one field changed, or left out for `null`.
fn data_with(field: &str, value: Value) -> Value {
    let mut fields = json!({ "id": "a", "type": "metrics", "data": { "n": 1 } });
    fields[field] = value;
    fields
}

fn data_without(field: &str) -> Value {
    let mut fields = data_with("n", json!(1));
    fields.as_object_mut().unwrap().remove(field);
    fields
}

/// What is wrong in the same way over WebSocket and REST.
fn wrong_calls() -> Vec<Wrong> {
    let mut all = vec![
        wrong("dance", json!({ "id": "a" }), "unknown_call", &["dance"]),
        wrong(
            "data",
            data_with("type", json!("nonsense")),
            "unknown_type",
            &["nonsense", "metrics", "other_metrics"],
        ),
        wrong("ping", json!({}), "missing_field", &["id"]),
        wrong("bye", json!({}), "missing_field", &["id"]),
        wrong("data", data_without("id"), "missing_field", &["id"]),
        wrong("data", data_without("type"), "missing_field", &["type"]),
        wrong("data", data_without("data"), "missing_field", &["data"]),
    ];
    for id in [json!(""), json!("x".repeat(256)), json!("é".repeat(128)), json!(7), json!(null), json!(["a"])]
    {
        all.push(wrong("ping", json!({ "id": id }), "invalid_field", &["id"]));
        all.push(wrong("bye", json!({ "id": id }), "invalid_field", &["id"]));
        all.push(wrong("data", data_with("id", id), "invalid_field", &["id"]));
    }
    let fields = [
        ("type", json!(7)),
        ("type", json!(null)),
        ("data", json!("text")),
        ("data", json!([1])),
        ("data", json!(null)),
        ("message_id", json!(7)),
        ("message_id", json!("x".repeat(129))),
        ("sent_at", json!("yesterday")),
        ("sent_at", json!(-1)),
        ("sent_at", json!(1.5)),
        ("traceparent", json!(7)),
        ("traceparent", json!("00-nonsense")),
    ];
    for (field, value) in fields {
        all.push(wrong(
            "data",
            data_with(field, value),
            "invalid_field",
            match field {
                "type" => &["type"],
                "data" => &["data"],
                "message_id" => &["message_id"],
                "sent_at" => &["sent_at"],
                _ => &["traceparent"],
            },
        ));
    }
    all
}

fn site() -> Site {
    Site::new(Config::new().data_type("other_metrics"))
}

/// Checks a refusal's code and what its message names.
fn assert_refusal(context: &str, code: &Value, message: &Value, expected: &str, names: &[&str]) {
    assert_eq!(code, expected, "{context}: {message}");
    let message = message.as_str().expect("a message is text");
    for name in names {
        assert!(message.contains(name), "{context}: {message:?} does not name {name}");
    }
}

fn assert_websocket_refusal(context: &str, answer: &Value, expected: &str, names: &[&str]) {
    assert_eq!(answer["result"], "error", "{context}: {answer}");
    assert_refusal(context, &answer["error"]["code"], &answer["error"]["message"], expected, names);
}

fn assert_rest_refusal(context: &str, answer: &Answered, status: u16, expected: &str, names: &[&str]) {
    assert_eq!(answer.status, status, "{context}: {}", answer.text());
    let value = answer.value();
    assert_refusal(context, &value["error"], &value["message"], expected, names);
}

fn status_of(code: &str) -> u16 {
    match code {
        "bad_frame" => 400,
        "unknown_call" => 404,
        "missing_field" | "invalid_field" | "unknown_type" => 422,
        other => panic!("{other} is not a code of this file's calls"),
    }
}

#[tokio::test]
async fn wrong_calls_are_refused_over_websocket() {
    let server = site().start().await;
    let mut agent = Agent::connect(server.agents).await;
    let only_here = [
        wrong("session", json!({ "password": "secret" }), "missing_field", &["user"]),
        wrong("session", json!({ "user": "u" }), "missing_field", &["password"]),
        wrong("session", json!({ "user": "u", "password": 7 }), "invalid_field", &["password"]),
        wrong("ping", json!({ "id": "a", "ref": {} }), "invalid_field", &["ref"]),
        wrong("ping", json!({ "id": "a", "ref": 1.5 }), "invalid_field", &["ref"]),
        wrong("ping", json!({ "id": "a", "token": 7 }), "invalid_field", &["token"]),
    ];
    for encoding in Encoding::ALL {
        for wrong in wrong_calls().iter().chain(&only_here) {
            let answer = agent.call(encoding, &wrong.frame()).await;
            assert_websocket_refusal(
                &format!("{encoding:?} {}", wrong.frame()),
                &answer,
                wrong.code,
                wrong.names,
            );
        }
        for (frame, code, name) in [
            (json!({ "id": "a" }), "missing_field", "call"),
            (json!({ "call": 7, "id": "a" }), "invalid_field", "call"),
        ] {
            let answer = agent.call(encoding, &frame).await;
            assert_websocket_refusal(&format!("{encoding:?} {frame}"), &answer, code, &[name]);
        }
        assert_eq!(agent.call(encoding, &ping("a")).await, success());
    }
}

#[tokio::test]
async fn wrong_calls_are_refused_over_rest() {
    let server = site().start().await;
    let rest = Rest::new(server.agents);
    for encoding in Encoding::ALL {
        for wrong in wrong_calls() {
            let answer = rest.call(&format!("/{}", wrong.call), encoding, &wrong.fields).await;
            let context = format!("{encoding:?} {}", wrong.frame());
            assert_eq!(answer.header("content-type").unwrap().split(';').next(), Some(encoding.media_type()));
            assert_rest_refusal(&context, &answer, status_of(wrong.code), wrong.code, wrong.names);
        }
        let answer = rest.call("/data", encoding, &data_with("n", json!(1))).await;
        assert_eq!((answer.status, answer.value()), (200, success()));
    }
}

/// Bytes that are no frame, in each encoding.
fn bad_frames(encoding: Encoding) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [json!(null), json!(7), json!("ping"), json!(true)]
        .iter()
        .map(|value| encoding.encode(value))
        .collect();
    let right = encoding.encode(&ping("a"));
    all.push(Vec::new());
    all.push([right.clone(), right.clone()].concat());
    all.extend((1..right.len()).map(|length| right[..length].to_vec()));
    match encoding {
        Encoding::Json => {
            all.extend([b"nonsense".to_vec(), b"{\"call\":}".to_vec(), b"{'call':'ping'}".to_vec()])
        }
        // Never used, a map that claims four billion entries, a text that claims more than there is.
        Encoding::Msgpack => {
            all.extend([vec![0xc1], vec![0xdf, 0xff, 0xff, 0xff, 0xff], vec![0xdb, 0, 0, 1, 0]])
        }
    }
    all
}

#[tokio::test]
async fn what_is_no_frame_is_a_bad_frame() {
    let server = site().start().await;
    let mut agent = Agent::connect(server.agents).await;
    let rest = Rest::new(server.agents);
    for encoding in Encoding::ALL {
        for bytes in bad_frames(encoding) {
            let context = format!("{encoding:?} {}", String::from_utf8_lossy(&bytes));
            let answer = agent.call_bytes(encoding, bytes.clone()).await;
            assert_websocket_refusal(&context, &answer, "bad_frame", &[]);
            for path in ["/ping", "/data", "/bye"] {
                let answer = rest.call_bytes(path, encoding, bytes.clone()).await;
                assert_rest_refusal(&format!("{path} {context}"), &answer, 400, "bad_frame", &[]);
            }
        }
    }
}

#[tokio::test]
async fn a_list_over_rest_is_answered_as_a_batch() {
    let server = site().start().await;
    let rest = Rest::new(server.agents);
    for encoding in Encoding::ALL {
        let right = data_with("n", json!(1));
        let answer = rest.call("/data", encoding, &json!([right, right])).await;
        assert_eq!((answer.status, answer.value()), (200, json!({ "result": "success", "accepted": 2 })));
        let answer = rest.call("/data", encoding, &json!([data_without("id"), right])).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.value();
        assert_eq!((&answer["result"], &answer["accepted"]), (&json!("partial"), &json!(1)), "{answer}");
        assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1), "{answer}");
        assert_eq!(answer["errors"][0]["index"], 0);
        assert_eq!(answer["errors"][0]["code"], "missing_field");
        let answer = rest.call("/ping", encoding, &json!([{ "id": "a" }])).await;
        assert_rest_refusal("a list of pings", &answer, 400, "bad_frame", &[]);
    }
}

#[tokio::test]
async fn the_answer_is_in_the_accepted_encoding_whatever_was_sent() {
    let server = site().start().await;
    let rest = Rest::new(server.agents);
    for sent in Encoding::ALL {
        for accept in [None, Some("*/*"), Some("application/json"), Some("application/msgpack")] {
            let body = sent.encode(&json!({ "id": "a" }));
            let mut request = rest.request(Method::POST, "/ping").body(body);
            // Parameters after the type are accepted.
            request = request.header("content-type", format!("{}; charset=utf-8", sent.media_type()));
            if let Some(accept) = accept {
                request = request.header("accept", accept);
            }
            let answer = send(request).await;
            assert_eq!((answer.status, answer.value()), (200, success()));
            let expected =
                if accept == Some("application/msgpack") { Encoding::Msgpack } else { Encoding::Json };
            let found = answer.header("content-type").unwrap().split(';').next();
            assert_eq!(found, Some(expected.media_type()), "{sent:?}, accept {accept:?}");
        }
    }
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let server = site().start().await;
    let rest = Rest::new(server.agents);
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json")] {
        for path in ["/ping", "/data", "/bye"] {
            let mut request = rest.request(Method::POST, path).body(r#"{"id":"a"}"#);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let answer = send(request).await;
            assert_eq!(answer.status, 415, "{path} {content_type:?}: {}", answer.text());
            let message = answer.value()["message"].as_str().unwrap().to_owned();
            assert!(
                message.contains("application/json") && message.contains("application/msgpack"),
                "{message}"
            );
        }
    }
}

/// Bytes of a frame or body in the tests of `max-frame`.
const MAX_FRAME: usize = 64 * 1024;

/// A message of exactly so many bytes.
fn data_of_length(encoding: Encoding, length: usize) -> Vec<u8> {
    let of_padding = |padding: usize| encoding.encode(&data("a", json!({ "padding": "x".repeat(padding) })));
    // Past 65,535 bytes the head of a MessagePack text grows, so that the rest is taken from a text near the length.
    let near = of_padding(length - 1024).len();
    let bytes = of_padding(length - 1024 + length - near);
    assert_eq!(bytes.len(), length);
    bytes
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_socket_closed() {
    let server = Site::new(Config::new().set("limits.max-frame", "64KiB")).start().await;
    let mut neighbour = Agent::connect(server.agents).await;
    let rest = Rest::new(server.agents);
    for encoding in Encoding::ALL {
        let mut agent = Agent::connect(server.agents).await;
        assert_eq!(agent.call_bytes(encoding, data_of_length(encoding, MAX_FRAME)).await, success());
        let answer = agent.call_bytes(encoding, data_of_length(encoding, MAX_FRAME + 1)).await;
        assert_websocket_refusal(&format!("{encoding:?}"), &answer, "too_large", &[]);
        assert_eq!(agent.close_code().await, 1009);

        // The same in fragments, none of which is too large itself.
        let mut agent = Agent::connect(server.agents).await;
        assert_eq!(agent.call(encoding, &ping("a")).await, success());
        let bytes = data_of_length(encoding, MAX_FRAME + 1);
        let (first, second) = bytes.split_at(MAX_FRAME / 2);
        agent.send_fragments(encoding, &[first, second]).await;
        let (answered_in, answer) = agent.answer().await;
        assert_eq!(answered_in, encoding);
        assert_websocket_refusal(&format!("{encoding:?} in fragments"), &answer, "too_large", &[]);
        assert_eq!(agent.close_code().await, 1009);

        let answer = rest.call_bytes("/data", encoding, data_of_length(encoding, MAX_FRAME)).await;
        assert_eq!((answer.status, answer.value()), (200, success()));
        let answer = rest.call_bytes("/data", encoding, data_of_length(encoding, MAX_FRAME + 1)).await;
        assert_rest_refusal(&format!("{encoding:?}"), &answer, 413, "too_large", &[]);
        // Far larger, so that the refusal comes while the client still sends.
        let answer = rest.call_bytes("/data", encoding, data_of_length(encoding, 32 * MAX_FRAME)).await;
        assert_rest_refusal(&format!("{encoding:?}"), &answer, 413, "too_large", &[]);

        assert_eq!(neighbour.call(encoding, &ping("b")).await, success());
    }
}

#[tokio::test]
async fn a_list_of_too_many_calls_is_refused_as_a_whole() {
    let server = Site::new(Config::new().set("limits.max-calls", 3)).start().await;
    let mut agent = Agent::connect(server.agents).await;
    let rest = Rest::new(server.agents);
    for encoding in Encoding::ALL {
        let calls = |count: usize| Value::Array(vec![data("a", json!({})); count]);
        assert_eq!(agent.call(encoding, &calls(3)).await, json!({ "result": "success", "accepted": 3 }));
        let answer = agent.call(encoding, &calls(4)).await;
        assert_websocket_refusal(&format!("{encoding:?}"), &answer, "too_large", &["3"]);
        let answer = rest.call("/data", encoding, &calls(4)).await;
        assert_rest_refusal(&format!("{encoding:?}"), &answer, 413, "too_large", &["3"]);
    }
    assert_eq!(server.status().await["types"][0]["accepted"], 6);
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_forbidden_on_every_listener() {
    let site = Site::new(
        Config::new()
            .set("listen.allowed-hosts", json!(["wharf.example"]))
            .set("listen.allowed-origins", json!(["https://board.example"])),
    );
    let server = site.start().await;
    let (agents, admin) = (Rest::new(server.agents), Rest::new(server.admin));
    let upgrade = |rest: &Rest| {
        let request = rest.request(Method::GET, "/agent");
        let request = request.header("connection", "upgrade").header("upgrade", "websocket");
        request.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let ping = |rest: &Rest| {
        rest.request(Method::POST, "/ping").header("content-type", "application/json").body(r#"{"id":"a"}"#)
    };
    let port = server.agents.port();
    let foreign = [
        ("host", "evil.example".to_owned()),
        ("host", format!("evil.example:{port}")),
        ("host", format!("localhost.evil.example:{port}")),
        ("origin", "https://evil.example".to_owned()),
        ("origin", "null".to_owned()),
        ("origin", format!("http://127.0.0.1:{}", port.wrapping_add(1))),
    ];
    for (header, value) in &foreign {
        for request in [
            upgrade(&agents),
            ping(&agents),
            agents.request(Method::GET, "/"),
            admin.request(Method::GET, "/admin/v1/status"),
            admin.request(Method::GET, "/metrics"),
            admin.request(Method::GET, "/livez"),
        ] {
            let answer = send(request.header(*header, value)).await;
            assert_rest_refusal(&format!("{header}: {value}"), &answer, 403, "forbidden", &[value]);
        }
    }
    for (header, value) in [
        ("host", format!("localhost:{port}")),
        ("host", "wharf.example".to_owned()),
        ("origin", format!("http://127.0.0.1:{port}")),
        ("origin", "https://board.example".to_owned()),
    ] {
        let answer = send(ping(&agents).header(header, &value)).await;
        assert_eq!(answer.status, 200, "{header}: {value}: {}", answer.text());
        let response = upgrade(&agents).header(header, &value).send().await.unwrap();
        assert_eq!(response.status(), 101, "{header}: {value}");
    }
}

//! Serves pages, well-behaved and hostile ones, each under a path of its own (see [`Page::handle`]), and publishes the body
//! of every message under the key of its agent, or forgets that key (see [`FORGET`]).

use exports::wasi::http::incoming_handler;
use exports::wharf::receiver::handler;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::StreamError;
use wharf::receiver::live;
use wharf::receiver::types::{Batch, Body, Failure};

wit_bindgen::generate!({ path: "../../../wit", world: "wharf:receiver/page", generate_all });

/// What `blocking-write-and-flush` takes at once.
const CHUNK: usize = 4096;

/// The body that makes the host forget the key of its agent.
const FORGET: &str = r#"{"forget":true}"#;

struct Page;

impl handler::Guest for Page {
    fn handle(batch: Batch) -> Vec<Failure> {
        for message in batch.messages {
            if let Body::Json(text) = message.body {
                let payload = if text == FORGET { "" } else { &text };
                live::publish(Some(&message.agent), payload);
            }
        }
        Vec::new()
    }
}

impl incoming_handler::Guest for Page {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        // The last part, so that it does not matter where the page is mounted.
        match path.rsplit('/').next().unwrap_or_default() {
            "loop" => loop {
                std::hint::black_box(());
            },
            "trap" => panic!("told to trap"),
            "nothing" => {}
            "cookie" => respond(out, &[("set-cookie", "taste=sweet")], b"a cookie"),
            "headers" => respond(out, &[("content-type", "text/plain")], &seen_headers(&request)),
            "echo" => respond(out, &[], &read_body(&request)),
            "missing" => {
                let response = OutgoingResponse::new(Fields::new());
                response.set_status_code(404).expect("404 is a status");
                ResponseOutparam::set(out, Ok(response));
            }
            "unfinished" => {
                let body = start(out, &[]);
                write(&body, b"half a page").expect("the host reads");
            }
            "endless" => {
                let body = start(out, &[]);
                let stream = body.write().expect("the stream was not taken before");
                while stream.blocking_write_and_flush(&[b'x'; CHUNK]).is_ok() {}
            }
            _ => respond(
                out,
                &[("content-type", "text/html; charset=utf-8")],
                b"<!doctype html><h1>Fixture</h1>",
            ),
        }
    }
}

fn start(out: ResponseOutparam, headers: &[(&str, &str)]) -> OutgoingBody {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).expect("the header is allowed");
    }
    let response = OutgoingResponse::new(fields);
    let body = response.body().expect("the body was not taken before");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), StreamError> {
    let stream = body.write().expect("the stream was not taken before");
    bytes.chunks(CHUNK).try_for_each(|chunk| stream.blocking_write_and_flush(chunk))
}

fn respond(out: ResponseOutparam, headers: &[(&str, &str)], bytes: &[u8]) {
    let body = start(out, headers);
    write(&body, bytes).expect("the host reads");
    OutgoingBody::finish(body, None).expect("the body is complete");
}

fn seen_headers(request: &IncomingRequest) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in request.headers().entries() {
        text.extend([name.as_bytes(), b": ", &value, b"\n"].concat());
    }
    text
}

fn read_body(request: &IncomingRequest) -> Vec<u8> {
    let body = request.consume().expect("the body was not taken before");
    let stream = body.stream().expect("the stream was not taken before");
    let mut bytes = Vec::new();
    while let Ok(chunk) = stream.blocking_read(CHUNK as u64) {
        bytes.extend(chunk);
    }
    bytes
}

export!(Page);

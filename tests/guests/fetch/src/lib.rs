//! Sends the HTTP requests that the body of a message describes, see [`Order`], and prints a line about what came of each:
//! `200, 5 bytes: hello`, or the error.

use std::cell::RefCell;
use std::time::Duration;

use serde::Deserialize;

use exports::wharf::receiver::handler::Guest;
use wasi::http::outgoing_handler::handle;
use wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme,
};
use wasi::io::streams::{OutputStream, StreamError};
use wharf::receiver::types::{Batch, Body, Failure};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:fetch;
        world fetch {
            include wharf:receiver/base@0.1.0;
            import wasi:http/outgoing-handler@0.2.12;
        }
    ",
    world: "fixture:fetch/fetch",
    generate_all,
});

/// The most that WASI lets be written at once.
const CHUNK: usize = 4096;

/// How much of an answer is printed.
const SHOWN: usize = 200;

/// One request.
#[derive(Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Order {
    method: String,
    /// Scheme, authority and path, which may be anything.
    url: String,
    headers: Vec<(String, String)>,
    /// The bytes of the body; without it the request has none.
    body: Option<usize>,
    connect_ms: Option<u64>,
    first_byte_ms: Option<u64>,
    between_bytes_ms: Option<u64>,
    /// Read no more than this of the answer.
    read: Option<usize>,
    /// What becomes of the request when it has begun.
    then: Then,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Then {
    /// Its answer is read and printed.
    #[default]
    Read,
    /// It is held until the next message, and dropped then.
    Hold,
    /// Its body is never finished: the guest waits for ever.
    Stall,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            url: String::new(),
            headers: Vec::new(),
            body: None,
            connect_ms: None,
            first_byte_ms: None,
            between_bytes_ms: None,
            read: None,
            then: Then::Read,
        }
    }
}

thread_local! {
    static HELD: RefCell<Option<FutureIncomingResponse>> = const { RefCell::new(None) };
}

struct Fetch;

impl Guest for Fetch {
    fn handle(batch: Batch) -> Vec<Failure> {
        for message in &batch.messages {
            HELD.set(None);
            let Body::Json(text) = &message.body else { continue };
            let order: Order = serde_json::from_str(text).expect("the body is an order");
            println!("{}", outcome(&order).unwrap_or_else(|problem| problem));
        }
        Vec::new()
    }
}

fn outcome(order: &Order) -> Result<String, String> {
    let (request, body) = request(order)?;
    let answer = handle(request, Some(options(order))).map_err(named)?;
    if let Some((body, size)) = body {
        let stream = body.write().expect("the stream is there");
        write(&stream, size);
        if order.then == Then::Stall {
            println!("stalled");
            std::thread::sleep(Duration::from_secs(3600));
        }
        drop(stream);
        OutgoingBody::finish(body, None).map_err(named)?;
    }
    if order.then == Then::Hold {
        HELD.set(Some(answer));
        return Ok("held".into());
    }
    answer.subscribe().block();
    let answer = answer.get().expect("the answer is there").expect("it was not taken").map_err(named)?;
    read(&answer, order.read.unwrap_or(usize::MAX))
}

fn request(order: &Order) -> Result<(OutgoingRequest, Option<(OutgoingBody, usize)>), String> {
    let headers: Vec<_> =
        order.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    let headers = Fields::from_list(&headers).map_err(|error| format!("header {error:?}"))?;
    let request = OutgoingRequest::new(headers);
    let (scheme, rest) = order.url.split_once("://").expect("the URL has a scheme");
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.into()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let method = match order.method.as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        other => Method::Other(other.into()),
    };
    request.set_method(&method).map_err(|()| "method refused")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme refused")?;
    request.set_authority(Some(authority)).map_err(|()| "authority refused")?;
    request.set_path_with_query(Some(path)).map_err(|()| "path refused")?;
    let body = match order.body {
        Some(size) => Some((request.body().map_err(|()| "body refused")?, size)),
        None => None,
    };
    Ok((request, body))
}

fn options(order: &Order) -> RequestOptions {
    let options = RequestOptions::new();
    let nanoseconds = |milliseconds: Option<u64>| milliseconds.map(|value| value * 1_000_000);
    options.set_connect_timeout(nanoseconds(order.connect_ms)).expect("it is supported");
    options.set_first_byte_timeout(nanoseconds(order.first_byte_ms)).expect("it is supported");
    options.set_between_bytes_timeout(nanoseconds(order.between_bytes_ms)).expect("it is supported");
    options
}

/// Writes until all is written, or nobody wants more: why, the answer says.
fn write(stream: &OutputStream, size: usize) {
    let chunk = [b'x'; CHUNK];
    let mut left = size;
    while left > 0 {
        let part = &chunk[..left.min(CHUNK)];
        if let Err(error) = stream.blocking_write_and_flush(part) {
            println!("writing ended: {error:?}");
            return;
        }
        left -= part.len();
    }
}

fn read(answer: &IncomingResponse, limit: usize) -> Result<String, String> {
    let status = answer.status();
    let location = answer.headers().get("location");
    let body: IncomingBody = answer.consume().expect("the body is there");
    let stream = body.stream().expect("the stream is there");
    let mut start = Vec::new();
    let mut size = 0;
    while size < limit {
        match stream.blocking_read(u64::try_from(CHUNK).expect("it fits")) {
            Ok(bytes) => {
                size += bytes.len();
                start.extend_from_slice(&bytes[..bytes.len().min(SHOWN.saturating_sub(start.len()))]);
            }
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                let code = wasi::http::types::http_error_code(&error);
                return Err(code.map_or_else(|| format!("{status}, {}", error.to_debug_string()), named));
            }
        }
    }
    let mut line = format!("{status}, {size} bytes: {}", String::from_utf8_lossy(&start));
    for location in location {
        line.push_str(&format!(", location {}", String::from_utf8_lossy(&location)));
    }
    Ok(line)
}

fn named(code: ErrorCode) -> String {
    format!("{code:?}")
}

export!(Fetch);

//! `POST /ping`, `/data` and `/bye`: agents over REST, as those of the system before Wharf speak it.
//!
//! The request's content type says how the body is encoded, its `accept` header how the answer is.

use std::sync::Arc;
use std::time::Instant;

use axum::Router as Routes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use wharf_protocol::{Answer, CallKind, Code, Encoding, Frame, Refusal, decode_body};

use crate::frontend::Frontend;
use crate::frontend::body::{self, Body, BodyError};
use crate::frontend::unanswered::Unanswered;
use crate::presence::clock::Connection;
use crate::router::RETRY_AFTER_MS;

const JSON: &str = "application/json";
const JSON_UTF8: &str = "application/json; charset=utf-8";
const MSGPACK: &str = "application/msgpack";

/// The three calls and, for every other path and method, `unknown_call`.
pub fn routes() -> Routes<Arc<Frontend>> {
    Routes::new()
        .route("/ping", post(ping).fallback(unknown_call))
        .route("/data", post(data).fallback(unknown_call))
        .route("/bye", post(bye).fallback(unknown_call))
        .fallback(unknown_call)
}

async fn ping(State(frontend): State<Arc<Frontend>>, request: Request) -> Response {
    call(&frontend, CallKind::Ping, request).await
}

async fn data(State(frontend): State<Arc<Frontend>>, request: Request) -> Response {
    call(&frontend, CallKind::Data, request).await
}

async fn bye(State(frontend): State<Arc<Frontend>>, request: Request) -> Response {
    call(&frontend, CallKind::Bye, request).await
}

async fn unknown_call(State(frontend): State<Arc<Frontend>>, request: Request) -> Response {
    let path: String = request.uri().path().chars().take(100).collect();
    let message =
        format!("found {} {path:?}, expected POST /ping, /data or /bye, or GET /agent", request.method());
    let refusal = Refusal::new(Code::UnknownCall, message);
    respond(accepted_encoding(request.headers()), frontend.router.refuse(None, refusal))
}

async fn call(frontend: &Frontend, kind: CallKind, request: Request) -> Response {
    let encoding = accepted_encoding(request.headers());
    let answer = match read(frontend, kind, request).await {
        Ok((frame, Body { bytes, room })) => {
            let mut unanswered = Unanswered::new(frontend.metrics.unanswered_bytes.clone());
            unanswered.add(bytes.len());
            // Its clock stands still until the answer is there, and runs for good from then on.
            let connection = Connection::new(Instant::now());
            let submitted = frontend.router.submit(frame, &connection).await;
            // Its messages are in the queues of the log, which are bounded themselves.
            drop(room);
            submitted.answer().await
        }
        Err(refusal) => frontend.router.refuse(None, refusal),
    };
    respond(encoding, answer)
}

/// The calls in a body, which share its bytes.
async fn read(frontend: &Frontend, kind: CallKind, request: Request) -> Result<(Frame, Body), Refusal> {
    let encoding = content_encoding(request.headers())?;
    let (max_bytes, wait) = (frontend.max_frame, frontend.request_timeout);
    let body = body::read(request.into_body(), max_bytes, &frontend.room, wait).await;
    let body = body.map_err(|error| match error {
        BodyError::TooLarge => {
            Refusal::too_large(format!("found a body above the bound of {max_bytes} bytes"))
        }
        BodyError::Slow => Refusal::bad_frame(format!("the body did not arrive within {wait:?}")),
        BodyError::NoRoom => Refusal::overloaded(RETRY_AFTER_MS),
        BodyError::Broken(error) => Refusal::bad_frame(format!("failed to read the body: {error}")),
    })?;
    let frame = decode_body(kind, encoding, &body.bytes, &frontend.limits)?;
    Ok((frame, body))
}

fn content_encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let found = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match found.as_deref().map(media_type).as_deref() {
        Some(JSON) => Ok(Encoding::Json),
        Some(MSGPACK) => Ok(Encoding::Msgpack),
        _ => Err(Refusal::unsupported_media_type(found.as_deref())),
    }
}

/// JSON, unless the client names MessagePack and not JSON.
fn accepted_encoding(headers: &HeaderMap) -> Encoding {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> = accepted.flat_map(|value| value.split(',')).map(media_type).collect();
    let names = |wanted: &str| named.iter().any(|name| name == wanted);
    if names(MSGPACK) && !names(JSON) { Encoding::Msgpack } else { Encoding::Json }
}

/// A media type without its parameters.
fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn respond(encoding: Encoding, answer: Answer) -> Response {
    match answer {
        Answer::Error { refusal, .. } => Rejection { refusal, encoding }.into_response(),
        answer => encoded(StatusCode::OK, encoding, answer.encode(encoding)),
    }
}

fn encoded(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response {
    let content_type = match encoding {
        Encoding::Json => JSON_UTF8,
        Encoding::Msgpack => MSGPACK,
    };
    (status, [(CONTENT_TYPE, content_type)], body).into_response()
}

/// A refusal as an HTTP answer: the one place that turns error codes into statuses and headers.
#[derive(Debug)]
pub struct Rejection {
    /// What was refused and why.
    pub refusal: Refusal,
    /// How the answer is encoded.
    pub encoding: Encoding,
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.refusal.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = encoded(status, self.encoding, self.refusal.encode(self.encoding));
        if let Some(milliseconds) = self.refusal.retry_after_ms {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(milliseconds.div_ceil(1000)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_content_type_may_have_parameters_and_any_case() {
        for value in ["application/json", "Application/JSON; charset=utf-8", "application/json;x=y"] {
            assert_eq!(content_encoding(&headers(CONTENT_TYPE, value)), Ok(Encoding::Json));
        }
        assert_eq!(content_encoding(&headers(CONTENT_TYPE, MSGPACK)), Ok(Encoding::Msgpack));
        for value in ["", "text/plain", "application/jsonl", "application/x-www-form-urlencoded"] {
            let refusal = content_encoding(&headers(CONTENT_TYPE, value)).unwrap_err();
            assert_eq!(refusal.code, Code::UnsupportedMediaType);
        }
    }

    #[test]
    fn an_answer_is_in_messagepack_only_for_who_wants_nothing_else() {
        assert_eq!(accepted_encoding(&HeaderMap::new()), Encoding::Json);
        assert_eq!(accepted_encoding(&headers(ACCEPT, "*/*")), Encoding::Json);
        assert_eq!(accepted_encoding(&headers(ACCEPT, "application/msgpack")), Encoding::Msgpack);
        assert_eq!(
            accepted_encoding(&headers(ACCEPT, "application/msgpack, application/json")),
            Encoding::Json
        );
    }
}

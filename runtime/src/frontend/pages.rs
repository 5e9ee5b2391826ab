//! What browsers see: `/` lists the receivers that serve pages, `/r/<receiver>/` is answered by the receiver's component,
//! `/r/<receiver>/live` is the WebSocket of its live updates.
//!
//! A page is a stranger's work that runs in a browser under the server's own address: it gets no cookies and no tokens,
//! may set none, and is served with a strict content security policy whatever it says itself.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router as Routes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Request, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wharf_host::{LiveSubscription, PageError, Receiver};

use crate::config;
use crate::frontend::body::{self, Body, BodyError};
use crate::frontend::room::{Room, Taken};
use crate::telemetry::{Metrics, ReceiverLabel, TimeoutLabel};

/// What a page may do in a browser: load from and connect to where it came from, nothing else, and be framed by nobody.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
form-action 'self'; frame-ancestors 'none'";
/// Headers of a request that a guest does not see: credentials of the server's own, and what belongs to the connection.
const KEPT_FROM_GUESTS: [HeaderName; 9] = [
    header::COOKIE,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    HeaderName::from_static("keep-alive"),
];
/// Headers of an answer that a guest may not set.
const KEPT_FROM_BROWSERS: [HeaderName; 11] = [
    header::SET_COOKIE,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TRAILER,
    header::CONTENT_LENGTH,
    header::STRICT_TRANSPORT_SECURITY,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("service-worker-allowed"),
];
/// What is read from a browser's live socket at once, and the most that it may send: nothing is expected of it.
const LIVE_READ_BYTES: usize = 4 * 1024;
/// The most that waits to be written to it: an update, of which the host allows a quarter of this, and replies to pings.
const LIVE_WRITE_BYTES: usize = 1024 * 1024;

/// What the pages need.
pub struct Pages {
    /// Receivers that serve pages or publish live updates.
    pub receivers: Arc<PageReceivers>,
    /// The runtime of guests, where their code runs.
    pub guests: Handle,
    /// Room for bodies that are larger than a connection's own buffer while they arrive.
    pub room: Room,
    /// How long a request's body may take to arrive, and to wait for room.
    pub request_timeout: Duration,
    /// How long a browser may take to accept an update. One that takes longer is disconnected; its page connects again and
    /// catches up.
    pub frame_timeout: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// The tasks of live sockets.
    pub sockets: TaskTracker,
}

/// The receivers that browsers can meet, by name, as they are now.
#[derive(Default)]
pub struct PageReceivers {
    pages: RwLock<BTreeMap<String, Page>>,
}

impl PageReceivers {
    /// Puts a receiver, or another version of one.
    pub fn put(&self, name: &str, page: Page) {
        self.pages.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), page);
    }

    /// Takes a receiver out.
    pub fn remove(&self, name: &str) {
        self.pages.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<Page> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The names of those that serve pages.
    pub fn serving(&self) -> Vec<String> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let serving = pages.iter().filter(|(_, page)| page.receiver.serves_pages());
        serving.map(|(name, _)| name.clone()).collect()
    }
}

/// One receiver as browsers meet it.
#[derive(Clone)]
pub struct Page {
    /// The loaded receiver.
    pub receiver: Receiver,
    /// The largest body of a request, in bytes.
    pub max_body: usize,
}

impl Page {
    /// Of a receiver with these settings.
    pub fn new(receiver: Receiver, settings: &config::Receiver) -> Page {
        Page { receiver, max_body: usize::try_from(settings.http_body).unwrap_or(usize::MAX) }
    }
}

/// The routes of browsers.
pub fn routes(pages: Arc<Pages>) -> Routes {
    Routes::new()
        .route("/", get(index))
        .route("/r/{receiver}", get(to_folder))
        .route("/r/{receiver}/live", get(live))
        .route("/r/{receiver}/", any(page))
        .route("/r/{receiver}/{*path}", any(page))
        .with_state(pages)
}

async fn index(State(pages): State<Arc<Pages>>) -> Response {
    // Receiver names are letters, digits and dashes by the config's own rule: they need no escaping.
    let items: String = pages
        .receivers
        .serving()
        .iter()
        .map(|name| format!("<li><a href=\"r/{name}/\">{name}</a></li>\n"))
        .collect();
    let list = if items.is_empty() {
        "<p>No receiver serves a page.</p>".to_owned()
    } else {
        format!("<p>Receivers that serve a page:</p>\n<ul>\n{items}</ul>")
    };
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Wharf</title>\n<h1>Wharf</h1>\n{list}\n</html>\n"
    );
    secured(Html(html).into_response())
}

/// A page's own links are relative, so it must be opened as a folder.
async fn to_folder(State(pages): State<Arc<Pages>>, Path(name): Path<String>) -> Response {
    match pages.receivers.get(&name) {
        Some(_) => Redirect::permanent(&format!("/r/{name}/")).into_response(),
        None => no_such_page(&name),
    }
}

async fn page(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let name = request.uri().path().split('/').nth(2).unwrap_or_default().to_owned();
    let Some(page) = pages.receivers.get(&name).filter(|page| page.receiver.serves_pages()) else {
        return no_such_page(&name);
    };
    // The room is kept until the guest has answered: the body is its until then.
    let (request, _room) = match for_guest(request, page.max_body, &pages.room, pages.request_timeout).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let receiver = page.receiver.clone();
    // Guests run on their own runtime: a page that spins must not hold a thread that serves sockets.
    let served = pages.guests.spawn(async move { receiver.serve(request).await }).await;
    match served {
        Ok(Ok(response)) => secured(for_browser(response)),
        Ok(Err(error)) => page_failed(&name, &error),
        Err(error) => {
            tracing::error!(receiver.name = name, %error, "the task of a page ended early");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the page failed")
        }
    }
}

async fn for_guest(
    request: Request,
    max_body: usize,
    room: &Room,
    wait: Duration,
) -> Result<(http::Request<bytes::Bytes>, Taken), Response> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not passed on to pages"));
    }
    remove_named_by_connection(&mut parts.headers);
    for name in &KEPT_FROM_GUESTS {
        parts.headers.remove(name);
    }
    let body = body::read(body, max_body, room, wait).await;
    let Body { bytes, room } = body.map_err(|error| match error {
        BodyError::TooLarge => {
            let message = format!("found a body above the bound of {max_body} bytes");
            plain(StatusCode::PAYLOAD_TOO_LARGE, &message)
        }
        BodyError::Slow => plain(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        BodyError::NoRoom => busy("the server"),
        BodyError::Broken(_) => plain(StatusCode::BAD_REQUEST, "failed to read the body"),
    })?;
    Ok((http::Request::from_parts(parts, bytes), room))
}

/// Removes the headers that `Connection` lists: they are of this connection and not of the message (RFC 9110, 7.6.1).
fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn for_browser(response: http::Response<bytes::Bytes>) -> Response {
    let (mut parts, body) = response.into_parts();
    remove_named_by_connection(&mut parts.headers);
    for name in &KEPT_FROM_BROWSERS {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, axum::body::Body::from(body))
}

/// Adds what protects the browser, over what a guest may have said.
fn secured(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn page_failed(name: &str, error: &PageError) -> Response {
    match error {
        PageError::Busy => busy("this page"),
        error => {
            let evidence = match error {
                PageError::Fault(fault) => fault.evidence(),
                _ => None,
            };
            let stderr = evidence.map(|evidence| evidence.stderr.join("\n")).unwrap_or_default();
            let backtrace = evidence.and_then(|evidence| evidence.backtrace.as_deref()).unwrap_or_default();
            let error: &dyn std::error::Error = error;
            tracing::warn!(receiver.name = name, error, stderr, backtrace, "a page failed");
            // What failed is for the operator, who finds it in the log.
            plain(
                StatusCode::BAD_GATEWAY,
                "the receiver failed to serve this page; the server's log says why",
            )
        }
    }
}

fn busy(what: &str) -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{what} is busy, try again"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn no_such_page(name: &str) -> Response {
    let name: String = name.chars().take(64).collect();
    plain(StatusCode::NOT_FOUND, &format!("no receiver {name:?} serves a page; / lists those that do"))
}

fn plain(status: StatusCode, text: &str) -> Response {
    secured((status, format!("{text}\n")).into_response())
}

async fn live(
    State(pages): State<Arc<Pages>>,
    Path(name): Path<String>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let page = pages.receivers.get(&name);
    let Some(live) = page.as_ref().and_then(|page| page.receiver.live()) else {
        return plain(
            StatusCode::NOT_FOUND,
            "this receiver publishes no live updates: it has no grant `live = true`",
        );
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return secured(rejection.into_response()),
    };
    let subscription = live.subscribe();
    let browsers = pages.metrics.live_browsers.get_or_create_owned(&ReceiverLabel::new(&name));
    let sockets = pages.sockets.clone();
    upgrade
        .read_buffer_size(LIVE_READ_BYTES)
        .write_buffer_size(LIVE_READ_BYTES)
        .max_write_buffer_size(LIVE_WRITE_BYTES)
        .max_message_size(LIVE_READ_BYTES)
        .max_frame_size(LIVE_READ_BYTES)
        .on_upgrade(move |socket| {
            sockets.track_future(async move {
                browsers.inc();
                feed(socket, subscription, &pages).await;
                browsers.dec();
            })
        })
}

/// Sends updates until the browser leaves, is too slow, or the server stops. What a browser sends is ignored.
async fn feed(socket: WebSocket, mut updates: LiveSubscription, pages: &Pages) {
    let (mut to_browser, mut from_browser) = socket.split();
    loop {
        let update = tokio::select! {
            () = pages.stop.cancelled() => None,
            update = updates.next() => update,
            received = from_browser.next() => match received {
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
        };
        let Some(update) = update else { break };
        let send = to_browser.send(Message::Text(update.as_ref().into()));
        match timeout(pages.frame_timeout, send).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                pages.metrics.timed_out.get_or_create(&TimeoutLabel::WRITE).inc();
                return;
            }
        }
    }
    let _ = timeout(pages.frame_timeout, to_browser.close()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Room {
        Room::new(0, 0, Default::default())
    }

    #[test]
    fn an_answer_of_a_guest_loses_its_cookies_and_gets_our_policy() {
        let from_guest = http::Response::builder()
            .header(header::SET_COOKIE, "stolen=1")
            .header(header::CONTENT_SECURITY_POLICY, "default-src *")
            .header(header::CONTENT_TYPE, "text/html")
            .body(bytes::Bytes::from_static(b"<p>"))
            .unwrap();
        let response = secured(for_browser(from_guest));
        assert!(response.headers().get(header::SET_COOKIE).is_none());
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], CONTENT_SECURITY_POLICY);
        assert_eq!(response.headers().get_all(header::CONTENT_SECURITY_POLICY).iter().count(), 1);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html");
    }

    #[tokio::test]
    async fn a_request_to_a_guest_loses_its_credentials() {
        let request = Request::builder()
            .header(header::COOKIE, "session=1")
            .header(header::AUTHORIZATION, "Bearer x")
            .header(header::CONNECTION, "close, X-Of-This-Connection")
            .header("x-of-this-connection", "1")
            .header("x-other", "kept")
            .body("hello".into())
            .unwrap();
        let (request, _) = for_guest(request, 5, &room(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(request.headers().len(), 1);
        assert_eq!(request.headers()["x-other"], "kept");
        assert_eq!(request.body(), "hello");
    }

    #[tokio::test]
    async fn a_body_above_the_bound_is_refused() {
        let request = Request::builder().body("hello".into()).unwrap();
        let response = for_guest(request, 4, &room(), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}

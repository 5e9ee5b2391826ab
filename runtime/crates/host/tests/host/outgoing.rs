//! Requests of receivers to the outside: what gets through, every refusal and failure with the code that the guest sees and
//! the line that the operator reads, and that nothing goes on without its guest.

use std::time::{Duration, Instant};

use wharf_host::{Fault, HttpGrant, Instance, Origin, Receiver};

use crate::fixtures::{Fixture, Log, batch, options};
use server::{Seen, Server};

mod https;
mod server;

/// Longer than anything here takes that is not meant to time out, on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Short to wait for.
const SHORT: Duration = Duration::from_millis(500);

/// A receiver that sends requests, and what it and the host say.
struct Fetcher {
    fixture: Fixture,
    log: Log,
    receiver: Receiver,
    instance: Instance,
}

impl Fetcher {
    /// With a grant for these origins.
    async fn new(origins: &[&str]) -> Self {
        Self::with(origins, |_| {}).await
    }

    async fn with(origins: &[&str], change: impl FnOnce(&mut HttpGrant)) -> Self {
        let mut grant = HttpGrant {
            origins: origins.iter().map(|origin| Origin::parse(origin).unwrap()).collect(),
            max_in_flight: 4,
            timeout: LONG,
            max_request_bytes: 64 * 1024,
            max_response_bytes: 64 * 1024,
        };
        change(&mut grant);
        Self::load(Some(grant)).await
    }

    async fn load(grant: Option<HttpGrant>) -> Self {
        let log = Log::start();
        let fixture = Fixture::new();
        let mut options = options("fetch");
        options.grants.http = grant;
        options.deadline = LONG;
        let receiver = fixture.host.load(options).await.unwrap();
        let instance = receiver.instantiate().await.unwrap();
        Self { fixture, log, receiver, instance }
    }

    /// What came of a request: fields of the guest's order, without the braces.
    async fn send(&mut self, order: &str) -> String {
        assert_eq!(self.instance.handle(&batch(&[&format!("{{{order}}}")])).await.unwrap(), []);
        self.last("stdout")
    }

    async fn get(&mut self, url: &str) -> String {
        self.send(&format!(r#""url":"{url}""#)).await
    }

    /// The last line of the host about this receiver.
    fn said(&self) -> String {
        self.last("host")
    }

    fn last(&self, stream: &str) -> String {
        let end = format!(" receiver.name=fetch stream={stream}");
        let lines = self.log.guest_lines();
        let line = lines.iter().rev().find_map(|line| line.strip_suffix(&end)).unwrap_or_default();
        line.split_once(" guest: ").map(|(_, line)| line.to_owned()).unwrap_or_default()
    }

    fn in_flight(&self) -> usize {
        self.receiver.outgoing_in_flight().unwrap()
    }
}

#[tokio::test]
async fn a_granted_origin_is_reached() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::new(&[&server.origin()]).await;
    for path in ["/hello", "/chunks"] {
        assert_eq!(fetcher.get(&server.url(path)).await, "200, 5 bytes: hello");
        let (line, host) = (format!("GET {path} HTTP/1.1"), server.address.to_string());
        assert_eq!(server.next().await, Seen::Request { line, host, body: 0 });
    }
    assert_eq!(fetcher.get(&server.url("/none")).await, "204, 0 bytes: ");
    assert_eq!((fetcher.in_flight(), fetcher.receiver.outgoing_failed()), (0, Some(0)));
    assert_eq!(fetcher.said(), "");
}

#[tokio::test]
async fn a_body_is_sent_with_and_without_a_known_length() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::new(&[&server.origin()]).await;
    for headers in ["", r#","headers":[["content-length","50000"]]"#] {
        let order = format!(r#""method":"POST","url":"{}","body":50000{headers}"#, server.url("/hello"));
        assert_eq!(fetcher.send(&order).await, "200, 5 bytes: hello");
        let (line, host) = ("POST /hello HTTP/1.1".into(), server.address.to_string());
        assert_eq!(server.next().await, Seen::Request { line, host, body: 50_000 });
    }
}

#[tokio::test]
async fn a_request_that_is_not_sent_is_small() {
    let mut fetcher = Fetcher::new(&["http://127.0.0.1:9"]).await;
    let method = |length| format!(r#""method":"{}","url":"http://127.0.0.1:8""#, "M".repeat(length));
    assert_eq!(fetcher.send(&method(64)).await, "ErrorCode::HttpRequestDenied");
    assert_eq!(fetcher.send(&method(65)).await, "method refused");
    let host = |length| format!("http://{}", "a".repeat(length));
    assert_eq!(fetcher.get(&host(512)).await, "ErrorCode::HttpRequestUriInvalid");
    assert_eq!(fetcher.get(&host(513)).await, "authority refused");
}

#[tokio::test]
async fn without_a_grant_everything_is_refused() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::load(None).await;
    assert_eq!(fetcher.get(&server.url("/hello")).await, "ErrorCode::HttpRequestDenied");
    let origin = server.origin();
    assert_eq!(
        fetcher.said(),
        format!(
            "failed to send GET {origin}: the receiver has no grant for requests; add `http = [\"{origin}\"]` to \
             its config if it may"
        )
    );
    // All of the body is taken, so that guests whose runtime wants to be rid of it go on.
    let order = format!(r#""method":"POST","url":"{}","body":10000000"#, server.url("/hello"));
    assert_eq!(fetcher.send(&order).await, "ErrorCode::HttpRequestDenied");
    assert!(!fetcher.log.guest_lines().iter().any(|line| line.contains("writing ended")));
    assert_eq!(fetcher.receiver.outgoing_in_flight(), None);
    assert!(server.is_idle() && server.connections() == 0);
}

#[tokio::test]
async fn other_origins_are_refused() {
    let server = Server::start().await;
    let other = Server::start().await;
    let origin = server.origin();
    let mut fetcher = Fetcher::new(&[&origin, "https://api.example.com"]).await;
    let secure = format!("https://{}", server.address);
    for asked in [&other.origin(), &secure, "http://api.example.com", "https://api.example.com:8443"] {
        assert_eq!(fetcher.get(&format!("{asked}/hello")).await, "ErrorCode::HttpRequestDenied", "{asked}");
        assert_eq!(
            fetcher.said(),
            format!(
                "failed to send GET {asked}: its origin is not granted; add \"{asked}\" to `http` in the receiver's \
                 config if it may"
            )
        );
    }
    assert_eq!(fetcher.receiver.outgoing_failed(), Some(4));
    assert_eq!(server.connections() + other.connections(), 0);
}

#[tokio::test]
async fn odd_requests_are_refused() {
    let server = Server::start().await;
    let (origin, address) = (server.origin(), server.address);
    let mut fetcher = Fetcher::new(&[&origin]).await;
    let long = format!("{origin}/{}", "x".repeat(9000));
    for (url, code) in [
        (&*format!("http://user:secret@{address}/hello"), "HttpRequestUriInvalid"),
        (&format!("http://{}@example.com/hello", address), "HttpRequestUriInvalid"),
        ("http://2130706433/hello", "HttpRequestUriInvalid"),
        ("http://exämple.com/hello", "authority refused"),
        (&format!("ftp://{address}/hello"), "HttpProtocolError"),
        (&long, "HttpRequestUriTooLong"),
    ] {
        let outcome = fetcher.get(url).await;
        assert!(outcome.ends_with(code), "{url}: {outcome}");
    }
    assert!(!fetcher.log.guest_lines().iter().any(|line| line.contains("secret")));
    let outcome = fetcher.send(&format!(r#""method":"CONNECT","url":"{origin}/hello""#)).await;
    assert_eq!(outcome, "ErrorCode::HttpRequestMethodInvalid");
    // Headers of the connection are the host's: wasi:http forbids them.
    for name in ["host", "connection", "transfer-encoding", "upgrade"] {
        let outcome = fetcher.send(&format!(r#""url":"{origin}/hello","headers":[["{name}","x"]]"#)).await;
        assert_eq!(outcome, "header HeaderError::Forbidden", "{name}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_origin_may_be_written_in_many_ways() {
    let mut server = Server::start().await;
    let port = server.address.port();
    let mut fetcher = Fetcher::new(&[&format!("http://localhost:{port}"), &server.origin()]).await;
    let outcome = fetcher.get(&format!("http://LocalHost:{port}/hello")).await;
    assert_eq!(outcome, "200, 5 bytes: hello");
    let Seen::Request { host, .. } = server.next().await else { panic!("expected a request") };
    assert_eq!(host, format!("localhost:{port}"));
}

#[tokio::test]
async fn a_name_does_not_lead_to_an_address_that_is_not_public() {
    let server = Server::start().await;
    let port = server.address.port();
    let origin = format!("http://localhost:{port}");
    // The address is named, but with another port.
    let mut fetcher = Fetcher::new(&[&origin, "http://127.0.0.1:1", "http://[::1]:1"]).await;
    assert_eq!(fetcher.get(&format!("{origin}/hello")).await, "ErrorCode::DestinationIpProhibited");
    let said = fetcher.said();
    assert!(said.starts_with(&format!("failed to send GET {origin}: localhost leads to ")), "{said}");
    assert!(said.contains("a loopback address, which is reached only where the grant names it"), "{said}");
    assert!(
        said.contains(&format!("add \"http://127.0.0.1:{port}\"")) || said.contains("add \"http://[::1]"),
        "{said}"
    );
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_an_error_of_dns() {
    let mut fetcher = Fetcher::new(&["http://nobody.invalid"]).await;
    let outcome = fetcher.get("http://nobody.invalid/").await;
    assert!(outcome.starts_with("ErrorCode::Dns"), "{outcome}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let server = Server::start().await;
    let mut fetcher = Fetcher::new(&[&server.origin(), "http://127.0.0.1:1"]).await;
    assert_eq!(
        fetcher.get(&server.url("/redirect")).await,
        "302, 0 bytes: , location http://127.0.0.1:1/hello"
    );
}

#[tokio::test]
async fn failures_of_the_server_are_told_apart() {
    let server = Server::start().await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let mut fetcher = Fetcher::new(&[&server.origin(), &closed]).await;
    assert_eq!(fetcher.get(&closed).await, "ErrorCode::ConnectionRefused");
    for (path, code) in [
        ("/gone", "ConnectionTerminated"),
        ("/garbage", "HttpProtocolError"),
        ("/long-head", "HttpResponseHeaderSectionSize(Some(16384))"),
        ("/half", "HttpResponseIncomplete"),
        ("/long", "HttpResponseBodySize(Some(65536))"),
        ("/endless", "HttpResponseBodySize(Some(65536))"),
    ] {
        let outcome = fetcher.get(&server.url(path)).await;
        let expected =
            code.split_once('(').map_or(format!("ErrorCode::{code}"), |_| format!("ErrorCode::{code}"));
        assert_eq!(outcome, expected, "{path}: {}", fetcher.said());
    }
    assert_eq!((fetcher.in_flight(), fetcher.receiver.outgoing_failed()), (0, Some(7)));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_its_body_taken() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::new(&[&server.origin()]).await;
    let url = server.url("/hello");
    let known =
        format!(r#""method":"POST","url":"{url}","body":1000000,"headers":[["content-length","1000000"]]"#);
    assert_eq!(fetcher.send(&known).await, "ErrorCode::HttpRequestBodySize(Some(65536))");
    assert_eq!(server.connections(), 0);
    let unknown = format!(r#""method":"POST","url":"{url}","body":1000000"#);
    assert_eq!(fetcher.send(&unknown).await, "ErrorCode::HttpRequestBodySize(Some(65536))");
    assert_eq!(server.next().await, Seen::Truncated);
    assert!(!fetcher.log.guest_lines().iter().any(|line| line.contains("writing ended")));
    assert!(
        fetcher
            .said()
            .ends_with("its body has more than 65536 bytes; raise `outgoing-body` in the receiver's config")
    );
}

#[tokio::test]
async fn silence_ends_before_the_deadline() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::with(&[&server.origin()], |grant| grant.timeout = SHORT).await;
    let start = Instant::now();
    assert_eq!(fetcher.get(&server.url("/silent")).await, "ErrorCode::HttpResponseTimeout");
    assert!(start.elapsed() >= SHORT && start.elapsed() < LONG);
    assert!(matches!(server.next().await, Seen::Request { .. }));
    assert_eq!(server.next().await, Seen::Closed);
    assert_eq!(fetcher.get(&server.url("/pause")).await, "ErrorCode::HttpResponseTimeout");
    assert_eq!(fetcher.in_flight(), 0);
}

#[tokio::test]
async fn guests_may_shorten_times_but_not_lengthen_them() {
    let server = Server::start().await;
    let (silent, pause) = (server.url("/silent"), server.url("/pause"));
    let mut fetcher = Fetcher::new(&[&server.origin()]).await;
    for order in [
        format!(r#""url":"{silent}","first-byte-ms":100"#),
        format!(r#""url":"{pause}","between-bytes-ms":100"#),
    ] {
        assert_eq!(fetcher.send(&order).await, "ErrorCode::ConnectionReadTimeout", "{order}");
    }
    let mut fetcher = Fetcher::with(&[&server.origin()], |grant| grant.timeout = SHORT).await;
    let order = format!(
        r#""url":"{silent}","first-byte-ms":3600000,"connect-ms":3600000,"between-bytes-ms":3600000"#
    );
    assert_eq!(fetcher.send(&order).await, "ErrorCode::HttpResponseTimeout");
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_may_be() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::with(&[&server.origin()], |grant| grant.max_in_flight = 1).await;
    let mut other = fetcher.receiver.instantiate().await.unwrap();
    assert_eq!(fetcher.send(&format!(r#""url":"{}","then":"hold""#, server.url("/silent"))).await, "held");
    assert_eq!(fetcher.in_flight(), 1);
    assert!(matches!(server.next().await, Seen::Request { .. }));

    let hello = format!(r#"{{"url":"{}"}}"#, server.url("/hello"));
    other.handle(&batch(&[&hello])).await.unwrap();
    assert_eq!(fetcher.last("stdout"), "ErrorCode::ConnectionLimitReached");
    assert!(fetcher.said().contains("1 requests of this receiver are under way"), "{}", fetcher.said());

    // Nothing is left of an instance that is gone.
    drop(fetcher.instance);
    assert_eq!(server.next().await, Seen::Closed);
    other.handle(&batch(&[&hello])).await.unwrap();
    assert_eq!(
        fetcher.log.guest_lines().pop().unwrap(),
        "INFO guest: 200, 5 bytes: hello receiver.name=fetch stream=stdout"
    );
    assert_eq!(fetcher.receiver.outgoing_in_flight(), Some(0));
    drop(fetcher.fixture);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_holds_its_slot_no_longer_than_its_time() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::with(&[&server.origin()], |grant| grant.timeout = SHORT).await;
    assert_eq!(fetcher.send(&format!(r#""url":"{}","then":"hold""#, server.url("/pause"))).await, "held");
    assert!(matches!(server.next().await, Seen::Request { .. }));
    // The guest has the answer and does nothing with it, not even in a call.
    assert_eq!(server.next().await, Seen::Closed);
    assert_eq!(fetcher.in_flight(), 0);
}

#[tokio::test]
async fn a_connection_serves_many_requests_of_its_origin() {
    let mut server = Server::start().await;
    let other = Server::start().await;
    let mut fetcher = Fetcher::new(&[&server.origin(), &other.origin()]).await;
    for _ in 0..3 {
        for path in ["/hello", "/chunks", "/none", "/redirect"] {
            assert!(!fetcher.get(&server.url(path)).await.contains("ErrorCode"));
        }
    }
    assert_eq!(server.connections(), 1);
    assert_eq!(fetcher.get(&other.url("/hello")).await, "200, 5 bytes: hello");
    assert_eq!((server.connections(), other.connections()), (1, 1));
    // Also those of other instances.
    let mut instance = fetcher.receiver.instantiate().await.unwrap();
    instance.handle(&batch(&[&format!(r#"{{"url":"{}"}}"#, server.url("/hello"))])).await.unwrap();
    assert_eq!(server.connections(), 1);
    assert!(matches!(server.next().await, Seen::Request { .. }));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_no_error() {
    let server = Server::start().await;
    let mut fetcher = Fetcher::new(&[&server.origin()]).await;
    for connections in 1..=5 {
        assert_eq!(fetcher.get(&server.url("/once")).await, "200, 5 bytes: hello");
        assert_eq!(server.connections(), connections);
    }
}

#[tokio::test]
async fn a_guest_that_stops_reading_gives_its_connection_up() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::new(&[&server.origin()]).await;
    let outcome = fetcher.send(&format!(r#""url":"{}","read":3"#, server.url("/pause"))).await;
    assert_eq!(outcome, "200, 5 bytes: hello");
    assert!(matches!(server.next().await, Seen::Request { .. }));
    assert_eq!(server.next().await, Seen::Closed);
    assert_eq!(fetcher.in_flight(), 0);
}

#[tokio::test]
async fn what_a_dead_guest_began_to_send_never_looks_whole() {
    let mut server = Server::start().await;
    let mut fetcher = Fetcher::new(&[&server.origin()]).await;
    let order =
        format!(r#"{{"method":"POST","url":"{}","body":5000,"then":"stall"}}"#, server.url("/upload"));
    let orders = batch(&[&order]);
    tokio::select! {
        outcome = fetcher.instance.handle(&orders) => panic!("{outcome:?}"),
        seen = server.next() => assert_eq!(seen, Seen::Begun),
    }
    assert!(matches!(fetcher.instance.handle(&orders).await, Err(Fault::Gone)));
    assert_eq!(server.next().await, Seen::Truncated);
    assert_eq!(fetcher.in_flight(), 0);
}

//! Pages: what gets through, what is refused, and every way in which a page can fail.

use std::time::Instant;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use wharf_host::{Fault, PageError, Receiver};

use crate::fixtures::{DEADLINE, Fixture, options};

fn request(path: &str) -> Request<Bytes> {
    Request::get(format!("/r/page/{path}")).header(header::HOST, "localhost").body(Bytes::new()).unwrap()
}

async fn error(receiver: &Receiver, path: &str) -> PageError {
    receiver.serve(request(path)).await.unwrap_err()
}

#[tokio::test]
async fn a_page_is_served() {
    let fixture = Fixture::new();
    let receiver = fixture.load("page").await;
    assert!(receiver.serves_pages());
    let response = receiver.serve(request("")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(response.body(), "<!doctype html><h1>Fixture</h1>");
    assert_eq!(receiver.serve(request("missing")).await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn headers_and_bodies_go_both_ways() {
    let fixture = Fixture::new();
    let receiver = fixture.load("page").await;
    let cookie = receiver.serve(request("cookie")).await.unwrap();
    assert_eq!(cookie.headers()[header::SET_COOKIE], "taste=sweet");

    let mut asking = request("headers");
    asking.headers_mut().insert(header::COOKIE, "a=b".parse().unwrap());
    asking.headers_mut().insert("x-one", "1".parse().unwrap());
    let seen = receiver.serve(asking).await.unwrap();
    let mut seen: Vec<_> = std::str::from_utf8(seen.body()).unwrap().lines().collect();
    seen.sort();
    // The host header is seen as the request's authority instead.
    assert_eq!(seen, ["cookie: a=b", "x-one: 1"]);

    let body = Bytes::from(vec![7; 50_000]);
    let posted = Request::post("/echo").header(header::HOST, "localhost").body(body.clone()).unwrap();
    assert_eq!(receiver.serve(posted).await.unwrap().body(), &body);
}

#[tokio::test]
async fn a_page_that_fails_is_an_error_and_not_half_a_page() {
    let fixture = Fixture::new();
    let receiver = fixture.load("page").await;
    let trap = error(&receiver, "trap").await;
    assert!(matches!(trap, PageError::Fault(Fault::Trap { .. })), "{trap:?}");
    let nothing = error(&receiver, "nothing").await;
    assert!(matches!(nothing, PageError::NoAnswer), "{nothing:?}");
    let unfinished = error(&receiver, "unfinished").await;
    assert!(matches!(unfinished, PageError::Unfinished), "{unfinished:?}");
    let endless = error(&receiver, "endless").await;
    assert!(matches!(endless, PageError::TooLarge { limit: 65_536 }), "{endless:?}");
}

#[tokio::test]
async fn a_looping_page_ends_at_its_deadline() {
    let fixture = Fixture::new();
    let receiver = fixture.load("page").await;
    let start = Instant::now();
    let error = error(&receiver, "loop").await;
    assert!(matches!(error, PageError::Fault(Fault::Deadline { limit: DEADLINE, .. })), "{error:?}");
    assert!(start.elapsed() < DEADLINE * 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn no_more_requests_at_a_time_than_the_receiver_may_answer() {
    let fixture = Fixture::new();
    let mut options = options("page");
    options.http_concurrency = 1;
    let receiver = fixture.host.load(options).await.unwrap();
    let looping = receiver.serve(request("loop"));
    let second = async {
        tokio::task::yield_now().await;
        receiver.serve(request("")).await
    };
    let (looping, second) = tokio::join!(looping, second);
    assert!(matches!(looping, Err(PageError::Fault(_))), "{looping:?}");
    assert!(matches!(second, Err(PageError::Busy)), "{second:?}");
    receiver.serve(request("")).await.unwrap();
}

#[tokio::test]
async fn pages_do_not_take_the_places_of_messages() {
    let fixture = Fixture::with(|options| {
        options.max_instances = 1;
        options.max_pages = 1;
    });
    let receiver = fixture.load("page").await;
    let _instance = receiver.instantiate().await.unwrap();
    assert!(matches!(receiver.instantiate().await, Err(Fault::Pool(_))));
    for _ in 0..3 {
        receiver.serve(request("")).await.unwrap();
    }
}

#[tokio::test]
async fn only_receivers_with_pages_and_requests_with_a_host() {
    let fixture = Fixture::new();
    let without = fixture.load("puppet").await.serve(request("")).await;
    assert!(matches!(without, Err(PageError::NoPage)), "{without:?}");
    let nameless = Request::get("/").body(Bytes::new()).unwrap();
    let nameless = fixture.load("page").await.serve(nameless).await;
    assert!(matches!(nameless, Err(PageError::NoHost)), "{nameless:?}");
}

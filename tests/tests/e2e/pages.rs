//! What browsers see: the list of pages, the pages of receivers, and their live updates.

use e2e::calls::{data, ping, success};
use e2e::rest::{Answered, send};
use e2e::{Agent, Config, Encoding, Rest, Server, Site, eventually, files};
use reqwest::Method;
use serde_json::{Value, json};

fn config() -> Config {
    Config::new()
        .receiver("page", &files::guest("page"), &["metrics"])
        .set("receivers.page.live", true)
        .receiver("recorder", &files::guest("recorder"), &["metrics"])
}

/// What protects the browser stands in every answer.
fn assert_secured(answer: &Answered) {
    let policy = answer.header("content-security-policy").expect("pages have a policy");
    for part in ["default-src 'self'", "object-src 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("set-cookie"), None);
}

#[tokio::test]
pub async fn pages_are_listed_and_served() {
    let server = Site::new(config()).start().await;
    let announced = server.stdout.wait_for(&["page "]).await;
    assert_eq!(announced, format!("page http://{}/r/page/", server.agents));
    let rest = Rest::new(server.agents);
    let list = rest.get("/").await;
    assert_eq!(list.status, 200);
    assert_secured(&list);
    assert!(list.text().contains("r/page/") && !list.text().contains("recorder"), "{}", list.text());

    let redirect = rest.get("/r/page").await;
    assert!((301..=308).contains(&redirect.status), "{}", redirect.status);
    assert_eq!(redirect.header("location"), Some("/r/page/"));

    let page = rest.get("/r/page/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_secured(&page);
    assert!(page.text().contains("Fixture"), "{}", page.text());

    let answer = rest.get("/r/page/missing").await;
    assert_eq!(answer.status, 404);
    assert_secured(&answer);
    for path in ["/r/recorder/", "/r/nobody/", "/r/nobody", "/r/nobody/live", "/r/recorder/live"] {
        let answer = rest.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert_secured(&answer);
    }
}

#[tokio::test]
async fn a_page_gets_no_credentials_and_sets_no_cookies() {
    let server = Site::new(config()).start().await;
    let rest = Rest::new(server.agents);
    let request = rest.request(Method::GET, "/r/page/headers");
    let request = request.header("cookie", "session=secret").header("authorization", "Bearer secret");
    let request = request.header("proxy-authorization", "Basic secret").header("x-colour", "green");
    let seen = send(request).await.text().to_lowercase();
    assert!(seen.contains("x-colour: green"), "{seen}");
    assert!(
        !seen.contains("secret") && !seen.contains("cookie") && !seen.contains("authorization"),
        "{seen}"
    );
    let answer = rest.get("/r/page/cookie").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "a cookie"));
    assert_secured(&answer);
}

#[tokio::test]
async fn a_body_reaches_the_page_as_far_as_it_may() {
    let server = Site::new(config().set("receivers.page.http-body", "64KiB")).start().await;
    let rest = Rest::new(server.agents);
    let body = vec![b'x'; 64 * 1024];
    let answer = send(rest.request(Method::POST, "/r/page/echo").body(body.clone())).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
    let answer = send(rest.request(Method::POST, "/r/page/echo").body([&body[..], b"x"].concat())).await;
    assert_eq!(answer.status, 413);
    assert_secured(&answer);
}

#[tokio::test]
async fn a_page_that_fails_is_a_bad_gateway_and_nothing_else_notices() {
    // One thread, so that a page which does not yield is noticed.
    let config = config().set("receivers.page.http-deadline", "500ms").set("host.threads", 1);
    let server = Site::new(config).start().await;
    let rest = Rest::new(server.agents);
    let page = async |path: &str| rest.get(path).await;
    let looping = tokio::join!(page("/r/page/loop"), async {
        let mut agent = Agent::connect(server.agents).await;
        for _ in 0..20 {
            assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
        }
        server.log.wait_seen("recorder", 20).await;
    })
    .0;
    assert_eq!(looping.status, 502, "{}", looping.text());
    assert_secured(&looping);
    for path in ["/r/page/trap", "/r/page/nothing", "/r/page/unfinished", "/r/page/endless"] {
        let answer = page(path).await;
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
        assert_secured(&answer);
    }
    assert_eq!(page("/r/page/").await.status, 200);
    assert!(server.log.matching(&["WARN", "page"]).len() >= 5);
}

#[tokio::test]
async fn requests_above_the_bound_are_told_to_come_again() {
    let config = config().set("receivers.page.http-concurrency", 1).set("receivers.page.http-deadline", "1s");
    let server = Site::new(config).start().await;
    let rest = Rest::new(server.agents);
    let (one, other) = tokio::join!(rest.get("/r/page/loop"), rest.get("/r/page/loop"));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [502, 503]);
    let busy = if one.status == 503 { one } else { other };
    assert!(busy.header("retry-after").is_some());
    assert_eq!(rest.get("/r/page/").await.status, 200);
}

async fn publish(server: &Server, agent: &str, body: Value) {
    let mut connection = Agent::connect(server.agents).await;
    assert_eq!(connection.call(Encoding::Json, &data(agent, body)).await, success());
}

async fn browse(server: &Server) -> Agent {
    Agent::open(server.agents, "/r/page/live").await.expect("a browser is let in")
}

async fn update(browser: &mut Agent) -> Value {
    serde_json::from_str(&browser.text().await).expect("the fixture publishes JSON")
}

#[tokio::test]
async fn a_browser_gets_what_was_kept_and_then_what_is_new() {
    let server = Site::new(config()).start().await;
    let mut early = browse(&server).await;
    publish(&server, "a", json!({ "n": 1 })).await;
    assert_eq!(update(&mut early).await, json!({ "n": 1 }));
    publish(&server, "a", json!({ "n": 2 })).await;
    publish(&server, "b", json!({ "n": 3 })).await;
    assert_eq!(update(&mut early).await, json!({ "n": 2 }));
    assert_eq!(update(&mut early).await, json!({ "n": 3 }));

    // The last value of each key, the oldest first, and then what is new.
    let mut late = browse(&server).await;
    let mut kept = [update(&mut late).await, update(&mut late).await];
    kept.sort_by_key(|value| value["n"].as_u64());
    assert_eq!(kept, [json!({ "n": 2 }), json!({ "n": 3 })]);
    publish(&server, "a", json!({ "n": 4 })).await;
    assert_eq!((update(&mut early).await, update(&mut late).await), (json!({ "n": 4 }), json!({ "n": 4 })));

    // Forgetting a key sends nothing.
    publish(&server, "a", json!({ "forget": true })).await;
    publish(&server, "b", json!({ "n": 5 })).await;
    assert_eq!((update(&mut early).await, update(&mut late).await), (json!({ "n": 5 }), json!({ "n": 5 })));
    let mut last = browse(&server).await;
    assert_eq!(update(&mut last).await, json!({ "n": 5 }));
    publish(&server, "c", json!({ "n": 6 })).await;
    assert_eq!(update(&mut last).await, json!({ "n": 6 }));
    let browsers = server.metrics().await.get(r#"wharf_live_browsers{receiver="page"}"#);
    assert_eq!(browsers, 3.0);
    early.close().await;
    eventually("the browser to be gone", async || {
        (server.metrics().await.get(r#"wharf_live_browsers{receiver="page"}"#) == 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_browser_says_is_not_a_call() {
    let server = Site::new(config()).start().await;
    let mut browser = browse(&server).await;
    browser.send(Encoding::Json, &data("a", json!({ "n": 1 }))).await;
    browser.send(Encoding::Json, &ping("a")).await;
    publish(&server, "a", json!({ "n": 2 })).await;
    assert_eq!(update(&mut browser).await, json!({ "n": 2 }));
    assert_eq!(server.status().await["types"][0]["accepted"], 1);
}

#[tokio::test]
async fn a_foreign_page_does_not_get_live_updates() {
    let server = Site::new(config()).start().await;
    let rest = Rest::new(server.agents);
    let request = rest.request(Method::GET, "/r/page/live").header("connection", "upgrade");
    let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
    let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = send(request.header("origin", "https://evil.example")).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
}

#[tokio::test]
async fn a_browser_that_does_not_read_holds_up_nobody() {
    const MESSAGES: usize = 400;
    let server = Site::new(config().set("limits.frame-timeout", "1s")).start().await;
    let _sleeping = browse(&server).await;
    let mut reading = browse(&server).await;
    let mut agent = Agent::connect(server.agents).await;
    // Together far more than the buffers of a socket take.
    let padding = "x".repeat(100_000);
    for number in 0..MESSAGES {
        let body = json!({ "number": number, "padding": padding });
        assert_eq!(agent.call(Encoding::Json, &data("a", body)).await, success());
        assert_eq!(update(&mut reading).await["number"], number);
    }
    eventually("the sleeping browser to be disconnected", async || {
        let metrics = server.metrics().await;
        let timed_out = metrics.get(r#"wharf_connections_timed_out_total{waited_for="write"}"#);
        (timed_out == 1.0 && metrics.get(r#"wharf_live_browsers{receiver="page"}"#) == 1.0).then_some(())
    })
    .await;
}

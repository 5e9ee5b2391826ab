//! Receivers whose pages never end. What a browser sees of other faults is in `pages.rs`.

use e2e::{Log, Rest};
use futures_util::future::join_all;

use super::{BY_HOSTILE, Ring, config};

/// How many browsers ask for the page at a time: as many as it may serve at a time.
const BROWSERS: usize = 8;

/// Asks for pages of this mode again and again, expects an answer to each, and gives the log.
async fn browse(mode: &str, words: &str) -> Log {
    let config = config(mode).set("receivers.hostile.http-deadline", "500ms");
    let ring = Ring::start(config).await;
    let rest = Rest::new(ring.server.agents);
    for _ in 0..3 {
        for answer in join_all((0..BROWSERS).map(|_| rest.get("/r/hostile/"))).await {
            assert_eq!(answer.status, 502, "{mode}: {}", answer.text());
        }
    }
    ring.server.log.wait_for(&["WARN", BY_HOSTILE, words]).await;
    // It failed as a page only.
    assert_eq!(ring.server.receiver("hostile").await["failed"], 0, "{mode}");
    ring.end().await
}

#[tokio::test]
async fn a_page_that_loops() {
    browse("page-loop", "it computed for longer than its deadline of 500ms").await;
}

#[tokio::test]
async fn a_page_that_never_finishes_its_body() {
    browse("page-stall", "it waited for the host for longer than its deadline of 500ms").await;
    browse("page-unfinished", "the receiver did not finish its answer").await;
}

#[tokio::test]
async fn a_page_without_end() {
    browse("page-endless", "the answer has more than").await;
}

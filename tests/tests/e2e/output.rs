//! A server works on, and stops in an orderly way, when nobody can take what it logs.

use std::fs::File;
use std::io::PipeReader;
use std::process::Stdio;

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Site, eventually, files};
use serde_json::json;

/// With a line of this size for each of so many messages, any pipe is full long before the last.
const PADDING: usize = 4_000;
const MESSAGES: u64 = 100;

async fn works_with(stderr: Stdio) {
    let config = Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"]);
    let site = Site::new(config);
    let mut server = site.start_unheard(stderr).await;
    let mut agent = Agent::connect(server.agents).await;
    for number in 0..MESSAGES {
        let body = json!({ "number": number, "padding": "y".repeat(PADDING) });
        assert_eq!(agent.call(Encoding::Json, &data("a", body)).await, success());
    }
    let handled = eventually("every message to be handled", async || {
        let receiver = server.receiver("recorder").await;
        (receiver["handled"] == MESSAGES).then_some(receiver)
    })
    .await;
    assert_eq!(handled["state"], "running", "{handled}");
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_log_on_a_full_disk() {
    works_with(File::options().write(true).open("/dev/full").unwrap().into()).await;
}

#[tokio::test]
async fn a_log_whose_reader_is_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    works_with(writer.into()).await;
}

#[tokio::test]
async fn a_log_whose_reader_stands_still() {
    let (reader, writer): (PipeReader, _) = std::io::pipe().unwrap();
    works_with(writer.into()).await;
    drop(reader);
}

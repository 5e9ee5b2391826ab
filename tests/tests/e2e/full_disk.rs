//! A disk on which somebody else has taken the last byte: the server can be started and operated, and makes room of what is its own.
//! For this a small tmpfs is mounted; where that is not allowed, the tests say so and end.

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Server, Site, SmallDisk, eventually, files};
use serde_json::{Value, json};

/// Messages of a megabyte: with the reserve, more than the disk has besides what somebody else takes.
const MESSAGES: usize = 24;

fn config(disk: &SmallDisk) -> Config {
    Config::new()
        .set("data-dir", disk.path().to_str().unwrap())
        .set("log.segment-size", "1MiB")
        .set("log.disk-reserve", "16MiB")
        .set("types.metrics.retain", "0s")
        .receiver("quiet", &files::guest("quiet"), &["metrics"])
}

fn large() -> Value {
    data("a", json!({ "padding": "x".repeat(1_000_000) }))
}

async fn command(site: &Site, server: &Server, command: &str) -> Option<i32> {
    site.run(&[command, "quiet", "--admin", &format!("http://{}", server.admin)]).await.code
}

/// Messages that wait for their receiver, and not a byte left.
async fn filled(site: &Site, disk: &SmallDisk) -> Server {
    let server = site.start().await;
    assert_eq!(command(site, &server, "pause").await, Some(0));
    let mut agent = Agent::connect(server.agents).await;
    for _ in 0..MESSAGES {
        assert_eq!(agent.call(Encoding::Json, &large()).await, success());
    }
    disk.fill();
    assert_eq!(agent.call(Encoding::Json, &large()).await["error"]["code"], "overloaded");
    server
}

/// The receiver goes on, and what it has finished makes room for new messages.
async fn assert_room_is_made(site: &Site, server: &Server) {
    let resumed = async || (command(site, server, "resume").await == Some(0)).then_some(());
    eventually("the receiver to be resumed", resumed).await;
    let mut agent = Agent::connect(server.agents).await;
    let accepted = async || (agent.call(Encoding::Json, &large()).await == success()).then_some(());
    eventually("a message to be accepted", accepted).await;
}

#[tokio::test]
async fn a_server_makes_room_of_what_is_finished() {
    let disk = SmallDisk::mount();
    if disk.is_small() {
        let site = Site::new(config(&disk));
        let server = filled(&site, &disk).await;
        assert_room_is_made(&site, &server).await;
        let log = server.stop().await;
        assert_eq!(log.matching(&["the disk is full", "BALLAST"]).len(), 1, "{:#?}", log.lines());
    }
}

#[tokio::test]
async fn a_server_starts_and_makes_room() {
    let disk = SmallDisk::mount();
    if disk.is_small() {
        let site = Site::new(config(&disk));
        // In an orderly way it stops only with room to write down that it does.
        filled(&site, &disk).await.kill().await;
        let server = site.start().await;
        assert_room_is_made(&site, &server).await;
        server.stop().await;
        disk.make_room();
        let server = filled(&site, &disk).await;
        server.stop().await;
        let server = site.start().await;
        assert_room_is_made(&site, &server).await;
        server.stop().await;
    }
}

//! Receivers that send requests where they may not, or to servers that keep them waiting.

use std::net::{Ipv4Addr, TcpListener};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Ring, config};

/// A server for a test, which does this with each connection. Gives its port.
async fn serve<F>(answer: fn(tokio::net::TcpStream) -> F) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection));
        }
    });
    port
}

/// Sends requests to these addresses, where the grant is for these origins.
async fn requesting(urls: &str, origins: &[String]) -> Ring {
    let config = config("request")
        .set("receivers.hostile.config.urls", urls)
        .set("receivers.hostile.http", json!(origins))
        .set("receivers.hostile.outgoing-timeout", "500ms")
        .set("receivers.hostile.outgoing-answer", "1MiB")
        .set("receivers.hostile.deadline", "5s");
    Ring::start(config).await
}

#[tokio::test]
async fn a_forbidden_address() {
    let urls = ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/"];
    let ring = requesting(&urls.join(" "), &["http://api.example.com".to_owned()]).await;
    for url in urls {
        ring.server
            .log
            .wait_for(&["receiver.name=hostile", url, "gave Some(ErrorCode::HttpRequestDenied)"])
            .await;
    }
    let told = ring.server.log.wait_for(&["WARN", "receiver.name=hostile", "http://10.0.0.1"]).await;
    assert!(told.contains("its origin is not granted"), "{told}");
    ring.end().await;
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let origin = format!("http://localhost:{}", listener.local_addr().expect("it has an address").port());
    let ring = requesting(&format!("{origin}/"), std::slice::from_ref(&origin)).await;
    ring.server
        .log
        .wait_for(&["receiver.name=hostile", "gave Some(ErrorCode::DestinationIpProhibited)"])
        .await;
    ring.server
        .log
        .wait_for(&["WARN", "receiver.name=hostile", "localhost leads to", "a loopback address"])
        .await;
    listener.set_nonblocking(true).expect("it can be asked without waiting");
    assert!(listener.accept().is_err(), "nobody connected");
    ring.end().await;
}

#[tokio::test]
async fn a_server_that_never_answers() {
    let port = serve(|mut connection| async move {
        let mut request = Vec::new();
        let _ = connection.read_to_end(&mut request).await;
    })
    .await;
    let origin = format!("http://127.0.0.1:{port}");
    let ring = requesting(&format!("{origin}/"), std::slice::from_ref(&origin)).await;
    ring.server.log.wait_for(&["WARN", "receiver.name=hostile", "500ms"]).await;
    ring.goes_on_between("request begins", "gave Some(ErrorCode::").await;
    ring.end().await;
}

#[tokio::test]
async fn a_server_that_answers_without_end() {
    let port = serve(|mut connection| async move {
        let mut start = [0; 1024];
        let _ = connection.read(&mut start).await;
        let mut part: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
        while connection.write_all(part).await.is_ok() {
            part = &[b'x'; 16 * 1024];
        }
    })
    .await;
    let origin = format!("http://127.0.0.1:{port}");
    let ring = requesting(&format!("{origin}/"), std::slice::from_ref(&origin)).await;
    ring.server.log.wait_for(&["receiver.name=hostile", "gave Some(ErrorCode::"]).await;
    let told = ring.server.log.wait_for(&["WARN", "receiver.name=hostile", &origin]).await;
    assert!(told.contains("1048576 bytes") || told.contains("500ms"), "{told}");
    ring.end().await;
}

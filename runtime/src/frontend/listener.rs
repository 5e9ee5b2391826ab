//! Accepts connections and serves HTTP/1.1 on them, within bounds: how many, how long a request's head may take, and how
//! a connection ends. What passes all connections, HTTP and WebSocket, is in `stream`.
//!
//! It is the seam of every listener: `run(listener, routes, stop)` returns when the last connection has ended.

mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router as Routes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::stream::{Place, Stream, WriteTimeout, linger};
use crate::telemetry::{ListenerLabel, Metrics, TimeoutLabel};

/// The most that the head of a request may take: request line and headers. Ample for tokens and cookies; hyper refuses
/// more with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The most that hyper keeps for reading from a connection, and for writing to it. Its own bound is 400 KiB; a body that arrives
/// fast gains nothing above this one.
const MAX_BUFFER_BYTES: usize = 32 * 1024;
/// How many connections without a place may linger: beyond that they are reset, which costs nothing.
const MAX_LINGERING: usize = 256;
/// How long requests that have begun may take to end once the server stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// When a peer has been silent for so long, the system asks whether it is still there, and after a few questions without
/// an answer ends the connection: an agent that lost its power must not keep a place for ever.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// The pause between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The pause after a failed accept (out of file descriptors): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a connection beyond the bound is told.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/json; charset=utf-8\r\n\
content-length: 101\r\n\
retry-after: 1\r\n\
connection: close\r\n\r\n\
{\"error\":\"overloaded\",\"message\":\"the server has as many connections as it may\",\"retry_after_ms\":1000}";

/// What a listener is told about itself.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket.
    pub socket: TcpListener,
    /// Its name in the metrics.
    pub name: &'static str,
    /// Connections that may be open at once.
    pub max_connections: usize,
    /// How long the head of a request may take to arrive; also how long a connection may idle between requests.
    pub head_timeout: Duration,
    /// How long a write may wait for a client that takes nothing.
    pub write_timeout: Duration,
}

/// Accepts and serves until `stop` is cancelled, then lets the requests that are being answered end.
pub async fn run(listener: Listener, routes: Routes, metrics: Arc<Metrics>, stop: CancellationToken) {
    let Listener { socket, name, max_connections, head_timeout, write_timeout } = listener;
    let label = ListenerLabel { listener: name };
    let open = metrics.connections.get_or_create_owned(&label);
    let refused = metrics.connections_refused.get_or_create_owned(&label);
    let places = Arc::new(Semaphore::new(max_connections));
    let lingering = Arc::new(Semaphore::new(MAX_LINGERING));
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES);
    let timed_out = metrics.timed_out.get_or_create_owned(&TimeoutLabel::WRITE);
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(listener = name, %error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(permit) = places.clone().try_acquire_owned() else {
            refused.inc();
            if let Ok(permit) = lingering.clone().try_acquire_owned() {
                turn_away(stream, permit);
            }
            continue;
        };
        let place = Place::new(permit, open.clone());
        // Answers are small and awaited: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let service = TowerToHyperService::new(routes.clone());
        let stream = Stream::new(stream, place, WriteTimeout::new(write_timeout, timed_out.clone()));
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let stop = stop.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    // What is still on its way then is not waited for.
                    timeout(STOP_GRACE, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(listener = name, %error, "a connection ended with an error");
            }
        });
    }
    drop(socket);
    connections.close();
    connections.wait().await;
}

/// Answers 503 without reading. Not counted as a connection, so it may not wait: what does not fit into the socket's
/// buffer, which is empty, is lost.
fn turn_away(stream: TcpStream, permit: OwnedSemaphorePermit) {
    if stream.try_write(TURNED_AWAY).is_ok() {
        tokio::spawn(async move {
            linger(stream, None).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::TURNED_AWAY;

    #[test]
    fn what_a_turned_away_connection_is_told_has_the_length_it_says() {
        let text = std::str::from_utf8(TURNED_AWAY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}

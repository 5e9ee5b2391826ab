//! Connections of one receiver that may serve more requests, each of its own origin only (HTTP/1.1 keep-alive).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use tokio::time::{sleep, timeout};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::io::TokioIo;

use super::connect::Stream;
use super::failure::Failure;
use super::origin::Origin;
use super::request_body::RequestBody;

/// How long a connection is kept that nobody uses: servers close theirs after a few seconds to a minute, and a request that
/// meets that moment fails.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// How long a connection may take after an answer until it is ready for the next request, while the rest of the last one is
/// sent, perhaps.
const MAX_SETTLE: Duration = Duration::from_secs(1);

/// The largest head of an answer in bytes: what servers accept of a request's.
pub(super) const MAX_ANSWER_HEAD: usize = 16 * 1024;

/// Connections that wait for a request.
pub(super) struct Pool {
    max_per_origin: usize,
    idle: Mutex<HashMap<Origin, Vec<Idle>>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// An open connection. It ends when this is dropped, with whatever is under way on it.
pub(super) struct Connection {
    pub(super) sender: SendRequest<RequestBody>,
    /// Whether it served a request before.
    pub(super) reused: bool,
    origin: Origin,
    _driver: AbortOnDropJoinHandle<()>,
}

impl Pool {
    pub(super) fn new(max_per_origin: usize) -> Self {
        Self { max_per_origin, idle: Mutex::default() }
    }

    /// A connection to this origin that waits for a request: the last that was used, so that others may fall out of use.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = self.idle();
        let of_origin = idle.get_mut(origin)?;
        while let Some(Idle { mut connection, since }) = of_origin.pop() {
            if since.elapsed() < MAX_IDLE && connection.sender.is_ready() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection that has given an answer, if it can serve another request.
    pub(super) fn park(self: Arc<Self>, mut connection: Connection) {
        let ready = connection.sender.is_ready();
        if ready {
            self.put(connection);
            tokio::spawn(expire(Arc::downgrade(&self)));
            return;
        }
        let pool = Arc::downgrade(&self);
        tokio::spawn(async move {
            if !matches!(timeout(MAX_SETTLE, connection.sender.ready()).await, Ok(Ok(()))) {
                return;
            }
            match pool.upgrade() {
                Some(alive) => alive.put(connection),
                None => return,
            }
            expire(pool).await;
        });
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.idle();
        let of_origin = idle.entry(connection.origin.clone()).or_default();
        if of_origin.len() < self.max_per_origin {
            of_origin.push(Idle { connection, since: Instant::now() });
        }
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<Origin, Vec<Idle>>> {
        // What is idle is valid at any moment, so a panic elsewhere does not spoil it.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes, once they are old enough, the connections that are idle now.
async fn expire(pool: std::sync::Weak<Pool>) {
    sleep(MAX_IDLE).await;
    let Some(pool) = pool.upgrade() else { return };
    let mut idle = pool.idle();
    for of_origin in idle.values_mut() {
        of_origin.retain(|idle| idle.since.elapsed() < MAX_IDLE && !idle.connection.sender.is_closed());
    }
}

impl Connection {
    /// Begins to speak HTTP with the server of an origin.
    pub(super) async fn start(origin: Origin, stream: Box<dyn Stream>) -> Result<Self, Failure> {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(MAX_ANSWER_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Failure::NoAnswer)?;
        let driver = spawn(async move {
            // Each request hears of what is wrong with its connection.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a receiver's connection ended");
            }
        });
        Ok(Self { sender, reused: false, origin, _driver: driver })
    }
}

//! Connections of one receiver that may serve more requests, each of its own origin only (HTTP/1.1 keep-alive).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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

/// What a connection may hold of bytes that were read, or that are to be written: enough to fill a fast line.
const MAX_BUFFER: usize = 64 * 1024;

/// Connections that wait for a request.
pub(super) struct Pool {
    max_per_origin: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    idle: HashMap<Origin, Vec<Idle>>,
    /// Whether a task looks after those that are idle for too long.
    is_swept: bool,
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
        Self { max_per_origin, waiting: Mutex::default() }
    }

    /// A connection to this origin that waits for a request: the last that was used, so that others may fall out of use.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut waiting = self.waiting();
        let of_origin = waiting.idle.get_mut(origin)?;
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
        if connection.sender.is_ready() {
            self.put(connection);
            return;
        }
        let pool = Arc::downgrade(&self);
        tokio::spawn(async move {
            let is_ready = matches!(timeout(MAX_SETTLE, connection.sender.ready()).await, Ok(Ok(())));
            if let Some(pool) = pool.upgrade().filter(|_| is_ready) {
                pool.put(connection);
            }
        });
    }

    fn put(self: Arc<Self>, connection: Connection) {
        let mut waiting = self.waiting();
        let of_origin = waiting.idle.entry(connection.origin.clone()).or_default();
        if of_origin.len() < self.max_per_origin {
            of_origin.push(Idle { connection, since: Instant::now() });
        }
        if !waiting.is_swept {
            waiting.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self)));
        }
    }

    /// Closes the connections that are idle for too long. Gives whether there are others.
    fn expire(&self) -> bool {
        let mut waiting = self.waiting();
        waiting.idle.retain(|_, of_origin| {
            of_origin.retain(|idle| idle.since.elapsed() < MAX_IDLE && !idle.connection.sender.is_closed());
            !of_origin.is_empty()
        });
        waiting.is_swept = !waiting.idle.is_empty();
        waiting.is_swept
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // What is idle is valid at any moment, so a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs while there are idle connections. None is kept for longer than twice its time.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(MAX_IDLE).await;
        if !pool.upgrade().is_some_and(|pool| pool.expire()) {
            return;
        }
    }
}

impl Connection {
    /// Begins to speak HTTP with the server of an origin.
    pub(super) async fn start(origin: Origin, stream: Box<dyn Stream>) -> Result<Self, Failure> {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(MAX_ANSWER_HEAD)
            .max_buf_size(MAX_BUFFER)
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

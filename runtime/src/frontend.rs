//! What speaks with agents and browsers. Each frontend turns a protocol into calls of the router and answers into that
//! protocol; none knows a receiver's messages, cursors or instances.

pub mod body;
pub mod guard;
pub mod listener;
pub mod pages;
pub mod rest;
pub mod room;
pub mod unanswered;
pub mod ws;

use std::sync::Arc;
use std::time::Duration;

use axum::Router as Routes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wharf_protocol::Limits;

use crate::router::Router;
use crate::telemetry::Metrics;
use room::Room;

/// How long open connections are answered `shutting_down` before they are closed, once the server stops: long enough for
/// what a client has in flight, short enough that nobody waits for the stop.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// What every frontend needs: where calls go, and what bounds a connection.
#[derive(Debug)]
pub struct Frontend {
    /// Where calls go.
    pub router: Arc<Router>,
    /// Bounds of the protocol's decoder.
    pub limits: Limits,
    /// The largest frame of a WebSocket and the largest body of a request, in bytes.
    pub max_frame: usize,
    /// Room for what is larger than a connection's own buffer while it arrives.
    pub room: Room,
    /// Frames of one WebSocket that may wait for their answer.
    pub max_unanswered: usize,
    /// Their bytes, with those that are kept for their answers. One frame may go beyond.
    pub max_unanswered_bytes: usize,
    /// How long a frame may take from its first byte to its last, and an answer to be taken.
    pub frame_timeout: Duration,
    /// How long a request may take to arrive, and to wait for room.
    pub request_timeout: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// The tasks of WebSockets, which outlive the HTTP connection they began as.
    pub sockets: TaskTracker,
}

/// The routes of agents: WebSocket and REST.
pub fn agent_routes(frontend: Arc<Frontend>) -> Routes {
    rest::routes().merge(ws::routes()).with_state(frontend)
}

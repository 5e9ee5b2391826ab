//! The operator's side, on a listener of its own: is the server alive, is it ready, what are its numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router as Routes};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use wharf_log::{Durability, Topic};

use crate::delivery;
use crate::telemetry::{ListenerLabel, Metrics, TypeLabel};

/// What prometheus-client writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the operator's side looks at.
#[derive(Debug)]
pub struct Admin {
    /// When the server was started.
    pub started: Instant,
    /// Whether agents are accepted: not yet while starting, no more while stopping.
    pub ready: AtomicBool,
    /// Data types, how durable they are, and their topics.
    pub types: Vec<(String, Durability, Topic)>,
    /// The receivers.
    pub receivers: Vec<Arc<delivery::Status>>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
}

/// The routes of the operator's side.
pub fn routes(admin: Arc<Admin>) -> Routes {
    Routes::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/admin/v1/status", get(status))
        .with_state(admin)
}

async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if admin.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n")
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "failed to render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Serialize)]
struct StatusReport {
    version: &'static str,
    uptime_seconds: f64,
    ready: bool,
    connections: i64,
    types: Vec<TypeReport>,
    receivers: Vec<ReceiverReport>,
}

#[derive(Serialize)]
struct TypeReport {
    name: String,
    durability: &'static str,
    /// The lowest offset that is kept, and the next that will be given.
    start: u64,
    end: u64,
    /// Messages accepted since the server was started.
    accepted: u64,
}

#[derive(Serialize)]
struct ReceiverReport {
    name: String,
    component: ComponentReport,
    types: Vec<String>,
    state: &'static str,
    instances: usize,
    /// Since the server was started: messages finished, calls that failed, messages given up.
    handled: u64,
    failed: u64,
    skipped: u64,
    lag: u64,
    last_error: Option<String>,
}

#[derive(Serialize)]
struct ComponentReport {
    digest: String,
    path: String,
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<StatusReport> {
    let agents = ListenerLabel { listener: "agents" };
    let types = admin.types.iter().map(|(name, durability, topic)| TypeReport {
        name: name.clone(),
        durability: durability_name(*durability),
        start: topic.start(),
        end: topic.end(),
        accepted: admin.metrics.accepted.get_or_create_owned(&TypeLabel { r#type: name.clone() }).get(),
    });
    let receivers = admin.receivers.iter().map(|receiver| ReceiverReport {
        name: receiver.name.clone(),
        component: ComponentReport { digest: receiver.digest.clone(), path: receiver.component.clone() },
        types: receiver.types.clone(),
        state: receiver.state().as_str(),
        instances: receiver.instances,
        handled: receiver.handled.get(),
        failed: receiver.faults.get(),
        skipped: receiver.skipped.get(),
        lag: receiver.lag(),
        last_error: receiver.last_error(),
    });
    Json(StatusReport {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: admin.started.elapsed().as_secs_f64(),
        ready: admin.ready.load(Ordering::Acquire),
        connections: admin.metrics.connections.get_or_create_owned(&agents).get(),
        types: types.collect(),
        receivers: receivers.collect(),
    })
}

fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "fsync",
        Durability::Os => "os",
        Durability::Memory => "memory",
    }
}

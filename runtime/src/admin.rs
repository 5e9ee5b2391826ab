//! The operator's side, on a listener of its own: is the server alive, is it ready, what are its numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde::Serialize;
use wharf_log::Durability;

use crate::backup::Backups;
use crate::delivery::{self, Controls, Delivery, Feed, Feeds};
use crate::presence::Presence;
use crate::reload::Reloads;
use crate::swaps::Swaps;
use crate::telemetry::{ListenerLabel, Metrics, ReceiverTypeLabel, TypeLabel};

mod backup;
mod control;
mod dead_letters;
mod metrics;
mod rates;
mod receivers;
mod refused;
mod reload;
mod routes;
mod swaps;

pub use rates::Rates;
use receivers::ReceiverReport;
use routes::Routes;

/// What all this is, for programs. A test compares it with the routes, another one with answers.
const OPENAPI: &str = include_str!("admin/openapi.json");

/// What the operator's side looks at.
#[derive(Debug)]
pub struct Admin {
    /// When the server was started.
    pub started: Instant,
    /// Whether agents are accepted: not yet while starting, no more while stopping.
    pub ready: AtomicBool,
    /// The data types.
    pub feeds: Feeds,
    /// Who is active.
    pub presence: Arc<Presence>,
    /// The receivers.
    pub delivery: Arc<Delivery>,
    /// How many messages a second these finish.
    pub rates: Arc<Rates>,
    /// What an operator can do with the receivers.
    pub controls: Arc<Controls>,
    /// The swaps of their components.
    pub swaps: Arc<Swaps>,
    /// Reads the config again.
    pub reloads: Arc<Reloads>,
    /// The largest file of a component.
    pub max_component_bytes: u64,
    /// Copies of the data directory.
    pub backups: Arc<Backups>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
}

impl Admin {
    /// The receivers because of which a data type takes no messages.
    fn blockers(&self, data_type: &str) -> Vec<String> {
        let receivers = self.delivery.statuses();
        let mapped = receivers.iter().filter(|receiver| receiver.types.iter().any(|of| of == data_type));
        let blocks = |receiver: &&Arc<delivery::Status>| {
            let label = ReceiverTypeLabel { receiver: receiver.name.clone(), r#type: data_type.to_owned() };
            self.metrics.blocks.get_or_create_owned(&label).get() != 0
        };
        mapped.filter(blocks).map(|receiver| receiver.name.clone()).collect()
    }
}

/// The routes of the operator's side.
pub fn routes(admin: Arc<Admin>) -> Router {
    all().serve(admin)
}

/// The method and the path of every route of the operator's side.
pub fn operations() -> Vec<(Method, String)> {
    all().operations()
}

fn all() -> Routes {
    Routes::default()
        .get("/livez", livez)
        .get("/readyz", readyz)
        .get("/metrics", metrics::metrics)
        .get("/admin/v1/openapi.json", openapi)
        .get("/admin/v1/status", status)
        .merge(receivers::routes())
        .merge(backup::routes())
        .merge(control::routes())
        .merge(dead_letters::routes())
        .merge(reload::routes())
        .merge(swaps::routes())
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
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

#[derive(Serialize)]
struct StatusReport {
    version: &'static str,
    uptime_seconds: f64,
    ready: bool,
    connections: i64,
    agents: AgentsReport,
    types: Vec<TypeReport>,
    receivers: Vec<ReceiverReport>,
}

#[derive(Serialize)]
struct AgentsReport {
    active: usize,
    /// Those that are remembered, active or not.
    known: usize,
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
    /// The receivers whose backlog is at its bound, so that no messages are accepted.
    blocked_by: Vec<String>,
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<StatusReport> {
    let agents = ListenerLabel { listener: "agents" };
    let feeds = admin.feeds.all();
    let types = feeds.iter().map(|Feed { topic, durability, .. }| {
        let name = topic.name().to_owned();
        TypeReport {
            durability: durability_name(*durability),
            start: topic.start(),
            end: topic.end(),
            blocked_by: admin.blockers(&name),
            accepted: admin.metrics.accepted.get_or_create_owned(&TypeLabel { r#type: name.clone() }).get(),
            name,
        }
    });
    let (active, known) = admin.presence.counts();
    Json(StatusReport {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: admin.started.elapsed().as_secs_f64(),
        ready: admin.ready.load(Ordering::Acquire),
        connections: admin.metrics.connections.get_or_create_owned(&agents).get(),
        agents: AgentsReport { active, known },
        types: types.collect(),
        receivers: receivers::reports(&admin).await,
    })
}

fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "fsync",
        Durability::Os => "os",
        Durability::Memory => "memory",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap().iter();
        let described: BTreeSet<String> = paths
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let served = operations().into_iter().map(|(method, path)| format!("{method} {path}"));
        assert_eq!(described, served.collect(), "describe it in runtime/src/admin/openapi.json");
    }
}

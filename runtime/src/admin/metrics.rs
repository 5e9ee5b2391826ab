//! The numbers of the server, for Prometheus and whatever reads its formats. What changes by itself is looked at when they are
//! asked for.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::Admin;
use crate::delivery::{self, Lag, ReceiverState};
use crate::telemetry::{Format, Metrics, ReceiverLabel, ReceiverTypeLabel, StateLabel};

pub(super) async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let format = Format::accepted_by(&accepted.collect::<Vec<_>>().join(","));
    for receiver in admin.delivery.statuses() {
        look_at(&admin, &receiver).await;
    }
    // Off the threads that serve sockets: all series of all receivers are read.
    let rendered = tokio::task::spawn_blocking(move || admin.metrics.render(format)).await;
    match rendered {
        Ok(Ok(text)) => ([(CONTENT_TYPE, format.content_type())], text).into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "failed to render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the task that renders the metrics ended early");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Takes over what is known of a receiver now.
async fn look_at(admin: &Admin, receiver: &delivery::Status) {
    let Metrics { receiver_state, lag_messages, lag_seconds, .. } = &*admin.metrics;
    let Metrics { dead_letters_kept, dead_letter_bytes, in_flight, parked, waiting_agents, .. } =
        &*admin.metrics;
    let is = receiver.state();
    for state in ReceiverState::ALL {
        let label = StateLabel { receiver: receiver.name.clone(), state: state.as_str() };
        receiver_state.get_or_create_owned(&label).set((state == is).into());
    }
    let of_receiver = ReceiverLabel::new(&receiver.name);
    let usage = admin.controls.letter_usage(&receiver.name);
    dead_letters_kept.get_or_create_owned(&of_receiver).set(gauged(usage.count));
    dead_letter_bytes.get_or_create_owned(&of_receiver).set(gauged(usage.bytes));
    admin.swaps.receipts().begin_numbers(&receiver.name);
    let waiting = receiver.waiting();
    for (gauge, count) in
        [(in_flight, waiting.given), (parked, waiting.parked), (waiting_agents, waiting.agents)]
    {
        gauge.get_or_create_owned(&of_receiver).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    for Lag { data_type, messages, seconds, .. } in receiver.lags().await {
        let label = ReceiverTypeLabel { receiver: receiver.name.clone(), r#type: data_type };
        lag_messages.get_or_create_owned(&label).set(gauged(messages));
        // No number, where it can't be read.
        lag_seconds.get_or_create_owned(&label).set(seconds.unwrap_or(f64::NAN));
    }
}

/// A count as gauges take it.
fn gauged(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

//! Swapping the component of a receiver, taking that back, and the receipts of both.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use http::StatusCode;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Admin;
use super::refused::Refused;
use super::routes::Routes;
use crate::swaps::{Order, Receipt, SwapError};

/// How long a component may take to arrive: 64 MiB over a line of 10 Mbit/s.
const COMPONENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The routes of this part.
pub fn routes() -> Routes {
    Routes::default()
        .put("/admin/v1/receivers/{receiver}/component", swap)
        .post("/admin/v1/receivers/{receiver}/rollback", roll_back)
        .get("/admin/v1/swaps", swaps)
}

/// How it is to be done, and who wants it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderQuery {
    who: String,
    #[serde(default)]
    allow_new_imports: bool,
    #[serde(default)]
    drop_state: bool,
}

/// Which receipts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    receiver: Option<String>,
}

#[derive(Serialize)]
struct SwapsReport {
    swaps: Vec<Receipt>,
}

async fn swap(
    State(admin): State<Arc<Admin>>,
    receiver: Result<Path<String>, PathRejection>,
    order: Result<Query<OrderQuery>, QueryRejection>,
    request: Request,
) -> Result<Json<Receipt>, Refused> {
    // First, whatever is wrong: a connection on which a body is still coming can't be used again.
    let component = timeout(COMPONENT_TIMEOUT, read(request.into_body(), admin.max_component_bytes)).await;
    let component = component.map_err(|_| {
        let error = format!("the component did not arrive within {COMPONENT_TIMEOUT:?}");
        Refused::new(StatusCode::REQUEST_TIMEOUT, error)
    })??;
    let (Path(receiver), order) = (receiver?, order?.0.into_order()?);
    let swaps = admin.swaps.clone();
    carry_out(async move { swaps.swap(&receiver, component, order).await }).await
}

/// Reads a component. One that is too large is read to its end and forgotten, because who is still sending hears no answer.
async fn read(mut body: Body, max_bytes: u64) -> Result<Vec<u8>, Refused> {
    let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let (mut component, mut is_too_large) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Refused::new(StatusCode::BAD_REQUEST, "the component did not arrive whole".to_owned())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        is_too_large |= component.len().saturating_add(data.len()) > most;
        if is_too_large {
            component = Vec::new();
        } else {
            component.extend_from_slice(&data);
        }
    }
    if is_too_large {
        let error = format!("the component is larger than {most} bytes (host.max-component)");
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    Ok(component)
}

async fn roll_back(
    State(admin): State<Arc<Admin>>,
    receiver: Result<Path<String>, PathRejection>,
    order: Result<Query<OrderQuery>, QueryRejection>,
) -> Result<Json<Receipt>, Refused> {
    let (Path(receiver), order) = (receiver?, order?.0.into_order()?);
    let swaps = admin.swaps.clone();
    carry_out(async move { swaps.roll_back(&receiver, order).await }).await
}

/// In a task of its own, which comes to its end also when the one who asked does not wait for it.
async fn carry_out(
    order: impl Future<Output = Result<Receipt, SwapError>> + Send + 'static,
) -> Result<Json<Receipt>, Refused> {
    Ok(Json(tokio::spawn(order).await.map_err(SwapError::from)??))
}

async fn swaps(
    State(admin): State<Arc<Admin>>,
    selection: Result<Query<Selection>, QueryRejection>,
) -> Result<Json<SwapsReport>, Refused> {
    let Query(Selection { receiver }) = selection?;
    let receipts = admin.swaps.receipts().clone();
    let read = tokio::task::spawn_blocking(move || receipts.all()).await;
    let mut swaps = read.map_err(SwapError::from)?.map_err(SwapError::from)?;
    if let Some(receiver) = receiver {
        swaps.retain(|receipt| receipt.receiver == receiver);
    }
    Ok(Json(SwapsReport { swaps }))
}

impl OrderQuery {
    pub(super) fn into_order(self) -> Result<Order, Refused> {
        let OrderQuery { who, allow_new_imports, drop_state } = self;
        if who.trim().is_empty() {
            return Err(Refused::unusable("found nothing in `who`, expected who wants it"));
        }
        Ok(Order { who, allow_new_imports, drop_state })
    }
}

//! Reading the config again.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};

use super::Admin;
use super::refused::Refused;
use super::routes::Routes;
use super::swaps::OrderQuery;
use crate::reload::{ReloadError, Report};

/// The routes of this part.
pub fn routes() -> Routes {
    Routes::default().post("/admin/v1/reload", reload)
}

async fn reload(
    State(admin): State<Arc<Admin>>,
    order: Result<Query<OrderQuery>, QueryRejection>,
) -> Result<Json<Report>, Refused> {
    let order = order?.0.into_order()?;
    let reloads = admin.reloads.clone();
    // In a task of its own, which comes to its end also when the one who asked does not wait for it.
    let reloading = tokio::spawn(async move { reloads.reload(order).await });
    Ok(Json(reloading.await.map_err(ReloadError::from)??))
}

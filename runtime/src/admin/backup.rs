//! What operators do with copies of the data directory.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;

use super::Admin;
use super::refused::Refused;
use super::routes::Routes;
use crate::backup::{BackupError, Backups};

/// Its routes.
pub fn routes() -> Routes {
    Routes::default().post("/admin/v1/backup", make).delete("/admin/v1/backup", remove)
}

#[derive(Serialize)]
struct BackupReport {
    path: PathBuf,
}

async fn make(State(admin): State<Arc<Admin>>) -> Result<Json<BackupReport>, Refused> {
    does(admin, Backups::make).await
}

async fn remove(State(admin): State<Arc<Admin>>) -> Result<Json<BackupReport>, Refused> {
    does(admin, Backups::remove).await
}

/// Does what an operator asks for, which blocks on the disk, and says where the backup is or was.
async fn does(
    admin: Arc<Admin>,
    action: fn(&Backups) -> Result<PathBuf, BackupError>,
) -> Result<Json<BackupReport>, Refused> {
    let backups = admin.backups.clone();
    let (status, error) = match tokio::task::spawn_blocking(move || action(&backups)).await {
        Ok(Ok(path)) => return Ok(Json(BackupReport { path })),
        Ok(Err(error @ BackupError::Busy)) => (StatusCode::CONFLICT, format!("failed to {error}")),
        Ok(Err(error)) => {
            let cause: &dyn std::error::Error = &error;
            tracing::error!(error = cause, "failed to make or remove a backup");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to {error}; the server's log says why"))
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the task ended early: {error}")),
    };
    Err(Refused::new(status, error))
}

//! Answers that say no to an operator: JSON, with what was wrong.

use axum::Json;
use axum::extract::Request;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use wharf_state::StateError;

use crate::delivery::ControlError;
use crate::reload::ReloadError;
use crate::swaps::{Receipt, SwapError};

/// How much of a path is quoted, in characters.
const MAX_QUOTED_PATH: usize = 100;

/// What was asked for can't be done.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    report: Box<Report>,
}

#[derive(Debug, Serialize)]
struct Report {
    error: String,
    /// Of a swap that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
}

impl Refused {
    /// With this status.
    pub fn new(status: StatusCode, error: String) -> Refused {
        Refused { status, report: Box::new(Report { error, receipt: None }) }
    }

    /// What was asked for makes no sense.
    pub fn unusable(error: impl Into<String>) -> Refused {
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, error.into())
    }
}

/// The answer for a path that there is not.
pub async fn no_such_path(request: Request) -> Refused {
    let path: String = request.uri().path().chars().take(MAX_QUOTED_PATH).collect();
    Refused::new(StatusCode::NOT_FOUND, format!("found the path {path:?}, which means nothing here"))
}

/// The answer for a path that is not meant for this method.
pub async fn no_such_method(request: Request) -> Refused {
    let error = format!("found the method {}, which this path is not meant for", request.method());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, error)
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.report)).into_response()
    }
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Refused {
        let status = match &error {
            ControlError::Unknown { .. } | ControlError::NoLetter { .. } => StatusCode::NOT_FOUND,
            ControlError::NotPaused { .. } | ControlError::State(StateError::DamagedDeadLetter { .. }) => {
                StatusCode::CONFLICT
            }
            ControlError::NotMapped { .. }
            | ControlError::WhichType { .. }
            | ControlError::BeyondEnd { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            _ => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(error = cause, "failed to do what an operator asked for");
                let error = format!("failed to {error}; the server's log says why");
                return Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error);
            }
        };
        Refused::new(status, format!("failed to {error}"))
    }
}

impl From<SwapError> for Refused {
    fn from(error: SwapError) -> Refused {
        let text = format!("failed to {error}");
        match error {
            SwapError::Unknown { .. } => Refused::new(StatusCode::NOT_FOUND, text),
            SwapError::Unchanged { .. } | SwapError::NoneBefore { .. } => {
                Refused::new(StatusCode::CONFLICT, text)
            }
            SwapError::Refused(receipt) => {
                let report = Box::new(Report { error: text, receipt: Some(*receipt) });
                Refused { status: StatusCode::UNPROCESSABLE_ENTITY, report }
            }
            SwapError::State(_) | SwapError::Task(_) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(error = cause, "failed to do what an operator asked for");
                let text = format!("{text}; the server's log says why");
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

impl From<ReloadError> for Refused {
    fn from(error: ReloadError) -> Refused {
        let text = error.told();
        match error {
            ReloadError::Stopping => Refused::new(StatusCode::SERVICE_UNAVAILABLE, text),
            // What was wrong is logged, as whatever comes of a reload.
            ReloadError::Torn { .. }
            | ReloadError::Delivery(_)
            | ReloadError::Versions(_)
            | ReloadError::Log(_)
            | ReloadError::MessageIds(_)
            | ReloadError::Task(_) => Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text),
            _ => Refused::unusable(text),
        }
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Refused {
        Refused::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Refused {
        Refused::new(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Refused {
        Refused::new(rejection.status(), rejection.body_text())
    }
}

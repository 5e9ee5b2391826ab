//! What an operator does with a receiver: pause, resume, move its cursors.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, Path, Request, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Admin;
use super::refused::Refused;
use super::routes::Routes;
use crate::delivery::{ControlError, Controls, SeekTo, Sought};

/// The largest order: a few names, and a command line of which 1 KiB is kept, all of which JSON may escape.
const MAX_ORDER_BYTES: usize = 16 * 1024;

/// How long an order may take to arrive. It is a packet or two: who takes longer has stopped sending.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// The routes of this part.
pub fn routes() -> Routes {
    Routes::default()
        .post("/admin/v1/receivers/{receiver}/pause", pause)
        .post("/admin/v1/receivers/{receiver}/resume", resume)
        .post("/admin/v1/receivers/{receiver}/seek", seek)
        .bounded(MAX_ORDER_BYTES)
}

/// Does what blocks on the disk.
pub async fn blocking<T: Send + 'static>(
    admin: &Admin,
    work: impl FnOnce(&Controls) -> Result<T, ControlError> + Send + 'static,
) -> Result<T, Refused> {
    let controls = admin.controls.clone();
    let done = tokio::task::spawn_blocking(move || work(&controls)).await;
    Ok(done.map_err(ControlError::from)??)
}

/// What a receiver is doing.
pub fn state_of(admin: &Admin, receiver: &str) -> &'static str {
    admin.delivery.receiver(receiver).map_or("unknown", |feeding| feeding.status.state().as_str())
}

async fn pause(
    State(admin): State<Arc<Admin>>,
    receiver: Result<Path<String>, PathRejection>,
) -> Result<Json<ControlReport>, Refused> {
    control(&admin, receiver?.0, Controls::pause).await
}

async fn resume(
    State(admin): State<Arc<Admin>>,
    receiver: Result<Path<String>, PathRejection>,
) -> Result<Json<ControlReport>, Refused> {
    control(&admin, receiver?.0, Controls::resume).await
}

#[derive(Serialize)]
struct ControlReport {
    receiver: String,
    state: &'static str,
}

/// Does it, and says the state that the receiver is in then.
async fn control(
    admin: &Admin,
    receiver: String,
    action: fn(&Controls, &str) -> Result<(), ControlError>,
) -> Result<Json<ControlReport>, Refused> {
    let name = receiver.clone();
    blocking(admin, move |controls| action(controls, &name)).await?;
    let state = state_of(admin, &receiver);
    Ok(Json(ControlReport { receiver, state }))
}

/// Where the cursors are to stand, and who wants it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeekOrder {
    to: To,
    /// All data types of the receiver without it.
    r#type: Option<String>,
    who: String,
    /// The command line.
    what: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum To {
    Offset(u64),
    /// Unix milliseconds.
    Time(u64),
    Oldest,
    Newest,
}

#[derive(Serialize)]
struct SeekReport {
    receiver: String,
    moved: Vec<MovedReport>,
}

#[derive(Serialize)]
struct MovedReport {
    r#type: String,
    to: u64,
    lowest_before: u64,
    /// What was passed over.
    gap: Option<GapReport>,
}

#[derive(Serialize)]
struct GapReport {
    from: u64,
    /// Behind the last one.
    to: u64,
}

async fn seek(
    State(admin): State<Arc<Admin>>,
    receiver: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<SeekReport>, Refused> {
    let Path(receiver) = receiver?;
    let order = timeout(ORDER_TIMEOUT, Json::<SeekOrder>::from_request(request, &())).await;
    let Json(order) = order.map_err(|_| {
        let error = format!("the body did not arrive within {ORDER_TIMEOUT:?}");
        Refused::new(StatusCode::REQUEST_TIMEOUT, error)
    })??;
    if order.who.trim().is_empty() || order.what.trim().is_empty() {
        return Err(Refused::unusable(
            "found nothing in `who` or `what`, expected who moves the cursors, and how",
        ));
    }
    let (controls, name) = (admin.controls.clone(), receiver.clone());
    // A task of its own comes to its end also when the one who asked does not wait for it.
    let seeking = tokio::spawn(async move {
        let to = SeekTo::from(order.to);
        controls.seek(&name, order.r#type.as_deref(), to, &order.who, &order.what).await
    });
    let moved = seeking.await.map_err(ControlError::from)??;
    Ok(Json(SeekReport { receiver, moved: moved.into_iter().map(MovedReport::from).collect() }))
}

impl From<To> for SeekTo {
    fn from(to: To) -> SeekTo {
        match to {
            To::Offset(offset) => SeekTo::Offset(offset),
            To::Time(time) => SeekTo::Time(time),
            To::Oldest => SeekTo::Oldest,
            To::Newest => SeekTo::Newest,
        }
    }
}

impl From<Sought> for MovedReport {
    fn from(sought: Sought) -> MovedReport {
        let Sought { data_type, to, lowest_before, gap } = sought;
        MovedReport {
            r#type: data_type,
            to,
            lowest_before,
            gap: gap.map(|(from, to)| GapReport { from, to }),
        }
    }
}

//! Receivers as operators see them: how each is doing, how far it is behind, and what it did not get.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;
use wharf_state::{Gap, GapReason, KnownGaps};

use super::Admin;
use super::refused::Refused;
use super::routes::Routes;
use crate::delivery::{ControlError, Lag, Status};
use crate::swaps::Newest;

pub(super) fn routes() -> Routes {
    Routes::default().get("/admin/v1/receivers", receivers).get("/admin/v1/receivers/{receiver}", receiver)
}

/// How a receiver is doing.
#[derive(Serialize)]
pub(super) struct ReceiverReport {
    name: String,
    component: ComponentReport,
    types: Vec<String>,
    state: &'static str,
    /// What is being done with its component, if anything is.
    stage: Option<&'static str>,
    instances: usize,
    /// Since the server was started: messages finished, calls that failed, messages that became dead letters.
    handled: u64,
    failed: u64,
    dead: u64,
    /// Messages finished a second, over the last ten seconds.
    rate: f64,
    /// Messages that were given and are to be given again, the agents that they are of, and the messages that wait behind them.
    in_flight: usize,
    waiting_agents: usize,
    parked: usize,
    /// Offsets between its slowest lanes and the ends of its topics.
    lag: u64,
    /// How old the oldest message is that it has not finished; nothing if that can't be read.
    lag_seconds: Option<f64>,
    /// What lies on the disk from its first unfinished message on, of each data type.
    backlog: Vec<BacklogReport>,
    dead_letters: DeadLettersReport,
    /// What it did not get; nothing if that can't be read.
    gaps: Option<GapsReport>,
    /// How long until a quarantined receiver is tried again.
    next_try_seconds: Option<f64>,
    last_error: Option<String>,
    /// What its newest receipt says, if it has any.
    last_swap: Option<Newest>,
}

#[derive(Serialize)]
struct ComponentReport {
    digest: String,
    path: String,
    /// Since when it runs, in Unix milliseconds.
    since: u64,
}

#[derive(Serialize)]
struct BacklogReport {
    r#type: String,
    bytes: u64,
}

/// Dead letters that are kept.
#[derive(Serialize)]
struct DeadLettersReport {
    count: u64,
    bytes: u64,
}

/// Gap records that are kept.
#[derive(Serialize)]
struct GapsReport {
    records: usize,
    /// Messages of which they tell, or offsets where the number of messages is not known.
    messages: u64,
}

/// All of it.
#[derive(Serialize)]
struct ReceiverDetails {
    #[serde(flatten)]
    report: ReceiverReport,
    cursors: Vec<CursorReport>,
    gap_records: Vec<GapReport>,
    /// Gap records that can't be understood.
    damaged_gap_records: Vec<String>,
}

/// How far it is in a data type.
#[derive(Serialize)]
struct CursorReport {
    r#type: String,
    /// The lowest of the cursors of its lanes, and the end of the log.
    next: u64,
    end: u64,
    lag: u64,
    lag_seconds: Option<f64>,
}

/// Messages that it did not get.
#[derive(Serialize)]
struct GapReport {
    r#type: String,
    /// The first offset, and the one behind the last.
    from: u64,
    to: u64,
    /// How many messages, if that is known.
    count: Option<u64>,
    reason: &'static str,
    /// Who moved the cursors, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    /// When, in Unix milliseconds.
    since: u64,
    until: u64,
    /// Further records that this one stands for.
    merged: u32,
}

#[derive(Serialize)]
struct ReceiversReport {
    receivers: Vec<ReceiverReport>,
}

async fn receivers(State(admin): State<Arc<Admin>>) -> Json<ReceiversReport> {
    Json(ReceiversReport { receivers: reports(&admin).await })
}

async fn receiver(
    State(admin): State<Arc<Admin>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ReceiverDetails>, Refused> {
    let Path(name) = name?;
    let gaps = gaps(&admin, &name).await?;
    let found = admin.delivery.receiver(&name);
    // Every receiver that can be steered is fed, so there is one.
    let feeding = found
        .ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, format!("the receiver {name:?} is not fed")))?;
    let lags = feeding.status.lags().await;
    let report = report(&admin, &feeding.status, &lags, Some(&gaps));
    let cursors = lags.into_iter().map(|lag| CursorReport {
        r#type: lag.data_type,
        next: lag.next,
        end: lag.end,
        lag: lag.messages,
        lag_seconds: lag.seconds,
    });
    let KnownGaps { topics, damaged } = gaps;
    let records = topics
        .into_iter()
        .flat_map(|(data_type, gaps)| gaps.into_iter().map(move |gap| GapReport::of(&data_type, gap)));
    Ok(Json(ReceiverDetails {
        report,
        cursors: cursors.collect(),
        gap_records: records.collect(),
        damaged_gap_records: damaged,
    }))
}

/// How all receivers are doing.
pub(super) async fn reports(admin: &Arc<Admin>) -> Vec<ReceiverReport> {
    let mut reports = Vec::new();
    for status in admin.delivery.statuses() {
        // The other way to ask says why, if they can't be read.
        let gaps = gaps(admin, &status.name).await.ok();
        reports.push(report(admin, &status, &status.lags().await, gaps.as_ref()));
    }
    reports
}

async fn gaps(admin: &Arc<Admin>, receiver: &str) -> Result<KnownGaps, ControlError> {
    let (controls, name) = (admin.controls.clone(), receiver.to_owned());
    tokio::task::spawn_blocking(move || controls.gaps(&name)).await?
}

fn report(admin: &Admin, status: &Status, lags: &[Lag], gaps: Option<&KnownGaps>) -> ReceiverReport {
    let (handled, waiting) = (status.handled.get(), status.waiting());
    let usage = admin.controls.letter_usage(&status.name);
    ReceiverReport {
        name: status.name.clone(),
        component: ComponentReport {
            digest: status.digest.clone(),
            path: status.component.clone(),
            since: status.since,
        },
        types: status.types.clone(),
        state: status.state().as_str(),
        stage: admin.swaps.stage(&status.name),
        instances: status.instances,
        handled,
        failed: status.faults.get(),
        dead: status.dead.get(),
        rate: admin.rates.per_second(&status.name, Instant::now(), handled),
        in_flight: waiting.given,
        waiting_agents: waiting.agents,
        parked: waiting.parked,
        lag: lags.iter().map(|lag| lag.messages).fold(0, u64::saturating_add),
        // The oldest of all, and unknown if one is.
        lag_seconds: lags.iter().try_fold(0.0, |oldest: f64, lag| Some(oldest.max(lag.seconds?))),
        backlog: status
            .backlogs()
            .map(|(data_type, bytes)| BacklogReport { r#type: data_type.to_owned(), bytes })
            .collect(),
        dead_letters: DeadLettersReport { count: usage.count, bytes: usage.bytes },
        gaps: gaps.map(GapsReport::of),
        next_try_seconds: status.next_probe().map(|pause| pause.as_secs_f64()),
        last_error: status.last_error(),
        last_swap: admin.swaps.receipts().newest(&status.name),
    }
}

impl GapsReport {
    fn of(gaps: &KnownGaps) -> GapsReport {
        let all = || gaps.topics.iter().flat_map(|(_, gaps)| gaps);
        let messages =
            |gap: &Gap| gap.count.unwrap_or_else(|| gap.offsets.end.saturating_sub(gap.offsets.start));
        GapsReport {
            records: all().count().saturating_add(gaps.damaged.len()),
            messages: all().map(messages).fold(0, u64::saturating_add),
        }
    }
}

impl GapReport {
    fn of(data_type: &str, gap: Gap) -> GapReport {
        let Gap { offsets, count, reason, since, until, merged } = gap;
        let word = reason.word();
        let (who, what) = match reason {
            GapReason::Seek { who, what } => (Some(who), Some(what)),
            _ => (None, None),
        };
        GapReport {
            r#type: data_type.to_owned(),
            from: offsets.start,
            to: offsets.end,
            count,
            reason: word,
            who,
            what,
            since,
            until,
            merged,
        }
    }
}

//! The dead letters of receivers: listed in pages, shown with their messages, given to their receiver again, dropped.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use wharf_state::MAX_PAGE;

use super::Admin;
use super::control::{blocking, state_of};
use super::refused::Refused;
use super::routes::Routes;
use crate::delivery::{ControlError, Page, Queued, Which};
use crate::letter_ids;

mod report;

use report::{DamagedReport, LetterReport, ShownReport};

/// The routes of this part.
pub fn routes() -> Routes {
    const LETTERS: &str = "/admin/v1/receivers/{receiver}/dead-letters";
    const LETTER: &str = "/admin/v1/receivers/{receiver}/dead-letters/{id}";
    Routes::default()
        .get("/admin/v1/dead-letters", receivers)
        .get(LETTERS, list)
        .delete(LETTERS, drop_chosen)
        .post(&format!("{LETTERS}/redrive"), redrive)
        .get(LETTER, show)
        .delete(LETTER, drop_one)
}

#[derive(Serialize)]
struct ReceiversReport {
    receivers: Vec<ReceiverReport>,
}

#[derive(Serialize)]
struct ReceiverReport {
    receiver: String,
    count: u64,
    bytes: u64,
    /// Whether the config has it.
    configured: bool,
}

async fn receivers(State(admin): State<Arc<Admin>>) -> Json<ReceiversReport> {
    let with_letters = admin.controls.receivers_with_letters().into_iter();
    let receivers = with_letters.map(|letters| ReceiverReport {
        receiver: letters.receiver,
        count: letters.usage.count,
        bytes: letters.usage.bytes,
        configured: letters.configured,
    });
    Json(ReceiversReport { receivers: receivers.collect() })
}

/// Which page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    /// The lowest number, and the highest.
    #[serde(default)]
    from: u64,
    #[serde(default = "highest")]
    to: u64,
    #[serde(default = "largest_page")]
    limit: usize,
}

fn highest() -> u64 {
    u64::MAX
}

fn largest_page() -> usize {
    MAX_PAGE
}

#[derive(Serialize)]
struct PageReport {
    receiver: String,
    letters: Vec<LetterReport>,
    damaged: Vec<DamagedReport>,
    /// Where the next page begins, if there is more.
    next: Option<u64>,
}

async fn list(
    State(admin): State<Arc<Admin>>,
    receiver: Result<Path<String>, PathRejection>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Json<PageReport>, Refused> {
    let (Path(receiver), Query(Range { from, to, limit })) = (receiver?, range?);
    let name = receiver.clone();
    let page = blocking(&admin, move |controls| controls.letters(&name, from..=to, limit)).await?;
    let Page { entries, damaged, next } = page;
    Ok(Json(PageReport {
        receiver,
        letters: entries.into_iter().map(|(entry, state)| LetterReport::new(entry, state)).collect(),
        damaged: damaged.into_iter().map(DamagedReport::from).collect(),
        next,
    }))
}

async fn show(
    State(admin): State<Arc<Admin>>,
    path: Result<Path<(String, u64)>, PathRejection>,
) -> Result<Json<ShownReport>, Refused> {
    let Path((receiver, id)) = path?;
    // Also the mapping of a large message takes a while.
    let shown =
        move |controls: &crate::delivery::Controls| controls.letter(&receiver, id).map(ShownReport::from);
    Ok(Json(blocking(&admin, shown).await?))
}

/// Which letters: one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    ids: Option<String>,
    #[serde(default)]
    all: bool,
}

impl Selection {
    fn which(self) -> Result<Which, Refused> {
        match self {
            Selection { ids: None, all: true } => Ok(Which::All),
            Selection { ids: Some(ids), all: false } => letter_ids::parse(&ids)
                .map(Which::Ids)
                .map_err(|error| Refused::unusable(format!("ids: {error}"))),
            _ => Err(Refused::unusable("expected either `ids`, such as 17,20-29, or `all=true`")),
        }
    }
}

#[derive(Serialize)]
struct RedriveReport {
    receiver: String,
    /// What the receiver is doing: one that is paused gets them when it is resumed.
    state: &'static str,
    queued: usize,
    /// Those that were queued or under way before.
    already: usize,
    /// Those that can't be understood, and so not be given to anybody.
    damaged: usize,
}

async fn redrive(
    State(admin): State<Arc<Admin>>,
    receiver: Result<Path<String>, PathRejection>,
    selection: Result<Query<Selection>, QueryRejection>,
) -> Result<Json<RedriveReport>, Refused> {
    let (Path(receiver), Query(selection)) = (receiver?, selection?);
    let (name, which) = (receiver.clone(), selection.which()?);
    let Queued { queued, already, damaged } =
        blocking(&admin, move |controls| controls.redrive(&name, which)).await?;
    let state = state_of(&admin, &receiver);
    Ok(Json(RedriveReport { receiver, state, queued, already, damaged }))
}

#[derive(Serialize)]
struct DropReport {
    receiver: String,
    dropped: u64,
}

async fn drop_chosen(
    State(admin): State<Arc<Admin>>,
    receiver: Result<Path<String>, PathRejection>,
    selection: Result<Query<Selection>, QueryRejection>,
) -> Result<Json<DropReport>, Refused> {
    let (Path(receiver), Query(selection)) = (receiver?, selection?);
    drop_letters(&admin, receiver, selection.which()?).await.map(Json)
}

async fn drop_one(
    State(admin): State<Arc<Admin>>,
    path: Result<Path<(String, u64)>, PathRejection>,
) -> Result<Json<DropReport>, Refused> {
    let Path((receiver, id)) = path?;
    let report = drop_letters(&admin, receiver, Which::Ids(vec![id..=id])).await?;
    if report.dropped == 0 {
        return Err(ControlError::NoLetter { receiver: report.receiver, id }.into());
    }
    Ok(Json(report))
}

async fn drop_letters(admin: &Admin, receiver: String, which: Which) -> Result<DropReport, Refused> {
    let name = receiver.clone();
    let dropped = blocking(admin, move |controls| controls.drop_letters(&name, which)).await?;
    Ok(DropReport { receiver, dropped })
}

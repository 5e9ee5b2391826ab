//! `wharf swaps`: what was swapped, rolled back and refused, and what became of the messages around it.

use std::io::Write;

use anyhow::Context;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::cli::admin::{Request, Server};
use crate::cli::table::printable_json;

mod render;

/// A thousand receipts of receivers with all their lanes at work.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Which receiver.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those of this receiver
    receiver: Option<String>,
    /// Print the receipts as JSON, as the server gave them
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// A receipt, as far as it is shown. What is not known here is kept for `--json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Swap {
    /// Its number.
    pub id: u64,
    receiver: String,
    kind: String,
    outcome: String,
    reason: Option<String>,
    who: String,
    at: u64,
    old: String,
    new: Option<String>,
    #[serde(default)]
    imports_gained: Vec<String>,
    #[serde(default)]
    imports_lost: Vec<String>,
    compile_ms: Option<f64>,
    #[serde(default)]
    pause_ms: Vec<f64>,
    #[serde(default)]
    state: State,
    #[serde(default)]
    counts: Counts,
    probation: Option<Probation>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    snapshots: u64,
    formats: Vec<String>,
    bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing: Vec<Missing>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Missing {
    r#type: String,
    from: u64,
    to: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lanes: Option<Vec<u64>>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counts {
    accepted: u64,
    by_old: u64,
    by_new: u64,
    by_both: u64,
    redelivered: u64,
    dead: u64,
    gaps: u64,
    pending: u64,
    lost: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Probation {
    outcome: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Receipts {
    swaps: Vec<Swap>,
}

/// Prints the receipts.
///
/// # Errors
///
/// Those of [`Server::ask`].
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Args { receiver, json, server } = args;
    let text = if json {
        let answer = server.ask(request(receiver.as_deref()), &shutdown).await?;
        format!("{}\n", printable_json(answer.read::<&RawValue>()?.get()))
    } else {
        render::table(&receipts(&server, receiver.as_deref(), &shutdown).await?)
    };
    std::io::stdout().write_all(text.as_bytes()).context("failed to print the receipts")
}

/// Asks a server for its receipts.
///
/// # Errors
///
/// Those of [`Server::ask`].
pub async fn receipts(
    server: &Server,
    receiver: Option<&str>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<Swap>> {
    let answer = server.ask(request(receiver), shutdown).await?;
    Ok(answer.read::<Receipts>()?.swaps)
}

fn request(receiver: Option<&str>) -> Request<'static> {
    let request = Request::new(Method::GET, &["admin", "v1", "swaps"]).up_to(MAX_ANSWER_BYTES);
    match receiver {
        Some(receiver) => request.query("receiver", receiver),
        None => request,
    }
}

impl Swap {
    /// Whether nothing more will come of it; `all`: its probation included.
    pub fn is_done(&self, all: bool) -> bool {
        let proving = self.probation.as_ref().is_some_and(|probation| probation.outcome == "running");
        self.outcome != "switched" && !(all && proving)
    }

    /// What was wrong with the new version, if it failed its probation.
    pub fn why_not_kept(&self) -> Option<&str> {
        let probation = self.probation.as_ref()?;
        matches!(probation.outcome.as_str(), "rolled-back" | "failed")
            .then(|| probation.reason.as_deref().unwrap_or(&probation.outcome))
    }

    /// As the server gave it.
    ///
    /// # Errors
    ///
    /// None that can happen: it came as JSON.
    pub fn raw(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// As it is told to people.
    pub fn told(&self) -> String {
        render::receipt(self)
    }
}

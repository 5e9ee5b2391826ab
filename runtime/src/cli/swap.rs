//! `wharf swap`: puts another component in the place of a receiver's while messages flow, or the one before it, and prints the
//! receipt.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cli::admin::{Request, Server};
use crate::cli::operator::who;
use crate::cli::swaps::{Swap, receipts};
use crate::cli::table::{printable, printable_json};
use crate::cli::{Usage, progress};

/// Compiling may take minutes, and a call that is running is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(900);
/// How long is waited until it is known what became of the messages around it, unless `--wait` is given.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Which receiver, and what is to come.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The receiver's name in the config
    receiver: String,
    /// The component
    #[arg(value_name = "FILE.wasm", required_unless_present = "rollback", conflicts_with = "rollback")]
    file: Option<PathBuf>,
    /// Bring back the component before the one that runs
    #[arg(long)]
    rollback: bool,
    /// Let the new component import what the old one does not, where the config grants it
    #[arg(long, conflicts_with = "rollback")]
    allow_new_imports: bool,
    /// Let the new version begin without what the old one knows, if that can't be handed over
    #[arg(long)]
    drop_state: bool,
    /// Wait until it is known what became of every message around it, and how its probation ended: badly is exit code 1
    #[arg(long)]
    wait: bool,
    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// What of a receiver is looked at while it is swapped.
#[derive(Deserialize)]
struct Receiver {
    stage: Option<String>,
}

/// Swaps, and prints the receipt.
///
/// # Errors
///
/// Those of [`Server::ask`]; a refusal says why, and its receipt is kept. With `--wait` also a probation that the new version failed.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Args { receiver, file, rollback: _, allow_new_imports, drop_state, wait, json, server } = args;
    let (path, component) = match &file {
        Some(file) => {
            let component = std::fs::read(file).map_err(|error| {
                Usage(format!("failed to read the component {}: {error}", file.display()))
            })?;
            (["admin", "v1", "receivers", &receiver, "component"], Some(component))
        }
        None => (["admin", "v1", "receivers", &receiver, "rollback"], None),
    };
    let method = if component.is_some() { Method::PUT } else { Method::POST };
    let mut request = Request::new(method, &path)
        .query("who", who())
        .query("drop_state", drop_state)
        .query("allow_new_imports", allow_new_imports)
        .within(ANSWER_TIMEOUT);
    if let Some(component) = component {
        request = request.bytes(component);
    }
    let line = progress::line();
    let answer = tokio::select! {
        answer = server.ask(request, &shutdown) => answer?,
        () = show_stage(&server, &receiver, &line, &shutdown) => return Ok(()),
    };
    let mut swap: Swap = answer.read()?;
    let began = Instant::now();
    while !swap.is_done(wait) && (wait || began.elapsed() < SETTLE_TIME) {
        line.set_message("waiting for the messages around it");
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => break,
        }
        let newer = receipts(&server, Some(&receiver), &shutdown).await?;
        swap = newer.into_iter().find(|newer| newer.id == swap.id).unwrap_or(swap);
    }
    line.finish_and_clear();
    let text = if json { format!("{}\n", printable_json(&swap.raw()?)) } else { swap.told() };
    std::io::stdout().write_all(text.as_bytes()).context("failed to print the receipt")?;
    if wait && let Some(why) = swap.why_not_kept() {
        bail!("the new version of receiver {receiver:?} failed its probation: {}", printable(why));
    }
    Ok(())
}

/// Shows on a terminal what is being done, for as long as it lasts.
async fn show_stage(server: &Server, receiver: &str, line: &ProgressBar, shutdown: &CancellationToken) {
    loop {
        sleep(LOOK_EVERY).await;
        if line.is_hidden() {
            continue;
        }
        let path = ["admin", "v1", "receivers", receiver];
        // What is shown is a convenience: whether it works, the swap itself tells.
        let Ok(answer) = server.get(&path, shutdown).await else { continue };
        if let Ok(Receiver { stage: Some(stage) }) = answer.read() {
            line.set_message(format!("{}: {}", printable(receiver), printable(&stage)));
        }
    }
}

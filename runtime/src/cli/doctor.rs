//! `wharf doctor`: looks at a data directory that no server runs on and says what is whole, what is damaged, which offsets are
//! lost, and what a start would make of it. It changes nothing, whatever it finds.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cli::{Usage, progress};
use crate::data_dir::offline::{Offline, OfflineError};

mod examine;
mod render;
mod report;

/// Check a data directory that no server runs on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data directory
    #[arg(value_name = "DATA-DIR")]
    data_dir: PathBuf,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// Prints what was found to standard output.
///
/// # Errors
///
/// [`Usage`] for what is no data directory or is in use; otherwise if something is damaged or can't be read.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let data_dir = Offline::open(&args.data_dir).map_err(not_looked_at)?;
    // A database can only be opened where it may be written to. Removed at the end, also after ctrl-C.
    let scratch = tempfile::Builder::new()
        .prefix("wharf-doctor-")
        .tempdir()
        .context("failed to make a temporary folder for copies of the databases")?;
    let (sender, examined) = oneshot::channel();
    let folder = scratch.path().to_owned();
    let bar = progress::examined();
    let seen = bar.clone();
    // A thread that nobody waits for: it may be in the middle of a large file when the operator loses patience.
    std::thread::Builder::new().name("doctor".to_owned()).spawn(move || {
        let report =
            examine::examine(&data_dir, &folder, |bytes| seen.inc(bytes), |total| seen.set_length(total));
        // Nobody waits for it after ctrl-C.
        let _ = sender.send(report);
    })?;
    let report = tokio::select! {
        report = examined => report.map_err(|_| anyhow!("the check ended early, which is a defect of wharf"))?,
        () = shutdown.cancelled() => bail!("interrupted before everything was looked at"),
    };
    bar.finish_and_clear();
    let report = report.context("failed to look at the data directory")?;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&report).context("failed to write JSON")?;
        format!("{json}\n")
    } else {
        render::page(&report)
    };
    std::io::stdout().write_all(text.as_bytes()).context("failed to print what was found")?;
    if !report.whole {
        bail!("{} is damaged", args.data_dir.display());
    }
    Ok(())
}

fn not_looked_at(error: OfflineError) -> anyhow::Error {
    let is_usage = matches!(error, OfflineError::NotOne { .. } | OfflineError::Locked { .. });
    let text = format!("failed to {:#}", anyhow::Error::new(error));
    if is_usage { Usage(text).into() } else { anyhow!(text) }
}

//! `wharf inspect`: what a component exports, imports and needs, and what Wharf has against it. Needs neither a config nor a
//! server, and runs none of its code.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use tokio_util::sync::CancellationToken;
use wharf_host::LoadError;

use crate::cli::{Usage, offline};

mod render;

/// Show what a component exports, imports and needs.
///
/// Ends with 0 if there is a config with which Wharf would run it, with 1 if Wharf would refuse it whatever it is granted,
/// and with 2 if the file is no component.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cache: offline::Cache,
}

/// Prints what is known about the component to standard output.
///
/// # Errors
///
/// [`Usage`] for a file that is no component; otherwise if Wharf would refuse it.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let offline = args.cache.host()?;
    let inspection = tokio::select! {
        inspection = offline.host.inspect(&args.file) => inspection.map_err(not_inspected)?,
        () = shutdown.cancelled() => bail!("interrupted before {:?} was compiled", args.file),
    };
    let text = if args.json {
        let json = serde_json::to_string_pretty(&inspection).context("failed to write JSON")?;
        format!("{json}\n")
    } else {
        render::page(&args.file.display().to_string(), &inspection)
    };
    std::io::stdout().write_all(text.as_bytes()).context("failed to print what was found")?;
    if !inspection.problems.is_empty() {
        bail!("{:?} would be refused", args.file);
    }
    Ok(())
}

fn not_inspected(error: LoadError) -> anyhow::Error {
    let is_no_component = matches!(error, LoadError::Read { .. } | LoadError::NotAComponent { .. });
    let text = format!("failed to {:#}", anyhow::Error::new(error));
    if is_no_component { Usage(text).into() } else { anyhow!(text) }
}

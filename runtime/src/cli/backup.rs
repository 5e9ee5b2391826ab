//! `wharf backup`: has a running server make a copy of its data directory, which any tool can then take elsewhere.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::cli::admin::{Request, Server};
use crate::cli::table::printable;

/// Full segments are not copied, so that it takes seconds; dead letters and what receivers keep may be gigabytes.
const MAKING_TIMEOUT: Duration = Duration::from_secs(3600);

/// What to do, and with which server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove the backup instead, when it was copied elsewhere
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Answer {
    path: String,
}

/// Has it done and prints the folder of the backup.
///
/// # Errors
///
/// Those of [`Server::post`].
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let path = ["admin", "v1", "backup"];
    let answer = if args.remove {
        args.server
            .ask(Request::new(Method::DELETE, &path), &shutdown)
            .await
            .context("failed to remove the backup")?
    } else {
        args.server
            .ask(Request::new(Method::POST, &path).within(MAKING_TIMEOUT), &shutdown)
            .await
            .context("failed to make a backup")?
    };
    let Answer { path } = answer.read()?;
    writeln!(std::io::stdout(), "{}", printable(&path)).context("failed to print where the backup is")
}

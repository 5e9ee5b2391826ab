//! `wharf status`: asks a running server how it is and prints the answer, for people as a table, for programs as it
//! came. Changes nothing.

use std::io::Write;

use anyhow::Context;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::cli::admin::Server;

mod render;

/// Show what a running server does.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// Print the answer as JSON, as the server gave it
    #[arg(long)]
    json: bool,
}

/// Prints the status of the server to standard output.
///
/// # Errors
///
/// Those of [`Server::get`].
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let answer = args.server.get(&["admin", "v1", "status"], &shutdown).await?;
    let text = if args.json {
        let answer: &RawValue = answer.read()?;
        format!("{answer}\n")
    } else {
        render::table(&answer.read()?)
    };
    std::io::stdout().write_all(text.as_bytes()).context("failed to print the status")
}

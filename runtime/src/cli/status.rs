//! `wharf status`: asks a running server how it is and prints the answer, for people as a table, for programs as it
//! came; once, or again and again. Changes nothing.

use std::io::Write;

use anyhow::Context;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::cli::admin::{Answer, Server};

mod render;
mod watch;

/// Show what a running server does.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// Show it again every second, until ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print the answer as JSON, as the server gave it
    #[arg(long)]
    json: bool,
}

/// Prints the status of the server to standard output.
///
/// # Errors
///
/// Those of [`Server::get`]; with `--watch` only if the first answer does not come.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Args { server, watch, json } = args;
    if watch {
        return watch::run(&server, json, &shutdown).await;
    }
    let text = text(&ask(&server, &shutdown).await?, json)?;
    std::io::stdout().write_all(text.as_bytes()).context("failed to print the status")
}

async fn ask(server: &Server, shutdown: &CancellationToken) -> anyhow::Result<Answer> {
    server.get(&["admin", "v1", "status"], shutdown).await
}

fn text(answer: &Answer, json: bool) -> anyhow::Result<String> {
    if json {
        let answer: &RawValue = answer.read()?;
        Ok(format!("{answer}\n"))
    } else {
        Ok(render::table(&answer.read()?))
    }
}

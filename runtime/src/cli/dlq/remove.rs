//! `wharf dlq drop`: asks nothing, because it wants to be told which.

use anyhow::{Context, bail};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{CHANGE_TIMEOUT, Selection, print};
use crate::cli::admin::{Request, Server};
use crate::cli::table::printable;

/// Which letters.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The receiver, also one that the config does not have any more
    receiver: String,
    #[command(flatten)]
    selection: Selection,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Answer {
    dropped: u64,
}

/// Drops them and prints how many.
pub async fn run(args: Args, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let Args { receiver, selection, json, server } = args;
    let path = ["admin", "v1", "receivers", &receiver, "dead-letters"];
    let mut dropped = 0_u64;
    for (key, value) in selection.parameters() {
        let request = Request::new(Method::DELETE, &path).query(key, value).within(CHANGE_TIMEOUT);
        let answer = server.ask(request, shutdown).await;
        let answer =
            answer.with_context(|| format!("failed to drop dead letters of receiver {receiver:?}"))?;
        dropped = dropped.saturating_add(answer.read::<Answer>()?.dropped);
    }
    let text = if json {
        format!("{}\n", json!({ "receiver": receiver, "dropped": dropped }))
    } else {
        format!("{}: {dropped} dropped\n", printable(&receiver))
    };
    print(&text)?;
    if dropped == 0 && !selection.all {
        bail!("receiver {receiver:?} has no such dead letters");
    }
    Ok(())
}

//! `wharf send`: sends lines of JSON from standard input as messages of one agent and one data type, and sums up what
//! became of them. It is a carrier, not the agent: it neither pings nor says good-bye for it.

use std::{
    io::{Write, stdin, stdout},
    time::Instant,
};

use anyhow::{Context, anyhow, bail};
use tokio_util::sync::CancellationToken;
use wharf_protocol::AgentId;

use crate::{
    cli::arguments::{Format, agent_id, data_type},
    client::{DEFAULT_ENDPOINT, Endpoint},
};
use transfer::{Settings, Transfer};

mod console;
mod input;
mod tally;
mod transfer;

/// Send lines of JSON from standard input as messages.
///
/// A line that has a text `message_id` gives its message that id, so that lines can be sent again and are stored once (see
/// `dedup-window` in the config of the server). Other messages get ids that no other run gives.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id of the agent whose messages these are
    #[arg(long, value_parser = agent_id)]
    id: AgentId,
    /// Data type of the messages
    #[arg(long = "type", value_name = "TYPE", value_parser = data_type)]
    data_type: String,
    /// Address of the server
    #[arg(long, default_value = DEFAULT_ENDPOINT)]
    url: Endpoint,
    /// Encoding on the wire; the input is JSON in any case
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Messages in one frame at most. A frame goes out with fewer when no more can be read without waiting
    // At 64 what a frame costs by itself no longer shows beside its messages, and a lost connection repeats few of them.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Sends until standard input ends, then prints the summary to standard output.
///
/// # Errors
///
/// When a message was refused or the server is out of reach; the summary is printed all the same.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let started = Instant::now();
    let lines = input::read(stdin()).context("failed to start reading standard input")?;
    let mut transfer = Transfer::new(Settings {
        endpoint: args.url,
        agent: args.id,
        data_type: args.data_type,
        encoding: args.format.into(),
        batch: usize::from(args.batch),
    });
    let ended = tokio::select! {
        ended = transfer.run(lines) => ended.map_err(|error| anyhow!("failed to {}", error.with_causes())),
        () = shutdown.cancelled() => Err(anyhow!("interrupted")),
    };
    let tally = transfer.into_tally();
    let summary = tally.summary(started.elapsed());
    let text = if args.json { serde_json::to_string(&summary)? } else { summary.to_string() };
    writeln!(stdout(), "{text}").context("failed to print the summary")?;
    ended?;
    match tally.refused() {
        0 => Ok(()),
        refused => bail!("not all lines were accepted: {refused} refused"),
    }
}

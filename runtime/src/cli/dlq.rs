//! `wharf dlq`: the dead letters of a running server's receivers. One file a subcommand; here is what they share.

use std::io::{ErrorKind, Write};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::cli::admin::{Request, Server};
use crate::letter_ids::{self, MAX_RANGES};

mod list;
mod redrive;
mod remove;
mod show;

/// A page has some 1 MiB of texts, each byte of which JSON may escape with six.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// A million letters, which is the most that there may be, take some seconds to be dropped.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);

/// Look at dead letters, give them to their receiver again, or drop them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the dead letters of a receiver, or the receivers that have any
    List(list::Args),
    /// Show everything that is known of a dead letter, and its message
    Show(show::Args),
    /// Give dead letters to their receiver again; one is deleted when it is finished
    Redrive(redrive::Args),
    /// Drop dead letters for good
    Drop(remove::Args),
}

/// Runs the subcommand.
///
/// # Errors
///
/// Those of [`Server::ask`], and when dead letters that were named are not there.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    match args.command {
        Command::List(args) => list::run(args, &shutdown).await,
        Command::Show(args) => show::run(args, &shutdown).await,
        Command::Redrive(args) => redrive::run(args, &shutdown).await,
        Command::Drop(args) => remove::run(args, &shutdown).await,
    }
}

/// Which letters.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Selection {
    /// Their numbers, such as 17 or 10-20
    #[arg(value_name = "ID", value_delimiter = ',', value_parser = letter_ids::parse_one)]
    ids: Vec<RangeInclusive<u64>>,
    /// All that there are
    #[arg(long)]
    all: bool,
}

impl Selection {
    /// The numbers as ranges; every number for all.
    fn ranges(&self) -> Vec<RangeInclusive<u64>> {
        if self.all { vec![0..=u64::MAX] } else { letter_ids::merge(self.ids.clone()) }
    }

    /// As parameters, for as many requests as they need.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        if self.all {
            return vec![("all", true.to_string())];
        }
        self.ranges().chunks(MAX_RANGES).map(|ranges| ("ids", letter_ids::write(ranges))).collect()
    }
}

/// Some letters, as they are listed.
#[derive(Deserialize)]
struct Page<T> {
    letters: Vec<T>,
    damaged: Vec<Damaged>,
    next: Option<u64>,
}

#[derive(Deserialize, serde::Serialize)]
struct Damaged {
    id: u64,
    problem: String,
}

/// A page of the letters of a receiver with these numbers.
async fn page<T: DeserializeOwned>(
    server: &Server,
    receiver: &str,
    ids: RangeInclusive<u64>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Page<T>> {
    let path = ["admin", "v1", "receivers", receiver, "dead-letters"];
    let request = Request::new(Method::GET, &path).query("from", ids.start()).query("to", ids.end());
    let answer = server.ask(request.up_to(MAX_PAGE_BYTES), shutdown).await;
    answer.with_context(|| format!("failed to list the dead letters of receiver {receiver:?}"))?.read()
}

/// Prints; says whether there is anybody who still reads, as behind `head` there is not.
fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("failed to print the dead letters"),
    }
}

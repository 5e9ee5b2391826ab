//! `wharf run`: the server.

use std::io::Write;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::server::{self, Addresses};

/// Run the server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config.
    #[arg(long, value_name = "FILE", default_value = "wharf.toml", env = "WHARF_CONFIG")]
    pub config: PathBuf,
}

/// Runs the server until it is told to stop.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    server::run(config, announce, shutdown).await?;
    Ok(())
}

/// Says on standard output where the server can be reached, for people and for programs that started it.
fn announce(addresses: &Addresses) {
    let Addresses { agents, admin, pages } = addresses;
    let mut text = format!("listening agents http://{agents}\nlistening admin http://{admin}\n");
    for page in pages {
        text.push_str(&format!("page http://{agents}/r/{page}/\n"));
    }
    // Nobody may be reading: the server runs all the same.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

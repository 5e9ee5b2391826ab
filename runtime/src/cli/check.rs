//! `wharf check`: everything that `wharf run` would refuse, without starting anything.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use crate::components;
use crate::config::Config;

/// Check a config and its components without starting anything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config.
    #[arg(long, value_name = "FILE", default_value = "wharf.toml", env = "WHARF_CONFIG")]
    pub config: PathBuf,
}

/// Loads the config and every component, and says what was found. Compiled components go to the cache in the data
/// directory, which a running server may be using: a check before a restart makes the restart quick.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    components::check_paths(&config).await?;
    let host = components::host(&config, None)?;
    // What was swapped in on a server is not looked at: the files of the config are.
    let instead = BTreeMap::new();
    let loaded = tokio::select! {
        loaded = components::load(&host, &config.file, &config.receivers, &instead) => loaded?,
        () = shutdown.cancelled() => bail!("interrupted before all components were compiled"),
    };
    let mut text =
        format!("{}: {} data types, {} receivers\n", args.config.display(), config.types.len(), loaded.len());
    for warning in config.warnings() {
        text.push_str(&format!("  warning: {warning}\n"));
    }
    for fed in &loaded {
        let does = [
            (fed.receiver.serves_pages(), ", serves a page"),
            (fed.receiver.hears_presence(), ", hears of agents"),
            (fed.settings.tick.is_some(), ", ticks"),
            (fed.receiver.hands_over(), ", hands over its state"),
            (fed.settings.watch, ", its file is watched"),
        ];
        let does: String = does.iter().filter(|(does, _)| *does).map(|(_, what)| *what).collect();
        let digest: String = fed.receiver.digest().chars().take(12).collect();
        text.push_str(&format!(
            "  {} {digest} on {}{does}\n",
            fed.settings.name,
            fed.settings.types.join(", ")
        ));
        for warning in fed.receiver.warnings() {
            text.push_str(&format!("    warning: {warning}\n"));
        }
    }
    std::io::stdout().write_all(text.as_bytes()).context("failed to print what was found")
}

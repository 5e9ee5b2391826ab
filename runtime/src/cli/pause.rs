//! `wharf pause` and `wharf resume`: stop calling a receiver, and call it again. Its messages wait in the log meanwhile.

use std::io::Write;

use anyhow::Context;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::cli::admin::Server;

/// Which receiver of which server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The receiver's name in the config
    receiver: String,
    #[command(flatten)]
    server: Server,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Stop calling it, after the call that is running, until it is resumed; also after a restart.
    Pause,
    /// Call it again, paused or quarantined.
    Resume,
}

#[derive(Deserialize)]
struct Answer {
    receiver: String,
    state: String,
}

/// Has it done and prints the state that the receiver is in then.
///
/// # Errors
///
/// Those of [`Server::post`].
pub async fn run(action: Action, args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let verb = match action {
        Action::Pause => "pause",
        Action::Resume => "resume",
    };
    let answer = args.server.post(&["admin", "v1", "receivers", &args.receiver, verb], &shutdown).await;
    let answer = answer.with_context(|| format!("failed to {verb} receiver {:?}", args.receiver))?;
    let Answer { receiver, state } = answer.read()?;
    writeln!(std::io::stdout(), "{receiver}: {state}").context("failed to print the state")
}

//! The command line. One file a command; here is what they share: the list, ctrl-C, and exit codes.
//!
//! Exit codes: 0 done, 1 it failed, 2 the call or the config was wrong.

mod admin;
pub mod agent;
pub mod backup;
pub mod bench;
pub mod check;
pub mod compile_component;
pub mod dlq;
pub mod doctor;
pub mod inspect;
pub mod pause;
pub mod reload;
pub mod run;
pub mod seek;
pub mod send;
pub mod status;
pub mod swap;
pub mod swaps;

mod arguments;
mod offline;
mod operator;
mod progress;
mod table;
mod terminal;
mod time;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::table::printable;
use crate::components::ComponentErrors;
use crate::config::ConfigError;
use crate::server::ServeError;

/// Exit code for what is wrong with the call or the config.
const EXIT_USAGE: u8 = 2;
/// Exit code after a second ctrl-C: 128 and the number of the signal, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// Takes in the messages of fleets of agents, keeps them, and feeds them to sandboxed WebAssembly receivers.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Run(run::Args),
    /// Check a config and its components without starting anything.
    Check(check::Args),
    /// Show what a component exports, imports and needs.
    Inspect(inspect::Args),
    /// Check a data directory that no server runs on.
    Doctor(doctor::Args),
    /// Show what a running server does.
    Status(status::Args),
    /// Stop calling a receiver; its messages wait.
    Pause(pause::Args),
    /// Call a receiver again that was paused or is quarantined.
    Resume(pause::Args),
    /// Have a running server make a backup in its data directory.
    Backup(backup::Args),
    /// Replace the component of a receiver while messages flow.
    Swap(swap::Args),
    /// Show what was swapped, and what became of the messages around it.
    Swaps(swaps::Args),
    /// Have a running server read its config again, without dropping a connection.
    Reload(reload::Args),
    /// Move the cursors of a paused receiver, so that it gets messages again or not at all.
    Seek(seek::Args),
    /// Look at dead letters, give them to their receiver again, or drop them.
    Dlq(dlq::Args),
    /// Send lines of JSON from standard input as messages.
    Send(send::Args),
    /// Report this machine's own metrics as an agent.
    Agent(agent::Args),
    /// Measure how many messages a running server acknowledges.
    Bench(bench::Args),
    #[command(name = crate::components::COMPILE_COMMAND, hide = true)]
    CompileComponent(compile_component::Args),
}

/// The call was wrong: what, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Cli {
    /// Runs the command and says how it ended.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            // The child that compiles has neither runtime nor log: it must stay small.
            Command::CompileComponent(args) => compile_component::run(&args),
            command => tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(anyhow::Error::from)
                .and_then(|runtime| runtime.block_on(command.run())),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&error),
        }
    }
}

impl Command {
    async fn run(self) -> anyhow::Result<()> {
        crate::telemetry::start_logging();
        let shutdown = shutdown_signal()?;
        match self {
            Command::Run(args) => run::run(args, shutdown).await,
            Command::Check(args) => check::run(args, shutdown).await,
            Command::Inspect(args) => inspect::run(args, shutdown).await,
            Command::Doctor(args) => doctor::run(args, shutdown).await,
            Command::Status(args) => status::run(args, shutdown).await,
            Command::Pause(args) => pause::run(pause::Action::Pause, args, shutdown).await,
            Command::Resume(args) => pause::run(pause::Action::Resume, args, shutdown).await,
            Command::Backup(args) => backup::run(args, shutdown).await,
            Command::Swap(args) => swap::run(args, shutdown).await,
            Command::Swaps(args) => swaps::run(args, shutdown).await,
            Command::Reload(args) => reload::run(args, shutdown).await,
            Command::Seek(args) => seek::run(args, shutdown).await,
            Command::Dlq(args) => dlq::run(args, shutdown).await,
            Command::Send(args) => send::run(args, shutdown).await,
            Command::Agent(args) => agent::run(args, shutdown).await,
            Command::Bench(args) => bench::run(args, shutdown).await,
            Command::CompileComponent(args) => compile_component::run(&args),
        }
    }
}

/// Cancelled by the first SIGTERM or ctrl-C. After it another ctrl-C ends the process at once; another SIGTERM does not,
/// because whoever supervises a process may well pass on a ctrl-C that the terminal has already sent to it.
fn shutdown_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
        interrupt.recv().await;
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(shutdown)
}

/// Says on standard error what went wrong, also when logging is filtered out.
fn report(error: &anyhow::Error) -> ExitCode {
    let serve = error.downcast_ref::<ServeError>();
    let config = error.is::<ConfigError>()
        || error.is::<ComponentErrors>()
        || matches!(serve, Some(ServeError::Components(_)));
    // What comes straight from the library is a fragment; commands word their own errors whole.
    let failed = if config || serve.is_some() { "failed to " } else { "" };
    // Paths and arguments may hold anything, and an error may quote them. Some have several lines.
    let text: Vec<_> = format!("{error:#}").lines().map(printable).collect();
    // Nobody may be able to take it: the exit code says it too.
    let _ = writeln!(std::io::stderr(), "wharf: {failed}{}", text.join("\n"));
    if config || error.is::<Usage>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
}

//! `wharf bench`: how many messages a second a running server acknowledges, and after how long. Each connection keeps its
//! window full and sends on with every answer (a closed loop), so the latency is that of a server under full load; or it sends at
//! a fixed rate, so that it is that of a server with as much to do as in another run.

use std::{
    io::{Write, stdout},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{
        Usage,
        arguments::{Format, data_type},
        progress,
    },
    client::{ClientError, Connection, DEFAULT_ENDPOINT, Endpoint},
};
use load::{Load, Pace};
use report::Setup;

mod load;
mod messages;
mod report;

/// The longest run: a day.
const LONGEST_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The largest frame that servers take unless their config says otherwise.
const MAX_FRAME_BYTES: u64 = 8 * 1024 * 1024;

/// Frames are made before the run, so that making them does not slow it. A bound on the memory that this takes.
const MAX_PREPARED_BYTES: u64 = 512 * 1024 * 1024;

/// Measure how many messages a running server acknowledges.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the server
    #[arg(long, default_value = DEFAULT_ENDPOINT)]
    url: Endpoint,
    /// Data type of the messages
    #[arg(long = "type", value_name = "TYPE", value_parser = data_type)]
    data_type: String,
    /// Connections that send at once
    // Enough to keep a server on a few cores busy, few enough to leave the load generator cheap.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Agents that the messages are from, spread over the connections
    // Their lanes are hashes: of 256 agents nearly every one of the 64 lanes gets some.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    agents: u32,
    /// Messages in each frame
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Bytes of each message's body, as JSON
    #[arg(long, value_name = "BYTES", default_value_t = 300, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    size: u32,
    /// Encoding on the wire
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// How long to send
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// Frames that each connection has under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    window: u16,
    /// Messages a second to send, all connections together; without it, as many as the windows let through
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Sends for the duration, waits for what is unanswered, and prints the result to standard output.
///
/// # Errors
///
/// [`Usage`] for numbers that do not go together; otherwise when a message was refused or a connection broke. The result
/// is printed all the same once the sending has begun.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup {
        connections: args.connections,
        agents: args.agents,
        batch: args.batch,
        size_bytes: args.size,
        window: args.window,
        encoding: args.format.into(),
        rate: args.rate,
    };
    check(&setup)?;
    let mut loads = Vec::new();
    for frames in messages::prepare(&setup, &args.data_type).context("failed to prepare messages")? {
        let connection = tokio::select! {
            opened = Connection::open(&args.url, setup.window.into()) => opened.map_err(failed)?,
            () = shutdown.cancelled() => bail!("interrupted before all connections were open"),
        };
        loads.push(Load::new(connection, frames, setup.batch));
    }

    let latency = load::histogram().context("failed to prepare a histogram")?;
    let bar = progress::acknowledged();
    let started = Instant::now();
    let mut running = JoinSet::new();
    for (load, number) in loads.into_iter().zip(0..) {
        let pace = setup.pace(started, number);
        let (latency, bar, shutdown) = (latency.clone(), bar.clone(), shutdown.clone());
        running.spawn(async move { load.run(latency, pace, started + args.duration, &bar, &shutdown).await });
    }
    let outcomes = running.join_all().await;
    bar.finish_and_clear();

    let (report, failure) = report::sum_up(setup, latency, started, outcomes);
    let text = if args.json { serde_json::to_string(&report)? } else { report.to_string() };
    writeln!(stdout(), "{text}").context("failed to print the result")?;
    if let Some(failure) = failure {
        return Err(failed(failure));
    }
    match report.refused() {
        0 => Ok(()),
        refused => bail!("not all messages were accepted: {refused} refused"),
    }
}

impl Setup {
    /// When a connection sends its frames, if there is a rate: all at the same pace, and one after the other.
    fn pace(&self, started: Instant, connection: u16) -> Option<Pace> {
        let turn = Duration::from_secs(1).saturating_mul(self.batch.into()) / self.rate?;
        let due = started + turn.saturating_mul(connection.into());
        Some(Pace { due, pause: turn.saturating_mul(self.connections.into()) })
    }
}

/// What a single argument cannot be checked for.
fn check(setup: &Setup) -> Result<(), Usage> {
    let (agents, connections) = (setup.agents, u32::from(setup.connections));
    if agents < connections {
        return Err(Usage(format!(
            "failed to spread {agents} agents over {connections} connections: --agents must not be less than --connections"
        )));
    }
    let message = u64::from(setup.size_bytes) + messages::OVERHEAD_BYTES;
    let frame = u64::from(setup.batch) * message;
    if frame > MAX_FRAME_BYTES {
        return Err(Usage(format!(
            "failed to fit --batch {} of --size {} into a frame of {MAX_FRAME_BYTES} bytes",
            setup.batch, setup.size_bytes
        )));
    }
    let prepared = (u64::from(agents) * message).max(u64::from(connections) * frame);
    if prepared > MAX_PREPARED_BYTES {
        return Err(Usage(format!(
            "failed to prepare {prepared} bytes of frames, more than {MAX_PREPARED_BYTES}: give smaller --agents, --connections, --batch or --size"
        )));
    }
    Ok(())
}

fn failed(error: ClientError) -> anyhow::Error {
    anyhow!("failed to {}", error.with_causes())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() || duration > LONGEST_DURATION {
        return Err(format!(
            "expected more than 0s and at most {}",
            humantime::format_duration(LONGEST_DURATION)
        ));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use wharf_protocol::Encoding;

    use super::*;

    const SETUP: Setup = Setup {
        connections: 8,
        agents: 256,
        batch: 1,
        size_bytes: 300,
        window: 64,
        encoding: Encoding::Json,
        rate: None,
    };

    #[test]
    fn numbers_that_do_not_go_together_are_the_callers_mistake() {
        assert!(check(&SETUP).is_ok());
        for (setup, named) in [
            (Setup { agents: 7, ..SETUP }, "--agents"),
            (Setup { batch: 10_000, size_bytes: 1_000, ..SETUP }, "--batch 10000"),
            (Setup { agents: 1_000_000, size_bytes: 1_000_000, ..SETUP }, "--agents"),
            (Setup { connections: 10_000, agents: 10_000, batch: 1_000, ..SETUP }, "--connections"),
        ] {
            let usage = check(&setup).unwrap_err();
            assert!(usage.0.contains(named), "{usage} does not name {named}");
        }
    }

    #[test]
    fn connections_share_a_rate_and_take_turns() {
        let setup = Setup { connections: 4, agents: 4, batch: 10, rate: Some(1_000), ..SETUP };
        let started = Instant::now();
        for (connection, first) in [(0, 0), (1, 10), (3, 30)] {
            let pace = setup.pace(started, connection).unwrap();
            assert_eq!(pace.due - started, Duration::from_millis(first));
            assert_eq!(pace.pause, Duration::from_millis(40));
        }
        assert!(SETUP.pace(started, 0).is_none());
    }

    #[test]
    fn durations_need_a_unit_and_an_end() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
        for text in ["5", "0s", "2days", "soon", ""] {
            assert!(duration(text).is_err(), "{text:?} was taken");
        }
    }
}

//! `wharf bench`: how many messages a running server acknowledges, and after how long. With a rate it is an open loop: frames
//! are due at times fixed beforehand, and latencies count from then, so that a stall shows in every frame that it delayed
//! (else the load would omit just what it should measure). Without one, each connection keeps its window full: a closed loop,
//! which finds how much a server takes, and whose latencies are those under full load, from sending on.

use std::{
    io::{Write, stderr, stdout},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{
        Usage,
        arguments::{Format, data_type},
        progress,
    },
    client::{ClientError, Connection, DEFAULT_ENDPOINT, Endpoint},
    open_files,
};
use latencies::Recorders;
use live::Live;
use load::{Load, Pace};
use report::{Report, Setup, Span};
use schedule::{Rate, Schedule};
use tally::Tally;

mod latencies;
mod live;
mod load;
mod messages;
mod report;
mod schedule;
mod tally;
mod timer;

/// The longest run: a day.
const LONGEST_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The largest frame that servers take unless their config says otherwise.
const MAX_FRAME_BYTES: u64 = 8 * 1024 * 1024;

/// Frames are made before the run, so that making them does not slow it. A bound on the memory that this takes.
const MAX_PREPARED_BYTES: u64 = 512 * 1024 * 1024;

/// Connections where nothing else is said: enough to keep a server on a few cores busy, few enough to leave the load
/// generator cheap.
const DEFAULT_CONNECTIONS: u16 = 8;

/// The highest rate that can be asked for, far above what one client can send.
const MAX_RATE: u32 = 100_000_000;

/// Measure how many messages a running server acknowledges, and after how long.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the server
    #[arg(long, default_value = DEFAULT_ENDPOINT)]
    url: Endpoint,
    /// Data type of the messages
    // What `wharf agent` sends too.
    #[arg(long = "type", value_name = "TYPE", default_value = "system_metrics", value_parser = data_type)]
    data_type: String,
    /// Agents that the messages are from, spread over the connections
    // Their lanes are hashes: of 256 agents nearly every one of the 64 lanes gets some.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    agents: u32,
    /// Connections that send at once [default: 8, or as many as there are agents]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: Option<u16>,
    /// Messages a second to offer, all connections together, whatever the server does; or as many as the windows let through
    #[arg(long, value_name = "N|max", default_value = "max", value_parser = rate)]
    rate: Offer,
    /// Messages in each frame
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Bytes of each message's body, as JSON
    #[arg(long, value_name = "BYTES", default_value_t = 300, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    size: u32,
    /// Encoding on the wire
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// How long to send and count
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long to send before anything is counted
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration_or_none)]
    warm_up: Duration,
    /// Frames that each connection has under way at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    window: u16,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How much is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Max,
    PerSecond(u32),
}

impl Args {
    fn setup(&self) -> Setup {
        let connections = self
            .connections
            .unwrap_or_else(|| DEFAULT_CONNECTIONS.min(u16::try_from(self.agents).unwrap_or(u16::MAX)));
        Setup {
            url: self.url.to_string(),
            data_type: self.data_type.clone(),
            encoding: self.format.into(),
            connections,
            agents: self.agents,
            batch: self.batch,
            size_bytes: self.size,
            window: self.window,
            rate: match self.rate {
                Offer::Max => None,
                Offer::PerSecond(rate) => Some(rate),
            },
            warm_up: self.warm_up,
            duration: self.duration,
        }
    }
}

/// Sends for the duration, waits for what is unanswered, and prints the result to standard output.
///
/// # Errors
///
/// [`Usage`] for numbers that do not go together; otherwise when the server is out of reach, a message was refused or not
/// answered, or a connection broke. The result is printed all the same once the sending has begun.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let setup = args.setup();
    check(&setup)?;
    open_files::raise_limit();
    let frames = messages::prepare(&setup).context("failed to prepare messages")?;
    let mut connections = Vec::new();
    for _ in 0..setup.connections {
        let connection = tokio::select! {
            opened = Connection::open(&args.url, setup.window.into()) => opened.map_err(failed)?,
            () = shutdown.cancelled() => bail!("interrupted before all connections were open"),
        };
        connections.push(connection);
    }

    let bar = progress::line();
    let live = (!bar.is_hidden()).then(Live::default);
    let recorders = Recorders::new(setup.connections).context("failed to prepare histograms")?;
    let started = Instant::now();
    let counted_from = started + setup.warm_up;
    let until = counted_from + setup.duration;
    let showing = live
        .clone()
        .map(|live| tokio::spawn(live.show(bar.clone(), started, setup.warm_up + setup.duration)));
    let cpu_before = tokio::spawn(async move {
        sleep_until(counted_from).await;
        cpu_time()
    });
    let mut running = JoinSet::new();
    for (((connection, frames), number), recorder) in
        connections.into_iter().zip(frames).zip(0..).zip(recorders.each())
    {
        let tally = Tally::new(counted_from, setup.batch, recorder.clone(), live.clone());
        let load = Load::new(connection, frames, setup.pace(started, number), tally);
        running.spawn(load.context("failed to make a timer")?.run(until, shutdown.clone()));
    }
    let loads = running.join_all().await;
    let ended = Instant::now();
    let cpu_after = cpu_time();
    if let Some(showing) = showing {
        showing.abort();
    }
    bar.finish_and_clear();
    let loads = loads.into_iter().collect::<Result<Vec<_>, _>>().context("failed to use a timer")?;

    // Earlier than planned if someone stopped it, or no connection was left.
    let until = loads.iter().map(|load| load.until).fold(ended.min(until), Instant::min);
    let tallies = loads.into_iter().map(|load| load.settle(until)).collect();
    let cpu = if cpu_before.is_finished() { cpu_after.saturating_sub(cpu_before.await?) } else { cpu_after };
    let span = Span { counted_from, until, interrupted: shutdown.is_cancelled(), cpu };
    let latencies = recorders.sum().context("failed to add up histograms")?;
    let (report, failure) = Report::new(setup, span, tallies, &latencies);
    let text = if args.json { serde_json::to_string(&report)? } else { report.to_string() };
    writeln!(stdout(), "{text}").context("failed to print the result")?;
    if let Some(failure) = failure {
        // Nobody is left to be told that standard error is gone.
        let _ = writeln!(stderr(), "a connection broke: failed to {}", failure.with_causes());
    }
    match report.shortcomings() {
        None => Ok(()),
        Some(shortcomings) => bail!("not all messages were accepted: {shortcomings}"),
    }
}

impl Setup {
    /// When a connection sends its frames.
    fn pace(&self, started: Instant, connection: u16) -> Pace {
        match self.rate {
            None => Pace::Windows { not_before: started },
            Some(messages_per_second) => {
                let rate = Rate { messages_per_second, batch: self.batch, connections: self.connections };
                Pace::Rate(Schedule::new(started, rate, connection))
            }
        }
    }
}

/// What this process has used of processors so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
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

fn rate(text: &str) -> Result<Offer, String> {
    if text == "max" {
        return Ok(Offer::Max);
    }
    match text.parse() {
        Ok(rate @ 1..=MAX_RATE) => Ok(Offer::PerSecond(rate)),
        Ok(_) | Err(_) => Err(format!("expected `max` or 1 to {MAX_RATE} messages a second")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = duration_or_none(text)?;
    if duration.is_zero() { Err("expected more than 0s".to_owned()) } else { Ok(duration) }
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST_DURATION {
        return Err(format!("expected at most {}", humantime::format_duration(LONGEST_DURATION)));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests;

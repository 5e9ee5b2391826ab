//! `wharf agent`: a real agent. Reports the host it runs on as `system_metrics`, for as long as it is let, through
//! whatever happens to the server or the network in between.

use std::{collections::HashSet, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, System};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wharf_protocol::{AgentId, Answer, Body, Call, Code, Encoding, Limits, Message, Refusal, Request};

use crate::{
    backoff::Backoff,
    cli::{
        Usage,
        arguments::{Format, agent_id},
    },
    client::{ClientError, Connection, DEFAULT_ENDPOINT, Endpoint, Frame, is_transient},
    unix_time::unix_milliseconds,
};
use outbox::{Outbox, Sequence};
use sample::{Report, Sample};

mod outbox;
mod sample;
mod sampling;

/// What this agent sends.
const DATA_TYPE: &str = "system_metrics";

/// After so long without a message the agent says that it is alive. Servers take an agent for gone after 7 s, so one lost
/// ping is forgiven.
const PING_AFTER: Duration = Duration::from_secs(3);

/// Messages that wait for their acknowledgement: an hour of them at one a second, in some 2 MiB.
const MAX_UNACKNOWLEDGED: usize = 3_600;

/// Frames that may be unanswered. One is usual; more matter only after an outage, to catch up.
const MAX_IN_FLIGHT: usize = 64;

/// The first pause before connecting again: a server that is restarted is back soon.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause before connecting again. A server that was away for long is found again within this, and a thousand
/// waiting agents cost it some forty connections a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long a stopping agent waits for the answer to its good-bye.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest pause that a server can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The longest interval: a day. Beyond this a presence without values says nothing of the host.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Report this machine's own metrics as an agent.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the server
    #[arg(long, default_value = DEFAULT_ENDPOINT)]
    url: Endpoint,
    /// Id to report as [default: the name of this host]
    #[arg(long, value_parser = agent_id)]
    id: Option<AgentId>,
    /// Time between two reports, e.g. 500ms or 10s
    #[arg(long, default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Encoding on the wire
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

/// Reports until it is told to stop, then says good-bye.
///
/// # Errors
///
/// [`Usage`] where no id is given and the host has no usable name; otherwise only when the host cannot be read. A server
/// that is away is no error.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let id = args.id.map_or_else(host_id, Ok)?;
    let samples = sampling::start(args.interval).context("failed to read the state of this host")?;
    info!(agent.id = id.as_str(), server.url = %args.url, interval = ?args.interval, "agent started");
    let mut agent = Agent {
        id,
        endpoint: args.url,
        encoding: args.format.into(),
        run: rand::random(),
        samples,
        outbox: Outbox::new(MAX_UNACKNOWLEDGED),
        backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        warned: HashSet::new(),
    };
    while let Some(mut connection) = agent.connect(&shutdown).await {
        info!(server.url = %agent.endpoint, waiting = agent.outbox.len(), "connected");
        let Err(error) = agent.report(&mut connection, &shutdown).await else {
            agent.leave(connection).await;
            break;
        };
        info!(error = error.with_causes(), "disconnected");
        agent.outbox.rewind();
        if agent.pause(&shutdown).await.is_none() {
            break;
        }
    }
    agent.tell_dropped();
    info!(unacknowledged = agent.outbox.len(), "agent stopped");
    Ok(())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (MINIMUM_CPU_UPDATE_INTERVAL..=LONGEST_INTERVAL).contains(&interval) {
        Ok(interval)
    } else {
        let shortest = humantime::format_duration(MINIMUM_CPU_UPDATE_INTERVAL);
        Err(format!("expected {shortest} to {}", humantime::format_duration(LONGEST_INTERVAL)))
    }
}

fn host_id() -> anyhow::Result<AgentId> {
    let advice = "give one with --id";
    let name = System::host_name().map_err(|error| {
        Usage(format!("failed to take the name of this host as the agent's id: {error}; {advice}"))
    })?;
    let id = AgentId::new(&name).map_err(|refusal| {
        Usage(format!(
            "failed to take the name of this host, {name:?}, as the agent's id: {}; {advice}",
            refusal.message
        ))
    })?;
    Ok(id)
}

struct Agent {
    id: AgentId,
    endpoint: Endpoint,
    encoding: Encoding,
    /// Makes the ids of this run's messages differ from those of any other.
    run: u64,
    samples: mpsc::Receiver<Sample>,
    outbox: Outbox<Request>,
    backoff: Backoff,
    /// Refusals that were warned about: they come with every message, and the first one says it all.
    warned: HashSet<Code>,
}

/// What an unanswered frame was.
enum Sent {
    Data(Sequence),
    Ping,
    Bye,
}

impl Agent {
    /// A connection, however long that takes, or nothing when the agent is told to stop.
    async fn connect(&mut self, shutdown: &CancellationToken) -> Option<Connection<Sent>> {
        let endpoint = self.endpoint.clone();
        let mut told = false;
        loop {
            let opened = tokio::select! {
                opened = self.sampling_while(Connection::open(&endpoint, MAX_IN_FLIGHT)) => opened,
                () = shutdown.cancelled() => return None,
            };
            let error = match opened {
                Ok(connection) => return Some(connection),
                Err(error) => error,
            };
            if !told {
                told = true;
                warn!(error = error.with_causes(), "server out of reach, trying on");
            }
            self.pause(shutdown).await?;
        }
    }

    /// Waits a while, longer each time until the server accepts something, or gives nothing when told to stop.
    async fn pause(&mut self, shutdown: &CancellationToken) -> Option<()> {
        let pause = self.backoff.next_pause();
        tokio::select! {
            () = self.sampling_while(sleep(pause)) => Some(()),
            () = shutdown.cancelled() => None,
        }
    }

    /// Does the work, and keeps what is sampled meanwhile.
    async fn sampling_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(sample) = self.samples.recv() => self.keep(sample),
            }
        }
    }

    /// Reports over a connection until it ends, or without an error until the agent is told to stop.
    async fn report(
        &mut self,
        connection: &mut Connection<Sent>,
        shutdown: &CancellationToken,
    ) -> Result<(), ClientError> {
        self.tell_dropped();
        let mut resume_at = None;
        let mut last_sent = Instant::now();
        loop {
            while resume_at.is_none()
                && connection.has_room()
                && let Some((sequence, request)) = self.outbox.take_next()
            {
                let frame = Frame::encode(std::slice::from_ref(request), self.encoding);
                connection.send(frame, Sent::Data(sequence)).await;
                last_sent = Instant::now();
            }
            let idle = connection.in_flight() == 0;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(sample) = self.samples.recv() => self.keep(sample),
                answer = connection.answer() => {
                    let (sent, answer) = answer?;
                    // One pause for all that is refused before it is over: they were sent before anyone knew.
                    if let Some(asked_for) = self.settle(&sent, answer)
                        && resume_at.is_none()
                    {
                        resume_at = Some(Instant::now() + asked_for.max(self.backoff.next_pause()));
                    }
                }
                () = sleep_until(last_sent + PING_AFTER), if connection.has_room() => {
                    connection.send(self.frame(Call::Ping { agent: self.id.clone() }), Sent::Ping).await;
                    last_sent = Instant::now();
                }
                () = sleep_until(resume_at.unwrap_or(last_sent)), if resume_at.is_some() && idle => {
                    self.outbox.rewind();
                    resume_at = None;
                }
            }
        }
    }

    /// Leaves in an orderly way, so that the server need not wait to see the agent gone.
    async fn leave(&mut self, mut connection: Connection<Sent>) {
        let farewell = async {
            if connection.has_room() {
                connection.send(self.frame(Call::Bye { agent: self.id.clone() }), Sent::Bye).await;
            }
            while connection.in_flight() > 0
                && let Ok((sent, answer)) = connection.answer().await
            {
                self.settle(&sent, answer);
            }
        };
        // A server that does not answer learns of it from the silence.
        let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
        connection.close().await;
    }

    /// Takes an answer for what it means. Where the server cannot take messages now, gives the pause that it asks for.
    fn settle(&mut self, sent: &Sent, answer: Answer) -> Option<Duration> {
        let refusal = match answer {
            Answer::Success { .. } => None,
            Answer::Error { refusal, .. } => Some(refusal),
            Answer::Batch { errors, .. } => errors.into_iter().next().map(|(_, refusal)| refusal),
        };
        match refusal {
            None => self.backoff.reset(),
            Some(refusal) if is_transient(refusal.code) => {
                let Sent::Data(_) = sent else { return None };
                let asked_for = Duration::from_millis(refusal.retry_after_ms.unwrap_or_default());
                return Some(asked_for.min(LONGEST_RETRY_AFTER));
            }
            Some(refusal) => self.warn_once(&refusal),
        }
        if let Sent::Data(sequence) = sent {
            self.outbox.settle(*sequence);
        }
        None
    }

    fn keep(&mut self, sample: Sample) {
        let body = match body(sample) {
            Ok(body) => body,
            Err(refusal) => return self.warn_once(&refusal),
        };
        let sent_at = Some(unix_milliseconds());
        self.outbox.push(|sequence| {
            Request::from(Call::Data(Message {
                agent: self.id.clone(),
                data_type: DATA_TYPE.to_owned(),
                message_id: Some(format!("{:016x}-{sequence}", self.run)),
                sent_at,
                traceparent: None,
                body,
            }))
        });
    }

    fn frame(&self, call: Call) -> Frame {
        Frame::encode(&[Request::from(call)], self.encoding)
    }

    fn warn_once(&mut self, refusal: &Refusal) {
        if self.warned.insert(refusal.code) {
            warn!(code = refusal.code.as_str(), reason = refusal.message, "message refused");
        }
    }

    fn tell_dropped(&mut self) {
        let dropped = self.outbox.take_dropped();
        if dropped > 0 {
            warn!(
                dropped,
                kept = MAX_UNACKNOWLEDGED,
                "oldest messages dropped, too many were unacknowledged"
            );
        }
    }
}

fn body(sample: Sample) -> Result<Body, Refusal> {
    let json = serde_json::to_vec(&Report::statistics(sample)).unwrap_or_default();
    Body::new(Encoding::Json, Bytes::from(json), &Limits::default())
}

#[cfg(test)]
mod tests;

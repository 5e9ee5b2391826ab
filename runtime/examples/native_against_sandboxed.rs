//! What the sandbox costs from end to end, for `make bench`: frames of messages are decoded, appended to a real topic with
//! `fsync`, read from it in batches and handled, once by the component `guest-meter` and once by the same code compiled
//! natively. Everything but the call is the same, and runs at the same time on the same processors.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use wharf_host::{
    Batch, Body, Compiler, Failure, FailureAction, Host, HostOptions, Message, Receiver, ReceiverOptions,
    Redelivery,
};
use wharf_log::{Durability, Entry, Lane, LaneSet, Log, Topic, TopicOptions};
use wharf_protocol::{
    AgentId, Call, Encoding, Frame, Limits, Record, Request, StoredMessage, decode_frame, encode_batch,
};

use readings::Readings;

#[path = "../../tests/guests/meter/src/readings.rs"]
mod readings;

/// Messages of a round: a second or two.
const MESSAGES: usize = 512_000;
/// Messages of a frame.
const FRAME: usize = 64;
/// Rounds of each kind, one after the other, so that what else happens on the machine hits both.
const ROUNDS: usize = 5;
/// Frames that are under way.
const WINDOW: usize = 64;
/// Agents that take turns.
const AGENTS: usize = 256;
/// What the config has by default: `max-messages`, and a bound on bytes that such batches do not meet.
const BATCH: (usize, usize) = (256, 1024 * 1024);
/// How long an append waits for room in the queue.
const WAIT: Duration = Duration::from_secs(30);
/// The share of the native rate that is aimed for.
const AIM: f64 = 0.8;

enum Handler {
    Native(Readings),
    Sandboxed(wharf_host::Instance),
}

fn main() -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).context("an example lies in a target directory")?;
    let component = target.join("../guests/wasm32-wasip2/release/guest_meter.wasm");
    // On the disk that the server would use, which a folder for temporary files need not be.
    let folder = tempfile::tempdir_in(target)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let receiver = runtime.block_on(load(&folder.path().join("cache"), component))?;

    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (kind, rates) in ["native", "sandboxed"].into_iter().zip(&mut rates) {
            let handler = match kind {
                "native" => Handler::Native(Readings::default()),
                _ => Handler::Sandboxed(runtime.block_on(receiver.instantiate())?),
            };
            rates.push(run(&folder.path().join(format!("{kind}-{round}")), handler)?);
        }
    }
    let [native, sandboxed] = rates.map(median);
    let ratio = sandboxed / native;
    let missed = if ratio < AIM { "  missed" } else { "" };
    let mut out = std::io::stdout();
    writeln!(out, "from a frame of {FRAME} to handled, with fsync  messages/s  ratio  aim")?;
    writeln!(out, "{:<42}  {native:>10.0}", "by native code")?;
    writeln!(
        out,
        "{:<42}  {sandboxed:>10.0}  {ratio:>5.2}  {AIM:.2}{missed}",
        "by the same code as a component"
    )?;
    Ok(())
}

async fn load(cache: &Path, component: std::path::PathBuf) -> anyhow::Result<Receiver> {
    let wharf = std::env::current_exe()?.with_file_name("../wharf");
    let compiler = Compiler { program: wharf, args: vec![wharf::components::COMPILE_COMMAND.into()] };
    let host = Host::new(HostOptions::new(cache.to_owned(), compiler))?;
    Ok(host.load(ReceiverOptions::new("meter", component)).await?)
}

/// Messages a second, from the first append to the last that is handled.
fn run(folder: &Path, handler: Handler) -> anyhow::Result<f64> {
    let log = Log::open(folder, vec![TopicOptions::new("metrics", Durability::Fsync)])?;
    let topic = log.topic("metrics").context("the topic was opened")?.clone();
    let frames = frames()?;
    let started = Instant::now();
    let feeding = topic.clone();
    let feeder = std::thread::spawn(move || block_on(feed(feeding, frames)));
    block_on(handle(topic, handler))?;
    let elapsed = started.elapsed();
    feeder.join().map_err(|_| anyhow::anyhow!("the feeder panicked"))??;
    block_on(async {
        log.close().await;
        Ok(())
    })?;
    Ok(MESSAGES as f64 / elapsed.as_secs_f64())
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Frames in which every agent has its turn.
fn frames() -> anyhow::Result<Vec<Bytes>> {
    let request = |agent: usize| {
        let body = format!(
            r#"{{"type":"statistics","body":{{"cpu_load":{agent}.25,"memory_usage":41.7,"processes":312,"note":"{}"}}}}"#,
            "x".repeat(200)
        );
        Ok(Request::from(Call::Data(wharf_protocol::Message {
            agent: AgentId::new(format!("agent-{agent}"))?,
            data_type: "metrics".to_owned(),
            message_id: None,
            sent_at: None,
            traceparent: None,
            body: wharf_protocol::Body::new(Encoding::Json, body.into(), &Limits::default())?,
        })))
    };
    let requests = (0..AGENTS).map(request).collect::<Result<Vec<_>, wharf_protocol::Refusal>>();
    let requests = requests.map_err(|refusal| anyhow::anyhow!(refusal.message))?;
    Ok(requests.chunks(FRAME).map(|requests| encode_batch(requests, None, Encoding::Json).into()).collect())
}

/// Takes frames in as the server does.
async fn feed(topic: Topic, frames: Vec<Bytes>) -> anyhow::Result<()> {
    let mut unanswered = VecDeque::new();
    for frame in frames.iter().cycle().take(MESSAGES / FRAME) {
        if unanswered.len() == WINDOW
            && let Some(oldest) = unanswered.pop_front()
        {
            oldest.await?;
        }
        unanswered.push_back(topic.enqueue(records(frame)?, WAIT).await?);
    }
    for pending in unanswered {
        pending.await?;
    }
    Ok(())
}

fn records(frame: &Bytes) -> anyhow::Result<Vec<wharf_log::Record>> {
    let frame = decode_frame(Encoding::Json, frame, &Limits::default());
    let Ok(Frame::Batch { requests, .. }) = frame else { anyhow::bail!("a frame is a batch") };
    let record = |request| match request {
        Ok(Request { call: Call::Data(message), .. }) => Ok(wharf_log::Record {
            lane: Lane::of(message.agent.as_str()),
            time: 0,
            payload: Record::Message(StoredMessage {
                agent: message.agent,
                received_at: 0,
                message_id: message.message_id,
                sent_at: message.sent_at,
                user: None,
                traceparent: message.traceparent,
                body: message.body,
            })
            .encode()
            .into(),
        }),
        _ => Err(anyhow::anyhow!("a call is data")),
    };
    requests.into_iter().map(record).collect()
}

/// Reads the topic as a receiver's worker does, until all is handled.
async fn handle(topic: Topic, mut handler: Handler) -> anyhow::Result<()> {
    let mut reader = topic.reader(LaneSet::ALL, topic.start());
    let mut handled = 0;
    while handled < MESSAGES {
        let read = reader.next(BATCH.0, BATCH.1).await?;
        let messages = read.entries.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
        handled += messages.len();
        let batch = Batch { data_type: "metrics".to_owned(), messages };
        let failures = match &mut handler {
            Handler::Native(readings) => native(readings, &batch),
            Handler::Sandboxed(instance) => instance.handle(&batch).await?,
        };
        ensure!(failures.is_empty(), "a message was not handled: {failures:?}");
    }
    Ok(())
}

fn message(entry: Entry) -> anyhow::Result<Message> {
    let Record::Message(stored) = Record::decode(Bytes::copy_from_slice(&entry.payload))? else {
        anyhow::bail!("a record is a message");
    };
    Ok(Message {
        offset: entry.offset,
        agent: stored.agent.as_str().to_owned(),
        received_at: stored.received_at,
        redelivery: Redelivery::None,
        id: stored.message_id,
        sent_at: stored.sent_at,
        user: stored.user,
        trace: stored.traceparent,
        body: Body::Json(stored.body.to_json().into_owned()),
    })
}

/// What `guest-meter` does.
fn native(readings: &mut Readings, batch: &Batch) -> Vec<Failure> {
    let mut failures = Vec::new();
    for message in &batch.messages {
        let taken = match &message.body {
            Body::Json(body) => readings.take(&message.agent, body),
            Body::Msgpack(_) => Err("expected JSON".to_owned()),
        };
        if let Err(reason) = taken {
            failures.push(Failure { offset: message.offset, action: FailureAction::Reject, reason });
        }
    }
    failures
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

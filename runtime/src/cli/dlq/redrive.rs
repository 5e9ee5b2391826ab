//! `wharf dlq redrive`: queues dead letters, and waits for what becomes of them if that is asked for.

use anyhow::{Context, bail};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{CHANGE_TIMEOUT, Selection, print};
use crate::cli::admin::{Request, Server};
use crate::cli::table::{printable, printable_json};

mod wait;

/// Which letters.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The receiver
    receiver: String,
    #[command(flatten)]
    selection: Selection,
    /// Wait until each is finished or dead again, and say which
    #[arg(long)]
    wait: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Answer {
    state: String,
    queued: u64,
    already: u64,
    damaged: u64,
}

/// Queues them and prints how many.
pub async fn run(args: Args, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let before = match args.wait {
        true => Some(wait::Pending::before(&args.server, &args.receiver, &args.selection, shutdown).await?),
        false => None,
    };
    let queued = queue(&args, shutdown).await?;
    if queued.queued == 0 && queued.already == 0 && queued.damaged == 0 && !args.selection.all {
        bail!("receiver {:?} has no such dead letters", args.receiver);
    }
    if !args.json {
        print(&told(&args.receiver, &queued))?;
    }
    let ended = match before {
        Some(pending) => Some(pending.wait(&args.server, &args.receiver, !args.json, shutdown).await?),
        None => None,
    };
    if args.json {
        let mut report = json!({
            "receiver": args.receiver,
            "queued": queued.queued,
            "already": queued.already,
            "damaged": queued.damaged,
        });
        if let (Some(ended), Some(report)) = (&ended, report.as_object_mut()) {
            report.insert("finished".to_owned(), json!(ended.finished));
            report.insert("dead_again".to_owned(), json!(ended.dead_again));
            report.insert("not_redriven".to_owned(), json!(ended.not_redriven));
        }
        print(&format!("{}\n", printable_json(&report.to_string())))?;
    }
    match ended {
        Some(ended) if ended.failed() > 0 => bail!("not finished: {} of {}", ended.failed(), ended.count()),
        _ => Ok(()),
    }
}

async fn queue(args: &Args, shutdown: &CancellationToken) -> anyhow::Result<Answer> {
    let path = ["admin", "v1", "receivers", &args.receiver, "dead-letters", "redrive"];
    let mut all = Answer { state: String::new(), queued: 0, already: 0, damaged: 0 };
    for (key, value) in args.selection.parameters() {
        let request = Request::new(Method::POST, &path).query(key, value).within(CHANGE_TIMEOUT);
        let answer = args.server.ask(request, shutdown).await;
        let answer = answer
            .with_context(|| format!("failed to redrive dead letters of receiver {:?}", args.receiver))?;
        let Answer { state, queued, already, damaged } = answer.read()?;
        all = Answer {
            state,
            queued: all.queued.saturating_add(queued),
            already: all.already.saturating_add(already),
            damaged: all.damaged.saturating_add(damaged),
        };
    }
    Ok(all)
}

fn told(receiver: &str, answer: &Answer) -> String {
    let mut text = format!("{}: {} queued", printable(receiver), answer.queued);
    if answer.already > 0 {
        text.push_str(&format!(", {} were already", answer.already));
    }
    if answer.damaged > 0 {
        text.push_str(&format!(", {} are damaged and can only be dropped", answer.damaged));
    }
    match answer.state.as_str() {
        "paused" => text.push_str("; it is paused, and gets them when it is resumed"),
        "quarantined" => text.push_str("; it is quarantined, and gets them when it works again"),
        _ => {}
    }
    text.push('\n');
    text
}

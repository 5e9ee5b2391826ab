//! `wharf seek`: moves the cursors of a paused receiver, back so that it gets messages again, or on so that it does not get
//! some at all. The server keeps who did it.

use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use wharf_state::MAX_WHAT;

use crate::cli::admin::{Request, Server};
use crate::cli::arguments;
use crate::cli::operator::{bounded, who};
use crate::cli::table::{printable, printable_json};
use crate::cli::time;

/// A time is looked for on the disk, and a call of the receiver that is running when it is paused is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Which receiver, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The receiver's name in the config; it must be paused
    receiver: String,
    /// An offset, a time (2026-05-01T10:00:00Z, or "2h ago"), oldest, or newest
    #[arg(long, value_name = "OFFSET|TIME|oldest|newest", value_parser = parse_target)]
    to: Target,
    /// Only in this data type; an offset needs one if the receiver has several
    #[arg(long, value_name = "TYPE", value_parser = arguments::data_type)]
    r#type: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Where to, and the text that said so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    text: String,
    to: To,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Offset(u64),
    /// Unix milliseconds.
    Time(u64),
    Oldest,
    Newest,
}

#[derive(Deserialize)]
struct Answer {
    receiver: String,
    moved: Vec<Moved>,
}

#[derive(Deserialize)]
struct Moved {
    r#type: String,
    to: u64,
    lowest_before: u64,
    gap: Option<Gap>,
}

#[derive(Deserialize)]
struct Gap {
    from: u64,
    to: u64,
}

/// Moves them and prints from where to where.
///
/// # Errors
///
/// Those of [`Server::ask`].
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Args { receiver, to: Target { text, to }, r#type, json, server } = args;
    let to_json = match to {
        To::Offset(offset) => json!({ "offset": offset }),
        To::Time(time) => json!({ "time": time }),
        To::Oldest => json!("oldest"),
        To::Newest => json!("newest"),
    };
    let mut what = format!("wharf seek {receiver} --to {text}");
    if let Some(data_type) = &r#type {
        what.push_str(&format!(" --type {data_type}"));
    }
    let order = json!({ "to": to_json, "type": r#type, "who": who(), "what": bounded(what, MAX_WHAT) });
    let path = ["admin", "v1", "receivers", &receiver, "seek"];
    let request = Request::new(Method::POST, &path).body(order).within(ANSWER_TIMEOUT);
    let answer = server.ask(request, &shutdown).await;
    let answer = answer.with_context(|| format!("failed to move the cursors of receiver {receiver:?}"))?;
    let text = if json {
        format!("{}\n", printable_json(answer.read::<&RawValue>()?.get()))
    } else {
        told(&answer.read()?, to)
    };
    std::io::stdout().write_all(text.as_bytes()).context("failed to print where the cursors are")
}

fn parse_target(text: &str) -> Result<Target, String> {
    let to = match text {
        "oldest" => To::Oldest,
        "newest" => To::Newest,
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            To::Offset(digits.parse().map_err(|_| "expected an offset below 2^64".to_owned())?)
        }
        text => To::Time(
            time::read(text, SystemTime::now())
                .map_err(|expected| format!("{expected}, or an offset, oldest or newest"))?,
        ),
    };
    Ok(Target { text: text.to_owned(), to })
}

fn told(answer: &Answer, to: To) -> String {
    let line = |moved: &Moved| {
        let Moved { r#type, to: now, lowest_before, gap } = moved;
        let mut line = format!(
            "{} in {}: from {lowest_before} to {now}",
            printable(&answer.receiver),
            printable(r#type)
        );
        if let To::Offset(asked) = to
            && asked != *now
        {
            line.push_str(&format!(", the oldest that is kept, because {asked} is not any more"));
        }
        if let Some(Gap { from, to }) = gap {
            let last = to.saturating_sub(1);
            line.push_str(&format!("; what it had not finished of {from} to {last} is passed over"));
        }
        line.push('\n');
        line
    };
    answer.moved.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_offset_a_time_or_an_end() {
        for (text, to) in [
            ("oldest", To::Oldest),
            ("newest", To::Newest),
            ("0", To::Offset(0)),
            ("2026", To::Offset(2026)),
            ("1970-01-01T00:00:02Z", To::Time(2_000)),
        ] {
            assert_eq!(parse_target(text), Ok(Target { text: text.to_owned(), to }));
        }
        for text in ["", "-1", "18446744073709551616", "0x10", "new", "2026-13-01T00:00:00Z"] {
            assert!(parse_target(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn where_the_cursors_went_is_told() {
        let answer = serde_json::from_str(
            r#"{"receiver":"journal","moved":[
                {"type":"blocks","to":40,"lowest_before":120,"gap":null},
                {"type":"metrics","to":150,"lowest_before":120,"gap":{"from":120,"to":149}}]}"#,
        )
        .unwrap();
        insta::assert_snapshot!(told(&answer, To::Offset(40)), @"
        journal in blocks: from 120 to 40
        journal in metrics: from 120 to 150, the oldest that is kept, because 40 is not any more; what it had not finished of 120 to 148 is passed over
        ");
    }
}

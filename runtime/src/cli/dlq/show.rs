//! `wharf dlq show`: everything about one dead letter.

use anyhow::Context;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use wharf_log::MAX_APPEND_BYTES;

use super::print;
use crate::cli::admin::{Request, Server};
use crate::cli::table::{printable, printable_json, printable_lines};
use crate::cli::time;

/// A message as large as any, all of it of what is five times as long in JSON as in MessagePack, and a little more.
const MAX_SHOWN_BYTES: usize = 6 * MAX_APPEND_BYTES;

/// Which letter.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The receiver, also one that the config does not have any more
    receiver: String,
    /// The number of the dead letter
    id: u64,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Letter<'a> {
    id: u64,
    r#type: String,
    offset: u64,
    agent: String,
    received_at: u64,
    died_at: u64,
    state: String,
    kind: String,
    attempts: u64,
    reason: String,
    trap: Option<String>,
    backtrace: Option<String>,
    stderr: String,
    digest: String,
    message_bytes: u64,
    #[serde(borrow)]
    record: Record<'a>,
}

/// What lay in the log. Of each kind, some of the fields are there.
#[derive(Deserialize)]
struct Record<'a> {
    kind: String,
    problem: Option<String>,
    active: Option<bool>,
    message_id: Option<String>,
    sent_at: Option<u64>,
    user: Option<String>,
    traceparent: Option<String>,
    encoding: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Shows it.
pub async fn run(args: Args, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let Args { receiver, id, json, server } = args;
    let number = id.to_string();
    let path = ["admin", "v1", "receivers", &receiver, "dead-letters", &number];
    let answer = server.ask(Request::new(Method::GET, &path).up_to(MAX_SHOWN_BYTES), shutdown).await;
    let answer =
        answer.with_context(|| format!("failed to show dead letter {id} of receiver {receiver:?}"))?;
    let text = if json {
        format!("{}\n", printable_json(answer.read::<&RawValue>()?.get()))
    } else {
        whole(&receiver, &answer.read()?)
    };
    print(&text).map(drop)
}

fn whole(receiver: &str, letter: &Letter<'_>) -> String {
    let record = &letter.record;
    let fields = [
        ("state", Some(letter.state.clone())),
        ("data type", Some(letter.r#type.clone())),
        ("offset", Some(letter.offset.to_string())),
        ("agent", Some(letter.agent.clone())),
        ("received", Some(time::write(letter.received_at))),
        ("message id", record.message_id.clone()),
        ("sent", record.sent_at.map(time::write)),
        ("user", record.user.clone()),
        ("traceparent", record.traceparent.clone()),
        ("died", Some(time::write(letter.died_at))),
        ("kind", Some(letter.kind.clone())),
        ("tries", Some(letter.attempts.to_string())),
        ("trap", letter.trap.clone()),
        ("component", Some(letter.digest.clone())),
    ];
    let mut text = format!("dead letter {} of {}\n", letter.id, printable(receiver));
    for (name, value) in fields {
        if let Some(value) = value {
            text.push_str(&format!("  {name:<12} {}\n", printable(&value)));
        }
    }
    let mut section = |name: &str, lines: &str| {
        if !lines.is_empty() {
            text.push_str(&format!("  {name}\n{}", printable_lines(lines)));
        }
    };
    section("reason", &letter.reason);
    section("backtrace", letter.backtrace.as_deref().unwrap_or_default());
    section("standard error", &letter.stderr);
    let bytes = letter.message_bytes;
    match (record.data, record.active) {
        (Some(data), _) => {
            let encoding = printable(record.encoding.as_deref().unwrap_or("unknown"));
            section(&format!("message, {bytes} bytes, sent as {encoding}"), data.get());
        }
        (None, Some(active)) => {
            section(
                "no message",
                if active { "the agent became active" } else { "the agent became inactive" },
            );
        }
        (None, None) => {
            let problem = record.problem.as_deref().unwrap_or("this program does not know it");
            section(&format!("a record of {bytes} bytes of the kind {}", printable(&record.kind)), problem);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_about_a_letter_is_shown_and_nothing_can_pass_for_another_part() {
        let letter = serde_json::from_str(
            r#"{"id":3,"type":"metrics","offset":120,"agent":"node-1","received_at":1777629600000,"died_at":1777629660000,
                "state":"dead","kind":"faults","attempts":3,"reason":"wasm trap: unreachable\n  reason\n    forged","trap":"unreachable",
                "backtrace":"0: handle\n1: \u001b[2Jmain","stderr":"panicked at 'x'\u009b31m","digest":"9f86d081","message_bytes":71,
                "record":{"kind":"message","agent":"node-1","received_at":1777629600000,"message_id":"m-1","sent_at":null,"user":null,
                          "traceparent":null,"encoding":"msgpack","data":{"number":1.50,"text":"a\u007f"}}}"#,
        )
        .unwrap();
        insta::assert_snapshot!(whole("journal", &letter), @r#"
        dead letter 3 of journal
          state        dead
          data type    metrics
          offset       120
          agent        node-1
          received     2026-05-01T10:00:00Z
          message id   m-1
          died         2026-05-01T10:01:00Z
          kind         faults
          tries        3
          trap         unreachable
          component    9f86d081
          reason
            wasm trap: unreachable
              reason
                forged
          backtrace
            0: handle
            1: �[2Jmain
          standard error
            panicked at 'x'�31m
          message, 71 bytes, sent as msgpack
            {"number":1.50,"text":"a\u007f"}
        "#);
    }

    #[test]
    fn what_is_no_message_is_said() {
        for (record, expected) in [
            (
                r#"{"kind":"unreadable","problem":"read a record of the unknown kind 9"}"#,
                "    read a record of the unknown kind 9\n",
            ),
            (r#"{"kind":"presence","agent":"a","active":false,"at":5}"#, "    the agent became inactive\n"),
        ] {
            let letter = format!(
                r#"{{"id":3,"type":"metrics","offset":120,"agent":"","received_at":0,"died_at":0,"state":"dead","kind":"unreadable",
                    "attempts":0,"reason":"","trap":null,"backtrace":null,"stderr":"","digest":"","message_bytes":9,"record":{record}}}"#
            );
            let text = whole("journal", &serde_json::from_str(&letter).unwrap());
            assert!(text.ends_with(expected), "{text}");
        }
    }
}

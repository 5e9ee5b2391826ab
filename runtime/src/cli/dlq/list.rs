//! `wharf dlq list`: page by page, so that the first lines come at once however many there are.

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::{Damaged, Page, page, print};
use crate::cli::admin::{Request, Server};
use crate::cli::table::{Align, Table, columns, cut, printable, printable_json};
use crate::cli::{terminal, time};

/// Of which receiver.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The receiver, also one that the config does not have any more; without it, the receivers that have dead letters
    receiver: Option<String>,
    /// Print JSON: an object in a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Letter {
    id: u64,
    r#type: String,
    offset: u64,
    agent: String,
    died_at: u64,
    state: String,
    kind: String,
    attempts: u64,
    reason: String,
}

#[derive(Deserialize)]
struct Receivers<T> {
    receivers: Vec<T>,
}

#[derive(Deserialize)]
struct Receiver {
    receiver: String,
    count: u64,
    bytes: u64,
    configured: bool,
}

const HEADS: [(&str, Align); 9] = [
    ("ID", Align::Right),
    ("DATA TYPE", Align::Left),
    ("OFFSET", Align::Right),
    ("AGENT", Align::Left),
    ("DIED", Align::Left),
    ("TRIES", Align::Right),
    ("STATE", Align::Left),
    ("KIND", Align::Left),
    ("REASON", Align::Left),
];

/// Lists them.
pub async fn run(args: Args, shutdown: &CancellationToken) -> anyhow::Result<()> {
    match &args.receiver {
        Some(receiver) => letters(&args, receiver, shutdown).await,
        None => receivers(&args, shutdown).await,
    }
}

async fn letters(args: &Args, receiver: &str, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut table = Table::new(HEADS);
    let width = terminal::size().map(|size| size.width);
    let mut first = Some(0);
    while let Some(from) = first {
        let text;
        (text, first) = if args.json {
            let page: Page<Box<RawValue>> = page(&args.server, receiver, from..=u64::MAX, shutdown).await?;
            (json_lines(&page)?, page.next)
        } else {
            let page: Page<Letter> = page(&args.server, receiver, from..=u64::MAX, shutdown).await?;
            let next = page.next;
            let text = table.page(rows(page));
            (width.map_or_else(|| text.clone(), |width| cut(&text, width)), next)
        };
        if !print(&text)? {
            break;
        }
    }
    Ok(())
}

fn json_lines(page: &Page<Box<RawValue>>) -> anyhow::Result<String> {
    let mut lines: String =
        page.letters.iter().map(|letter| format!("{}\n", printable_json(letter.get()))).collect();
    for damaged in &page.damaged {
        lines.push_str(&printable_json(&serde_json::to_string(damaged)?));
        lines.push('\n');
    }
    Ok(lines)
}

/// A row for each letter, those among them that can't be understood too.
fn rows(page: Page<Letter>) -> Vec<[String; HEADS.len()]> {
    let whole = page.letters.into_iter().map(|letter| {
        let row = [
            letter.id.to_string(),
            printable(&letter.r#type),
            letter.offset.to_string(),
            printable(&letter.agent),
            time::write(letter.died_at),
            letter.attempts.to_string(),
            printable(&letter.state),
            printable(&letter.kind),
            printable(&letter.reason),
        ];
        (letter.id, row)
    });
    let damaged = page.damaged.into_iter().map(|Damaged { id, problem }| {
        let unknown = String::new;
        let row = [
            id.to_string(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            "damaged".to_owned(),
            unknown(),
            printable(&problem),
        ];
        (id, row)
    });
    let mut rows: Vec<_> = whole.chain(damaged).collect();
    rows.sort_by_key(|(id, _)| *id);
    rows.into_iter().map(|(_, row)| row).collect()
}

async fn receivers(args: &Args, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let request = Request::new(Method::GET, &["admin", "v1", "dead-letters"]);
    let answer = args.server.ask(request, shutdown).await?;
    let text: String = if args.json {
        let Receivers { receivers } = answer.read::<Receivers<&RawValue>>()?;
        receivers.iter().map(|receiver| format!("{}\n", printable_json(receiver.get()))).collect()
    } else {
        let heads = [
            ("RECEIVER", Align::Left),
            ("DEAD LETTERS", Align::Right),
            ("BYTES", Align::Right),
            ("CONFIGURED", Align::Left),
        ];
        let rows = answer.read::<Receivers<Receiver>>()?.receivers.into_iter().map(|of| {
            let configured = if of.configured { "yes" } else { "no" };
            [printable(&of.receiver), of.count.to_string(), of.bytes.to_string(), configured.to_owned()]
        });
        columns(heads, rows.collect())
    };
    print(&text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_a_table_in_the_order_of_their_numbers() {
        let page = serde_json::from_str(
            r#"{"receiver":"journal","next":null,"letters":[
                {"id":3,"type":"metrics","offset":120,"agent":"node-1","received_at":1,"died_at":1777629600000,"state":"dead",
                 "kind":"rejected","attempts":1,"reason":"no such field: \"peers\"","trap":null},
                {"id":11,"type":"blocks","offset":7,"agent":"a\u001bc","received_at":1,"died_at":1777629660000,"state":"queued",
                 "kind":"faults","attempts":3,"reason":"wasm trap:\nunreachable","trap":"unreachable"}],
              "damaged":[{"id":4,"problem":"it is empty"}]}"#,
        )
        .unwrap();
        insta::assert_snapshot!(Table::new(HEADS).page(rows(page)), @r#"
        ID  DATA TYPE  OFFSET  AGENT   DIED                  TRIES  STATE    KIND      REASON
         3  metrics       120  node-1  2026-05-01T10:00:00Z      1  dead     rejected  no such field: "peers"
         4                                                          damaged            it is empty
        11  blocks          7  a�c     2026-05-01T10:01:00Z      3  queued   faults    wasm trap:�unreachable
        "#);
    }
}

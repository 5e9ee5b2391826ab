//! `wharf reload`: has a running server read its config again, and prints what that changed.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::cli::admin::{Request, Server};
use crate::cli::operator::who;
use crate::cli::table::{printable, printable_json};

/// Compiling may take minutes for each component that is new, and calls that are running are waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);
/// As much of a digest as tells components apart.
const DIGEST_CHARS: usize = 12;

/// Which server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Let components import what those before them do not, where the config grants it
    #[arg(long)]
    allow_new_imports: bool,
    /// Let receivers begin without what they know, if that can't be handed over
    #[arg(long)]
    drop_state: bool,
    /// Print what was changed as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Report {
    types: Vec<String>,
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<Changed>,
    keys: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Changed {
    receiver: String,
    keys: Vec<String>,
    component: Option<String>,
    receipt: u64,
}

/// Has the config read again, and prints what was changed.
///
/// # Errors
///
/// Those of [`Server::ask`]; a config that is refused says why, and changes nothing.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Args { allow_new_imports, drop_state, json, server } = args;
    let request = Request::new(Method::POST, &["admin", "v1", "reload"])
        .query("who", who())
        .query("drop_state", drop_state)
        .query("allow_new_imports", allow_new_imports)
        .within(ANSWER_TIMEOUT);
    let answer = server.ask(request, &shutdown).await.context("failed to reload the config")?;
    let text = if json {
        format!("{}\n", printable_json(answer.read::<&RawValue>()?.get()))
    } else {
        answer.read::<Report>()?.told()
    };
    std::io::stdout().write_all(text.as_bytes()).context("failed to print what was changed")
}

impl Report {
    fn told(&self) -> String {
        let Report { types, added, removed, changed, keys, warnings } = self;
        let mut text = String::new();
        let mut line = |what: &str, of: &str| text.push_str(&format!("{what:<9}{}\n", printable(of)));
        types.iter().for_each(|data_type| line("added", &format!("types.{data_type}")));
        added.iter().for_each(|receiver| line("added", &format!("receivers.{receiver}")));
        removed.iter().for_each(|receiver| line("removed", &format!("receivers.{receiver}")));
        changed.iter().for_each(|changed| line("changed", &changed.told()));
        keys.iter().for_each(|key| line("changed", key));
        if text.is_empty() {
            text.push_str("nothing has changed\n");
        }
        let mut line = |what: &str, of: &str| text.push_str(&format!("{what:<9}{}\n", printable(of)));
        warnings.iter().for_each(|warning| line("warning:", warning));
        text
    }
}

impl Changed {
    fn told(&self) -> String {
        let component = self.component.as_ref().map(|digest| {
            let digest: String = digest.chars().take(DIGEST_CHARS).collect();
            format!("component {digest}")
        });
        let what: Vec<_> = self.keys.iter().cloned().chain(component).collect();
        format!("receivers.{}: {} (receipt {})", self.receiver, what.join(", "), self.receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_a_line() {
        let mut report = Report {
            types: vec!["other".into()],
            added: vec!["new".into()],
            removed: vec!["old".into()],
            changed: vec![Changed {
                receiver: "other".into(),
                keys: vec!["types".into(), "deadline".into()],
                component: Some("0123456789abcdef".into()),
                receipt: 7,
            }],
            keys: vec!["types.metrics.retain".into()],
            warnings: Vec::new(),
        };
        assert_eq!(
            report.told(),
            "added    types.other\nadded    receivers.new\nremoved  receivers.old\n\
             changed  receivers.other: types, deadline, component 0123456789ab (receipt 7)\n\
             changed  types.metrics.retain\n"
        );
        report =
            Report { types: vec![], added: vec![], removed: vec![], changed: vec![], keys: vec![], ..report };
        assert_eq!(report.told(), "nothing has changed\n");
    }
}

//! The status of a server as a table for people. Pure: text from values.

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::cli::table::{Align, columns, printable};
use crate::cli::time;

/// What `GET /admin/v1/status` answers, as far as the table shows it. Fields that are not known here are left alone, so
/// that this program can ask a newer server.
#[derive(Debug, Deserialize)]
pub struct Status {
    version: String,
    uptime_seconds: f64,
    ready: bool,
    connections: u64,
    agents: Agents,
    types: Vec<DataType>,
    receivers: Vec<Receiver>,
}

#[derive(Debug, Deserialize)]
struct Agents {
    active: u64,
    known: u64,
}

#[derive(Debug, Deserialize)]
struct DataType {
    name: String,
    durability: String,
    start: u64,
    end: u64,
    accepted: u64,
    #[serde(default)]
    blocked_by: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Receiver {
    name: String,
    component: Component,
    types: Vec<String>,
    state: String,
    stage: Option<String>,
    instances: u64,
    handled: u64,
    failed: u64,
    lag: u64,
    // What older servers do not tell is not known.
    rate: Option<f64>,
    in_flight: Option<u64>,
    parked: Option<u64>,
    lag_seconds: Option<f64>,
    backlog: Option<Vec<Backlog>>,
    dead_letters: Option<DeadLetters>,
    gaps: Option<Gaps>,
    next_try_seconds: Option<f64>,
    last_error: Option<String>,
    last_swap: Option<LastSwap>,
}

/// What the newest receipt of a receiver says.
#[derive(Debug, Deserialize)]
struct LastSwap {
    kind: String,
    outcome: String,
    at: u64,
    probation: Option<String>,
}

/// What lies on the disk of a data type from a receiver's first unfinished message on.
#[derive(Debug, Deserialize)]
struct Backlog {
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct DeadLetters {
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Gaps {
    messages: u64,
}

#[derive(Debug, Deserialize)]
struct Component {
    digest: String,
    path: String,
    since: Option<u64>,
}

/// As many characters of a digest as tell two components apart at a glance.
const DIGEST_CHARACTERS: usize = 12;

/// The whole status: one line for the server, one for each data type, and two for each receiver, of what it does and of what it is.
pub fn table(status: &Status) -> String {
    let uptime = Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default();
    let mut text = format!(
        "wharf {}, {}, up {}, {}, {} active of {} known\n",
        printable(&status.version),
        if status.ready { "ready" } else { "not ready" },
        humantime::format_duration(Duration::from_secs(uptime.as_secs())),
        counted(status.connections, "connection"),
        counted(status.agents.active, "agent"),
        status.agents.known,
    );
    text.push('\n');
    text.push_str(&types(&status.types));
    text.push('\n');
    text.push_str(&receivers(&status.receivers));
    text.push('\n');
    text.push_str(&components(&status.receivers));
    for data_type in status.types.iter().filter(|data_type| !data_type.blocked_by.is_empty()) {
        let blockers: Vec<_> = data_type.blocked_by.iter().map(|name| printable(name)).collect();
        text.push_str(&format!(
            "\n{} takes no messages: the backlog of {} is at its bound\n",
            printable(&data_type.name),
            blockers.join(", ")
        ));
    }
    for receiver in &status.receivers {
        if let Some(error) = &receiver.last_error {
            text.push_str(&format!("\nlast error of {}: {}\n", printable(&receiver.name), printable(error)));
        }
    }
    text
}

fn types(types: &[DataType]) -> String {
    let heads = [
        ("DATA TYPE", Align::Left),
        ("DURABILITY", Align::Left),
        ("START", Align::Right),
        ("END", Align::Right),
        ("ACCEPTED", Align::Right),
    ];
    let rows = types.iter().map(|data_type| {
        [
            printable(&data_type.name),
            printable(&data_type.durability),
            data_type.start.to_string(),
            data_type.end.to_string(),
            data_type.accepted.to_string(),
        ]
    });
    columns(heads, rows.collect())
}

fn receivers(receivers: &[Receiver]) -> String {
    let heads = [
        ("RECEIVER", Align::Left),
        ("STATE", Align::Left),
        ("A SECOND", Align::Right),
        ("HANDLED", Align::Right),
        ("FAILED", Align::Right),
        ("DEAD", Align::Right),
        ("DROPPED", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("PARKED", Align::Right),
        ("LAG", Align::Right),
        ("BEHIND", Align::Right),
        ("BACKLOG", Align::Right),
    ];
    let rows = receivers.iter().map(|receiver| {
        [
            printable(&receiver.name),
            state(receiver),
            receiver.rate.map_or_else(unknown, rate),
            receiver.handled.to_string(),
            receiver.failed.to_string(),
            number(receiver.dead_letters.as_ref().map(|letters| letters.count)),
            number(receiver.gaps.as_ref().map(|gaps| gaps.messages)),
            number(receiver.in_flight),
            number(receiver.parked),
            receiver.lag.to_string(),
            receiver.lag_seconds.and_then(seconds).unwrap_or_else(unknown),
            receiver.backlog.as_ref().map_or_else(unknown, |backlog| bytes(backlog)),
        ]
    });
    columns(heads, rows.collect())
}

fn components(receivers: &[Receiver]) -> String {
    let heads = [
        ("RECEIVER", Align::Left),
        ("COMPONENT", Align::Left),
        ("INSTANCES", Align::Right),
        ("SINCE", Align::Left),
        ("LAST SWAP", Align::Left),
        ("DATA TYPES", Align::Left),
    ];
    let rows = receivers.iter().map(|receiver| {
        let Component { digest, path, since } = &receiver.component;
        let digest: String = digest.chars().take(DIGEST_CHARACTERS).collect();
        let file = Path::new(path).file_name().map_or(path.as_str().into(), |name| name.to_string_lossy());
        [
            printable(&receiver.name),
            printable(&format!("{digest} {file}")),
            receiver.instances.to_string(),
            since.map_or_else(unknown, time::write),
            receiver.last_swap.as_ref().map_or_else(|| "-".to_owned(), last_swap),
            printable(&receiver.types.join(", ")),
        ]
    });
    columns(heads, rows.collect())
}

/// When it was, what was done, what came of it, and how the new version proved itself.
fn last_swap(swap: &LastSwap) -> String {
    let LastSwap { kind, outcome, at, probation } = swap;
    let probation =
        probation.as_ref().map(|probation| format!(", probation {probation}")).unwrap_or_default();
    format!("{} {}", time::write(*at), printable(&format!("{kind} {outcome}{probation}")))
}

/// The state, what is being done with the component, and how long a quarantine still lasts.
fn state(receiver: &Receiver) -> String {
    match &receiver.stage {
        Some(stage) => format!("{}, {}", alone(receiver), printable(stage)),
        None => alone(receiver),
    }
}

fn alone(receiver: &Receiver) -> String {
    let pause = receiver.next_try_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match pause {
        Some(pause) => {
            let pause = humantime::format_duration(Duration::from_secs(pause.as_secs()));
            format!("{}, tried in {pause}", printable(&receiver.state))
        }
        None => printable(&receiver.state),
    }
}

/// What stands for a number that the server did not tell.
fn unknown() -> String {
    "?".to_owned()
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(unknown, |number| number.to_string())
}

fn bytes(backlog: &[Backlog]) -> String {
    let bytes = backlog.iter().map(|backlog| backlog.bytes).fold(0, u64::saturating_add);
    ByteSize(bytes).to_string()
}

/// A rate, with a fraction only where that is much of it.
fn rate(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// Whole seconds, as people say them.
fn seconds(seconds: f64) -> Option<String> {
    let whole = Duration::try_from_secs_f64(seconds).ok()?.as_secs();
    Some(humantime::format_duration(Duration::from_secs(whole)).to_string())
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_tables() {
        let status = serde_json::from_str(
            r#"{"version":"0.1.0","uptime_seconds":93784.31,"ready":true,"connections":3,"agents":{"active":2,"known":7},"later":{"more":1},
                "types":[
                  {"name":"ethereum_metrics","durability":"fsync","start":0,"end":1204,"accepted":1204,"blocked_by":["journal"],"new":1},
                  {"name":"system_metrics","durability":"memory","start":12,"end":13,"accepted":1}],
                "receivers":[
                  {"name":"dashboard","component":{"digest":"9f86d081884c7d659a2feaa0c55ad015","path":"receivers/dashboard.wasm","since":1777629600000},
                   "types":["ethereum_metrics","system_metrics"],"state":"running","stage":"on probation","instances":1,"handled":1205,"failed":0,
                   "dead":0,"lag":0,"rate":1812.44,"in_flight":64,"parked":0,"waiting_agents":0,"lag_seconds":0.0,
                   "dead_letters":{"count":0,"bytes":0},"gaps":{"records":0,"messages":0},"last_error":null,
                   "last_swap":{"id":3,"kind":"swap","outcome":"settled","at":1777629600000,"probation":"running","later":1}},
                  {"name":"journal","component":{"digest":"60303ae22b99","path":"receivers/journal.wasm"},
                   "types":["ethereum_metrics"],"state":"quarantined","next_try_seconds":61.5,"instances":2,"handled":7,"failed":3,"dead":1,
                   "lag":1197,"rate":0.25,"lag_seconds":3905.7,"backlog":[{"type":"ethereum_metrics","bytes":10737418240},{"type":"system_metrics","bytes":4096}],"dead_letters":{"count":1,"bytes":812},"gaps":null,"last_error":"trap: unreachable\u001b[2J"}]}"#,
        )
        .unwrap();
        insta::assert_snapshot!(table(&status), @"
        wharf 0.1.0, ready, up 1day 2h 3m 4s, 3 connections, 2 agents active of 7 known

        DATA TYPE         DURABILITY  START   END  ACCEPTED
        ethereum_metrics  fsync           0  1204      1204
        system_metrics    memory         12    13         1

        RECEIVER   STATE                        A SECOND  HANDLED  FAILED  DEAD  DROPPED  IN FLIGHT  PARKED   LAG    BEHIND   BACKLOG
        dashboard  running, on probation            1812     1205       0     0        0         64       0     0        0s         ?
        journal    quarantined, tried in 1m 1s       0.2        7       3     1        ?          ?       ?  1197  1h 5m 5s  10.0 GiB

        RECEIVER   COMPONENT                    INSTANCES  SINCE                 LAST SWAP                                             DATA TYPES
        dashboard  9f86d081884c dashboard.wasm          1  2026-05-01T10:00:00Z  2026-05-01T10:00:00Z swap settled, probation running  ethereum_metrics, system_metrics
        journal    60303ae22b99 journal.wasm            2  ?                     -                                                     ethereum_metrics

        ethereum_metrics takes no messages: the backlog of journal is at its bound

        last error of journal: trap: unreachable�[2J
        ");
    }

    #[test]
    fn a_server_without_receivers_shows_the_heads() {
        let status = serde_json::from_str(
            r#"{"version":"0.1.0","uptime_seconds":0.2,"ready":false,"connections":1,"agents":{"active":1,"known":1},"types":[],"receivers":[]}"#,
        )
        .unwrap();
        insta::assert_snapshot!(table(&status), @"
        wharf 0.1.0, not ready, up 0s, 1 connection, 1 agent active of 1 known

        DATA TYPE  DURABILITY  START  END  ACCEPTED

        RECEIVER  STATE  A SECOND  HANDLED  FAILED  DEAD  DROPPED  IN FLIGHT  PARKED  LAG  BEHIND  BACKLOG

        RECEIVER  COMPONENT  INSTANCES  SINCE  LAST SWAP  DATA TYPES
        ");
    }
}

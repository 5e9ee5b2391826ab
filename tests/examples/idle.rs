//! Prints what connections of agents cost a running server in memory: many that are idle, some that have sent a large frame,
//! and some whose large frame does not end. `tests/bench/idle` starts the server.
//!
//! Arguments: the address of agents, the process id of the server, the number of idle connections.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use e2e::calls::{data_of, ping, success};
use e2e::{Agent, Encoding, Raw};
use futures_util::{StreamExt, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

/// Connections that are opened at a time: enough to be quick, few enough for the server's queue of new ones.
const AT_A_TIME: usize = 64;
/// Connections with large frames.
const LARGE: usize = 100;
/// Their frames, just below the bound.
const LARGE_BYTES: usize = 8 * 1024 * 1024 - 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(server), Some(idle)) = (args.next(), args.next(), args.next()) else {
        bail!("expected the address of agents, the server's process id and a number of connections");
    };
    let agents: SocketAddr = url.trim_start_matches("http://").parse().context("parse the address")?;
    let idle: usize = idle.parse().context("parse the number of connections")?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("raise the limit on open files")?;

    // What the first connections and messages need is not theirs alone.
    for _ in 0..8 {
        send_large(agents).await;
    }
    let before = resident(&server)?;
    let open = stream::iter(0..idle).map(async |index| {
        let mut agent = Agent::connect(agents).await;
        let answer = agent.call(Encoding::Json, &ping(&format!("idle-{index}"))).await;
        assert_eq!(answer, success());
        agent
    });
    let open: Vec<Agent> = open.buffer_unordered(AT_A_TIME).collect().await;
    let after = resident(&server)?;
    println!("{idle} idle connections: {:.1} KiB each", after.saturating_sub(before) as f64 / idle as f64);
    drop(open);

    let before = resident(&server)?;
    let mut open = Vec::new();
    for _ in 0..LARGE {
        open.push(send_large(agents).await);
    }
    let after = resident(&server)?;
    let mib = after.saturating_sub(before) as f64 / 1024.0;
    println!("{LARGE} connections that have sent a frame of 8 MiB: {mib:.1} MiB together");
    drop(open);

    let before = resident(&server)?;
    let begun = (0..LARGE).map(async |_| {
        let mut raw = Raw::websocket(agents).await;
        let mut head = vec![0x81, 0x80 | 127];
        head.extend((LARGE_BYTES as u64).to_be_bytes());
        head.extend([0; 4]);
        raw.write(head).await;
        raw
    });
    let mut open: Vec<Raw> = stream::iter(begun).buffer_unordered(AT_A_TIME).collect().await;
    let most = stream::iter(&mut open).for_each_concurrent(None, async |raw| {
        let bytes = vec![b' '; LARGE_BYTES - 1];
        // Those that have to wait for room are not read.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), raw.write(bytes)).await;
    });
    most.await;
    let after = resident(&server)?;
    let mib = after.saturating_sub(before) as f64 / 1024.0;
    println!("{LARGE} connections with all but the end of such a frame: {mib:.1} MiB together");
    Ok(())
}

async fn send_large(agents: SocketAddr) -> Agent {
    let mut agent = Agent::connect(agents).await;
    let body = json!({ "padding": "x".repeat(LARGE_BYTES - 1024) });
    let answer = agent.call(Encoding::Json, &data_of("memory", "large", body)).await;
    assert_eq!(answer, success());
    agent
}

/// The memory of a process that is in use, in KiB.
fn resident(process: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).context("read its status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("find VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("parse VmRSS")
}

//! The oracle: numbered messages of many agents over several connections, while the server is killed, stopped for a moment
//! and left without disk, and while receivers trap, reject and want messages again. Afterwards every acknowledged message
//! was handled or is a dead letter, nothing was invented or changed, and order per agent holds.
//!
//! Runs for `WHARF_ORACLE_SECONDS`, by default 40; `make soak` runs it for as long as one likes. The disk is a small tmpfs,
//! for which the test needs the right to mount one; where it has not, it says so and leaves out the full disk.

mod load;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use e2e::{Config, Rest, Server, Site, SmallDisk, eventually, files, within};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use load::{Counts, Load};
use truth::{Run, Truth};

/// How long it runs if nothing else is said.
const DEFAULT_SECONDS: u64 = 40;
/// Agents, on a connection each; two of every three share one type.
const AGENTS: usize = 12;
/// The receivers: one that handles everything, one that is given messages one by one, one that is given batches.
const RECEIVERS: [&str; 3] = ["recorder", "single", "batched"];

fn config(data_dir: &str) -> Config {
    let mut config = Config::new()
        .set("data-dir", data_dir)
        .set("types.metrics.retain", "0s")
        .set("types.metrics.retain-bytes", "4MiB")
        .set("types.blocks.retain", "0s")
        .set("log.segment-size", "1MiB")
        .set("log.disk-reserve", "6MiB")
        .receiver("recorder", &files::guest("recorder"), &load::TYPES)
        .set("receivers.recorder.instances", 2);
    for name in ["single", "batched"] {
        config = config
            .receiver(name, &files::guest("puppet"), &load::TYPES)
            .set(&format!("receivers.{name}.retry-pause"), "5ms")
            .set(&format!("receivers.{name}.quarantine-failures"), 1_000_000)
            .set(&format!("receivers.{name}.quarantine-percent"), 100);
    }
    config.set("receivers.single.max-messages", 1).set("receivers.batched.instances", 3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_handled_or_a_dead_letter_whatever_happens() {
    let seconds = std::env::var("WHARF_ORACLE_SECONDS").ok().map(|text| text.parse().expect("seconds"));
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(DEFAULT_SECONDS));
    let mut random = StdRng::seed_from_u64(4);
    let disk = SmallDisk::mount();
    let mut site = Site::new(config(disk.path().to_str().unwrap()));
    let mut loads: Vec<Load> = (0..AGENTS).map(Load::new).collect();
    let mut runs: Vec<Run> = Vec::new();
    for round in 0_u64.. {
        // The round before may have left it full, and a server does not start without a byte to write.
        disk.make_room();
        let server = site.start().await;
        // The same port from now on, as agents have it.
        site.set("listen.agents", server.agents.to_string());
        let counts = Arc::new(Counts::default());
        let running: Vec<_> =
            loads.drain(..).map(|load| tokio::spawn(load.run(server.agents, counts.clone()))).collect();
        let was_disturbed = disturb(round, &server, &disk, &counts, &mut random).await;
        // Now and then an orderly stop in the middle of the load.
        let was_stopped = round % 5 == 4;
        let log = if was_stopped { server.stop().await } else { server.kill().await };
        runs.push(Run { log, may_repeat_all: was_disturbed && !was_stopped });
        for load in running {
            loads.push(within("an agent to end", load).await.unwrap());
        }
        if Instant::now() > until {
            break;
        }
    }

    disk.make_room();
    let server = site.start().await;
    for name in RECEIVERS {
        eventually(&format!("{name} to be done"), async || {
            let receiver = server.receiver(name).await;
            let done = ["lag", "in_flight", "parked"].iter().all(|key| receiver[key] == 0);
            done.then_some(())
        })
        .await;
        let report = Rest::new(server.admin).get(&format!("/admin/v1/receivers/{name}")).await.value();
        assert_eq!(report["gap_records"].as_array().map(Vec::len), Some(0), "{report:#}");
    }
    let mut dead = Vec::new();
    for name in ["single", "batched"] {
        dead.push((name, dead_letters(&server, name).await));
    }
    assert!(dead_letters(&server, "recorder").await.is_empty());
    runs.push(Run { log: server.stop().await, may_repeat_all: false });

    let truth = Truth::new(&loads, &runs);
    for (name, dead) in dead {
        truth.check_puppet(name, &dead, name == "single");
    }
    truth.report(runs.len());
}

/// What happens in one round, until it is to end. Says whether cursors may not have been saved for long.
async fn disturb(
    round: u64,
    server: &Server,
    disk: &SmallDisk,
    counts: &Counts,
    random: &mut StdRng,
) -> bool {
    counts.wait_accepted(random.random_range(100..4_000)).await;
    match round % 4 {
        // Stopped as by a machine that was suspended.
        1 => {
            server.signal(Signal::STOP);
            sleep(Duration::from_millis(random.random_range(100..800))).await;
            server.signal(Signal::CONT);
            counts.wait_accepted(200).await;
            true
        }
        // The disk is full. Whoever sends is refused; with room again, it goes on.
        2 if disk.is_small() => {
            disk.fill();
            counts.wait_refused().await;
            let is_killed_meanwhile = round % 8 == 6;
            if !is_killed_meanwhile {
                disk.make_room();
                counts.wait_accepted(200).await;
            }
            true
        }
        // An operator pauses a receiver, which outlasts the kill that follows, and resumes it in another round.
        3 => {
            let name = RECEIVERS[random.random_range(0..RECEIVERS.len())];
            control(server, name, "pause").await;
            counts.wait_accepted(500).await;
            control(server, name, "resume").await;
            false
        }
        _ => {
            counts.wait_accepted(random.random_range(100..4_000)).await;
            false
        }
    }
}

async fn control(server: &Server, receiver: &str, verb: &str) {
    let path = format!("/admin/v1/receivers/{receiver}/{verb}");
    let rest = Rest::new(server.admin);
    // On a full disk it can't be written down, so that it is asked for again.
    eventually("the receiver to be paused or resumed", async || {
        let answer = e2e::rest::send(rest.request(reqwest::Method::POST, &path)).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// The types and offsets of the dead letters of a receiver.
async fn dead_letters(server: &Server, receiver: &str) -> Vec<(String, u64)> {
    let rest = Rest::new(server.admin);
    let mut found = Vec::new();
    let mut from = 0;
    loop {
        let page =
            rest.get(&format!("/admin/v1/receivers/{receiver}/dead-letters?from={from}")).await.value();
        let letters = page["letters"].as_array().unwrap_or_else(|| panic!("{page:#}"));
        let place = |letter: &Value| {
            (letter["type"].as_str().unwrap().to_owned(), letter["offset"].as_u64().unwrap())
        };
        found.extend(letters.iter().map(place));
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => return found,
        }
    }
}

//! `wharf bench`: what it prints, how it ends, and that it tells of a stall.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::calls::data;
use e2e::{Agent, Config, Encoding, Finished, Process, Server, Site, eventually, files};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

fn site() -> Site {
    Site::new(Config::new())
}

/// The arguments of a run without warm-up.
fn args<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "--url", url, "--warm-up", "0s", "--json"], more].concat()
}

async fn bench(site: &Site, server: &Server, more: &[&str]) -> Finished {
    site.run(&args(&format!("http://{}", server.agents), more)).await
}

fn report(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|_| panic!("a report is JSON: {stdout:?}"))
}

/// Waits until the server has accepted something.
async fn busy(server: &Server) {
    eventually("messages to be accepted", async || {
        let accepted = server.metrics().await.get(r#"wharf_messages_accepted_total{type="metrics"}"#);
        (accepted > 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_rate_is_offered_and_told_in_fields_that_stay() {
    let site = Site::new(Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"]));
    let server = site.start().await;
    let mut sent = 0;
    for format in ["json", "msgpack"] {
        let shape = ["--type", "metrics", "--format", format, "--agents", "4", "--connections", "2"];
        let load = ["--batch", "2", "--size", "200", "--rate", "200", "--duration", "300ms"];
        let finished = bench(&site, &server, &[shape, load].concat()).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        // Nobody watches: a live line would only fill a file.
        assert_eq!(finished.stderr, "");
        let report = report(&finished.stdout);
        let expected = json!({
            "type": "metrics", "format": format, "agents": 4, "connections": 2, "batch": 2, "size_bytes": 200,
            "window": 64, "rate": 200, "warm_up_seconds": 0.0, "duration_seconds": 0.3, "interrupted": false,
            "offered": 60, "sent": 60, "accepted": 60, "refused": {}, "unanswered": 0, "unsent": 0, "disconnects": 0,
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&report[field], value, "{field} of {report}");
        }
        let numbers =
            ["seconds", "messages_per_second", "megabytes_per_second", "sent_late", "client_cpu_seconds"];
        assert!(numbers.iter().all(|field| report[field].is_number()), "{report}");
        assert!(report["client_limited"].is_boolean() && report["url"].is_string(), "{report}");
        let latency = report["latency_ms"].as_object().unwrap();
        let quantiles: Vec<_> = ["p50", "p90", "p99", "p99_9", "max"]
            .iter()
            .map(|field| latency[*field].as_f64().unwrap())
            .collect();
        assert!(quantiles.is_sorted() && quantiles[0] > 0.0, "{report}");
        assert_eq!(
            report.as_object().unwrap().len(),
            expected.as_object().unwrap().len() + numbers.len() + 3
        );

        sent += 60;
        let seen = server.log.wait_seen("recorder", sent).await;
        let agents: BTreeSet<_> = seen.iter().map(|seen| seen.agent.as_str()).collect();
        assert_eq!(agents, BTreeSet::from(["bench-0", "bench-1", "bench-2", "bench-3"]));
    }
}

#[tokio::test]
pub async fn bodies_are_metrics_that_a_receiver_can_read() {
    let site = Site::new(Config::new().receiver("meter", &files::guest("meter"), &["metrics"]));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    agent.call(Encoding::Json, &data("a", json!({ "note": "no number" }))).await;
    let more = ["--type", "metrics", "--rate", "100", "--duration", "100ms"];
    let report = report(&bench(&site, &server, &more).await.stdout);
    assert_eq!(report["accepted"], 10, "{report}");
    let handled =
        |metrics: &e2e::admin::Metrics| metrics.get(r#"wharf_messages_handled_total{receiver="meter"}"#);
    eventually("the bodies to be read", async || (handled(&server.metrics().await) == 10.0).then_some(()))
        .await;
}

#[tokio::test]
async fn people_get_a_table() {
    let site = site();
    let server = site.start().await;
    let url = format!("http://{}", server.agents);
    let args = ["bench", "--url", &url, "--type", "metrics", "--warm-up", "10ms", "--duration", "100ms"];
    let finished = site.run(&args).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for part in ["accepted", "a second", "p99.9", "from when a frame was sent", "MB/s", "CPU time"] {
        assert!(finished.stdout.contains(part), "{part} is not in {}", finished.stdout);
    }
}

#[tokio::test]
async fn what_is_refused_is_a_failure_also_in_the_warm_up() {
    let site = site();
    let server = site.start().await;
    let url = format!("http://{}", server.agents);
    let shape = ["--type", "nonsense", "--rate", "100", "--duration", "100ms", "--batch", "2"];
    for warm_up in ["0s", "200ms"] {
        let args = [&["bench", "--url", &url, "--json", "--warm-up", warm_up], &shape[..]].concat();
        let finished = site.run(&args).await;
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        let report = report(&finished.stdout);
        assert_eq!(report["accepted"], 0, "{report}");
        let refused = report["refused"]["unknown_type"].as_u64().unwrap();
        assert!(refused >= 10, "{report}");
        assert!(finished.stderr.contains(&format!("{refused} refused")), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_and_a_wrong_call_are_told_apart() {
    let site = site();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let finished = site.run(&args(&format!("ws://{address}"), &[])).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains(&address), "{}", finished.stderr);
    for wrong in [
        &["--rate", "none"][..],
        &["--rate", "0"],
        &["--agents", "1", "--connections", "2"],
        &["--duration", "0s"],
        &["--batch", "10000", "--size", "10000"],
    ] {
        let finished = site.run(&args("ws://127.0.0.1:1", wrong)).await;
        assert_eq!(finished.code, Some(2), "{wrong:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, "");
    }
}

/// A load on the server that lasts until it is told to stop.
async fn endless(site: &Site, server: &Server, more: &[&str]) -> Process {
    let url = format!("http://{}", server.agents);
    let process = site.spawn(&args(&url, &[&["--type", "metrics"], more].concat()));
    busy(server).await;
    process
}

#[tokio::test]
async fn a_stall_shows_in_every_frame_that_was_due_in_it() {
    let site = site();
    let server = site.start().await;
    let mut load =
        endless(&site, &server, &["--rate", "200", "--connections", "2", "--duration", "4s"]).await;
    server.signal(Signal::STOP);
    // The stall itself, which nothing waits for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.signal(Signal::CONT);
    assert_eq!(load.ended().await.code(), Some(0));
    let report = report(&load.stdout.lines().concat());
    assert_eq!((&report["offered"], &report["accepted"]), (&json!(800), &json!(800)), "{report}");
    let latency = |field: &str| report["latency_ms"][field].as_f64().unwrap();
    assert!(latency("max") >= 1_000.0 && latency("p99_9") >= 990.0, "{report}");
    // A client that waits for answers would have sent the 200 messages of that second later, and told of two slow ones.
    assert!(latency("p90") >= 100.0, "{report}");
}

#[tokio::test]
async fn ctrl_c_ends_a_run_early_with_what_was_measured() {
    for rate in ["max", "100"] {
        // A server for each: what it has accepted says that the load is under way.
        let site = site();
        let server = site.start().await;
        let mut load = endless(&site, &server, &["--rate", rate, "--duration", "1h"]).await;
        load.signal(Signal::INT);
        let status = load.ended().await;
        assert_eq!(status.code(), Some(0), "{:?}", load.log.lines());
        let report = report(&load.stdout.lines().concat());
        assert_eq!(report["interrupted"], true, "{report}");
        assert_eq!(report["accepted"], report["sent"], "{report}");
        assert!(report["seconds"].as_f64().unwrap() < 3_600.0, "{report}");
    }
}

#[tokio::test]
async fn a_server_that_goes_away_is_told_with_what_was_lost() {
    let site = site();
    let server = site.start().await;
    let mut load =
        endless(&site, &server, &["--rate", "1000", "--connections", "3", "--duration", "1h"]).await;
    server.kill().await;
    assert_eq!(load.ended().await.code(), Some(1));
    let report = report(&load.stdout.lines().concat());
    assert_eq!(report["disconnects"], 3, "{report}");
    let lost = report["unanswered"].as_u64().unwrap() + report["unsent"].as_u64().unwrap();
    assert_eq!(report["offered"], report["accepted"].as_u64().unwrap() + lost, "{report}");
    // The rest of the hour was not offered.
    assert!(report["offered"].as_u64().unwrap() < 3_600_000, "{report}");
    let stderr = load.log.lines().concat();
    assert!(stderr.contains("3 connections broke"), "{stderr}");
}

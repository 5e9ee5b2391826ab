//! The numbers at `/metrics`: exactly those of the traffic, by the conventions of Prometheus, and all of them documented.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use e2e::admin::OPENMETRICS;
use e2e::calls::{data, data_of, success};
use e2e::{Agent, Config, Encoding, Server, Site, eventually, files};
use serde_json::{Value, json};

/// A puppet that gets one message at a time, and whose agents stay active however slow the test is.
fn puppet() -> Config {
    Config::new()
        .receiver("puppet", &files::guest("puppet"), &["metrics"])
        .set("receivers.puppet.max-messages", 1)
        .set("receivers.puppet.max-attempts", 2)
        .set("receivers.puppet.retry-pause", "1ms")
        .set("receivers.puppet.quarantine-failures", 1_000_000)
        .set("presence.timeout", "1h")
}

async fn accept(agent: &mut Agent, body: &Value) {
    assert_eq!(agent.call(Encoding::Json, &data("a", body.clone())).await, success());
}

#[tokio::test]
async fn they_are_exactly_those_of_the_traffic() {
    let site = Site::new(puppet());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    // Each frame is answered before the next is sent, so that each is a group of the log.
    let bodies: Vec<_> = (0..5)
        .map(|number| json!({ "name": number.to_string() }))
        .chain([
            json!({ "do": "reject" }),
            json!({ "do": "trap" }),
            json!({ "do": "reject" }),
            json!({ "do": "retry-once" }),
        ])
        .collect();
    for body in &bodies {
        accept(&mut agent, body).await;
    }
    for (times, frame, code) in [
        (2, data("", json!({})), "invalid_field"),
        (1, json!({ "call": "dance" }), "unknown_call"),
        (3, data_of("unheard", "a", json!({})), "unknown_type"),
        (1, json!({ "call": "data", "id": "a", "type": "metrics" }), "missing_field"),
    ] {
        for _ in 0..times {
            assert_eq!(agent.call(Encoding::Json, &frame).await["error"]["code"], code);
        }
    }
    assert_eq!(agent.call_bytes(Encoding::Json, "{").await["error"]["code"], "bad_frame");
    eventually("the puppet to be done", async || {
        let receiver = server.receiver("puppet").await;
        (receiver["handled"] == 6 && receiver["dead"] == 3 && receiver["lag"] == 0).then_some(())
    })
    .await;

    let metrics = server.metrics().await;
    // Five, two rejected, one that traps twice, and one that comes twice.
    let calls = 5.0 + 2.0 + 2.0 + 2.0;
    let body_bytes: usize = bodies.iter().map(|body| body.to_string().len()).sum();
    for (series, expected) in [
        (r#"wharf_connections{listener="agents"}"#, 1.0),
        (r#"wharf_messages_accepted_total{type="metrics"}"#, 9.0),
        (r#"wharf_accepted_body_bytes_total{type="metrics"}"#, body_bytes as f64),
        ("wharf_acknowledgement_seconds_count", 9.0),
        (r#"wharf_acknowledgement_seconds_bucket{le="+Inf"}"#, 9.0),
        (r#"wharf_calls_refused_total{code="invalid_field"}"#, 2.0),
        (r#"wharf_calls_refused_total{code="unknown_call"}"#, 1.0),
        (r#"wharf_calls_refused_total{code="unknown_type"}"#, 3.0),
        (r#"wharf_calls_refused_total{code="missing_field"}"#, 1.0),
        (r#"wharf_calls_refused_total{code="bad_frame"}"#, 1.0),
        (r#"wharf_calls_refused_total{code="overloaded"}"#, 0.0),
        ("wharf_agents_active", 1.0),
        (r#"wharf_log_append_seconds_count{type="metrics"}"#, 9.0),
        (r#"wharf_log_write_seconds_count{type="metrics"}"#, 9.0),
        (r#"wharf_log_sync_seconds_count{type="metrics"}"#, 9.0),
        (r#"wharf_log_group_bytes_count{type="metrics"}"#, 9.0),
        // With the record that says that the agent is active, which came with its first message.
        (r#"wharf_log_group_records_sum{type="metrics"}"#, 10.0),
        (r#"wharf_log_group_records_bucket{le="1.0",type="metrics"}"#, 8.0),
        (r#"wharf_log_group_records_bucket{le="4.0",type="metrics"}"#, 9.0),
        (r#"wharf_log_appends_refused_total{type="metrics",reason="no-space"}"#, 0.0),
        (r#"wharf_log_blocks_abandoned_total{type="metrics"}"#, 0.0),
        (r#"wharf_log_queued_bytes{type="metrics"}"#, 0.0),
        (r#"wharf_log_segments{type="metrics"}"#, 1.0),
        (r#"wharf_log_start_offset{type="metrics"}"#, 0.0),
        (r#"wharf_log_end_offset{type="metrics"}"#, 10.0),
        (r#"wharf_messages_handled_total{receiver="puppet"}"#, 6.0),
        (r#"wharf_messages_retried_total{receiver="puppet"}"#, 1.0),
        (r#"wharf_receiver_dead_letters_total{receiver="puppet",kind="rejected"}"#, 2.0),
        (r#"wharf_receiver_dead_letters_total{receiver="puppet",kind="faults"}"#, 1.0),
        (r#"wharf_receiver_dead_letters_total{receiver="puppet",kind="too-old"}"#, 0.0),
        (r#"wharf_receiver_dead_letters_kept{receiver="puppet"}"#, 3.0),
        (r#"wharf_receiver_messages_dropped_total{receiver="puppet",reason="dead-letters-full"}"#, 0.0),
        (r#"wharf_receiver_waiting_agents{receiver="puppet"}"#, 0.0),
        (r#"wharf_receiver_faults_total{receiver="puppet",kind="unreachable"}"#, 2.0),
        (r#"wharf_receiver_faults_total{receiver="puppet",kind="deadline"}"#, 0.0),
        (r#"wharf_instances_started_total{receiver="puppet"}"#, 3.0),
        (r#"wharf_receiver_batch_messages_count{receiver="puppet"}"#, calls),
        (r#"wharf_receiver_batch_messages_sum{receiver="puppet"}"#, calls),
        (r#"wharf_receiver_call_seconds_count{receiver="puppet"}"#, calls),
        (r#"wharf_receiver_lag_messages{receiver="puppet",type="metrics"}"#, 0.0),
        (r#"wharf_receiver_lag_seconds{receiver="puppet",type="metrics"}"#, 0.0),
        (r#"wharf_receiver_state{receiver="puppet",state="running"}"#, 1.0),
    ] {
        assert_eq!(metrics.get(series), expected, "{series}: {metrics:#?}");
    }
    let on_disk: u64 = std::fs::read_dir(site.topic("metrics"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "seg"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert_eq!(metrics.get(r#"wharf_log_disk_bytes{type="metrics"}"#), on_disk as f64);
    for series in [
        r#"wharf_receiver_busy_seconds_total{receiver="puppet"}"#,
        r#"wharf_receiver_call_seconds_sum{receiver="puppet"}"#,
        r#"wharf_receiver_memory_bytes{receiver="puppet"}"#,
        r#"wharf_log_sync_seconds_sum{type="metrics"}"#,
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(metrics.get(series) > 0.0, "{series}: {metrics:#?}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_paused_lags_and_says_for_how_long() {
    let site = Site::new(puppet());
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["pause", "puppet", "--admin", &admin]).await.code, Some(0));
    let mut agent = Agent::connect(server.agents).await;
    let began = Instant::now();
    for number in 0..3 {
        accept(&mut agent, &json!({ "name": number.to_string() })).await;
    }
    let lag = eventually("a lag that can be seen", async || {
        let metrics = server.metrics().await;
        let lag = metrics.get(r#"wharf_receiver_lag_seconds{receiver="puppet",type="metrics"}"#);
        (lag > 0.0).then_some(lag)
    })
    .await;
    assert!(lag <= began.elapsed().as_secs_f64() + 0.001, "the first message is no older than that: {lag}");
    // The messages, and perhaps the record that their agent is active, which is not for this receiver.
    let metrics = server.metrics().await;
    let messages = metrics.get(r#"wharf_receiver_lag_messages{receiver="puppet",type="metrics"}"#);
    assert!((3.0..=4.0).contains(&messages), "{messages}");
    assert_eq!(site.run(&["resume", "puppet", "--admin", &admin]).await.code, Some(0));
    eventually("no lag", async || {
        let metrics = server.metrics().await;
        (metrics.get(r#"wharf_receiver_lag_seconds{receiver="puppet",type="metrics"}"#) == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_does_not_know_openmetrics_gets_the_older_format() {
    let server = Site::new(puppet()).start().await;
    let newer = server.metrics_text(OPENMETRICS).await;
    assert!(newer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(newer.text().contains("\n# TYPE wharf_calls_refused counter\n"), "{}", newer.text());
    for accept in ["*/*", "text/plain;version=0.0.4"] {
        let older = server.metrics_text(accept).await;
        assert!(older.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{accept}");
        let text = older.text();
        assert!(text.contains("\n# TYPE wharf_calls_refused_total counter\n"), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
    }
}

/// A family as `/metrics` describes it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Names of the labels of its samples, but for those of buckets.
    labels: BTreeSet<String>,
    /// Each series with its value, in the order in which they came.
    samples: Vec<(String, f64)>,
}

/// What a server with a receiver of every grant says before any message.
async fn families() -> BTreeMap<String, Family> {
    let config = Config::new()
        .receiver("tour", &files::component("tour"), &["metrics"])
        .set("receivers.tour.config.greeting", "hello")
        .set("receivers.tour.keyvalue", true)
        .set("receivers.tour.live", true)
        .set("receivers.tour.http", json!(["http://127.0.0.1:9"]))
        .set("receivers.tour.tick", "1h");
    let mut site = Site::new(config);
    std::fs::create_dir(site.path().join("out")).unwrap();
    site.change(|config| config.file_grant("tour", "out", "/out", true));
    let server = site.start().await;
    parse(&server).await
}

async fn parse(server: &Server) -> BTreeMap<String, Family> {
    let text = server.metrics_text(OPENMETRICS).await.text();
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(described) = line.strip_prefix("# HELP ") {
            let (name, help) = described.split_once(' ').unwrap();
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} is there twice");
            current = name.to_owned();
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            assert_eq!(name, current, "a description is in one piece");
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(&current), "{series} is not of {current}");
            let family = families.get_mut(&current).unwrap();
            let labels = series.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            family.labels.extend(names.filter(|name| name != "le"));
            family.samples.push((series.to_owned(), value.parse().unwrap()));
        }
    }
    families
}

#[tokio::test]
async fn they_follow_the_conventions() {
    /// Labels whose values come from the config or the code, never from an agent.
    const BOUNDED: [&str; 10] = [
        "code",
        "kind",
        "listener",
        "outcome",
        "reason",
        "receiver",
        "state",
        "type",
        "version",
        "waited_for",
    ];
    /// Units that are not base units, and what a name must not end in.
    const WRONG: [&str; 8] =
        ["_ms", "_milliseconds", "_micros", "_minutes", "_kb", "_mb", "_percent", "_total"];
    for (name, Family { kind, help, labels, samples }) in families().await {
        assert!(name.starts_with("wharf_") || name.starts_with("process_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        assert!(!WRONG.iter().any(|end| name.ends_with(end)), "{name}");
        let begins = help.starts_with(|first: char| first.is_ascii_uppercase() || first.is_ascii_digit());
        assert!(begins && help.ends_with('.') && !help.ends_with(".."), "{name}: {help:?}");
        assert!(labels.iter().all(|label| BOUNDED.contains(&label.as_str())), "{name}: {labels:?}");
        let mut series = BTreeSet::new();
        assert!(samples.iter().all(|(sample, _)| series.insert(sample)), "{name}: {samples:?}");
        match kind.as_str() {
            "counter" => {
                let is_total = |(sample, _): &(String, f64)| {
                    sample
                        .strip_prefix(&name)
                        .is_some_and(|rest| rest == "_total" || rest.starts_with("_total{"))
                };
                assert!(samples.iter().all(is_total), "{name}: {samples:?}");
            }
            "gauge" => {
                let is_plain = |(sample, _): &(String, f64)| {
                    sample.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                };
                assert!(samples.iter().all(is_plain), "{name}: {samples:?}");
            }
            "histogram" => {
                let units = ["_seconds", "_bytes", "_messages", "_records"];
                assert!(units.iter().any(|unit| name.ends_with(unit)), "{name} has no unit");
                let (mut buckets, mut counts) = (0, 0);
                let mut below = 0.0;
                for (sample, value) in &samples {
                    if sample.starts_with(&format!("{name}_bucket")) {
                        assert!(*value >= below, "{name}: {samples:?}");
                        below = if sample.contains(r#"le="+Inf""#) { 0.0 } else { *value };
                        buckets += 1;
                    }
                    counts += usize::from(sample.starts_with(&format!("{name}_count")));
                }
                assert!(counts > 0 && buckets > counts, "{name}: {samples:?}");
            }
            other => panic!("{name} is a {other}"),
        }
    }
}

#[tokio::test]
async fn the_page_lists_every_one_of_them() {
    let page = std::fs::read_to_string(files::root().join("docs/metrics.md")).unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("| `wharf_") || line.starts_with("| `process_"))
        .map(|line| line.split(" | ").take(3).collect::<Vec<_>>().join(" | "))
        .collect();
    let families = families().await;
    let row = |(name, family): (&String, &Family)| {
        let name = if family.kind == "counter" { format!("{name}_total") } else { name.clone() };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {} | {}", family.kind, labels.join(", "))
    };
    let exported: BTreeSet<String> = families.iter().map(row).collect();
    let missing: Vec<_> = exported.difference(&documented).collect();
    let outdated: Vec<_> = documented.difference(&exported).collect();
    assert!(
        missing.is_empty() && outdated.is_empty(),
        "docs/metrics.md lacks {missing:#?} and lists {outdated:#?}"
    );
}

#[tokio::test]
async fn dead_letters_that_fall_out_and_messages_that_wait_are_counted() {
    let config = puppet().set("receivers.puppet.dead-letters", 2);
    let server = Site::new(config).start().await;
    let mut agent = Agent::connect(server.agents).await;
    for _ in 0..5 {
        accept(&mut agent, &json!({ "do": "reject" })).await;
    }
    accept(&mut agent, &json!({ "do": "retry", "milliseconds": 3_600_000 })).await;
    for number in 0..3 {
        accept(&mut agent, &json!({ "name": number.to_string() })).await;
    }
    let metrics = eventually("three messages behind the one that waits", async || {
        let metrics = server.metrics().await;
        (metrics.get(r#"wharf_receiver_parked_messages{receiver="puppet"}"#) == 3.0).then_some(metrics)
    })
    .await;
    for (series, expected) in [
        (r#"wharf_receiver_in_flight_messages{receiver="puppet"}"#, 1.0),
        (r#"wharf_receiver_waiting_agents{receiver="puppet"}"#, 1.0),
        (r#"wharf_receiver_dead_letters_total{receiver="puppet",kind="rejected"}"#, 5.0),
        (r#"wharf_receiver_dead_letters_kept{receiver="puppet"}"#, 2.0),
        (r#"wharf_receiver_messages_dropped_total{receiver="puppet",reason="dead-letters-full"}"#, 3.0),
        (r#"wharf_messages_retried_total{receiver="puppet"}"#, 1.0),
        (r#"wharf_receiver_lag_messages{receiver="puppet",type="metrics"}"#, 4.0),
    ] {
        assert_eq!(metrics.get(series), expected, "{series}: {metrics:#?}");
    }
    assert!(metrics.get(r#"wharf_receiver_dead_letter_bytes{receiver="puppet"}"#) > 0.0);
}

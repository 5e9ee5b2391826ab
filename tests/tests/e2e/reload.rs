//! A changed config is taken over while agents send: what it can change, what it can't, and that it changes all or nothing.

mod crash;
mod load;
mod types;

use e2e::calls::{data_of, success};
use e2e::{Agent, Config, Encoding, Finished, Rest, Seen, Server, Site, eventually, files};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Two data types and the receiver `counter` of the first.
fn counter() -> Config {
    receiver(Config::new().data_type("other"), "counter", "counter", &["metrics"])
}

/// Adds a receiver that counts.
fn receiver(config: Config, name: &str, guest: &str, types: &[&str]) -> Config {
    config
        .receiver(name, &files::guest(guest), types)
        .set(&format!("receivers.{name}.retry-pause"), "1ms")
        .set(&format!("receivers.{name}.probation"), "0s")
}

async fn send(agent: &mut Agent, data_type: &str, id: &str, bodies: impl IntoIterator<Item = Value>) {
    for body in bodies {
        assert_eq!(agent.call(Encoding::Json, &data_of(data_type, id, body)).await, success());
    }
}

fn numbers(from: u64, to: u64) -> impl Iterator<Item = Value> {
    (from..to).map(|number| json!({ "number": number }))
}

fn number(seen: &Seen) -> u64 {
    seen.body["number"].as_u64().expect("a body has a number")
}

async fn operate(site: &Site, server: &Server, command: &[&str]) -> Finished {
    let admin = format!("http://{}", server.admin);
    site.run(&[command, &["--admin", &admin]].concat()).await
}

/// A reload that goes well, and what it changed.
async fn reloaded(site: &Site, server: &Server, arguments: &[&str]) -> Value {
    site.write_config();
    let finished = operate(site, server, &[&["reload", "--json"], arguments].concat()).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
    serde_json::from_str(&finished.stdout).expect("what was changed is JSON")
}

/// A reload that changes nothing, and why.
async fn refused(site: &Site, server: &Server) -> String {
    let finished = operate(site, server, &["reload"]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""));
    let start = "wharf: failed to reload the config: nothing was changed: failed to ";
    finished.stderr.strip_prefix(start).unwrap_or_else(|| panic!("{}", finished.stderr)).trim_end().to_owned()
}

async fn receipts(server: &Server) -> Vec<Value> {
    let answer = Rest::new(server.admin).get("/admin/v1/swaps").await;
    answer.value()["swaps"].as_array().expect("receipts are a list").clone()
}

/// What of a receiver a reload could change.
async fn shape(server: &Server) -> Value {
    let mut status = server.status().await;
    let mut receivers = status["receivers"].take();
    for receiver in receivers.as_array_mut().expect("receivers are a list") {
        let receiver = receiver.as_object_mut().expect("a receiver is an object");
        receiver
            .retain(|key, _| ["name", "types", "instances", "state", "component"].contains(&key.as_str()));
        receiver["component"].as_object_mut().expect("a component is an object").remove("since");
    }
    let types = status["types"].as_array().expect("types are a list");
    json!({ "receivers": receivers, "types": types.iter().map(|of| of["name"].clone()).collect::<Value>() })
}

fn digest(component: &std::path::Path) -> String {
    use sha2::{Digest, Sha256};
    format!("{:x}", Sha256::digest(std::fs::read(component).unwrap()))
}

#[tokio::test]
async fn receivers_come_go_and_come_back() {
    let mut site = Site::new(counter());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 2)).await;
    assert_eq!(
        reloaded(&site, &server, &[]).await,
        json!({ "types": [], "added": [], "removed": [], "changed": [], "keys": [], "warnings": [] })
    );
    site.change(|config| receiver(config, "another", "recorder", &["metrics", "other"]));
    let report = reloaded(&site, &server, &[]).await;
    assert_eq!((&report["added"], &report["changed"]), (&json!(["another"]), &json!([])));
    let shape = shape(&server).await;
    let names: Value = shape["receivers"].as_array().unwrap().iter().map(|of| of["name"].clone()).collect();
    assert_eq!(names, json!(["another", "counter"]), "they are in the order of names");
    send(&mut agent, "metrics", "a", numbers(2, 4)).await;
    send(&mut agent, "other", "a", numbers(4, 5)).await;
    let seen = server.log.wait_seen("another", 3).await;
    let mut got: Vec<_> = seen.iter().map(number).collect();
    got.sort_unstable();
    assert_eq!(got, [2, 3, 4], "it begins with what comes from then on");
    assert_eq!(
        server.metrics().await.get(r#"wharf_receiver_state{receiver="another",state="running"}"#),
        1.0
    );

    // Without it, what comes is kept for it.
    let with_both = site.write_config();
    let text = std::fs::read_to_string(&with_both).unwrap();
    std::fs::write(&with_both, counter().to_toml()).unwrap();
    let finished = operate(&site, &server, &["reload"]).await;
    assert_eq!(finished.stdout, "removed  receivers.another\n", "{}", finished.stderr);
    let metrics = server.metrics().await;
    for gauge in ["wharf_receiver_state", "wharf_receiver_lag_messages", "wharf_receiver_backlog_bytes"] {
        let of_another = |series: &str| series.contains("another");
        assert!(!metrics.beginning(gauge).iter().any(|(series, _)| of_another(series)), "{gauge} is stale");
    }
    assert_eq!(Rest::new(server.admin).get("/admin/v1/receivers/another").await.status, 404);
    send(&mut agent, "metrics", "a", numbers(5, 7)).await;
    server.log.wait_seen("counter", 6).await;
    std::fs::write(&with_both, text).unwrap();
    let finished = operate(&site, &server, &["reload"]).await;
    assert_eq!(finished.stdout, "added    receivers.another\n", "{}", finished.stderr);
    let seen = server.log.wait_seen("another", 5).await;
    assert_eq!(seen[3..].iter().map(number).collect::<Vec<_>>(), [5, 6]);
    assert!(seen.iter().all(|seen| seen.redelivery == "none"));
    let last = server.log.wait_seen("counter", 6).await;
    assert_eq!(last[5].count, Some(6), "the other one did not notice");
    server.stop().await;
}

#[tokio::test]
async fn a_receiver_gets_other_data_types_and_loses_none_of_their_messages() {
    let mut site = Site::new(counter());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 2)).await;
    send(&mut agent, "other", "a", numbers(2, 3)).await;
    server.log.wait_seen("counter", 2).await;
    site.set("receivers.counter.types", json!(["other"]));
    site.set("receivers.counter.instances", 2);
    let report = reloaded(&site, &server, &[]).await;
    assert_eq!(report["changed"][0]["keys"], json!(["types", "instances"]));
    let kept = receipts(&server).await;
    assert_eq!(
        (&kept[0]["kind"], &kept[0]["reason"]),
        (&json!("reload"), &json!("the config changed: types, instances"))
    );
    assert_eq!(kept[0]["id"], report["changed"][0]["receipt"]);
    assert_eq!(kept[0]["state"]["snapshots"], 1);
    send(&mut agent, "other", "a", numbers(3, 4)).await;
    send(&mut agent, "metrics", "a", numbers(4, 6)).await;
    let seen = server.log.wait_seen("counter", 3).await;
    assert_eq!((seen[2].r#type.as_str(), number(&seen[2])), ("other", 3));

    // It gets what came meanwhile when the type is its again, also after a crash.
    server.kill().await;
    site.set("receivers.counter.types", json!(["metrics", "other"]));
    let server = site.start().await;
    eventually("what came meanwhile", async || {
        let seen = server.log.seen("counter");
        [4, 5].iter().all(|expected| seen.iter().any(|seen| number(seen) == *expected)).then_some(())
    })
    .await;
    // And in the same run.
    site.set("receivers.counter.types", json!(["other"]));
    reloaded(&site, &server, &[]).await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(6, 8)).await;
    site.set("receivers.counter.types", json!(["other", "metrics"]));
    reloaded(&site, &server, &[]).await;
    let last = eventually("what came meanwhile", async || {
        let seen = server.log.seen("counter");
        (seen.iter().filter(|seen| number(seen) >= 6).count() == 2).then_some(seen)
    })
    .await;
    let last: Vec<_> =
        last.iter().filter(|seen| number(seen) >= 6).map(|seen| seen.redelivery.clone()).collect();
    assert_eq!(last, ["none", "none"]);
}

#[tokio::test]
async fn settings_change_and_the_state_goes_on() {
    let mut site = Site::new(counter());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 3)).await;
    server.log.wait_seen("counter", 3).await;
    site.set("receivers.counter.max-wait", "1ms");
    site.set("receivers.counter.config.greeting", "hello");
    site.set("types.metrics.retain", "1h");
    site.set("log.absent-grace", "1h");
    site.write_config();
    let finished = operate(&site, &server, &["reload"]).await;
    assert_eq!(
        finished.stdout,
        "changed  receivers.counter: config, max-wait (receipt 1)\nchanged  log.absent-grace\nchanged  types.metrics.retain\n",
        "{}",
        finished.stderr
    );
    send(&mut agent, "metrics", "a", numbers(3, 4)).await;
    let seen = server.log.wait_seen("counter", 4).await;
    assert_eq!(seen[3].count, Some(4));
    let said = operate(&site, &server, &["swap", "counter", "--rollback"]).await;
    assert!(said.stderr.contains("there is no component before"), "{}", said.stderr);
}

#[tokio::test]
async fn a_config_that_can_not_be_taken_over_changes_nothing() {
    let config = receiver(counter(), "second", "counter", &["metrics"]);
    let mut site = Site::new(config.clone());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 2)).await;
    server.log.wait_seen("second", 2).await;
    let before = shape(&server).await;
    let known = std::fs::read(site.data().join("RECEIVERS")).unwrap();
    let third = |guest: &str| receiver(config.clone(), "third", guest, &["metrics"]);
    let cases: [(Config, &[&str]); 9] = [
        (
            config.clone().set("limits.max-frames", 1),
            &["wharf.toml:", "unknown key, did you mean \"max-frame\"?"],
        ),
        (
            config
                .clone()
                .set("listen.agents", "127.0.0.1:1")
                .set("limits.max-depth", 9)
                .set("types.other.durability", "os"),
            &[
                "take over what needs a restart of the server: listen.agents, limits.max-depth, types.other.durability",
            ],
        ),
        (
            config.clone().set("receivers.counter.keyvalue", true),
            &["receivers.counter.keyvalue (no receiver"],
        ),
        (
            config.clone().set("receivers.counter.component", "missing.wasm"),
            &["change receiver \"counter\"", "missing.wasm"],
        ),
        (config.clone().file_grant("counter", "data", "/data", true), &["the data directory"]),
        (third("init-fails").data_type("more"), &["start receiver \"third\""]),
        (third("odd-import"), &["receivers.third.component"]),
        // The first one is ready by then.
        (
            config
                .clone()
                .set("receivers.counter.max-wait", "1ms")
                .set("receivers.second.config.counter.init", "fail"),
            &["change receiver \"second\"", "counter was told to fail in init"],
        ),
        (
            third("recorder")
                .set("receivers.counter.instances", 3)
                .set("receivers.second.config.counter.restore", "fail"),
            &["change receiver \"second\"", "counter was told to fail in restore"],
        ),
    ];
    for (changed, reasons) in cases {
        site.change(|_| changed);
        site.write_config();
        let said = refused(&site, &server).await;
        assert!(reasons.iter().all(|reason| said.contains(reason)), "{reasons:?}: {said}");
        assert_eq!(shape(&server).await, before, "{reasons:?}");
    }
    assert_eq!(std::fs::read(site.data().join("RECEIVERS")).unwrap(), known);
    // The one that was exchanged before another failed is back, with what it knew.
    let kept = receipts(&server).await;
    let last: Vec<_> =
        kept.iter().rev().take(3).map(|of| (of["receiver"].clone(), of["outcome"].clone())).collect();
    assert_eq!(last[1], (json!("second"), json!("refused")), "{kept:#?}");
    assert_eq!((&last[0].0, &last[2].0), (&json!("counter"), &json!("counter")), "{kept:#?}");
    assert!(kept.last().unwrap()["reason"].as_str().unwrap().starts_with("the reload was taken back: "));
    send(&mut agent, "metrics", "a", numbers(2, 3)).await;
    for receiver in ["counter", "second"] {
        let seen = server.log.wait_seen(receiver, 3).await;
        assert_eq!((number(&seen[2]), seen[2].count, seen.len()), (2, Some(3), 3), "{receiver}");
    }
    site.change(|_| config);
    assert_eq!(reloaded(&site, &server, &[]).await["changed"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn a_signal_reloads_too() {
    let mut site = Site::new(counter());
    let server = site.start().await;
    site.change(|config| receiver(config, "second", "recorder", &["metrics"]));
    site.write_config();
    server.signal(Signal::HUP);
    server.log.wait_for(&["the config was reloaded", "who=\"SIGHUP\"", "changes=added second"]).await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 1)).await;
    server.log.wait_seen("second", 1).await;
    site.set("presence.timeout", "1s");
    site.write_config();
    server.signal(Signal::HUP);
    server.log.wait_for(&["the config was not reloaded", "presence.timeout"]).await;
    send(&mut agent, "metrics", "a", numbers(1, 2)).await;
    server.log.wait_seen("second", 2).await;
    server.stop().await;
}

#[tokio::test]
async fn a_changed_file_wins_over_what_was_swapped_in() {
    let mut site = Site::new(counter());
    let component = site.path().join("counter.wasm");
    std::fs::copy(files::guest("counter"), &component).unwrap();
    site.set("receivers.counter.component", component.to_str().unwrap());
    let server = site.start().await;
    let (next, recorder) = (files::guest("counter-next"), files::guest("recorder"));
    let swapped = operate(&site, &server, &["swap", "counter", next.to_str().unwrap()]).await;
    assert_eq!(swapped.code, Some(0), "{}", swapped.stderr);
    let runs = async || server.receiver("counter").await["component"]["digest"].clone();
    // The file is as before, so that what was swapped in stays, also under other settings.
    site.set("receivers.counter.deadline", "4s");
    let report = reloaded(&site, &server, &[]).await;
    assert_eq!((&report["changed"][0]["component"], runs().await), (&Value::Null, digest(&next).into()));
    // So it does when it has become the file.
    std::fs::copy(&next, &component).unwrap();
    assert_eq!(reloaded(&site, &server, &[]).await["changed"], json!([]));
    std::fs::copy(files::guest("counter"), &component).unwrap();
    let report = reloaded(&site, &server, &[]).await;
    assert_eq!(report["changed"][0]["component"], digest(&component));
    assert_eq!(report["changed"][0]["keys"], json!([]));
    // A rollback brings the one before, and the file wins again only when it is another one.
    let back = operate(&site, &server, &["swap", "counter", "--rollback"]).await;
    assert_eq!((back.code, runs().await), (Some(0), digest(&next).into()), "{}", back.stderr);
    assert_eq!(reloaded(&site, &server, &[]).await["changed"], json!([]));
    std::fs::copy(&recorder, &component).unwrap();
    let said = refused(&site, &server).await;
    assert!(said.contains("does not export `handover`") && said.contains("--drop-state"), "{said}");
    let report = reloaded(&site, &server, &["--drop-state"]).await;
    assert_eq!(report["changed"][0]["component"], digest(&recorder));
    let last = receipts(&server).await.pop().unwrap();
    assert_eq!((&last["kind"], &last["reason"]), (&json!("reload"), &json!("the config changed: its file")));
    server.kill().await;
    let server = site.start().await;
    assert_eq!(server.receiver("counter").await["component"]["digest"], digest(&recorder));
}

#[tokio::test]
async fn what_a_receiver_left_in_a_call_that_hung_comes_marked_when_it_is_back() {
    let config = counter()
        .set("receivers.counter.deadline", "10m")
        .set("receivers.counter.swap-timeout", "100ms")
        .set("receivers.counter.max-wait", "0s");
    let mut site = Site::new(config.clone());
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&mut agent, "metrics", "a", numbers(0, 1)).await;
    server.log.wait_seen("counter", 1).await;
    send(&mut agent, "metrics", "a", [json!({ "do": "hang", "in": "counter" })]).await;
    eventually("the call to hang", async || (server.receiver("counter").await["lag"] == 1).then_some(()))
        .await;
    site.change(|_| Config::new().data_type("other"));
    assert_eq!(reloaded(&site, &server, &[]).await["removed"], json!(["counter"]));
    site.change(|_| {
        config.set(
            "receivers.counter.component",
            files::guest("counter-next").to_str().expect("a path is text"),
        )
    });
    assert_eq!(reloaded(&site, &server, &[]).await["added"], json!(["counter"]));
    let seen = server.log.wait_seen("counter", 2).await;
    assert_eq!((seen[1].version.as_deref(), seen[1].redelivery.as_str()), (Some("counter-next"), "again"));
    let kept = receipts(&server).await;
    assert_eq!(
        kept[0]["reason"], "the file of the config changed while the receiver was not in it",
        "{kept:#?}"
    );
}

#[tokio::test]
async fn pages_come_and_go_with_their_receivers() {
    let mut site = Site::new(counter());
    let server = site.start().await;
    let page = async || Rest::new(server.agents).get("/r/page/").await.status;
    assert_eq!(page().await, 404);
    site.change(|config| {
        config.receiver("page", &files::guest("page"), &["metrics"]).set("receivers.page.live", true)
    });
    reloaded(&site, &server, &[]).await;
    assert_ne!(page().await, 404);
    site.change(|_| counter());
    reloaded(&site, &server, &[]).await;
    assert_eq!(page().await, 404);
}

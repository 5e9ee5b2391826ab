//! Receivers' components are replaced while messages flow: what is handed over, what is refused, and what the receipts say.

mod load;
mod told;

use std::path::Path;

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Finished, Seen, Server, Site, eventually, files};
use serde_json::{Value, json};

/// The receiver of these tests, with `counter` as its component.
fn counter() -> Config {
    Config::new()
        .receiver("counter", &files::guest("counter"), &["metrics"])
        .set("receivers.counter.retry-pause", "1ms")
        .set("receivers.counter.probation", "0s")
}

/// Sends messages of one agent, one after the other.
async fn send(server: &Server, agent: &str, bodies: impl IntoIterator<Item = Value>) {
    let mut connection = Agent::connect(server.agents).await;
    for body in bodies {
        assert_eq!(connection.call(Encoding::Json, &data(agent, body)).await, success());
    }
}

fn numbers(from: u64, to: u64) -> impl Iterator<Item = Value> {
    (from..to).map(|number| json!({ "number": number }))
}

async fn operate(site: &Site, server: &Server, command: &[&str]) -> Finished {
    let admin = format!("http://{}", server.admin);
    site.run(&[command, &["--admin", &admin]].concat()).await
}

/// A swap or rollback that goes well, and its receipt.
async fn swapped(site: &Site, server: &Server, arguments: &[&str]) -> Value {
    let finished = operate(site, server, &[&["swap", "counter", "--json"], arguments].concat()).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
    serde_json::from_str(&finished.stdout).expect("a receipt is JSON")
}

/// A swap that is refused, and why.
async fn refused(site: &Site, server: &Server, arguments: &[&str]) -> String {
    let finished = operate(site, server, &[&["swap", "counter"], arguments].concat()).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{arguments:?}");
    finished.stderr.trim_end().to_owned()
}

/// All receipts that are kept.
async fn receipts(site: &Site, server: &Server) -> Vec<Value> {
    let finished = operate(site, server, &["swaps", "--json"]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let answer: Value = serde_json::from_str(&finished.stdout).expect("receipts are JSON");
    answer["swaps"].as_array().expect("a list of receipts").clone()
}

fn guest(name: &str) -> String {
    files::guest(name).to_str().expect("paths of tests are text").to_owned()
}

/// Which version saw a message, the count of its agent with it, and how it was marked.
fn told(seen: &[Seen]) -> Vec<(String, u64, &str)> {
    let one = |seen: &'_ Seen| (seen.version.clone().unwrap(), seen.count.unwrap());
    seen.iter().map(|seen| (one(seen).0, one(seen).1, seen.redelivery.as_str())).collect()
}

fn digest(component: &Path) -> String {
    use sha2::{Digest, Sha256};
    format!("{:x}", Sha256::digest(std::fs::read(component).unwrap()))
}

#[tokio::test]
async fn a_version_takes_over_what_the_one_before_knows_and_gives_it_back() {
    let site = Site::new(counter().set("receivers.counter.instances", 2));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    send(&server, "a", numbers(0, 3)).await;
    send(&server, "b", numbers(0, 2)).await;
    server.log.wait_seen("counter", 5).await;
    let receipt = swapped(&site, &server, &[&guest("counter-next")]).await;
    assert_eq!(receipt["outcome"], "settled", "{receipt:#}");
    assert_eq!(receipt["kind"], "swap");
    assert_eq!(receipt["old"], digest(&files::guest("counter")));
    assert_eq!(receipt["new"], digest(&files::guest("counter-next")));
    assert_eq!(receipt["state"]["snapshots"], 2);
    assert_eq!(receipt["state"]["formats"], json!(["counter/1"]));
    assert_eq!(receipt["pause_ms"].as_array().map(Vec::len), Some(2));
    assert_eq!(receipt["counts"]["lost"], 0);
    assert_eq!(receipt["counts"]["pending"], 0);
    assert!(receipt["who"].as_str().unwrap().contains('@'), "{receipt:#}");
    send(&server, "a", numbers(3, 5)).await;
    let seen = server.log.wait_seen("counter", 7).await;
    let next = |count| ("counter-next".to_owned(), count, "none");
    assert_eq!(told(&seen[5..]), [next(4), next(5)]);
    server.log.wait_for(&["guest: counter terminate"]).await;

    let receipt = swapped(&site, &server, &["--rollback"]).await;
    assert_eq!((&receipt["kind"], &receipt["outcome"]), (&json!("rollback"), &json!("settled")));
    assert_eq!(receipt["new"], digest(&files::guest("counter")));
    assert_eq!(receipt["state"]["missing"], Value::Null);
    send(&server, "b", numbers(2, 3)).await;
    let seen = server.log.wait_seen("counter", 8).await;
    assert_eq!(told(&seen[7..]), [("counter".to_owned(), 3, "none")]);
    // And again: the one before is now the other.
    let receipt = swapped(&site, &server, &["--rollback"]).await;
    assert_eq!(receipt["new"], digest(&files::guest("counter-next")));
    // The connection of before any of it is open still.
    assert_eq!(agent.call(Encoding::Json, &data("c", json!({}))).await, success());

    let kept = receipts(&site, &server).await;
    let ids: Vec<_> = kept.iter().map(|receipt| receipt["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
    let table = operate(&site, &server, &["swaps", "counter"]).await.stdout;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(operate(&site, &server, &["swaps", "other"]).await.stdout.lines().count(), 1);
}

#[tokio::test]
async fn a_swap_outlasts_a_restart_until_the_configured_file_changes() {
    let mut site = Site::new(counter());
    let component = site.path().join("counter.wasm");
    std::fs::copy(files::guest("counter"), &component).unwrap();
    site.set("receivers.counter.component", component.to_str().unwrap());
    let server = site.start().await;
    swapped(&site, &server, &[&guest("counter-next")]).await;
    server.kill().await;

    let server = site.start().await;
    send(&server, "a", numbers(0, 1)).await;
    assert_eq!(server.log.wait_seen("counter", 1).await[0].version.as_deref(), Some("counter-next"));
    let kept = receipts(&site, &server).await;
    assert_eq!(kept.len(), 1, "{kept:#?}");
    server.stop().await;

    // The same file written again changes nothing; another one wins.
    std::fs::copy(files::guest("counter"), &component).unwrap();
    let server = site.start().await;
    assert_eq!(
        server.receiver("counter").await["component"]["digest"],
        digest(&files::guest("counter-next"))
    );
    server.stop().await;
    std::fs::copy(files::guest("recorder"), &component).unwrap();
    let server = site.start().await;
    assert_eq!(server.receiver("counter").await["component"]["digest"], digest(&component));
    let kept = receipts(&site, &server).await;
    assert_eq!(kept.len(), 2, "{kept:#?}");
    assert_eq!(kept[1]["reason"], "the file of the config changed while the server did not run");
    assert_eq!(kept[1]["old"], digest(&files::guest("counter-next")));
    // What ran before can be brought back, and is what runs after another start.
    swapped(&site, &server, &["--rollback"]).await;
    server.stop().await;
    let server = site.start().await;
    assert_eq!(
        server.receiver("counter").await["component"]["digest"],
        digest(&files::guest("counter-next"))
    );
}

#[tokio::test]
async fn what_can_not_take_over_is_refused_and_nothing_stops() {
    let site = Site::new(
        counter().set("receivers.counter.keyvalue", true).set("receivers.counter.config.counter-next", "x"),
    );
    let text = site.path().join("text.wasm");
    std::fs::write(&text, "no component").unwrap();
    let server = site.start().await;
    send(&server, "a", numbers(0, 2)).await;
    for (component, reason) in [
        (text.to_str().unwrap(), "found text, expected a WebAssembly component"),
        (&guest("no-handler"), "wharf:receiver/handler"),
        (&guest("odd-import"), "import"),
        (&guest("init-fails"), "init"),
        (&guest("sockets"), "handover"),
        (&guest("keyvalue"), "--allow-new-imports"),
    ] {
        let said = refused(&site, &server, &[component]).await;
        assert!(
            said.contains(reason) && said.contains("failed to swap the component"),
            "{component}: {said}"
        );
    }
    let said = refused(&site, &server, &[&guest("counter")]).await;
    assert!(said.contains("already"), "{said}");
    let said = refused(&site, &server, &["--rollback"]).await;
    assert!(said.contains("there is no component before"), "{said}");
    let missing = operate(&site, &server, &["swap", "counter", "missing.wasm"]).await;
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    let unknown = operate(&site, &server, &["swap", "other", &guest("counter-next")]).await;
    assert!(
        unknown.code == Some(1) && unknown.stderr.contains("the config has counter"),
        "{}",
        unknown.stderr
    );

    // The same instance goes on through all of it.
    send(&server, "a", numbers(2, 3)).await;
    let seen = server.log.wait_seen("counter", 3).await;
    assert_eq!(told(&seen)[2], ("counter".to_owned(), 3, "none"));
    let kept = receipts(&site, &server).await;
    assert_eq!(kept.len(), 6, "{kept:#?}");
    assert!(kept.iter().all(|receipt| receipt["outcome"] == "refused" && receipt["reason"].is_string()));
    assert_eq!(server.receiver("counter").await["component"]["digest"], digest(&files::guest("counter")));
}

#[tokio::test]
async fn state_that_is_not_taken_keeps_the_old_version() {
    for (setting, value, reason) in [
        ("counter-next.restore", "fail", "counter-next was told to fail in restore"),
        ("counter-next.restore", "trap", "restore its state"),
        ("counter-next.format", "counter/2", "found the format"),
        ("counter.snapshot", "trap", "--drop-state"),
    ] {
        let (component, key) = setting.split_once('.').unwrap();
        let site = Site::new(counter().set(&format!("receivers.counter.config.{component}.{key}"), value));
        let server = site.start().await;
        send(&server, "a", numbers(0, 2)).await;
        server.log.wait_seen("counter", 2).await;
        let said = refused(&site, &server, &[&guest("counter-next")]).await;
        assert!(said.contains(reason), "{setting}: {said}");
        send(&server, "a", numbers(2, 3)).await;
        let seen = server.log.wait_seen("counter", 3).await;
        assert_eq!(seen[2].version.as_deref(), Some("counter"), "{setting}");
        if component == "counter-next" {
            assert_eq!(seen[2].count, Some(3), "{setting}");
            continue;
        }
        // Its state is gone, and the operator may do without.
        let receipt = swapped(&site, &server, &[&guest("counter-next"), "--drop-state"]).await;
        assert_eq!(receipt["state"]["snapshots"], 0, "{receipt:#}");
        assert!(receipt["state"]["dropped"][0].as_str().unwrap().contains("snapshot failed"), "{receipt:#}");
        send(&server, "a", numbers(3, 4)).await;
        let seen = server.log.wait_seen("counter", 4).await;
        assert_eq!(told(&seen[3..]), [("counter-next".to_owned(), 1, "none")]);
    }
}

#[tokio::test]
async fn a_call_that_hangs_does_not_hold_the_swap() {
    let site = Site::new(
        counter()
            .set("receivers.counter.deadline", "10m")
            .set("receivers.counter.swap-timeout", "100ms")
            .set("receivers.counter.max-wait", "0s"),
    );
    let server = site.start().await;
    send(&server, "a", numbers(0, 1)).await;
    server.log.wait_seen("counter", 1).await;
    send(&server, "a", [json!({ "do": "hang", "in": "counter" })]).await;
    eventually("the call to hang", async || (server.receiver("counter").await["lag"] == 1).then_some(()))
        .await;
    // Its state would be lost with the call.
    let said = refused(&site, &server, &[&guest("counter-next")]).await;
    assert!(said.contains("swap-timeout") && said.contains("--drop-state"), "{said}");
    let receipt = swapped(&site, &server, &[&guest("counter-next"), "--drop-state"]).await;
    let seen = server.log.wait_seen("counter", 2).await;
    assert_eq!(told(&seen[1..]), [("counter-next".to_owned(), 1, "again")], "the call was ended");
    assert_eq!(receipt["outcome"], "settled", "{receipt:#}");
    let counts = &receipt["counts"];
    assert_eq!(
        (&counts["accepted"], &counts["by_new"], &counts["redelivered"]),
        (&json!(1), &json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_version_on_probation_that_fails_is_rolled_back() {
    let site = Site::new(
        counter()
            .set("receivers.counter.probation", "10m")
            .set("receivers.counter.probation-redrive", true)
            .set("receivers.counter.quarantine-failures", 1_000_000),
    );
    let server = site.start().await;
    send(&server, "a", numbers(0, 3)).await;
    server.log.wait_seen("counter", 3).await;
    let finished = operate(&site, &server, &["swap", "counter", &guest("counter-next")]).await;
    assert!(finished.stdout.contains("probation  running"), "{}", finished.stdout);
    assert_eq!(server.receiver("counter").await["stage"], "on probation");
    send(&server, "a", numbers(3, 4)).await;
    server.log.wait_seen("counter", 4).await;
    // It can't handle these, and the one before can.
    send(&server, "b", (0..4).map(|_| json!({ "do": "fail", "in": "counter-next" }))).await;
    let kept = eventually("the rollback", async || {
        let kept = receipts(&site, &server).await;
        (kept.len() == 2 && kept[0]["probation"]["outcome"] == "rolled-back").then_some(kept)
    })
    .await;
    assert_eq!((&kept[1]["kind"], &kept[1]["who"]), (&json!("rollback"), &json!("probation")), "{kept:#?}");
    assert!(
        kept[0]["probation"]["reason"].as_str().unwrap().contains("probation-failed-percent"),
        "{kept:#?}"
    );
    // Dead letters that it caused are given to the version before, and the counts go on.
    eventually("no dead letters", async || {
        (server.receiver("counter").await["dead_letters"]["count"] == 0).then_some(())
    })
    .await;
    send(&server, "a", numbers(4, 5)).await;
    let of_a = eventually("the last message", async || {
        let seen: Vec<_> = server.log.seen("counter").into_iter().filter(|seen| seen.agent == "a").collect();
        (seen.len() == 5).then_some(seen)
    })
    .await;
    assert_eq!(told(&of_a[4..]), [("counter".to_owned(), 5, "none")]);
    let of_b: Vec<_> = server.log.seen("counter").into_iter().filter(|seen| seen.agent == "b").collect();
    assert!(of_b.iter().all(|seen| seen.version.as_deref() == Some("counter")), "{of_b:#?}");
    assert_eq!(of_b.len(), 4, "{of_b:#?}");
}

#[tokio::test]
async fn a_rollback_after_a_trap_says_what_its_state_does_not_contain() {
    let site = Site::new(
        counter()
            .set("receivers.counter.probation", "10m")
            .set("receivers.counter.max-attempts", 1)
            .set("receivers.counter.quarantine-failures", 3),
    );
    let server = site.start().await;
    send(&server, "a", numbers(0, 3)).await;
    server.log.wait_seen("counter", 3).await;
    operate(&site, &server, &["swap", "counter", &guest("counter-next")]).await;
    send(&server, "a", numbers(3, 5)).await;
    let seen = server.log.wait_seen("counter", 5).await;
    assert_eq!(told(&seen[3..]).len(), 2);
    send(&server, "a", (0..3).map(|_| json!({ "do": "trap", "in": "counter-next" }))).await;
    let kept = eventually("the rollback", async || {
        let kept = receipts(&site, &server).await;
        (kept.len() == 2).then_some(kept)
    })
    .await;
    let missing = kept[1]["state"]["missing"].as_array().unwrap_or_else(|| panic!("{kept:#?}"));
    let [missing] = &missing[..] else { panic!("{kept:#?}") };
    let (from, to) = (missing["from"].as_u64().unwrap(), missing["to"].as_u64().unwrap());
    assert_eq!(from, seen[3].offset, "{kept:#?}");
    assert!(to > seen[4].offset, "{kept:#?}");
    // What it counted before the swap is there, what the other one counted is not.
    send(&server, "a", numbers(5, 6)).await;
    let last = server.log.wait_seen("counter", 6).await;
    assert_eq!((last[5].version.as_deref(), last[5].count), (Some("counter"), Some(4)));
}

#[tokio::test]
async fn a_changed_file_is_swapped_in_where_it_is_watched() {
    let mut site = Site::new(counter().set("receivers.counter.watch", true));
    let component = site.path().join("counter.wasm");
    std::fs::copy(files::guest("counter"), &component).unwrap();
    site.set("receivers.counter.component", component.to_str().unwrap());
    let server = site.start().await;
    send(&server, "a", numbers(0, 1)).await;
    server.log.wait_seen("counter", 1).await;
    // The watch has looked at it once.
    std::fs::write(site.path().join("new.wasm"), "half of a component").unwrap();
    std::fs::rename(site.path().join("new.wasm"), &component).unwrap();
    server.log.wait_for(&["failed to", "counter", "expected a WebAssembly component"]).await;
    std::fs::copy(files::guest("counter-next"), &component).unwrap();
    server.log.wait_for(&["the component of a receiver was exchanged", "who=\"watch\""]).await;
    send(&server, "a", numbers(1, 2)).await;
    let seen = server.log.wait_seen("counter", 2).await;
    assert_eq!(told(&seen[1..]), [("counter-next".to_owned(), 2, "none")]);
    // It is the configured file, so that it stays.
    server.stop().await;
    let server = site.start().await;
    assert_eq!(server.receiver("counter").await["component"]["digest"], digest(&component));
    let kept = receipts(&site, &server).await;
    let outcomes: Vec<_> =
        kept.iter().map(|receipt| (&receipt["who"], &receipt["outcome"] == "refused")).collect();
    assert_eq!(outcomes, [(&json!("watch"), true), (&json!("watch"), false)], "{kept:#?}");
}

#[tokio::test]
async fn a_file_that_became_what_runs_does_not_come_back_after_a_rollback() {
    let mut site = Site::new(counter().set("receivers.counter.watch", true));
    let component = site.path().join("counter.wasm");
    std::fs::copy(files::guest("counter"), &component).unwrap();
    site.set("receivers.counter.component", component.to_str().unwrap());
    let server = site.start().await;
    swapped(&site, &server, &[&guest("counter-next")]).await;
    std::fs::copy(files::guest("counter-next"), site.path().join("new.wasm")).unwrap();
    std::fs::rename(site.path().join("new.wasm"), &component).unwrap();
    server.log.wait_for(&["a file that changed is the component that runs", "counter"]).await;
    swapped(&site, &server, &["--rollback"]).await;
    server.stop().await;
    let server = site.start().await;
    assert_eq!(server.receiver("counter").await["component"]["digest"], digest(&files::guest("counter")));
    let kept = receipts(&site, &server).await;
    assert_eq!(kept.len(), 2, "{kept:#?}");
}

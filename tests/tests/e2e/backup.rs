//! A backup that is made while messages come in can be started from, and everything that was acknowledged before is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use e2e::calls::{data, data_of, success};
use e2e::tree::copy;
use e2e::{Agent, Config, Encoding, Rest, Server, Site, eventually, files, within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How many backups are made under load and started from, unless the variable says otherwise.
const BACKUPS: u64 = 20;
const BACKUPS_VARIABLE: &str = "WHARF_BACKUPS";
const AGENTS: [&str; 4] = ["a", "b", "c", "d"];
/// How many messages each agent sends for each backup: so many that some come before it, some meanwhile and some later.
const MESSAGES: u64 = 40;
/// Bytes that a body is filled with, so that several segments come about.
const PADDING: usize = 700;

fn config() -> Config {
    Config::new()
        .set("log.segment-size", "1MiB")
        .data_type("orders")
        .receiver("prompt", &files::guest("quiet"), &["metrics"])
        .receiver("late", &files::guest("recorder"), &["metrics"])
        // Writes values, and refuses each message, so that there are dead letters.
        .receiver("keeper", &files::guest("keyvalue"), &["orders"])
        .set("receivers.keeper.keyvalue", true)
        .set("receivers.keeper.log-lines", 1)
}

fn body(agent: &str, number: u64) -> Value {
    json!({ "number": number, "padding": format!("{agent}{}", "x".repeat(PADDING)) })
}

/// Sends numbered messages one by one, each when it is allowed, and counts what is acknowledged.
async fn report(
    address: SocketAddr,
    agent: &'static str,
    acknowledged: watch::Sender<u64>,
    mut allowed: watch::Receiver<u64>,
) {
    let mut connection = Agent::connect(address).await;
    for number in 0.. {
        if allowed.wait_for(|allowed| number < *allowed).await.is_err() {
            return;
        }
        let message = data(agent, body(agent, number));
        let order = data_of("orders", agent, json!({ "do": "increment", "key": agent, "delta": 1 }));
        let answer = connection.call(Encoding::Json, &json!([message, order])).await;
        assert_eq!(answer["result"], success()["result"], "{answer}");
        acknowledged.send_replace(number + 1);
    }
}

/// Has a backup made and gives its folder.
async fn make(server: &Server) -> PathBuf {
    let answer = e2e::rest::send(Rest::new(server.admin).request(Method::POST, "/admin/v1/backup")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    PathBuf::from(answer.value()["path"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_backup_under_load_has_what_was_acknowledged_before() {
    let site = Site::new(config());
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["pause", "late", "--admin", &admin]).await.code, Some(0));
    let (allow, allowed) = watch::channel(0);
    let (running, mut listening): (Vec<_>, Vec<_>) = AGENTS
        .map(|agent| {
            let (counter, counted) = watch::channel(0);
            (tokio::spawn(report(server.agents, agent, counter, allowed.clone())), counted)
        })
        .into_iter()
        .unzip();
    let mut backups = Vec::new();
    let count = std::env::var(BACKUPS_VARIABLE).map_or(BACKUPS, |count| count.parse().expect("a number"));
    for round in 0..count {
        allow.send_modify(|allowed| *allowed += MESSAGES);
        // Each with something new.
        for counter in &mut listening {
            within("more messages", counter.wait_for(|now| *now > round * MESSAGES)).await.unwrap();
        }
        let acknowledged: BTreeMap<_, _> =
            std::iter::zip(AGENTS, &listening).map(|(agent, counter)| (agent, *counter.borrow())).collect();
        let made = make(&server).await;
        let restored = Site::new(config());
        copy(&made, &restored.data());
        backups.push((restored, acknowledged));
    }
    drop(allow);
    for agent in running {
        within("an agent to end", agent).await.unwrap();
    }
    let components = site.data().join("components");
    server.stop().await;
    assert!(fs::read_dir(site.topic("metrics")).unwrap().count() > 3, "too few segments to have tried them");

    for pair in backups.chunks(2) {
        match pair {
            [one, other] => {
                tokio::join!(check(one, &components), check(other, &components));
            }
            rest => check(&rest[0], &components).await,
        }
    }
}

#[tokio::test]
async fn a_backup_that_can_not_be_made_takes_no_room() {
    let site = Site::new(Config::new());
    let server = site.start().await;
    let made = make(&server).await;
    // A folder that the config does not have any more, with a file that is not there.
    let stray = site.data().join("log/other");
    fs::create_dir(&stray).unwrap();
    std::os::unix::fs::symlink("nowhere", stray.join("00000000000000000000.seg")).unwrap();
    let answer = e2e::rest::send(Rest::new(server.admin).request(Method::POST, "/admin/v1/backup")).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(!made.with_extension("unfinished").exists());
    assert!(made.join("FORMAT").is_file(), "the one before is still there");
}

/// Starts from a backup and looks at what a receiver gets that had got nothing.
async fn check((restored, acknowledged): &(Site, BTreeMap<&str, u64>), components: &std::path::Path) {
    let doctor = restored.run(&["doctor", "data"]).await;
    assert_eq!(doctor.code, Some(0), "{doctor:#?}");
    // Compiling them again would take most of the test.
    copy(components, &restored.data().join("components"));
    let server = restored.start().await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(server.receiver("late").await["state"], "paused");
    assert_eq!(restored.run(&["resume", "late", "--admin", &admin]).await.code, Some(0));
    for receiver in ["late", "prompt", "keeper"] {
        let has = async || (server.receiver(receiver).await["lag"] == 0).then_some(());
        eventually(&format!("{receiver} to finish everything"), has).await;
    }
    let log = server.stop().await;
    let mut errors = log.matching(&["ERROR"]);
    errors.retain(|line| !line.contains("became a dead letter") && !line.contains("became dead letters"));
    assert_eq!(errors, [""; 0]);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut offsets = BTreeSet::new();
    for message in log.seen("late") {
        let agent = AGENTS.into_iter().find(|agent| *agent == message.agent).unwrap();
        let next = seen.entry(agent).or_default();
        assert_eq!(message.body, body(agent, *next), "in order, whole, and once");
        assert!(offsets.insert(message.offset));
        *next += 1;
    }
    for agent in AGENTS {
        let seen = seen.get(agent).copied().unwrap_or(0);
        let (least, most) = (acknowledged[agent], acknowledged[agent] + 2 * MESSAGES);
        assert!((least..=most).contains(&seen), "{agent}: {seen} of {least} to {most}");
    }
}

#[tokio::test]
async fn an_operator_makes_a_backup_copies_it_and_removes_it() {
    let site = Site::new(config());
    let server = site.start().await;
    let admin = format!("http://{}", server.admin);
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", body("a", 0))).await, success());
    let place = site.data().join("backup");
    for _ in 0..2 {
        let made = site.run(&["backup", "--admin", &admin]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        assert_eq!(
            Path::new(made.stdout.trim_end()),
            place,
            "it is named as whoever is elsewhere must know it"
        );
    }
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
    let doctor = site.run(&["doctor", "data/backup"]).await;
    assert_eq!(doctor.code, Some(0), "{doctor:?}");

    let removed = site.run(&["backup", "--remove", "--admin", &admin]).await;
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(!place.exists());
    // There is nothing to be removed any more, and that is no failure.
    assert_eq!(site.run(&["backup", "--remove", "--admin", &admin]).await.code, Some(0));
    server.stop().await;
}

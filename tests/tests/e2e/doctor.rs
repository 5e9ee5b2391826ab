//! `wharf doctor`: what it says of a data directory, for people and for programs, that it changes nothing, and how it ends.

use std::fs;

use e2e::calls::{data, success};
use e2e::tree::files_in;
use e2e::{Agent, Config, Encoding, Server, Site, Tree, files};
use serde_json::{Value, json};

fn site() -> Site {
    Site::new(Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"]))
}

async fn send(server: &Server, count: usize) {
    let mut agent = Agent::connect(server.agents).await;
    for number in 0..count {
        assert_eq!(agent.call(Encoding::Json, &data("a", json!({ "number": number }))).await, success());
    }
    server.log.wait_seen("recorder", count).await;
}

/// What the doctor says for programs, after checking that it says the same for people and changes nothing.
async fn report(site: &Site, code: i32) -> Value {
    let before = Tree::of(&site.data());
    let table = site.run(&["doctor", "data"]).await;
    let json = site.run(&["doctor", "data", "--json"]).await;
    assert!(Tree::of(&site.data()) == before, "the doctor changed something");
    assert_eq!((table.code, json.code), (Some(code), Some(code)), "{table:#?} {json:#?}");
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["whole"], code == 0);
    for finding in report["findings"].as_array().unwrap() {
        assert!(table.stdout.contains(finding["file"].as_str().unwrap()), "{finding} {}", table.stdout);
    }
    report
}

#[tokio::test]
async fn a_whole_directory_is_said_to_be_whole_and_is_not_changed() {
    let site = site();
    let server = site.start().await;
    send(&server, 3).await;
    server.stop().await;

    let report = report(&site, 0).await;
    assert_eq!((&report["stopped_cleanly"], &report["findings"]), (&json!(true), &json!([])));
    let topic = &report["topics"][0];
    assert_eq!((&topic["name"], &topic["closed_cleanly"]), (&json!("metrics"), &json!(true)));
    let records = topic["records"].as_u64().unwrap();
    assert!(records >= 3, "{topic}");
    let cursors = &report["cursors"][0];
    assert_eq!((&cursors["receiver"], &cursors["topic"]), (&json!("recorder"), &json!("metrics")));
    assert_eq!(cursors["lowest"], topic["last"].as_u64().unwrap() + 1);
    assert_eq!(report["agents"], 1);
    let table = site.run(&["doctor", "data"]).await.stdout;
    assert!(table.contains("everything is whole"), "{table}");

    // The server does not mind that it was looked at.
    let server = site.start().await;
    assert!(server.stop().await.seen("recorder").is_empty());
}

#[tokio::test]
async fn what_a_crash_leaves_is_whole() {
    let site = site();
    let server = site.start().await;
    send(&server, 3).await;
    server.kill().await;
    let report = report(&site, 0).await;
    assert_eq!(report["stopped_cleanly"], false);
    assert_eq!(report["topics"][0]["closed_cleanly"], false);
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_a_foreign_one_left_alone() {
    let site = site();
    let server = site.start().await;
    send(&server, 1).await;
    let refused = site.run(&["doctor", "data"]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(refused.stderr.contains("it is locked, because a server runs on it"), "{}", refused.stderr);
    send(&server, 1).await;
    server.stop().await;

    let foreign = site.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("notes.txt"), "mine").unwrap();
    let before = Tree::of(&foreign);
    for name in ["foreign", "nowhere"] {
        let refused = site.run(&["doctor", name, "--json"]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
        assert!(refused.stderr.contains("there is no data directory"), "{}", refused.stderr);
    }
    assert_eq!(Tree::of(&foreign), before);
    assert!(!site.path().join("nowhere").exists());
}

#[tokio::test]
async fn damage_is_named_with_the_offsets_and_whom_it_concerns() {
    let site = site();
    let server = site.start().await;
    send(&server, 3).await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(site.run(&["pause", "recorder", "--admin", &admin]).await.code, Some(0));
    let mut agent = Agent::connect(server.agents).await;
    for number in 0..3 {
        let body = json!({ "number": number, "text": "in the middle" });
        assert_eq!(agent.call(Encoding::Json, &data("a", body)).await, success());
    }
    drop(agent);
    server.stop().await;

    let files = files_in(&site.topic("metrics"));
    let segment = files.iter().find(|path| path.extension().is_some_and(|ending| ending == "seg")).unwrap();
    let mut bytes = fs::read(segment).unwrap();
    let words = b"in the middle";
    let at = bytes.windows(words.len()).position(|window| window == words).unwrap();
    bytes[at] ^= 1;
    fs::write(segment, bytes).unwrap();
    fs::write(site.data().join("PAUSED"), "# not a checksum\n").unwrap();
    fs::write(site.data().join("stray"), "").unwrap();

    let report = report(&site, 1).await;
    let findings = report["findings"].as_array().unwrap();
    let of = |name: &str| {
        let named = |finding: &&Value| finding["file"].as_str().unwrap().ends_with(name);
        findings.iter().find(named).unwrap_or_else(|| panic!("{name} is not named: {report:#}"))
    };
    let lost = of(".seg");
    assert_eq!((&lost["damage"], &lost["lost"]["topic"]), (&json!(true), &json!("metrics")));
    assert_eq!(lost["lost"]["unfinished_by"], json!(["recorder"]));
    let range = &lost["lost"]["offsets"][0];
    let first = range["start"].as_u64().unwrap();
    assert_eq!((lost["lost"]["offsets"].as_array().unwrap().len(), &range["end"]), (1, &json!(first + 1)));
    assert!(of("PAUSED")["at_start"].as_str().unwrap().contains("remove it to pause none"));
    assert_eq!(of("stray")["damage"], false);
    let table = site.run(&["doctor", "data"]).await;
    assert!(table.stdout.contains(&format!("offsets {first} of metrics")), "{}", table.stdout);
    assert!(table.stderr.contains("data is damaged"), "{}", table.stderr);
}

//! What is wrong with a config is refused before a port is bound, with exit code 2 and a text that says what to change.

use std::os::unix::fs::symlink;
use std::path::Path;

use e2e::{Config, Finished, Site, eventually, files};
use serde_json::json;

/// A config with a receiver that works.
fn right() -> Config {
    Config::new().receiver("recorder", &files::guest("recorder"), &["metrics"])
}

/// Runs both commands and gives what they say, which must be the same refusal.
async fn refusals(site: &Site) -> Vec<Finished> {
    let path = site.write_config();
    let config = path.to_str().unwrap();
    let mut all = Vec::new();
    for command in ["check", "run"] {
        let finished = site.run(&[command, "--config", config]).await;
        assert_eq!(finished.code, Some(2), "{command}: {}", finished.stderr);
        assert!(!finished.stdout.contains("listening"), "{command} bound a port: {}", finished.stdout);
        all.push(finished);
    }
    all
}

#[tokio::test]
async fn a_check_can_be_interrupted() {
    let mut site = Site::new(Config::new().set("host.max-instances", 200));
    // So many that it is not done before it is told to end, each with a section of its own so that each is compiled.
    for number in 0..100_u8 {
        let name = format!("r{number}");
        let component = site.path().join(format!("{name}.wasm"));
        let section = vec![0, 3, 1, b'n', number];
        let bytes = [std::fs::read(files::guest("recorder")).unwrap(), section].concat();
        std::fs::write(&component, bytes).unwrap();
        site.change(|config| config.receiver(&name, &component, &["metrics"]));
    }
    let path = site.write_config();
    let mut check = site.spawn(&["check", "--config", path.to_str().unwrap()]);
    let cache = site.data().join("components");
    let compiling = async || cache.read_dir().ok()?.next().map(drop);
    eventually("the first component to be compiled", compiling).await;
    check.terminate();
    assert_eq!(check.ended().await.code(), Some(1));
    assert_eq!(check.log.matching(&["interrupted"]).len(), 1, "{:#?}", check.log.lines());
}

async fn assert_refused(config: Config, parts: &[&str]) {
    for finished in refusals(&Site::new(config)).await {
        for part in parts {
            assert!(finished.stderr.contains(part), "{part:?} is not in: {}", finished.stderr);
        }
    }
}

/// The line of the file that holds `text`, as a refusal names it.
fn line_of(config: &Config, text: &str) -> String {
    let line = 1 + config.to_toml().lines().position(|line| line.contains(text)).unwrap();
    format!("wharf.toml:{line}:")
}

#[tokio::test]
async fn a_right_config_passes() {
    let site = Site::new(right());
    let config = site.write_config();
    let finished = site.run(&["check", "--config", config.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("recorder"), "{}", finished.stdout);
    // A check leaves a running server alone, and the other way round.
    let server = site.start().await;
    let finished = site.run(&["check", "--config", config.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    server.stop().await;
}

#[tokio::test]
async fn the_configs_of_the_repository_pass() {
    let site = Site::new(Config::new());
    // As in the repository, but with the data elsewhere.
    let folder = site.path().join("config");
    std::fs::create_dir(&folder).unwrap();
    symlink(files::root().join("target"), site.path().join("target")).unwrap();
    symlink(files::component("journal"), folder.join("journal.wasm")).unwrap();
    for name in ["demo.toml", "reference.toml"] {
        let copy = folder.join(name);
        std::fs::copy(files::root().join("config").join(name), &copy).unwrap();
        let finished = site.run(&["check", "--config", copy.to_str().unwrap()]).await;
        assert_eq!(finished.code, Some(0), "{name}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_a_suggestion() {
    let config = right().set("limits.max-frames", "1MiB");
    let line = line_of(&config, "max-frames");
    assert_refused(config, &["limits.max-frames", "\"max-frame\"", &line]).await;
    assert_refused(
        right().set("receivers.recorder.colour", "red"),
        &["receivers.recorder.colour", "component"],
    )
    .await;
    assert_refused(right().set("secrets.key", "value"), &["secrets"]).await;
}

#[tokio::test]
async fn every_problem_is_told_at_once() {
    let config = right().set("limits.max-frame", 8).set("log.segment-size", "64MiBi").set("nonsense", true);
    assert_refused(config, &["limits.max-frame", "log.segment-size", "nonsense"]).await;
}

#[tokio::test]
async fn an_unknown_type_in_a_mapping_is_refused_and_the_known_ones_named() {
    let config = right().data_type("other").set("receivers.recorder.types", json!(["metrics", "metric"]));
    let line = line_of(&config, "types = ");
    assert_refused(config, &["receivers.recorder.types", "\"metric\"", "metrics", "other", &line]).await;
    assert_refused(
        right().set("receivers.recorder.types", json!([])),
        &["receivers.recorder.types", "empty"],
    )
    .await;
}

#[tokio::test]
async fn a_wrong_unit_is_refused() {
    for (key, value, hint) in [
        ("limits.max-frame", json!(8388608), "unit"),
        ("limits.max-frame", json!("8388608"), "unit"),
        ("limits.max-frame", json!("8 seconds"), "64MiB"),
        ("state.cursor-interval", json!("100"), "250ms"),
        ("state.cursor-interval", json!(100), "250ms"),
        ("receivers.recorder.deadline", json!("64MiB"), "250ms"),
        ("receivers.recorder.memory", json!("5s"), "64MiB"),
    ] {
        let config = right().set(key, value.clone());
        let line = line_of(&config, &format!("{} = {value}", key.rsplit('.').next().unwrap()));
        assert_refused(config, &[key, hint, &line]).await;
    }
}

#[tokio::test]
async fn a_value_out_of_bounds_is_refused_and_the_bounds_named() {
    for (key, value, bound) in [
        ("receivers.recorder.instances", json!(65), "64"),
        ("receivers.recorder.instances", json!(0), "1"),
        ("receivers.recorder.memory", json!("1GiB"), "host.max-memory"),
        ("limits.max-depth", json!(1000), "128"),
        ("listen.agents", json!("0.0.0.0:0"), "auth"),
        ("listen.admin", json!("0.0.0.0:0"), "loopback"),
        ("types.metrics.durability", json!("always"), "fsync"),
    ] {
        assert_refused(right().set(key, value), &[key, bound]).await;
    }
}

#[tokio::test]
pub async fn a_component_that_cannot_be_a_receiver_is_refused() {
    let site = Site::new(Config::new());
    let write = |name: &str, bytes: &[u8]| {
        let path = site.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let text = write("text.wasm", b"not a component at all");
    let module = write("module.wasm", b"\0asm\x01\0\0\0");
    let truncated = write("truncated.wasm", &std::fs::read(files::guest("recorder")).unwrap()[..1000]);
    let empty = write("empty.wasm", b"");
    let (missing, folder) = (Path::new("missing.wasm").to_owned(), site.path().to_owned());
    for (component, parts) in [
        (missing, &["missing.wasm"][..]),
        (folder, &[]),
        (text, &["text.wasm", "component"]),
        (module, &["module.wasm", "module", "component"]),
        (truncated, &["truncated.wasm"]),
        (empty, &["empty.wasm", "component"]),
        (files::guest("no-handler"), &["wharf:receiver/handler"]),
        (files::guest("odd-import"), &["fixture:odd-import/teapot"]),
        (files::guest("page"), &["wharf:receiver/live", "live = true"]),
    ] {
        let config = Config::new().receiver("puppet", &component, &["metrics"]);
        assert_refused(config, &[&["puppet", "component"], parts].concat()).await;
    }
}

#[tokio::test]
async fn every_wrong_component_is_told_at_once() {
    let config = right().receiver("first", &files::guest("no-handler"), &["metrics"]).receiver(
        "second",
        &files::guest("odd-import"),
        &["metrics"],
    );
    assert_refused(config, &["first", "wharf:receiver/handler", "second", "fixture:odd-import/teapot"]).await;
}

#[tokio::test]
async fn a_grant_that_is_not_used_is_a_warning() {
    for (key, value, import) in [
        ("live", json!(true), "wharf:receiver/live"),
        ("keyvalue", json!(true), "wasi:keyvalue"),
        ("http", json!(["https://api.example.com"]), "wasi:http/outgoing-handler"),
    ] {
        let site = Site::new(right().set(&format!("receivers.recorder.{key}"), value));
        let config = site.write_config();
        let finished = site.run(&["check", "--config", config.to_str().unwrap()]).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let warning = format!("warning: it has the grant `{key}`, but does not import `{import}`");
        assert!(finished.stdout.contains(&warning), "{}", finished.stdout);
    }
}

#[tokio::test]
async fn imports_without_their_grants_are_refused_and_both_are_named() {
    // It imports all that there is; without the grants of these two it does not link.
    let config = Config::new().receiver("tour", &files::component("tour"), &["metrics"]);
    let parts = [
        "receivers.tour.component",
        "`wasi:keyvalue/store@0.2.0-draft2`",
        "`wharf:receiver/live@0.1.0`",
        "add `live = true`, `keyvalue = true`",
    ];
    assert_refused(config.clone(), &parts).await;
    let config = config.set("receivers.tour.keyvalue", true);
    assert_refused(config, &["`wharf:receiver/live@0.1.0`", "add `live = true` to"]).await;
}

#[tokio::test]
async fn a_tick_that_nothing_listens_to_is_refused() {
    let config = right().set("receivers.recorder.tick", "10s");
    assert_refused(config, &["receivers.recorder", "`tick`", "`wharf:receiver/timer`"]).await;
}

#[tokio::test]
async fn a_file_that_is_no_config_is_refused() {
    let site = Site::new(Config::new());
    let path = site.path().join("broken.toml");
    for (text, parts) in [
        (&b"[limits\n"[..], &["broken.toml:1:"][..]),
        (b"", &["types"]),
        (b"\xff\xfe", &["UTF-8"]),
        (b"[types.metrics]\n[types.metrics]\n", &["broken.toml:2:"]),
        (b"limits = 7\n[types.metrics]\n", &["limits"]),
    ] {
        std::fs::write(&path, text).unwrap();
        for command in ["check", "run"] {
            let finished = site.run(&[command, "--config", path.to_str().unwrap()]).await;
            assert_eq!(finished.code, Some(2), "{}", finished.stderr);
            assert!(
                parts.iter().all(|part| finished.stderr.contains(part)),
                "{parts:?}: {}",
                finished.stderr
            );
        }
    }
    for command in ["check", "run"] {
        let finished = site.run(&[command, "--config", "nowhere.toml"]).await;
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains("nowhere.toml"), "{}", finished.stderr);
        let finished = site.run(&[command, "--konfig", "nowhere.toml"]).await;
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let site = Site::new(right());
    let server = site.start().await;
    let config = site.write_config();
    let finished = site.run(&["run", "--config", config.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(!finished.stdout.contains("listening"), "{}", finished.stdout);
    assert!(
        finished.stderr.contains("another server") && finished.stderr.contains("data-dir"),
        "{}",
        finished.stderr
    );
    server.stop().await;
    site.start().await.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_a_failure_that_names_the_key() {
    let first = Site::new(Config::new()).start().await;
    for (key, address) in [("listen.agents", first.agents), ("listen.admin", first.admin)] {
        let site = Site::new(Config::new().set(key, address.to_string()));
        let config = site.write_config();
        let finished = site.run(&["run", "--config", config.to_str().unwrap()]).await;
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(
            finished.stderr.contains(&address.to_string()) && finished.stderr.contains(key),
            "{}",
            finished.stderr
        );
    }
}

#[tokio::test]
async fn a_data_directory_of_another_version_is_refused() {
    let site = Site::new(Config::new());
    site.start().await.stop().await;
    std::fs::write(site.path().join("data/FORMAT"), "99\n").unwrap();
    let config = site.write_config();
    let finished = site.run(&["run", "--config", config.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("99"), "{}", finished.stderr);
}

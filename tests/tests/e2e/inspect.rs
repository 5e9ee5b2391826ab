//! `wharf inspect`: what it says of components, for people and for programs, and how it ends.

use std::path::Path;

use e2e::{Config, Finished, Site, files};
use serde_json::{Value, json};

/// Inspects with a cache of the test's own.
async fn inspect(file: &Path, more: &[&str]) -> Finished {
    let site = Site::new(Config::new());
    let cache = site.path().join("cache");
    let call = ["inspect", file.to_str().unwrap(), "--cache", cache.to_str().unwrap()];
    site.run(&[&call, more].concat()).await
}

async fn inspect_json(file: &Path) -> (Option<i32>, Value) {
    let finished = inspect(file, &["--json"]).await;
    let json = serde_json::from_str(&finished.stdout);
    (finished.code, json.unwrap_or_else(|error| panic!("{error}: {finished:?}")))
}

fn named<'a>(list: &'a Value, start: &str) -> &'a Value {
    let mut items = list.as_array().unwrap().iter();
    let found = items.find(|item| item["name"].as_str().unwrap().starts_with(start));
    found.unwrap_or_else(|| panic!("{start} is not in {list:#}"))
}

/// The page without what changes with every build of the guest.
fn masked(page: &str, file: &Path) -> String {
    let mask = |line: &str| match line.trim_start().split_once("  ") {
        Some((name @ ("sha256" | "size" | "memory"), _)) => format!("  {name} [masked]"),
        _ => line.replace(file.to_str().unwrap(), "FILE.wasm"),
    };
    page.lines().map(|line| mask(line) + "\n").collect()
}

#[tokio::test]
async fn a_receiver_on_a_page() {
    let file = files::guest("page");
    let finished = inspect(&file, &[]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
    insta::assert_snapshot!(masked(&finished.stdout, &file), @r"
    FILE.wasm
      sha256 [masked]
      size [masked]
      memory [masked]

    EXPORT                             WHARF
    wasi:http/incoming-handler@0.2.12  calls it
    wharf:receiver/handler@0.1.0       calls it

    IMPORT                          NEEDS
    wasi:cli/environment@0.2.6      nothing
    wasi:cli/exit@0.2.6             nothing
    wasi:cli/stderr@0.2.6           nothing
    wasi:cli/stdin@0.2.6            nothing
    wasi:cli/stdout@0.2.6           nothing
    wasi:cli/terminal-input@0.2.6   nothing
    wasi:cli/terminal-output@0.2.6  nothing
    wasi:cli/terminal-stderr@0.2.6  nothing
    wasi:cli/terminal-stdin@0.2.6   nothing
    wasi:cli/terminal-stdout@0.2.6  nothing
    wasi:http/types@0.2.12          nothing
    wasi:io/error@0.2.12            nothing
    wasi:io/poll@0.2.12             nothing
    wasi:io/streams@0.2.12          nothing
    wharf:receiver/live@0.1.0       live = true
    wharf:receiver/types@0.1.0      nothing

    Wharf can run it if its config has `live = true`.
    ");
}

#[tokio::test]
async fn a_receiver_that_needs_nothing() {
    let finished = inspect(&files::guest("recorder"), &[]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.ends_with("\nWharf can run it.\n"), "{}", finished.stdout);
}

#[tokio::test]
async fn a_receiver_that_imports_all_that_there_is() {
    let finished = inspect(&files::component("tour"), &[]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stdout);
    let verdict = "\nWharf can run it if its config has `keyvalue = true` and `live = true`.\n";
    assert!(finished.stdout.ends_with(verdict), "{}", finished.stdout);
}

#[tokio::test]
async fn a_receiver_as_json() {
    let file = files::guest("page");
    let (code, found) = inspect_json(&file).await;
    assert_eq!((code, &found["problems"]), (Some(0), &json!([])), "{found:#}");
    assert_eq!(found["digest"].as_str().unwrap().len(), 64, "{found:#}");
    assert_eq!(found["size"], file.metadata().unwrap().len(), "{found:#}");
    assert!(found["initial_memory"].as_u64().unwrap() > 0, "{found:#}");
    assert_eq!(named(&found["exports"], "wharf:receiver/handler@")["called"], true);
    let live = named(&found["imports"], "wharf:receiver/live@");
    assert_eq!((&live["standing"], &live["grant"]), (&json!("needs_grant"), &json!("live = true")));
    assert_eq!(named(&found["imports"], "wasi:http/types@")["standing"], "free");
}

#[tokio::test]
async fn what_would_be_refused_is_told_and_is_a_failure() {
    for (guest, named) in
        [("odd-import", "fixture:odd-import/teapot@1.0.0"), ("no-handler", "`wharf:receiver/handler`")]
    {
        let file = files::guest(guest);
        let finished = inspect(&file, &[]).await;
        assert_eq!(finished.code, Some(1), "{guest}: {}", finished.stderr);
        let (_, told) = finished.stdout.split_once("\nWharf would refuse it:\n").unwrap();
        assert!(told.contains(named), "{told}");
        assert!(finished.stderr.contains("would be refused"), "{}", finished.stderr);
        let (code, found) = inspect_json(&file).await;
        let problems = found["problems"].as_array().unwrap();
        assert_eq!((code, problems.len()), (Some(1), 1), "{found:#}");
        assert!(problems[0].as_str().unwrap().contains(named), "{found:#}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_component_is_a_wrong_call() {
    let site = Site::new(Config::new());
    let write = |name: &str, bytes: &[u8]| {
        let path = site.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (file, parts) in [
        (write("text.wasm", b"not a component at all"), ["found text", "text.wasm"]),
        (write("module.wasm", b"\0asm\x01\0\0\0"), ["found a core module", "wasm-tools component new"]),
        (site.path().join("missing.wasm"), ["missing.wasm", "No such file"]),
    ] {
        let finished = inspect(&file, &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{}", finished.stderr);
        assert!(parts.iter().all(|part| finished.stderr.contains(part)), "{parts:?}: {}", finished.stderr);
    }
    assert_eq!(site.run(&["inspect"]).await.code, Some(2));
}

#[tokio::test]
async fn a_component_that_does_not_compile_would_be_refused() {
    let site = Site::new(Config::new());
    let file = site.path().join("truncated.wasm");
    std::fs::write(&file, &std::fs::read(files::guest("recorder")).unwrap()[..1000]).unwrap();
    let finished = inspect(&file, &[]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{}", finished.stderr);
    assert!(finished.stderr.contains("failed to compile"), "{}", finished.stderr);
}

#[tokio::test]
async fn a_cache_that_others_may_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;

    let site = Site::new(Config::new());
    let cache = site.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
    let file = files::guest("recorder");
    let call = ["inspect", file.to_str().unwrap(), "--cache", cache.to_str().unwrap()];
    let finished = site.run(&call).await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("others may write to it"), "{}", finished.stderr);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
}

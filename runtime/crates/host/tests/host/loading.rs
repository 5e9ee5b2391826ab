//! Every reason for which a component is refused, with the text that says so.

use std::path::PathBuf;

use wharf_host::{Grant, HttpGrant, KeyValueGrant, LiveOptions, LoadError, Origin, Problem, ReceiverOptions};

use crate::fixtures::{Fixture, chain, guest, options};

/// Loads a file that must be refused, and gives the error with the file's path shortened.
async fn refused(fixture: &Fixture, path: PathBuf) -> (LoadError, String) {
    refused_with(fixture, ReceiverOptions { component: path, memory: 16 << 20, ..options("recorder") }).await
}

async fn refused_with(fixture: &Fixture, options: ReceiverOptions) -> (LoadError, String) {
    let path = format!("{:?}", options.component);
    let error = fixture.host.load(options).await.err().unwrap();
    let text = chain(&error).replace(&path, "FILE");
    (error, text)
}

/// Loads a component in text form that must be refused.
async fn refused_text(text: &str) -> (LoadError, String) {
    let fixture = Fixture::new();
    let path = fixture.file("text.wasm", wat::parse_str(text).unwrap());
    refused(&fixture, path).await
}

macro_rules! assert_refused {
    ($refused:expr, $pattern:pat, $text:expr) => {
        let (error, text) = $refused;
        assert!(matches!(error, $pattern), "{error:?}");
        assert_eq!(text, $text);
    };
}

/// As `assert_refused`, where the contract has one thing against the component.
macro_rules! assert_problem {
    ($refused:expr, $pattern:pat, $text:expr) => {
        let (error, text) = $refused;
        assert!(
            matches!(&error, LoadError::Refused { problems, .. } if matches!(&problems[..], [$pattern])),
            "{error:?}"
        );
        assert_eq!(text, format!("load FILE: {}", $text));
    };
}

#[tokio::test]
async fn files_that_are_no_component() {
    let fixture = Fixture::new();
    let missing = fixture.dir.path().join("missing.wasm");
    assert_refused!(
        refused(&fixture, missing).await,
        LoadError::Read { .. },
        "read the component FILE: the path must name a file that the server may read: No such file or directory (os error 2)"
    );
    let folder = fixture.dir.path().to_owned();
    assert_refused!(
        refused(&fixture, folder).await,
        LoadError::Read { .. },
        "read the component FILE: the path must name a file that the server may read: it is not a regular file"
    );
    let build = "build the receiver for `wasm32-wasip2` and name the file that comes out";
    let core = "build it for `wasm32-wasip2`, or make a component of it with `wasm-tools component new`";
    let unknown = "build it with a current toolchain";
    let module = wat::parse_str("(module)").unwrap();
    let cases: [(&[u8], &str, &str); 6] = [
        (b"", "an empty file", build),
        (b"(component)", "text", build),
        (&module, "a core module", core),
        (b"\0asm\x0e\0\x01\0", "WebAssembly of an unknown version", unknown),
        (b"\x7fELF\x02", "an executable or a compiled component", build),
        (b"\xff\xfe", "data of an unknown kind", build),
    ];
    for (bytes, found, advice) in cases {
        let path = fixture.file("file.wasm", bytes);
        assert_refused!(
            refused(&fixture, path).await,
            LoadError::NotAComponent { .. },
            format!("load FILE: found {found}, expected a WebAssembly component; {advice}")
        );
    }
}

#[tokio::test]
async fn a_component_that_is_too_large() {
    let fixture = Fixture::with(|options| options.max_component_bytes = 1000);
    assert_refused!(
        refused(&fixture, guest("recorder")).await,
        LoadError::TooLarge { limit: 1000, .. },
        "load FILE: the file has more than the 1000 bytes that a component may have; build it with optimisation and without debug information"
    );
}

#[tokio::test]
async fn a_component_that_is_damaged() {
    let fixture = Fixture::new();
    let mut bytes = std::fs::read(guest("recorder")).unwrap();
    bytes.truncate(1000);
    let (error, text) = refused(&fixture, fixture.file("damaged.wasm", bytes)).await;
    assert!(matches!(error, LoadError::Compile { .. }), "{error:?}");
    assert!(text.starts_with("compile FILE: translate the component: "), "{text}");
}

#[tokio::test]
async fn a_component_without_handler() {
    let fixture = Fixture::new();
    assert_problem!(
        refused(&fixture, guest("no-handler")).await,
        Problem::NoHandler { .. },
        "it exports `wharf:receiver/lifecycle@0.1.0`, expected `wharf:receiver/handler`; build it for a world that includes `wharf:receiver/base`"
    );
    assert_problem!(
        refused_text("(component)").await,
        Problem::NoHandler { .. },
        "it exports nothing, expected `wharf:receiver/handler`; build it for a world that includes `wharf:receiver/base`"
    );
}

#[tokio::test]
async fn exports_in_other_versions() {
    for version in ["0.2.0", "1.0.0", "0.1.0-draft"] {
        let name = format!("wharf:receiver/handler@{version}");
        assert_problem!(
            refused_text(&format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#)).await,
            Problem::ExportVersion { .. },
            format!(
                "it exports `{name}`, expected version 0.1.x; build it against the WIT package of this server"
            )
        );
    }
}

#[tokio::test]
async fn exports_that_are_incomplete() {
    assert_problem!(
        refused_text(r#"(component (instance $i) (export "wharf:receiver/handler@0.1.0" (instance $i)))"#)
            .await,
        Problem::ExportIncomplete { .. },
        "its export `wharf:receiver/handler@0.1.0` has no function `handle`; build it against the WIT package of this server"
    );
    let other_type = r#"(component
        (core module $m (func (export "f")))
        (core instance $c (instantiate $m))
        (func $f (canon lift (core func $c "f")))
        (instance $i (export "handle" (func $f)))
        (export "wharf:receiver/handler@0.1.7" (instance $i)))"#;
    let (_, text) = refused_text(other_type).await;
    assert!(
        text.starts_with(
            "load FILE: its export `wharf:receiver/handler@0.1.7` has `handle` with another type: "
        ),
        "{text}"
    );
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let text = r#"(component
        (import "run" (func))
        (core module $m (memory 300) (func (export "f")))
        (core instance $c (instantiate $m))
        (func $f (canon lift (core func $c "f")))
        (instance $empty)
        (instance $half (export "init" (func $f)))
        (export "wharf:receiver/lifecycle@0.1.0" (instance $half))
        (export "wharf:receiver/presence@0.1.0" (instance $empty))
        (instance $quarter (export "snapshot" (func $f)))
        (export "wharf:receiver/handover@0.1.0" (instance $quarter))
        (export "wharf:receiver/timer@0.3.0" (instance $empty))
        (export "wasi:http/incoming-handler@0.2.0" (func $f)))"#;
    let fixture = Fixture::with(|options| options.max_memory = 64 << 20);
    let mut options = options("recorder");
    options.component = fixture.file("text.wasm", wat::parse_str(text).unwrap());
    let (_, text) = refused_with(&fixture, options).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "load FILE:",
            "  - it imports `run`, which this server does not provide; remove that from the component's world or use a version that is listed in the receiver contract",
            "  - it exports `wasi:http/incoming-handler@0.2.0`, `wharf:receiver/handover@0.1.0`, `wharf:receiver/lifecycle@0.1.0`, `wharf:receiver/presence@0.1.0`, `wharf:receiver/timer@0.3.0`, expected `wharf:receiver/handler`; build it for a world that includes `wharf:receiver/base`",
            "  - its export `wharf:receiver/lifecycle@0.1.0` has no function `terminate`; build it against the WIT package of this server",
            "  - its export `wharf:receiver/presence@0.1.0` has no function `agents-changed`; build it against the WIT package of this server",
            "  - it exports `wharf:receiver/timer@0.3.0`, expected version 0.1.x; build it against the WIT package of this server",
            "  - its export `wharf:receiver/handover@0.1.0` has no function `restore`; build it against the WIT package of this server",
            "  - its export `wasi:http/incoming-handler@0.2.0` is not an interface; build it against the WIT package of this server",
            "  - it starts with a memory of 19660800 bytes, and the receiver may use 16777216 bytes; raise the receiver's memory",
        ]
    );
}

#[tokio::test]
async fn imports_that_nobody_provides() {
    let fixture = Fixture::new();
    assert_problem!(
        refused(&fixture, guest("odd-import")).await,
        Problem::UnknownImports { .. },
        "it imports `fixture:odd-import/teapot@1.0.0`, which this server does not provide; remove that from the component's world or use a version that is listed in the receiver contract"
    );
}

#[tokio::test]
async fn imports_in_versions_that_nobody_provides() {
    let several = r#"(component
        (import "wasi:cli/stdout@0.3.0" (instance))
        (import "wasi:cli/stdout@0.2.99" (instance))
        (import "wasi:keyvalue/store@0.2.0-draft3" (instance))
        (import "wasi:config/store@0.2.0" (instance))
        (import "wasi:logging/logging" (instance))
        (import "wharf:receiver/live@0.2.0" (instance))
        (import "run" (func)))"#;
    let (error, _) = refused_text(several).await;
    let LoadError::Refused { problems, .. } = error else { panic!("{error:?}") };
    let Problem::UnknownImports { imports } = &problems[0] else { panic!("{problems:?}") };
    let told: Vec<String> = imports.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "`run`",
            "`wasi:cli/stdout@0.3.0` (expected version 0.2.x)",
            "`wasi:config/store@0.2.0` (expected version 0.2.0-rc.1)",
            "`wasi:keyvalue/store@0.2.0-draft3` (expected version 0.2.0-draft2)",
            "`wasi:logging/logging` (expected version 0.1.0-draft)",
            "`wharf:receiver/live@0.2.0` (expected version 0.1.x)",
        ]
    );
}

#[tokio::test]
async fn a_long_list_of_imports_is_cut() {
    let imports: String = (0..1000).map(|number| format!(r#"(import "odd-{number}" (func))"#)).collect();
    let (_, text) = refused_text(&format!("(component {imports})")).await;
    assert!(text.contains("`odd-0`") && text.contains(" and 980 more, which this server"), "{text}");
    assert!(text.len() < 2000, "{text}");
}

#[tokio::test]
async fn imports_without_their_grants() {
    let fixture = Fixture::new();
    let mut options = options("page");
    options.grants.live = None;
    assert_problem!(
        refused_with(&fixture, options).await,
        Problem::NotGranted { .. },
        "it imports `wharf:receiver/live@0.1.0`, and receiver \"page\" has no grant for that; add `live = true` to the receiver's config if it may"
    );
    let several = r#"(component
        (import "wharf:receiver/live@0.1.0" (instance))
        (import "wasi:filesystem/preopens@0.2.6" (instance))
        (import "wasi:keyvalue/store@0.2.0-draft2" (instance))
        (import "wasi:keyvalue/batch@0.2.0-draft2" (instance)))"#;
    let (_, text) = refused_text(several).await;
    assert!(
        text.contains("it imports `wasi:keyvalue/batch@0.2.0-draft2`, `wasi:keyvalue/store@0.2.0-draft2`, `wharf:receiver/live@0.1.0`, and receiver \"recorder\" has no grant for that; add `live = true`, `keyvalue = true` to the receiver's config if it may"),
        "{text}"
    );
}

#[tokio::test]
async fn a_grant_without_its_import_is_a_warning() {
    let fixture = Fixture::new();
    let mut options = options("quiet");
    options.grants.live = Some(LiveOptions::default());
    options.grants.keyvalue = Some(KeyValueGrant { max_bytes: 1 << 20 });
    options.grants.http = Some(HttpGrant {
        origins: vec![Origin::parse("https://api.example.com").unwrap()],
        max_in_flight: 1,
        timeout: options.deadline,
        max_request_bytes: 1,
        max_response_bytes: 1,
    });
    let receiver = fixture.host.load(options).await.unwrap();
    assert_eq!(
        receiver.warnings(),
        [
            "it has the grant `live`, but does not import `wharf:receiver/live`",
            "it has the grant `keyvalue`, but does not import `wasi:keyvalue`",
            "it has the grant `http`, but does not import `wasi:http/outgoing-handler`",
        ]
    );
}

#[tokio::test]
async fn what_toolchains_import_anyway_needs_no_grant() {
    let fixture = Fixture::new();
    let puppet = fixture.host.inspect(&guest("puppet")).await.unwrap();
    let idle = puppet.imports.iter().filter(|import| import.standing.grant() == Some(Grant::Files));
    assert!(idle.count() > 0, "the puppet is to import files: {puppet:?}");
    assert_eq!(fixture.load("puppet").await.warnings(), [""; 0]);
}

#[tokio::test]
async fn a_tick_and_a_timer_belong_together() {
    let fixture = Fixture::new();
    let watcher = fixture.load("watcher").await;
    assert_eq!(
        watcher.warnings(),
        ["it exports `wharf:receiver/timer`, which is never called without `tick` in its config"]
    );
    let ticking = ReceiverOptions { ticks: true, ..options("watcher") };
    assert_eq!(fixture.host.load(ticking).await.unwrap().warnings(), [""; 0]);
    let ticking = ReceiverOptions { ticks: true, ..options("recorder") };
    assert_problem!(
        refused_with(&fixture, ticking).await,
        Problem::NoTimer { .. },
        "it does not export `wharf:receiver/timer`, which the `tick` of receiver \"recorder\" is for; export it or remove `tick` from the receiver's config"
    );
}

#[tokio::test]
async fn an_import_with_other_functions_than_ours() {
    let text = r#"(component
        (import "wasi:random/insecure-seed@0.2.99" (instance (export "sow" (func)))))"#;
    let (error, text) = refused_text(text).await;
    let LoadError::Refused { problems, .. } = error else { panic!("{error:?}") };
    assert!(matches!(problems[..], [Problem::Link { .. }, Problem::NoHandler { .. }]), "{problems:?}");
    assert!(text.contains("wasi:random/insecure-seed@0.2.99") && text.contains("sow"), "{text}");
}

#[tokio::test]
async fn memory_that_the_host_or_the_receiver_does_not_have() {
    let fixture = Fixture::with(|options| options.max_memory = 20 << 20);
    let mut above = options("recorder");
    above.memory = 21 << 20;
    assert_refused!(
        refused_with(&fixture, above).await,
        LoadError::MemoryAboveHost { .. },
        "give receiver \"recorder\" 22020096 bytes of memory: the host is set up for at most 20971520 bytes; lower the receiver's memory or raise the host's"
    );
    let mut below = options("recorder");
    below.memory = 64 * 1024;
    let (error, text) = refused_with(&fixture, below).await;
    let LoadError::Refused { problems, .. } = error else { panic!("{error:?}") };
    assert!(matches!(problems[..], [Problem::MemoryTooSmall { limit: 65_536, .. }]), "{problems:?}");
    assert!(text.starts_with("load FILE: it starts with a memory of "), "{text}");

    let large = "(component (core module $m (memory 400)) (core instance (instantiate $m)))";
    let path = fixture.file("large.wasm", wat::parse_str(large).unwrap());
    let (error, text) = refused(&fixture, path).await;
    assert!(matches!(error, LoadError::DoesNotFit { .. }), "{error:?}");
    assert!(text.starts_with("load FILE: ") && text.contains("memory"), "{text}");
}

//! Every reason for which a component is refused, with the text that says so.

use std::path::PathBuf;

use wharf_host::{LiveOptions, LoadError, ReceiverOptions};

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
    assert_refused!(
        refused(&fixture, guest("no-handler")).await,
        LoadError::NoHandler { .. },
        "load FILE: it exports `wharf:receiver/lifecycle@0.1.0`, expected `wharf:receiver/handler`; build it for a world that includes `wharf:receiver/base`"
    );
    assert_refused!(
        refused_text("(component)").await,
        LoadError::NoHandler { .. },
        "load FILE: it exports nothing, expected `wharf:receiver/handler`; build it for a world that includes `wharf:receiver/base`"
    );
}

#[tokio::test]
async fn exports_in_other_versions() {
    for version in ["0.2.0", "1.0.0", "0.1.0-draft"] {
        let name = format!("wharf:receiver/handler@{version}");
        assert_refused!(
            refused_text(&format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#)).await,
            LoadError::ExportVersion { .. },
            format!(
                "load FILE: it exports `{name}`, expected version 0.1.x; build it against the WIT package of this server"
            )
        );
    }
}

#[tokio::test]
async fn exports_that_are_incomplete() {
    assert_refused!(
        refused_text(r#"(component (instance $i) (export "wharf:receiver/handler@0.1.0" (instance $i)))"#)
            .await,
        LoadError::ExportIncomplete { .. },
        "load FILE: its export `wharf:receiver/handler@0.1.0` has no function `handle`; build it against the WIT package of this server"
    );
    let other_type = r#"(component
        (core module $m (func (export "f")))
        (core instance $c (instantiate $m))
        (func $f (canon lift (core func $c "f")))
        (instance $i (export "handle" (func $f)))
        (export "wharf:receiver/handler@0.1.7" (instance $i)))"#;
    let (error, text) = refused_text(other_type).await;
    assert!(matches!(error, LoadError::ExportIncomplete { .. }), "{error:?}");
    assert!(
        text.starts_with(
            "load FILE: its export `wharf:receiver/handler@0.1.7` has `handle` with another type: "
        ),
        "{text}"
    );
}

#[tokio::test]
async fn imports_that_nobody_provides() {
    let fixture = Fixture::new();
    assert_refused!(
        refused(&fixture, guest("odd-import")).await,
        LoadError::UnknownImports { .. },
        "load FILE: it imports `fixture:odd-import/teapot@1.0.0`, which this server does not provide; remove that from the component's world or use a version that is listed in the receiver contract"
    );
    let several = r#"(component
        (import "wasi:cli/stdout@0.3.0" (instance))
        (import "wasi:cli/stdout@0.2.99" (instance))
        (import "wasi:keyvalue/store@0.2.0-draft3" (instance))
        (import "run" (func)))"#;
    let (error, _) = refused_text(several).await;
    let LoadError::UnknownImports { imports, .. } = error else { panic!("{error:?}") };
    assert_eq!(imports, ["wasi:cli/stdout@0.3.0", "wasi:keyvalue/store@0.2.0-draft3", "run"]);
}

#[tokio::test]
async fn an_import_without_its_grant() {
    let fixture = Fixture::new();
    let mut options = options("page");
    options.grants.live = None;
    assert_refused!(
        refused_with(&fixture, options).await,
        LoadError::NotGranted { .. },
        "load FILE: it imports `wharf:receiver/live@0.1.0`, and receiver \"page\" has no grant for that; add `live = true` to the receiver's config if it may"
    );
}

#[tokio::test]
async fn a_grant_without_its_import_is_a_warning() {
    let fixture = Fixture::new();
    let mut options = options("recorder");
    options.grants.live = Some(LiveOptions::default());
    let receiver = fixture.host.load(options).await.unwrap();
    assert_eq!(
        receiver.warnings(),
        ["it has the grant `live = true`, but imports nothing that needs it"]
    );
}

#[tokio::test]
async fn an_import_with_other_functions_than_ours() {
    let text = r#"(component
        (import "wasi:random/insecure-seed@0.2.99" (instance (export "sow" (func)))))"#;
    let (error, text) = refused_text(text).await;
    assert!(matches!(error, LoadError::Link { .. }), "{error:?}");
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
    assert!(matches!(error, LoadError::MemoryTooSmall { limit: 65_536, .. }), "{error:?}");
    assert!(text.starts_with("load FILE: it starts with a memory of "), "{text}");

    let large = "(component (core module $m (memory 400)) (core instance (instantiate $m)))";
    let path = fixture.file("large.wasm", wat::parse_str(large).unwrap());
    let (error, text) = refused(&fixture, path).await;
    assert!(matches!(error, LoadError::DoesNotFit { .. }), "{error:?}");
    assert!(text.starts_with("load FILE: ") && text.contains("memory"), "{text}");
}

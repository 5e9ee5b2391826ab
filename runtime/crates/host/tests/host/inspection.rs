//! What an inspection says of components: of those that can be receivers, and of those that can't.

use wharf_host::{Grant, Inspection, LoadError, Standing};

use crate::fixtures::{Fixture, guest};

async fn inspect(name: &str) -> Inspection {
    Fixture::new().host.inspect(&guest(name)).await.unwrap()
}

async fn inspect_text(text: &str) -> Inspection {
    let fixture = Fixture::new();
    let path = fixture.file("text.wasm", wat::parse_str(text).unwrap());
    fixture.host.inspect(&path).await.unwrap()
}

fn standing(inspection: &Inspection, start: &str) -> Standing {
    inspection.imports.iter().find(|import| import.name.starts_with(start)).unwrap().standing
}

#[tokio::test]
async fn a_receiver_is_shown_with_the_grants_that_it_needs() {
    let page = inspect("page").await;
    assert!(page.problems.is_empty(), "{page:?}");
    let file = std::fs::read(guest("page")).unwrap();
    assert_eq!((page.digest.len(), page.size), (64, file.len()));
    assert!(page.initial_memory >= 1 << 20, "{page:?}");
    let exports: Vec<_> = page.exports.iter().map(|export| (export.name.as_str(), export.called)).collect();
    assert_eq!(
        exports,
        [("wasi:http/incoming-handler@0.2.12", true), ("wharf:receiver/handler@0.1.0", true)]
    );
    assert_eq!(standing(&page, "wharf:receiver/live@"), Standing::NeedsGrant { grant: Grant::Live });
    assert_eq!(standing(&page, "wasi:http/types@"), Standing::Free);

    let puppet = inspect("puppet").await;
    assert!(puppet.problems.is_empty(), "{puppet:?}");
    let files = Standing::IdleWithoutGrant { grant: Grant::Files };
    assert_eq!(standing(&puppet, "wasi:filesystem/preopens@"), files);
    assert_eq!(standing(&puppet, "wasi:sockets/tcp@"), Standing::ReachesNothing);
}

#[tokio::test]
async fn what_would_be_refused_is_told() {
    let odd = inspect("odd-import").await;
    assert_eq!(standing(&odd, "fixture:odd-import/teapot@"), Standing::Unknown);
    assert_eq!(odd.problems.len(), 1, "{odd:?}");
    let other = inspect_text(r#"(component (import "wasi:config/store@0.2.0-draft" (instance)))"#).await;
    assert_eq!(standing(&other, "wasi:config/store@"), Standing::OtherVersion { expected: "0.2.0-rc.1" });
    assert_eq!(other.problems.len(), 2, "the import and the missing handler: {other:?}");
}

/// Only whoever makes it a receiver can say whether it has enough memory or its grants.
#[tokio::test]
async fn what_depends_on_the_config_is_no_problem() {
    let text = r#"(component
        (import "wharf:receiver/live@0.1.0" (instance))
        (import "wasi:keyvalue/store@0.2.0-draft2" (instance))
        (core module $m (memory 2000))
        (core instance (instantiate $m)))"#;
    let inspection = inspect_text(text).await;
    assert_eq!(inspection.initial_memory, 2000 << 16);
    let problems: Vec<String> = inspection.problems.iter().map(ToString::to_string).collect();
    assert!(
        matches!(&problems[..], [only] if only.contains("expected `wharf:receiver/handler`")),
        "{problems:?}"
    );
}

#[tokio::test]
async fn an_export_that_is_not_called_is_shown_as_that() {
    let text = r#"(component
        (instance $i)
        (export "wharf:receiver/hereafter@0.1.0" (instance $i))
        (export "wharf:receiver/handler@0.1.0" (instance $i)))"#;
    let inspection = inspect_text(text).await;
    let called: Vec<_> = inspection.exports.iter().map(|export| export.called).collect();
    assert_eq!(called, [true, false], "{inspection:?}");
}

#[tokio::test]
async fn a_file_that_is_no_component_is_an_error() {
    let fixture = Fixture::new();
    let path = fixture.file("module.wasm", wat::parse_str("(module)").unwrap());
    let error = fixture.host.inspect(&path).await.unwrap_err();
    assert!(matches!(error, LoadError::NotAComponent { .. }), "{error:?}");
}

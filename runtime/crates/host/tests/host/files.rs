//! The folders that receivers are granted: what they can do there, that nothing around is in reach, and how much they can
//! make the host hold.

use std::fs;
use std::path::Path;
use std::time::Duration;

use wharf_host::{Fault, FolderGrant, LoadError, MAX_OPEN_FILES, Receiver, TrapKind};

use crate::fixtures::{Fixture, Log, batch, chain, options, printed};

/// Two folders beside each other: `in` to read from and `out` to write to, with a secret between them.
struct Folders {
    fixture: Fixture,
    receiver: Receiver,
}

impl Folders {
    async fn new() -> Self {
        let fixture = Fixture::new();
        let root = fixture.dir.path();
        fs::create_dir(root.join("in")).unwrap();
        fs::create_dir(root.join("out")).unwrap();
        fs::write(root.join("in/a"), "hello").unwrap();
        fs::write(root.join("secret"), "secret").unwrap();
        let mut options = options("tools");
        options.grants.files = vec![grant(root, "out", true), grant(root, "in", false)];
        // Each operation waits for the disk, which may be busy.
        options.deadline = Duration::from_secs(10);
        let receiver = fixture.host.load(options).await.unwrap();
        Self { fixture, receiver }
    }

    fn root(&self) -> &Path {
        self.fixture.dir.path()
    }

    async fn obey(&self, bodies: &[&str]) -> Result<(), Fault> {
        self.receiver.instantiate().await.unwrap().handle(&batch(bodies)).await.map(drop)
    }
}

fn grant(root: &Path, name: &str, write: bool) -> FolderGrant {
    FolderGrant { host: root.join(name), guest: format!("/{name}"), write }
}

#[tokio::test]
async fn a_granted_folder_can_be_read_and_with_write_be_written_to() {
    let log = Log::start();
    let folders = Folders::new().await;
    let bodies = [
        r#"{"do":"read","path":"/in/a"}"#,
        r#"{"do":"list","path":"/in"}"#,
        r#"{"do":"write","path":"/out/b","text":"written"}"#,
        r#"{"do":"read","path":"/out/b"}"#,
    ];
    folders.obey(&bodies).await.unwrap();
    assert_eq!(
        printed(&log),
        [r#"read Ok("hello")"#, r#"list Ok(["a"])"#, "write Ok(())", r#"read Ok("written")"#]
    );
    assert_eq!(fs::read_to_string(folders.root().join("out/b")).unwrap(), "written");
}

#[tokio::test]
async fn a_folder_without_write_stays_as_it_is() {
    let log = Log::start();
    let folders = Folders::new().await;
    let bodies = [
        r#"{"do":"write","path":"/in/a","text":"changed"}"#,
        r#"{"do":"write","path":"/in/b","text":"new"}"#,
        r#"{"do":"remove","path":"/in/a"}"#,
    ];
    folders.obey(&bodies).await.unwrap();
    let lines = printed(&log);
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.contains("Err(")), "{lines:?}");
    assert_eq!(fs::read_to_string(folders.root().join("in/a")).unwrap(), "hello");
    assert_eq!(fs::read_dir(folders.root().join("in")).unwrap().count(), 1);
}

#[tokio::test]
async fn nothing_around_a_folder_is_in_reach() {
    let log = Log::start();
    let folders = Folders::new().await;
    std::os::unix::fs::symlink("../secret", folders.root().join("in/link")).unwrap();
    std::os::unix::fs::symlink(folders.root().join("secret"), folders.root().join("in/absolute")).unwrap();
    let bodies = [
        r#"{"do":"read","path":"/in/../secret"}"#,
        r#"{"do":"read","path":"/in/link"}"#,
        r#"{"do":"read","path":"/in/absolute"}"#,
        r#"{"do":"read","path":"/etc/hostname"}"#,
        r#"{"do":"list","path":"/in/.."}"#,
        r#"{"do":"link","target":"/etc/hostname","path":"made"}"#,
        r#"{"do":"link","target":"../secret","path":"also-made"}"#,
        r#"{"do":"read","path":"/out/also-made"}"#,
        r#"{"do":"write","path":"/out/../secret","text":"changed"}"#,
    ];
    folders.obey(&bodies).await.unwrap();
    let lines = printed(&log);
    let out_of_reach = |line: &String| line.contains("Err(") || line == "link Ok(())";
    assert!(lines.len() == 9 && lines.iter().all(out_of_reach), "{lines:?}");
    assert_eq!(fs::read_to_string(folders.root().join("secret")).unwrap(), "secret");
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_not_followed() {
    let log = Log::start();
    let folders = Folders::new().await;
    let root = folders.root();
    fs::create_dir(root.join("elsewhere")).unwrap();
    fs::write(root.join("elsewhere/a"), "not granted").unwrap();
    fs::rename(root.join("in"), root.join("moved")).unwrap();
    std::os::unix::fs::symlink("elsewhere", root.join("in")).unwrap();
    folders.obey(&[r#"{"do":"read","path":"/in/a"}"#]).await.unwrap();
    assert_eq!(printed(&log), [r#"read Ok("hello")"#]);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let fixture = Fixture::new();
    let file = fixture.file("file", "");
    for (host, expected) in [(fixture.dir.path().join("missing"), "os error 2"), (file, "os error 20")] {
        let mut options = options("tools");
        options.grants.files = vec![FolderGrant { host: host.clone(), guest: "/in".into(), write: false }];
        let error = fixture.host.load(options).await.err().unwrap();
        assert!(matches!(&error, LoadError::Folder { guest, .. } if guest == "/in"), "{error:?}");
        let text = chain(&error);
        let named = text.contains(host.to_str().unwrap()) && text.contains(r#""tools" as "/in""#);
        assert!(named && text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn open_files_of_an_instance_are_bounded() {
    let log = Log::start();
    let folders = Folders::new().await;
    // A guest's own handles of its folders count, too.
    let many = format!(r#"{{"do":"open","path":"/in/a","times":{}}}"#, MAX_OPEN_FILES);
    let few = format!(r#"{{"do":"open","path":"/in/a","times":{}}}"#, MAX_OPEN_FILES / 2);
    folders.obey(&[&many, &few]).await.unwrap();
    let lines = printed(&log);
    assert!(lines[0].starts_with(&format!("open {} Os {{ code:", MAX_OPEN_FILES - 2)), "{lines:?}");
    assert_eq!(lines[1], format!("open {} true", MAX_OPEN_FILES / 2), "closed ones make room");
}

#[tokio::test]
async fn listings_are_bounded_in_number_and_size() {
    let log = Log::start();
    let folders = Folders::new().await;
    folders.obey(&[r#"{"do":"listings","path":"/in","times":100}"#]).await.unwrap();
    let large = folders.root().join("in/large");
    fs::create_dir(&large).unwrap();
    for name in 0..10_001 {
        fs::write(large.join(name.to_string()), "").unwrap();
    }
    folders.obey(&[r#"{"do":"list","path":"/in/large"}"#]).await.unwrap();
    for name in 0..9_900 {
        fs::remove_file(large.join(name.to_string())).unwrap();
    }
    folders.obey(&[r#"{"do":"list","path":"/in/large"}"#]).await.unwrap();
    let lines = printed(&log);
    assert_eq!(lines[0], "listings 16");
    assert!(lines[1].starts_with("list Err("), "{}", lines[1]);
    assert!(lines[2].starts_with(r#"list Ok(["10000", "9900","#), "{}", lines[2]);
}

#[tokio::test]
async fn a_pipe_is_not_opened() {
    let log = Log::start();
    let folders = Folders::new().await;
    let made = std::process::Command::new("mkfifo").arg(folders.root().join("in/pipe")).status().unwrap();
    assert!(made.success());
    // It would wait for a writer for ever, and a thread with it.
    folders.obey(&[r#"{"do":"read","path":"/in/pipe"}"#]).await.unwrap();
    let lines = printed(&log);
    assert!(lines[0].starts_with("read Err("), "{lines:?}");
}

#[tokio::test]
async fn a_write_beyond_the_room_of_a_stream_ends_the_guest() {
    let folders = Folders::new().await;
    folders.obey(&[r#"{"do":"pour","path":"fits","bytes":65536}"#]).await.unwrap();
    let fault = folders.obey(&[r#"{"do":"pour","path":"more","bytes":65537}"#]).await.unwrap_err();
    assert!(matches!(&fault, Fault::Trap { kind: TrapKind::HostLimit, .. }), "{fault:?}");
    assert!(fault.to_string().contains("check-write"), "{fault}");
}

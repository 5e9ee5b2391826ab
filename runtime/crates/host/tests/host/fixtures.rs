//! What the tests share: a host with a fresh cache, guests by name, messages, and the log that guests wrote.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tracing_subscriber::fmt::MakeWriter;
use wharf_host::{
    Batch, Body, Compiler, Grants, Host, HostOptions, Instance, LiveOptions, Message, Receiver,
    ReceiverOptions, Redelivery,
};

/// A deadline that is short to wait for and long enough for whatever does not loop, also on a busy machine.
pub const DEADLINE: Duration = Duration::from_millis(500);

/// A host and the folder that its cache is in.
pub struct Fixture {
    pub host: Host,
    pub dir: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut HostOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = HostOptions::new(dir.path().join("cache"), compiler());
        options.max_instances = 8;
        options.max_pages = 4;
        change(&mut options);
        Self { host: Host::new(options).unwrap(), dir }
    }

    /// Writes a file to load.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub async fn load(&self, guest: &str) -> Receiver {
        self.host.load(options(guest)).await.unwrap()
    }

    pub async fn instance(&self, guest: &str) -> Instance {
        self.load(guest).await.instantiate().await.unwrap()
    }
}

/// The compiler process of these tests.
pub fn compiler() -> Compiler {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    Compiler { program: profile.join("examples/compile_component"), args: Vec::new() }
}

/// The component of a fixture guest.
pub fn guest(name: &str) -> PathBuf {
    component(&format!("guest_{}", name.replace('-', "_")))
}

/// The component of a receiver that ships with Wharf.
pub fn component(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/guests/wasm32-wasip2/release");
    let path = folder.join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `make guests` first", path.display());
    path
}

pub fn options(name: &str) -> ReceiverOptions {
    ReceiverOptions {
        memory: 16 << 20,
        deadline: DEADLINE,
        http_deadline: DEADLINE,
        http_body_bytes: 64 * 1024,
        grants: Grants { live: (name == "page").then(LiveOptions::default), ..Grants::default() },
        ..ReceiverOptions::new(name, guest(name))
    }
}

pub fn message(offset: u64, body: &str) -> Message {
    Message {
        offset,
        agent: "agent-1".into(),
        received_at: 1_700_000_000_000,
        redelivery: Redelivery::None,
        id: None,
        sent_at: None,
        user: None,
        trace: None,
        body: Body::Json(body.into()),
    }
}

pub fn batch(bodies: &[&str]) -> Batch {
    let messages = (1..).zip(bodies).map(|(offset, body)| message(offset, body)).collect();
    Batch { data_type: "system_metrics".into(), messages }
}

/// A batch of one message that orders the puppet to do something.
pub fn order(what: &str) -> Batch {
    batch(&[&format!(r#"{{"do":"{what}"}}"#)])
}

/// An error with all its sources, as an operator reads it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// What guests printed, without what the log puts around it.
pub fn printed(log: &Log) -> Vec<String> {
    let lines = log.guest_lines();
    let text =
        |line: &String| Some(line.strip_prefix("INFO guest: ")?.split(" receiver.name=").next()?.to_owned());
    lines.iter().map(|line| text(line).ok_or(line).unwrap()).collect()
}

/// Collects what this thread logs while it lives.
pub struct Log {
    lines: Lines,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn start() -> Self {
        let lines = Lines::default();
        let subscriber =
            tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).without_time().finish();
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The lines of guests so far: what was logged with target `guest`.
    pub fn guest_lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(" guest: ")).map(|line| line.trim().to_owned()).collect()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

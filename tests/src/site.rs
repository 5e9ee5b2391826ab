//! A folder with a config and a data directory, on which servers and commands run one after the other.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::config::Config;
use crate::process::{Process, command};
use crate::server::Server;
use crate::wait::within;

/// The folder; it is removed when this and every process that was started in it are gone.
#[derive(Debug)]
pub struct Site {
    folder: Arc<TempDir>,
    config: Config,
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Site {
    pub fn new(config: Config) -> Site {
        let folder = tempfile::Builder::new().prefix("wharf-e2e-").tempdir().expect("a folder can be made");
        Site { folder: Arc::new(folder), config }
    }

    /// The folder that the config is in.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The folder of a data type's log.
    pub fn topic(&self, data_type: &str) -> PathBuf {
        self.path().join("data/log").join(data_type)
    }

    /// Changes the config for the next start.
    pub fn change(&mut self, change: impl FnOnce(Config) -> Config) {
        self.config = change(std::mem::take(&mut self.config));
    }

    /// Sets one key for the next start.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.change(|config| config.set(key, value));
    }

    /// Writes the config and gives its path.
    pub fn write_config(&self) -> PathBuf {
        let path = self.path().join("wharf.toml");
        std::fs::write(&path, self.config.to_toml()).expect("the config can be written");
        path
    }

    /// Starts a server and waits until it listens.
    pub async fn start(&self) -> Server {
        Server::listening(self.start_unawaited()).await
    }

    /// Starts a server and does not wait for it.
    pub fn start_unawaited(&self) -> Process {
        let config = self.write_config();
        self.spawn(&["run", "--config", config.to_str().expect("paths of tests are text")])
    }

    /// Starts a server whose standard error the test does not read, and waits until it listens.
    pub async fn start_unheard(&self, stderr: impl Into<Stdio>) -> Server {
        let config = self.write_config();
        let args = ["run", "--config", config.to_str().expect("paths of tests are text")];
        Server::listening(Process::start_unheard(self.folder.clone(), &args, stderr)).await
    }

    /// Starts `wharf` in this folder.
    pub fn spawn(&self, args: &[&str]) -> Process {
        Process::start(self.folder.clone(), args)
    }

    /// Runs `wharf` in this folder to its end, with nothing on standard input.
    pub async fn run(&self, args: &[&str]) -> Finished {
        self.run_with(args, b"").await
    }

    /// Runs `wharf` in this folder to its end, with `input` on standard input.
    pub async fn run_with(&self, args: &[&str], input: &[u8]) -> Finished {
        let mut child = command(self.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("wharf can be started");
        let mut stdin = child.stdin.take().expect("standard input is piped");
        let feed = async {
            // A command may end without reading all of it.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let what = format!("the end of wharf {}", args.join(" "));
        let ((), output) = within(&what, async { tokio::join!(feed, child.wait_with_output()) }).await;
        let output = output.expect("the output can be read");
        let text = |bytes| String::from_utf8(bytes).expect("wharf prints text");
        Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

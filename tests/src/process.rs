//! One running `wharf`, from its start to its end, whatever its command.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::files;
use crate::log::Log;
use crate::wait::within;

/// Lines that a failing test shows.
const SHOWN_LINES: usize = 40;

/// Characters of each of them: bodies can be long.
const SHOWN_CHARS: usize = 1_000;

/// The process. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The lines of its standard output.
    pub stdout: Log,
    /// The lines of its standard error, where it logs.
    pub log: Log,
    /// Kept for as long as the process uses it.
    _folder: Arc<TempDir>,
}

impl Process {
    /// Starts `wharf` in a folder, with nothing on standard input.
    pub fn start(folder: Arc<TempDir>, args: &[&str]) -> Process {
        let (stderr, writer) = std::io::pipe().expect("a pipe can be made");
        Process::start_with(folder, args, writer, Log::follow(stderr))
    }

    /// Starts `wharf` with a standard error that the test does not read.
    pub fn start_unheard(folder: Arc<TempDir>, args: &[&str], stderr: impl Into<Stdio>) -> Process {
        let (nothing, _) = std::io::pipe().expect("a pipe can be made");
        Process::start_with(folder, args, stderr, Log::follow(nothing))
    }

    fn start_with(folder: Arc<TempDir>, args: &[&str], stderr: impl Into<Stdio>, log: Log) -> Process {
        let (stdout, stdout_writer) = std::io::pipe().expect("a pipe can be made");
        let child = command(folder.path())
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout_writer)
            .stderr(stderr)
            .spawn()
            .expect("wharf can be started");
        Process { child, stdout: Log::follow(stdout), log, _folder: folder }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        let pid =
            self.child.id().and_then(|id| Pid::from_raw(id.try_into().expect("a process id is an i32")));
        kill_process(pid.expect("the process runs"), signal).expect("the process can be sent a signal");
    }

    /// Waits for the end of the process and of its output.
    pub async fn ended(&mut self) -> ExitStatus {
        let status =
            within("the process to end", self.child.wait()).await.expect("a child can be waited for");
        self.log.ended().await;
        self.stdout.ended().await;
        status
    }

    /// Tells it to stop, expects that it does so in an orderly way, and gives all that it had logged.
    pub async fn stop(mut self) -> Log {
        self.terminate();
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "an orderly stop ends with 0");
        self.log.clone()
    }

    /// Ends it as a crash would, and gives all that it had logged.
    pub async fn kill(mut self) -> Log {
        self.child.start_kill().expect("the process was not waited for");
        self.ended().await;
        self.log.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its folder is removed next: nothing may write there any more. What is killed ends within milliseconds.
        let _ = self.child.start_kill();
        while matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if std::thread::panicking() {
            let lines = self.log.lines();
            eprintln!("the last lines of a log:");
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                eprintln!("{}", line.chars().take(SHOWN_CHARS).collect::<String>());
            }
        }
    }
}

/// The binary, in an environment that can't change what it does. It is killed with the value that owns it.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(files::wharf());
    command.current_dir(folder).kill_on_drop(true);
    for variable in ["WHARF_LOG", "WHARF_CONFIG", "WHARF_ADMIN", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
}

//! The parent's side of compiling: starts the process, waits for it with a time-out, and makes an error of what it says.
//! When the future is dropped the process is killed.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::LoadError;
use crate::fault::printable;
use crate::host::{Compiler, HostOptions};

/// How much of the process's standard error ends up in the error: a few lines; the rest is read and dropped.
const MAX_MESSAGE: usize = 4096;

/// The signal of a process that ended itself, which Rust's allocator does when there is no more memory.
const SIGABRT: i32 = 6;

/// How a compiler process is started and limited.
pub(super) struct Child {
    compiler: Compiler,
    memory: u64,
    timeout: Duration,
}

impl Child {
    pub(super) fn new(options: &HostOptions) -> Self {
        Self {
            compiler: options.compiler.clone(),
            memory: options.compile_memory,
            timeout: options.compile_timeout,
        }
    }

    /// Compiles `input`, a copy of the component at `path`, to `output`.
    pub(super) async fn compile(&self, path: &Path, input: &Path, output: &Path) -> Result<(), LoadError> {
        let started = |source| LoadError::CompilerStart { program: self.compiler.program.clone(), source };
        let mut child = Command::new(&self.compiler.program)
            .args(&self.compiler.args)
            .arg(input)
            .arg(output)
            .arg("--memory")
            .arg(self.memory.to_string())
            // The server's environment may hold secrets, and the compiler reads what a stranger wrote.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(started)?;
        let stderr = child.stderr.take();
        let finished = timeout(self.timeout, async {
            let message = match stderr {
                Some(stderr) => read_start(stderr).await,
                None => String::new(),
            };
            (child.wait().await, message)
        });
        let path = PathBuf::from(path);
        let Ok((status, message)) = finished.await else {
            let _ = child.kill().await;
            return Err(LoadError::CompileTimeout { path, limit: self.timeout });
        };
        let status = status.map_err(started)?;
        if status.success() {
            Ok(())
        } else if ran_out_of_memory(status, &message) {
            Err(LoadError::CompileMemory { path, limit: self.memory })
        } else if message.is_empty() {
            Err(LoadError::Compile { path, message: format!("the compiler ended with {status}") })
        } else {
            Err(LoadError::Compile { path, message })
        }
    }
}

async fn read_start(mut stream: impl AsyncRead + Unpin) -> String {
    let mut start = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = MAX_MESSAGE.saturating_sub(start.len());
        start.extend(buffer.iter().take(read.min(room)));
    }
    // It quotes the component.
    printable(String::from_utf8_lossy(&start).trim(), MAX_MESSAGE, true)
}

/// Whether the process met its memory limit. The allocator says so and aborts; threads that can't get a stack, and files that
/// can't be mapped, say what the system says.
fn ran_out_of_memory(status: ExitStatus, message: &str) -> bool {
    let says = |text| message.contains(text);
    says("Cannot allocate memory")
        || status.signal() == Some(SIGABRT)
            && (says("memory allocation of") || says("Resource temporarily unavailable"))
}

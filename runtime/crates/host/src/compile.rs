//! Compiles one component, in a process of its own: the compiler can be neither stopped nor held to a memory limit from
//! within, and a large component keeps it busy for half a minute. The parent's side is in `cache/child.rs`.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use wasmtime::Engine;

use crate::component_file::hex_digest;
use crate::engine::compile_config;

/// How much the process steps back behind the server that started it.
const NICENESS: i32 = 10;

/// The most processor time of the process in seconds, so that one whose parent was killed ends too. The parent's own
/// time-out is shorter.
const PROCESSOR_SECONDS: u64 = 3600;

/// Why a component could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The process could not limit itself.
    #[error("limit the compiler's own memory and time")]
    Limit(#[source] io::Error),
    /// The component can't be read.
    #[error("read {path:?}")]
    Read {
        /// The component.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The component is invalid, or uses what this engine does not support.
    #[error("translate the component")]
    Invalid(#[source] Box<dyn Error + Send + Sync>),
    /// The result can't be written.
    #[error("write {path:?}")]
    Write {
        /// The artifact.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Compiles the component `input` to the artifact `output`, and gives the artifact's SHA-256 in hex.
///
/// Only for a process that does nothing else: it lowers the priority of the calling process and limits its memory to
/// `memory` bytes, for good. Past that limit, and when anything panics, the process is aborted.
pub fn compile(input: &Path, output: &Path, memory: u64) -> Result<String, CompileError> {
    abort_on_panic();
    limit_this_process(memory).map_err(|error| CompileError::Limit(error.into()))?;
    let component =
        std::fs::read(input).map_err(|source| CompileError::Read { path: input.into(), source })?;
    let artifact = Engine::new(&compile_config())
        .and_then(|engine| engine.precompile_component(&component))
        .map_err(|error| CompileError::Invalid(error.into_boxed_dyn_error()))?;
    std::fs::write(output, &artifact)
        .map_err(|source| CompileError::Write { path: output.into(), source })?;
    Ok(hex_digest(&artifact))
}

/// A thread pool that lacks memory panics, and then waits for ever for the threads that it could not start.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

fn limit_this_process(memory: u64) -> rustix::io::Result<()> {
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    nice(NICENESS)?;
    // What is written to, not what is reserved: threads and the allocator reserve address space that they never use.
    setrlimit(Resource::Data, limit(memory))?;
    setrlimit(Resource::Fsize, limit(memory))?;
    setrlimit(Resource::Core, limit(0))?;
    setrlimit(Resource::Cpu, limit(PROCESSOR_SECONDS))
}

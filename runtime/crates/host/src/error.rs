//! Why a host can't start and why a component can't be loaded. The texts are for whoever wrote the config or the
//! component: what was found, what was expected, what to do.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a [`Host`](crate::Host) can't start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// More memory for a receiver than a guest can address.
    #[error(
        "start the engine with {asked} bytes as the most memory of a receiver: at most {limit} bytes are \
         possible"
    )]
    MaxMemory {
        /// The option.
        asked: u64,
        /// The most that is possible.
        limit: u64,
    },
    /// The engine refused its settings, or there is not enough address space for its pool.
    #[error("start the engine: lower the number of instances if address space is short")]
    Engine(#[source] Box<dyn Error + Send + Sync>),
    /// The folder of compiled components can't be used.
    #[error("use the folder {path:?} for compiled components")]
    CacheFolder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No thread for the clock.
    #[error("start the thread that limits the time of guests")]
    Clock(#[source] io::Error),
}

/// Why a component can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is missing or can't be read.
    #[error("read the component {path:?}: the path must name a file that the server may read")]
    Read {
        /// The component's file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is larger than a component may be.
    #[error(
        "load {path:?}: the file has more than the {limit} bytes that a component may have; build it \
         with optimisation and without debug information"
    )]
    TooLarge {
        /// The component's file.
        path: PathBuf,
        /// The most that is allowed, in bytes.
        limit: u64,
    },
    /// The file is something else.
    #[error("load {path:?}: found {found}, expected a WebAssembly component; {advice}")]
    NotAComponent {
        /// The component's file.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The receiver asks for more memory than the host has for one.
    #[error(
        "give receiver {name:?} {asked} bytes of memory: the host is set up for at most {limit} bytes; \
         lower the receiver's memory or raise the host's"
    )]
    MemoryAboveHost {
        /// The receiver.
        name: String,
        /// Its `memory`.
        asked: u64,
        /// The host's `max_memory`.
        limit: u64,
    },
    /// The component starts with more memory than the receiver has.
    #[error(
        "load {path:?}: it starts with a memory of {needed} bytes, and the receiver may use {limit} \
         bytes; raise the receiver's memory"
    )]
    MemoryTooSmall {
        /// The component's file.
        path: PathBuf,
        /// What the component's largest memory starts with, in bytes.
        needed: u64,
        /// The receiver's `memory`.
        limit: u64,
    },
    /// The compiler did not start.
    #[error("start the compiler {program:?}")]
    CompilerStart {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The compiler refused the component.
    #[error("compile {path:?}: {message}; build the component again with a current toolchain")]
    Compile {
        /// The component's file.
        path: PathBuf,
        /// What the compiler said.
        message: String,
    },
    /// Compiling took too long.
    #[error(
        "compile {path:?}: it was not done within {limit:?}; make the component smaller or give the \
         compiler more time"
    )]
    CompileTimeout {
        /// The component's file.
        path: PathBuf,
        /// The longest it may take.
        limit: Duration,
    },
    /// Compiling took too much memory.
    #[error(
        "compile {path:?}: it takes more than {limit} bytes of memory; make the component smaller or \
         give the compiler more memory"
    )]
    CompileMemory {
        /// The component's file.
        path: PathBuf,
        /// The most it may take, in bytes.
        limit: u64,
    },
    /// The folder of compiled components can't be used.
    #[error("keep compiled components in {path:?}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The component does not fit the engine's pool.
    #[error("load {path:?}: {reason}; a component must fit the limits that are the same for all")]
    DoesNotFit {
        /// The component's file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The component exports no handler.
    #[error(
        "load {path:?}: it exports {}, expected `wharf:receiver/handler`; build it for a world that \
         includes `wharf:receiver/base`",
        listed(exports)
    )]
    NoHandler {
        /// The component's file.
        path: PathBuf,
        /// What it exports.
        exports: Vec<String>,
    },
    /// An interface of ours is exported in a version that this host can't call.
    #[error(
        "load {path:?}: it exports `{found}`, expected version {expected}; build it against the WIT \
         package of this server"
    )]
    ExportVersion {
        /// The component's file.
        path: PathBuf,
        /// The export with its version.
        found: String,
        /// The versions that work.
        expected: String,
    },
    /// An interface of ours is exported, but a function is missing or has another type.
    #[error(
        "load {path:?}: its export `{interface}` {problem}; build it against the WIT package of this server"
    )]
    ExportIncomplete {
        /// The component's file.
        path: PathBuf,
        /// The export.
        interface: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The component imports what no receiver can have.
    #[error(
        "load {path:?}: it imports {}, which this server does not provide; remove that from the \
         component's world or use a version that is listed in the receiver contract",
        listed(imports)
    )]
    UnknownImports {
        /// The component's file.
        path: PathBuf,
        /// The imports that are unknown.
        imports: Vec<String>,
    },
    /// The component imports what the receiver was not granted.
    #[error(
        "load {path:?}: it imports {}, and receiver {name:?} has no grant for that; add {} to the receiver's \
         config if it may",
        listed(imports),
        listed(grants)
    )]
    NotGranted {
        /// The component's file.
        path: PathBuf,
        /// The receiver.
        name: String,
        /// The imports that lack a grant.
        imports: Vec<String>,
        /// The grants as they would stand in the config.
        grants: Vec<&'static str>,
    },
    /// An import has a known name, but not the functions or types that this host provides under it.
    #[error(
        "load {path:?}: {reason}; build it against the interface versions that are listed in the \
         receiver contract"
    )]
    Link {
        /// The component's file.
        path: PathBuf,
        /// What does not match.
        reason: String,
    },
}

fn listed<T: Display>(names: &[T]) -> String {
    if names.is_empty() {
        return "nothing".into();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

//! Why a host can't start and why a component can't be loaded. The texts are for whoever wrote the config or the
//! component: what was found, what was expected, what to do.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::problem::{Problem, together};

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
    /// A folder that the receiver was granted can't be opened.
    #[error(
        "open the folder {host:?}, granted to receiver {name:?} as {guest:?}: the path must name a folder that the server \
         may read"
    )]
    Folder {
        /// The receiver.
        name: String,
        /// The folder on the server's machine.
        host: PathBuf,
        /// Where the guest would see it.
        guest: String,
        /// What the system says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The component does not fit the engine's pool.
    #[error("load {path:?}: {reason}; a component must fit the limits that are the same for all")]
    DoesNotFit {
        /// The component's file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The receiver contract has something against it, or against what the receiver was granted.
    #[error("load {path:?}:{}", together(problems))]
    Refused {
        /// The component's file.
        path: PathBuf,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

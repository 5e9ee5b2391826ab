//! Runs receivers: WebAssembly components of strangers, in a sandbox.
//!
//! This crate holds the engine, compiles components in a child process and keeps the results, checks what a component
//! exports and imports against what it was granted, and calls it within its limits. It knows nothing of sockets, logs of
//! messages or config files.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use wharf_host::{Batch, Compiler, Host, HostOptions, ReceiverOptions};
//!
//! let compiler = Compiler { program: std::env::current_exe()?, args: vec!["compile-component".into()] };
//! let host = Host::new(HostOptions::new("data/cache".into(), compiler))?;
//! let receiver = host.load(ReceiverOptions::new("journal", "journal.wasm".into())).await?;
//! let mut instance = receiver.instantiate().await?;
//! let failures = instance.handle(&Batch { data_type: "system_metrics".into(), messages: Vec::new() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Guests run on the tokio runtime that polls these futures. A guest that computes holds its thread for ten milliseconds
//! at a time, so give guests a runtime of their own.
#![deny(missing_docs)]

mod bindings;
mod cache;
mod compile;
mod component_file;
mod contract;
mod engine;
mod error;
mod fault;
mod files;
mod grants;
mod guest_log;
mod host;
mod http;
mod inspection;
mod instance;
mod keyvalue;
mod limiter;
mod live;
mod logging;
mod metrics;
mod problem;
mod receiver;
mod settings;
mod shared;
mod store;
mod usage;
mod wasi;

pub use bindings::{Batch, Body, Failure, FailureAction, Message, PresenceChange, Redelivery, SavedState};
pub use cache::{CacheCheck, check_cache};
pub use compile::{CompileError, compile};
pub use component_file::ComponentFile;
pub use contract::{Export, Grant, Import, Standing};
pub use error::{HostError, LoadError};
pub use fault::{Evidence, Fault, TrapKind};
pub use files::{FolderGrant, MAX_OPEN_FILES};
pub use grants::Grants;
pub use host::{Compiler, Host, HostOptions};
pub use http::{HttpGrant, Origin, PageError};
pub use inspection::Inspection;
pub use instance::{Instance, MAX_SNAPSHOT_BYTES};
pub use keyvalue::KeyValueGrant;
pub use live::{Live, LiveOptions, LiveSubscription};
pub use metrics::{Metric, MetricValue};
pub use problem::Problem;
pub use receiver::{Receiver, ReceiverOptions};

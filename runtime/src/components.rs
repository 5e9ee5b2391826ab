//! Loads the components that the config names, and says everything that is wrong with them at once.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use wharf_host::{
    Compiler, Grants, Host, HostError, HostOptions, HttpGrant, KeyValueGrant, LiveOptions, LoadError,
    MAX_OPEN_FILES, ReceiverOptions,
};
use wharf_state::KeyValue;

use crate::config::{Config, Receiver};
use crate::data_dir;
use crate::delivery::Fed;
pub use paths::PathProblem;

mod paths;

/// The hidden subcommand that compiles a component in a process of its own.
pub const COMPILE_COMMAND: &str = "compile-component";

/// Requests for pages that there is room for beyond those of the receivers that a server starts with: for eight more receivers at
/// their default, which a reload may bring. It is address space, not memory.
const PAGES_TO_SPARE: usize = 64;

/// What is wrong with the components of a config.
#[derive(Debug, Error)]
pub enum ComponentErrors {
    /// Some paths can't be used.
    Paths {
        /// The config's file.
        file: PathBuf,
        /// All that is wrong with them.
        problems: Vec<PathProblem>,
    },
    /// Some can't be loaded.
    Load {
        /// The config's file.
        file: PathBuf,
        /// Receiver and reason.
        errors: Vec<(String, LoadError)>,
    },
    /// The engine can't be made as the config wants it.
    Host(#[source] HostError),
    /// This program can't be found, to compile with.
    Program(#[source] io::Error),
}

impl fmt::Display for ComponentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComponentErrors::Paths { file, problems } => {
                write!(f, "use the paths of the config:")?;
                problems.iter().try_for_each(|problem| write!(f, "\n{}: {problem}", file.display()))
            }
            ComponentErrors::Load { file, errors } => {
                write!(f, "load the components:")?;
                for (receiver, error) in errors {
                    write!(f, "\n{}: receivers.{receiver}.component: failed to {error}", file.display())?;
                    let mut source = std::error::Error::source(error);
                    while let Some(cause) = source {
                        write!(f, ": {cause}")?;
                        source = cause.source();
                    }
                }
                Ok(())
            }
            ComponentErrors::Host(_) => write!(f, "make the WebAssembly engine"),
            ComponentErrors::Program(_) => write!(f, "find the program to compile components with"),
        }
    }
}

/// An engine as the config wants it. Receivers that keep values need `keyvalue` to run, not to be checked.
pub fn host(config: &Config, keyvalue: Option<KeyValue>) -> Result<Host, ComponentErrors> {
    let program = std::env::current_exe().map_err(ComponentErrors::Program)?;
    Host::new(HostOptions {
        cache_dir: data_dir::components(&config.data_dir),
        compiler: Compiler { program, args: vec![COMPILE_COMMAND.into()] },
        max_memory: config.host.max_memory,
        max_instances: u32::try_from(config.host.max_instances).unwrap_or(u32::MAX),
        max_pages: u32::try_from(max_pages(config)).unwrap_or(u32::MAX),
        compile_memory: config.host.compile_memory,
        compile_timeout: config.host.compile_timeout,
        max_component_bytes: config.host.max_component,
        keyvalue,
    })
    .map_err(ComponentErrors::Host)
}

/// Checks that the paths of a config can stand beside each other.
pub async fn check_paths(config: &Config) -> Result<(), ComponentErrors> {
    let checked = config.clone();
    let problems = tokio::task::spawn_blocking(move || paths::check(&checked)).await;
    match problems {
        Ok(problems) if problems.is_empty() => Ok(()),
        Ok(problems) => Err(ComponentErrors::Paths { file: config.file.clone(), problems }),
        Err(error) => Err(ComponentErrors::Program(io::Error::other(error))),
    }
}

/// Loads the component of each of these receivers of the config `file`, compiling what is not in the cache. `instead`: by receiver,
/// the file of another component than that of the config.
pub async fn load(
    host: &Host,
    file: &Path,
    receivers: &[Receiver],
    instead: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Fed>, ComponentErrors> {
    let mut loaded = Vec::new();
    let mut errors = Vec::new();
    for settings in receivers {
        let component = instead.get(&settings.name).unwrap_or(&settings.component);
        match host.load(options(settings, component)).await {
            Ok(receiver) => {
                loaded.push(Fed { settings: settings.clone(), receiver });
            }
            Err(error) => errors.push((settings.name.clone(), error)),
        }
    }
    if errors.is_empty() { Ok(loaded) } else { Err(ComponentErrors::Load { file: file.to_owned(), errors }) }
}

/// How many requests for pages, of all receivers together, there is room for in a server that starts with this config.
pub fn max_pages(config: &Config) -> usize {
    let pages: usize = config.receivers.iter().map(|receiver| receiver.http_concurrency).sum();
    pages.saturating_add(PAGES_TO_SPARE)
}

/// How many files receivers may have open together, all their instances and pages at work.
pub fn max_open_files(config: &Config) -> usize {
    let with_folders = config.receivers.iter().filter(|receiver| !receiver.files.is_empty());
    with_folders.map(|receiver| (receiver.instances + receiver.http_concurrency) * MAX_OPEN_FILES).sum()
}

/// How a component is loaded for a receiver with these settings.
pub fn options(settings: &Receiver, component: &Path) -> ReceiverOptions {
    ReceiverOptions {
        name: settings.name.clone(),
        component: component.to_owned(),
        grants: grants(settings),
        settings: settings.settings.clone(),
        ticks: settings.tick.is_some(),
        resources: settings.resources,
        memory: settings.memory,
        deadline: settings.deadline,
        http_concurrency: settings.http_concurrency,
        http_deadline: settings.http_deadline,
        http_body_bytes: settings.http_body,
        log_lines_per_second: settings.log_lines,
        metric_series: settings.metric_series,
    }
}

fn grants(settings: &Receiver) -> Grants {
    Grants {
        live: settings.live.then_some(LiveOptions {
            max_keys: settings.live_keys,
            max_bytes: usize::try_from(settings.live_bytes).unwrap_or(usize::MAX),
        }),
        keyvalue: settings.keyvalue.then_some(KeyValueGrant { max_bytes: settings.keyvalue_bytes }),
        http: (!settings.http.is_empty()).then(|| HttpGrant {
            origins: settings.http.clone(),
            max_in_flight: settings.outgoing_requests,
            timeout: settings.outgoing_timeout,
            max_request_bytes: settings.outgoing_body,
            max_response_bytes: settings.outgoing_answer,
        }),
        files: settings.files.clone(),
    }
}

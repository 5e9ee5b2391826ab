//! The host: one engine, its pool of instances, the cache of compiled components and the clock that cuts guests into
//! slices. What is particular to a receiver is in `receiver`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::{Engine, EngineWeak};
use wharf_state::KeyValue;

use crate::cache::Cache;
use crate::engine::engine;
use crate::error::{HostError, LoadError};
use crate::inspection::{Inspection, inspect};
use crate::receiver::{Receiver, ReceiverOptions};

/// How long a guest that computes keeps its thread before others get a turn: short enough that they do not notice, long
/// enough that switching costs nothing.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The program that compiles a component, see [`compile`](crate::compile()).
///
/// It is started as `program args… INPUT OUTPUT --memory BYTES` without any environment, and is to call
/// `wharf_host::compile(INPUT, OUTPUT, BYTES)`, print an error to standard error, and end with a code that is not 0 then.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The executable.
    pub program: PathBuf,
    /// What stands before INPUT on its command line.
    pub args: Vec<String>,
}

/// What a [`Host`] may use. Pool sizes are fixed when it starts.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The folder of compiled components. Nobody but the server may write there: what is in it runs with all its rights.
    pub cache_dir: PathBuf,
    /// The program that compiles.
    pub compiler: Compiler,
    /// The most memory in bytes that a receiver may ask for. At most 4 GiB.
    pub max_memory: u64,
    /// How many instances can exist at a time, those for pages aside.
    pub max_instances: u32,
    /// How many requests for pages can be answered at a time, by all receivers together. These instances are set apart:
    /// neither can pages take those of the messages, nor the other way round.
    pub max_pages: u32,
    /// The most memory in bytes that compiling may take.
    pub compile_memory: u64,
    /// The longest that compiling may take.
    pub compile_timeout: Duration,
    /// The largest component, in bytes.
    pub max_component_bytes: u64,
    /// The values that receivers keep. Without it, receivers that have the grant can be loaded, but not make instances.
    pub keyvalue: Option<KeyValue>,
}

impl HostOptions {
    /// Options with defaults that suit most servers.
    pub fn new(cache_dir: PathBuf, compiler: Compiler) -> Self {
        Self {
            cache_dir,
            compiler,
            // Four times what a receiver gets by default, enough for interpreters with their libraries.
            max_memory: 256 << 20,
            // An idle instance keeps a stack and a few pages; its memory slots are address space only.
            max_instances: 100,
            // A page is answered within milliseconds, so this many serve thousands of visitors.
            max_pages: 32,
            // Five times what a Python interpreter with its libraries takes.
            compile_memory: 2 << 30,
            // Six times what that takes on one core.
            compile_timeout: Duration::from_secs(120),
            // Three times a Python interpreter with its libraries.
            max_component_bytes: 64 << 20,
            keyvalue: None,
        }
    }
}

/// Loads receivers. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    options: HostOptions,
    engine: Engine,
    cache: Cache,
    instances: Arc<Semaphore>,
    pages: Arc<Semaphore>,
}

impl Host {
    /// Starts the engine and a thread that is its clock. The thread ends with the last clone of the host and the last of
    /// its receivers.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let engine = engine(&options)?;
        let cache = Cache::open(&options, &engine)?;
        start_clock(&engine)?;
        let permits =
            |count| Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS)));
        let (instances, pages) = (permits(options.max_instances), permits(options.max_pages));
        Ok(Self { inner: Arc::new(Inner { options, engine, cache, instances, pages }) })
    }

    /// Loads a component: reads it, compiles it or takes it from the cache, and checks that it is a receiver and needs no
    /// more than its options grant. None of its code runs.
    pub async fn load(&self, options: ReceiverOptions) -> Result<Receiver, LoadError> {
        Receiver::load(self.clone(), options, None).await
    }

    /// Loads a component to take the place of `running`, which goes on as before, also if this fails.
    ///
    /// Both share what belongs to the receiver and not to its component, each under the limits of its own options: listeners
    /// and kept values of [`Live`](crate::Live), series of metrics, the rate and the counts of log lines, key-value store,
    /// requests to the outside that are under way, time and memory used. Granted folders stay open if the grants are the same.
    /// Settings, memory, resources, deadline and the limits of pages are those of the options alone.
    ///
    /// What is kept beyond a lowered limit stays: kept values until the new one publishes, series of metrics for good.
    pub async fn load_beside(
        &self,
        options: ReceiverOptions,
        running: &Receiver,
    ) -> Result<Receiver, LoadError> {
        Receiver::load(self.clone(), options, Some(running)).await
    }

    /// Looks into a component without a receiver to run it as: reads it, compiles it or takes it from the cache, and says
    /// what it exports and imports and what would be refused whatever it is granted. None of its code runs.
    pub async fn inspect(&self, path: &Path) -> Result<Inspection, LoadError> {
        inspect(self, path).await
    }

    pub(crate) fn options(&self) -> &HostOptions {
        &self.inner.options
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    pub(crate) fn instances(&self) -> &Arc<Semaphore> {
        &self.inner.instances
    }

    pub(crate) fn pages(&self) -> &Arc<Semaphore> {
        &self.inner.pages
    }
}

fn start_clock(engine: &Engine) -> Result<(), HostError> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("guest-clock".into())
        .spawn(move || tick(&engine))
        .map(drop)
        .map_err(HostError::Clock)
}

fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        std::thread::sleep(TICK);
    }
}

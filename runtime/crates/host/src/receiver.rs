//! A receiver: a component that was loaded with its grants and limits. It makes instances for messages (`instance`) and
//! answers requests for its pages (`http/page`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler::GuestIndices as PageIndices;

use crate::bindings::{handler, handover, lifecycle, presence, timer};
use crate::component_file::ComponentFile;
use crate::contract::{Contract, Import};
use crate::error::LoadError;
use crate::fault::Fault;
use crate::grants::Grants;
use crate::host::Host;
use crate::http::{Outgoing, PageLimits};
use crate::keyvalue::KeyValueAccess;
use crate::live::Live;
use crate::metrics::Metric;
use crate::problem::Problem;
use crate::shared::Shared;
use crate::store::{State, new_store};
use crate::usage::Usage;

/// A component, what it may do, and how much of everything.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// The receiver's name in the config, in the log and in errors.
    pub name: String,
    /// The component's file.
    pub component: PathBuf,
    /// What it may do.
    pub grants: Grants,
    /// Its own settings, nested tables as dotted keys.
    pub settings: Vec<(String, String)>,
    /// Whether its `tick` is to be called, which the component must be made for.
    pub ticks: bool,
    /// The memory of one instance in bytes, summed over all of its memories.
    pub memory: u64,
    /// Host objects that one instance may hold: streams, clocks to wait for, requests, headers.
    pub resources: usize,
    /// The longest that each call but those for pages may take.
    pub deadline: Duration,
    /// How many requests for its pages are answered at a time.
    pub http_concurrency: usize,
    /// The longest that the answer to such a request may take.
    pub http_deadline: Duration,
    /// The largest body of such an answer in bytes.
    pub http_body_bytes: u64,
    /// The lines that all its instances may write to the log in a second.
    pub log_lines_per_second: u32,
    /// The series of metrics that all its instances may have.
    pub metric_series: usize,
}

impl ReceiverOptions {
    /// Options with the defaults of the receiver contract and no grants.
    pub fn new(name: impl Into<String>, component: PathBuf) -> Self {
        Self {
            name: name.into(),
            component,
            grants: Grants::default(),
            settings: Vec::new(),
            ticks: false,
            // A Rust receiver needs two, an interpreter about twenty.
            memory: 64 << 20,
            // A request for a page takes ten, an outgoing request about as many.
            resources: 1_000,
            // A thousand times what a batch takes, and still within the patience of an operator.
            deadline: Duration::from_secs(5),
            // A page takes milliseconds; more of one receiver would only take turns on the same processors.
            http_concurrency: 4,
            http_deadline: Duration::from_secs(5),
            // A page with all that it needs, in one file.
            http_body_bytes: 4 << 20,
            // More than anybody reads.
            log_lines_per_second: 100,
            // A few numbers for each of some dozen label values; per-agent numbers belong in a database.
            metric_series: 200,
        }
    }
}

/// A loaded component. Clones are the same receiver.
#[derive(Clone)]
pub struct Receiver {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    name: String,
    digest: String,
    warnings: Vec<String>,
    imports: Vec<Import>,
    pre: InstancePre<State>,
    handler: handler::GuestIndices,
    lifecycle: Option<lifecycle::GuestIndices>,
    presence: Option<presence::GuestIndices>,
    timer: Option<timer::GuestIndices>,
    handover: Option<handover::GuestIndices>,
    page: Option<PageIndices>,
    page_permits: Arc<Semaphore>,
    page_limits: PageLimits,
    shared: Arc<Shared>,
    deadline: Duration,
}

impl Receiver {
    pub(crate) async fn load(
        host: Host,
        options: ReceiverOptions,
        running: Option<&Self>,
    ) -> Result<Self, LoadError> {
        let limit = host.options().max_memory;
        if options.memory > limit {
            return Err(LoadError::MemoryAboveHost { name: options.name, asked: options.memory, limit });
        }
        let file = ComponentFile::read(&options.component, host.options().max_component_bytes).await?;
        let digest = file.digest.clone();
        let component = host.cache().component(host.engine(), &options.component, file).await?;
        Self::link(host, options, digest, &component, running)
    }

    fn link(
        host: Host,
        options: ReceiverOptions,
        digest: String,
        component: &Component,
        running: Option<&Self>,
    ) -> Result<Self, LoadError> {
        let path = &options.component;
        let refused = |problems| LoadError::Refused { path: path.into(), problems };
        let link_error = |error: wasmtime::Error| refused(vec![Problem::link(&error)]);
        let admission = Contract::of(component).admit(component, &options).map_err(refused)?;
        let pre = admission.linker.instantiate_pre(component).map_err(link_error)?;
        let shared = Shared::new(&host, &options, running.map(|running| &*running.inner.shared))?;
        Ok(Self {
            inner: Arc::new(Inner {
                // The contract was checked, so an interface that is not found is one that is not exported.
                handler: handler::GuestIndices::new(&pre).map_err(link_error)?,
                lifecycle: lifecycle::GuestIndices::new(&pre).ok(),
                presence: presence::GuestIndices::new(&pre).ok(),
                timer: timer::GuestIndices::new(&pre).ok(),
                handover: handover::GuestIndices::new(&pre).ok(),
                page: PageIndices::new(&pre).ok(),
                page_permits: Arc::new(Semaphore::new(options.http_concurrency.min(Semaphore::MAX_PERMITS))),
                page_limits: PageLimits {
                    deadline: options.http_deadline,
                    body_bytes: options.http_body_bytes,
                },
                host,
                name: options.name,
                digest,
                warnings: admission.warnings,
                imports: admission.imports,
                pre,
                shared: Arc::new(shared),
                deadline: options.deadline,
            }),
        })
    }

    /// The receiver's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The SHA-256 of the component's file, in hex.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// What is odd about the component or its grants, but no reason to refuse it. Each fits "receiver NAME: …".
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// What the component imports, by name.
    pub fn imports(&self) -> &[Import] {
        &self.inner.imports
    }

    /// Whether [`serve`](Self::serve) has pages.
    pub fn serves_pages(&self) -> bool {
        self.inner.page.is_some()
    }

    /// Whether it exports `presence`: whether [`Instance::agents_changed`](crate::Instance::agents_changed) reaches it.
    pub fn hears_presence(&self) -> bool {
        self.inner.presence.is_some()
    }

    /// Whether it exports `handover`: whether [`Instance::snapshot`](crate::Instance::snapshot) gives anything.
    pub fn hands_over(&self) -> bool {
        self.inner.handover.is_some()
    }

    /// What the receiver publishes, if it has the grant.
    pub fn live(&self) -> Option<&Live> {
        self.inner.shared.live.as_ref()
    }

    /// The series of the receiver's own metrics, in no order.
    pub fn metrics(&self) -> Vec<Metric> {
        self.inner.shared.metrics.snapshot()
    }

    /// Updates of metrics that were refused since it was loaded: a wrong name, or more series than it may have.
    pub fn metrics_refused(&self) -> u64 {
        self.inner.shared.metrics.refused()
    }

    /// Lines that it wrote to the log since it was loaded.
    pub fn log_lines(&self) -> u64 {
        self.inner.shared.log.lines()
    }

    /// Lines that were dropped since it was loaded, because there were more of them in a second than it may write.
    pub fn log_lines_dropped(&self) -> u64 {
        self.inner.shared.log.dropped()
    }

    /// The bytes that the receiver uses of its key-value store, if it has the grant and the host has the database.
    pub fn keyvalue_bytes(&self) -> Option<u64> {
        self.inner.shared.keyvalue.as_ref()?.used()
    }

    /// Requests to the outside that are under way, if it has the grant.
    pub fn outgoing_in_flight(&self) -> Option<usize> {
        self.inner.shared.outgoing.as_ref().map(Outgoing::in_flight)
    }

    /// Requests to the outside that were refused or failed since it was loaded, if it has the grant.
    pub fn outgoing_failed(&self) -> Option<u64> {
        self.inner.shared.outgoing.as_ref().map(Outgoing::failed)
    }

    /// The time that threads spent in calls of its instances since it was loaded, those for its pages included. The time that
    /// calls waited does not count.
    pub fn busy_time(&self) -> Duration {
        self.inner.shared.usage.busy()
    }

    /// The memory of the instances that there are, those for its pages included.
    pub fn memory_bytes(&self) -> u64 {
        self.inner.shared.usage.memory_bytes()
    }

    pub(crate) fn usage(&self) -> &Arc<Usage> {
        &self.inner.shared.usage
    }

    pub(crate) fn host(&self) -> &Host {
        &self.inner.host
    }

    pub(crate) fn pre(&self) -> &InstancePre<State> {
        &self.inner.pre
    }

    pub(crate) fn handler(&self) -> &handler::GuestIndices {
        &self.inner.handler
    }

    pub(crate) fn lifecycle(&self) -> Option<&lifecycle::GuestIndices> {
        self.inner.lifecycle.as_ref()
    }

    pub(crate) fn presence(&self) -> Option<&presence::GuestIndices> {
        self.inner.presence.as_ref()
    }

    pub(crate) fn timer(&self) -> Option<&timer::GuestIndices> {
        self.inner.timer.as_ref()
    }

    pub(crate) fn handover(&self) -> Option<&handover::GuestIndices> {
        self.inner.handover.as_ref()
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.inner.deadline
    }

    pub(crate) fn page(&self) -> Option<(&InstancePre<State>, &PageIndices)> {
        self.inner.page.as_ref().map(|indices| (&self.inner.pre, indices))
    }

    pub(crate) fn page_permits(&self) -> &Arc<Semaphore> {
        &self.inner.page_permits
    }

    pub(crate) fn page_limits(&self) -> PageLimits {
        self.inner.page_limits
    }

    /// Checks that instances can have what the receiver was granted.
    pub(crate) fn check_grants(&self) -> Result<(), Fault> {
        self.inner.shared.keyvalue.as_ref().map_or(Ok(()), KeyValueAccess::check)
    }

    pub(crate) fn new_store(&self) -> Store<State> {
        new_store(self.inner.host.engine(), &self.inner.shared)
    }
}

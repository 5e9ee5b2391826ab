//! Puts the parts together, runs them, and ends them in an orderly way.
//!
//! Nothing listens before everything that can be wrong in the config, the components and the data directory has been
//! looked at. On the way down the order is that of the data: first nothing more is accepted, then what was read is
//! answered, then receivers end, then cursors and topics are closed.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router as Routes;
use axum::middleware::from_fn_with_state;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wharf_host::Host;
use wharf_log::{Log, OpenError};
use wharf_state::{KeyValue, State, StateError};

use crate::admin::{self, Admin, Rates};
use crate::backup::Backups;
use crate::components::{self, ComponentErrors};
use crate::config::{Config, DataType};
use crate::data_dir::{DataDir, DataDirError, ballast};
use crate::data_types;
use crate::dedup::{self, Dedup, Remembering};
use crate::delivery::{DeliveryError, Fed, Feeds, Means, TakenUp};
use crate::frontend::guard::{self, Guard};
use crate::frontend::listener::{self, Listener};
use crate::frontend::pages::{self, Page, PageReceivers, Pages};
use crate::frontend::room::Room;
use crate::frontend::{self, Frontend};
use crate::open_files;
use crate::open_log::OpenLog;
use crate::presence::{Presence, TOPICS_TO_SPARE};
use crate::reload::{self, Reloads};
use crate::retention::{self, AbsenceError, Retained};
use crate::router::Router;
use crate::swaps::start::StartError;
use crate::swaps::{self, KeepError, Kept, Receipt, Swaps, Version};
use crate::telemetry::{Metrics, ReceiverLabel};

/// Connections of operators and scrapers that may be open at once. They are few; the bound only keeps a broken scraper
/// from taking every file descriptor.
const MAX_ADMIN_CONNECTIONS: usize = 256;
/// How much guests give way to the rest of the server, on the scale of `nice`: a third of its share of a processor where both
/// want all of it. Acknowledging takes little, so guests get nearly everything as long as agents do not fill the machine.
const GUESTS_NICENESS: i32 = 5;

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For agents and browsers.
    pub agents: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
    /// Receivers that serve a page.
    pub pages: Vec<String>,
}

/// Why a server does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// What the config names can't be run: the operator's to mend.
    #[error(transparent)]
    Components(#[from] ComponentErrors),
    /// The data directory can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log can't be opened.
    #[error("open the log")]
    Log(#[source] OpenError),
    /// The state database can't be opened.
    #[error("open the state database")]
    State(#[source] StateError),
    /// It is not known which components receivers have.
    #[error(transparent)]
    Versions(#[from] StartError),
    /// The components of receivers can't be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// It is not known for which receivers messages are to be kept.
    #[error(transparent)]
    Absence(#[from] AbsenceError),
    /// The database of what receivers keep can't be opened.
    #[error("open the key-value store of receivers")]
    KeyValue(#[source] StateError),
    /// What is known of agents can't be read.
    #[error("read which agents are active")]
    Presence(#[source] StateError),
    /// It can't be read which ids of messages are known.
    #[error("read from where on message ids are known")]
    Dedup(#[source] StateError),
    /// Receivers can't be fed.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// An address can't be listened on.
    #[error("listen on {address} ({key})")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Its key in the config.
        key: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Threads or tasks can't be started.
    #[error("start a runtime or a task")]
    Start(#[source] io::Error),
}

/// Runs a server until `shutdown` is cancelled and everything has ended. `listening` is told the addresses once they are
/// bound.
pub async fn run(
    config: Config,
    listening: impl FnOnce(&Addresses),
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let started = Instant::now();
    // From now on the signal does not end the process.
    let hangups = signal(SignalKind::hangup()).map_err(ServeError::Start)?;
    components::check_paths(&config).await?;
    let metrics = Arc::new(Metrics::new());
    let data_dir = DataDir::open(&config.data_dir)?;
    let max_connections = open_files::room_for_connections(
        config.limits.max_connections,
        config.types.len(),
        components::max_open_files(&config),
    );
    let keyvalue = open_keyvalue(&data_dir, &config).await?;
    let host = components::host(&config, keyvalue.clone())?;
    let (state, kept) = {
        let (state, versions) = (data_dir.state(), data_dir.versions());
        blocking(move || {
            let state = State::open(&state).map_err(ServeError::State)?;
            Ok::<_, ServeError>((state, Kept::open(versions)?))
        })
        .await??
    };
    let beginning = swaps::start::look(
        &config.receivers,
        config.host.max_component,
        &state,
        kept,
        swaps::start::Occasion::Start,
    )
    .await?;
    // Compiling may take minutes; whoever stops the server meanwhile need not wait for it.
    let fed = tokio::select! {
        fed = components::load(&host, &config.file, &config.receivers, &beginning.instead) => fed?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let versions = {
        let state = state.clone();
        blocking(move || {
            let add = |receipt: &Receipt, version: &Version| {
                let (receipt_text, version) = (receipt.encode(), version.encode());
                state.add_receipt(&receipt.receiver, &receipt_text, Some(&version)).map(drop)
            };
            beginning.write_down(&state, add, &[])
        })
        .await??
    };
    for warning in config.warnings() {
        tracing::warn!(warning, "the config can be improved");
    }
    for Fed { settings, receiver } in &fed {
        for warning in receiver.warnings() {
            tracing::warn!(receiver.name = settings.name, warning, "a receiver's config can be improved");
        }
    }
    for Fed { settings, .. } in fed.iter().filter(|fed| fed.receiver.live().is_some()) {
        // It begins at 0.
        drop(metrics.live_browsers.get_or_create(&ReceiverLabel::new(&settings.name)));
    }
    metrics.guests.set(fed.iter().map(|fed| fed.receiver.clone()).collect());
    let stored = Stored::open(data_dir, state, keyvalue, versions, &config, &metrics).await?;
    let guests = guest_runtime(config.host.threads).map_err(ServeError::Start)?;
    let outcome = serve(
        config,
        started,
        max_connections,
        metrics,
        host,
        fed,
        stored,
        &guests,
        hangups,
        listening,
        shutdown,
    )
    .await;
    // What still runs there has been told to end and had its time.
    guests.shutdown_background();
    outcome
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts are made in one place and put together in the other"
)]
async fn serve(
    config: Config,
    started: Instant,
    max_connections: usize,
    metrics: Arc<Metrics>,
    host: Host,
    fed: Vec<Fed>,
    stored: Stored,
    guests: &Runtime,
    hangups: Signal,
    listening: impl FnOnce(&Addresses),
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let Stored { data_dir, log, state, keyvalue, versions, feeds, retained } = stored;
    let page_receivers = Arc::new(PageReceivers::default());
    for Fed { settings, receiver } in &fed {
        page_receivers.put(&settings.name, Page::new(receiver.clone(), settings));
    }
    let taken_up = {
        let (data_dir, feeds) = (data_dir.clone(), feeds.clone());
        let (state, keyvalue) = (state.clone(), keyvalue.clone());
        blocking(move || TakenUp::new(fed, &feeds, &data_dir, &state, keyvalue.as_ref())).await??
    };
    let presence = Arc::new(Presence::new(
        feeds.all().into_iter().map(|feed| (feed.topic, feed.durability)),
        config.presence.timeout,
        config.presence.max_agents,
        metrics.agents.clone(),
    ));
    presence.restore(state.clone()).await.map_err(ServeError::Presence)?;
    let dedup = message_ids(&config, &feeds, &metrics);
    let remembering: Vec<Arc<Dedup>> = dedup.values().cloned().collect();
    dedup::restore(&remembering, &state).await.map_err(ServeError::Dedup)?;
    let remembering = Remembering::new(remembering);
    let agents_socket = bind(config.listen.agents, "listen.agents").await?;
    let admin_socket = bind(config.listen.admin, "listen.admin").await?;
    let addresses = Addresses {
        agents: agents_socket.local_addr().map_err(ServeError::Start)?,
        admin: admin_socket.local_addr().map_err(ServeError::Start)?,
        pages: page_receivers.serving(),
    };

    {
        let data_dir = data_dir.clone();
        blocking(move || data_dir.mark_running()).await??;
    }
    let keeper = presence.start(state.clone(), config.state.cursor_interval, shutdown.clone());
    let means = Means {
        state: state.clone(),
        keyvalue: keyvalue.clone(),
        metrics: metrics.clone(),
        versions: Arc::new(AtomicU64::new(1)),
        guests: guests.handle().clone(),
        stop: CancellationToken::new(),
    };
    let delivery = Arc::new(taken_up.start(means, config.state.cursor_interval));
    let keeping_ids = tokio::spawn(dedup::keep(remembering.clone(), state.clone(), shutdown.clone()));
    let ballasting = tokio::spawn(ballast::watch(data_dir.clone(), shutdown.clone()));
    let trimming = tokio::spawn(retention::run(retained.clone(), delivery.needed_from(), shutdown.clone()));
    let backups =
        Backups::new(data_dir.clone(), feeds.clone(), state.clone(), keyvalue.clone(), shutdown.clone());
    let sockets = TaskTracker::new();
    let bodies = config.receivers.iter().map(|receiver| receiver.http_body);
    let largest = bodies.fold(config.limits.max_frame, u64::max);
    let arriving = usize_of(config.limits.max_arriving_bytes);
    let room = Room::new(arriving, usize_of(largest), metrics.arriving_bytes.clone());
    let gates = feeds.all().into_iter().map(|feed| (feed.topic.name().to_owned(), feed.gate)).collect();
    let router = Arc::new(Router::new(
        presence.clone(),
        &gates,
        &dedup,
        config.limits.append_wait,
        &metrics,
        shutdown.clone(),
    ));
    let frontend = Arc::new(Frontend {
        router: router.clone(),
        limits: wharf_protocol::Limits {
            max_depth: config.limits.max_depth,
            max_calls: config.limits.max_calls,
        },
        max_frame: usize_of(config.limits.max_frame),
        room: room.clone(),
        max_unanswered: config.limits.max_unanswered,
        max_unanswered_bytes: usize_of(config.limits.max_unanswered_bytes),
        frame_timeout: config.limits.frame_timeout,
        request_timeout: config.limits.request_timeout,
        metrics: metrics.clone(),
        stop: shutdown.clone(),
        sockets: sockets.clone(),
    });
    let pages = Arc::new(Pages {
        receivers: page_receivers.clone(),
        guests: guests.handle().clone(),
        room,
        request_timeout: config.limits.request_timeout,
        frame_timeout: config.limits.frame_timeout,
        metrics: metrics.clone(),
        stop: shutdown.clone(),
        sockets: sockets.clone(),
    });
    let swaps = {
        let parts = swaps::Parts {
            host: host.clone(),
            max_component_bytes: config.host.max_component,
            delivery: delivery.clone(),
            state: state.clone(),
            kept: versions.clone(),
            pages: page_receivers,
            metrics: metrics.clone(),
            stop: shutdown.clone(),
        };
        blocking(move || Swaps::new(parts)).await?.map_err(ServeError::State)?
    };
    let watching = tokio::spawn(swaps.clone().watch());
    let parts = reload::Parts {
        host,
        swaps: swaps.clone(),
        delivery: delivery.clone(),
        state: state.clone(),
        data_dir: data_dir.clone(),
        kept: versions,
        log: log.clone(),
        feeds: feeds.clone(),
        presence: presence.clone(),
        remembering,
        router,
        retained,
        metrics: metrics.clone(),
        fixed: reload::Fixed {
            keyvalue: keyvalue.is_some(),
            largest_body: largest,
            pages: components::max_pages(&config),
            types: config.types.len().saturating_add(TOPICS_TO_SPARE),
        },
        stop: shutdown.clone(),
    };
    let reloads = Reloads::new(parts, config.clone());
    let reloading = tokio::spawn(reloads.clone().reload_at(hangups));
    let rates = Arc::new(Rates::default());
    let rating = tokio::spawn(rates.clone().watch(delivery.clone(), shutdown.clone()));
    let admin = Arc::new(Admin {
        started,
        ready: AtomicBool::new(true),
        feeds,
        presence,
        delivery: delivery.clone(),
        rates,
        controls: delivery.controls().clone(),
        swaps: swaps.clone(),
        reloads: reloads.clone(),
        backups: Arc::new(backups),
        max_component_bytes: config.host.max_component,
        metrics: metrics.clone(),
    });

    let agent_routes =
        guarded(pages::routes(pages).merge(frontend::agent_routes(frontend)), addresses.agents, &config);
    let admin_routes = guarded(admin::routes(admin.clone()), addresses.admin, &config);
    let agents = tokio::spawn(listener::run(
        Listener {
            socket: agents_socket,
            name: "agents",
            max_connections,
            head_timeout: config.limits.request_timeout,
            write_timeout: config.limits.frame_timeout,
        },
        agent_routes,
        metrics.clone(),
        shutdown.clone(),
    ));
    let admin_stop = CancellationToken::new();
    let operators = tokio::spawn(listener::run(
        Listener {
            socket: admin_socket,
            name: "admin",
            max_connections: MAX_ADMIN_CONNECTIONS,
            head_timeout: config.limits.request_timeout,
            write_timeout: config.limits.frame_timeout,
        },
        admin_routes,
        metrics,
        admin_stop.clone(),
    ));
    tracing::info!(agents = %addresses.agents, admin = %addresses.admin, "listening");
    listening(&addresses);

    shutdown.cancelled().await;
    tracing::info!("stopping");
    admin.ready.store(false, Ordering::Release);
    // Sockets get half of the time, so that a client that does not read can't take the receivers' share.
    let stopping = tokio::time::Instant::now();
    let answered_by = stopping + config.limits.shutdown_timeout / 2;
    let ended_by = stopping + config.limits.shutdown_timeout;
    sockets.close();
    let answered = async {
        let _ = agents.await;
        sockets.wait().await;
    };
    if tokio::time::timeout_at(answered_by, answered).await.is_err() {
        tracing::warn!("connections were still open when the time to stop was over");
    }
    let _ = trimming.await;
    let _ = ballasting.await;
    let _ = rating.await;
    let _ = keeping_ids.await;
    let _ = watching.await;
    let reloaded = async {
        let _ = reloading.await;
        reloads.stop().await;
    };
    if tokio::time::timeout_at(ended_by, reloaded).await.is_err() {
        tracing::warn!("a reload was still under way when the time to stop was over");
    }
    swaps.stop().await;
    let clean = delivery.stop(ended_by).await;
    log.close().await;
    keeper.stop().await;
    if clean {
        blocking(move || data_dir.mark_stopped()).await??;
    }
    admin_stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), operators).await;
    // Closing the databases waits for the disk. What operators can do uses that of the state too.
    blocking(move || {
        drop((admin, delivery, reloads, swaps, state));
        if let Some(Err(error)) = keyvalue.map(|keyvalue| keyvalue.close()) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "failed to close the key-value store of receivers");
        }
    })
    .await?;
    tracing::info!("stopped");
    Ok(())
}

/// What is kept in the data directory.
struct Stored {
    data_dir: Arc<DataDir>,
    log: OpenLog,
    state: State,
    /// If some receiver may keep values.
    keyvalue: Option<KeyValue>,
    /// The components of receivers.
    versions: Kept,
    feeds: Feeds,
    retained: Retained,
}

impl Stored {
    async fn open(
        data_dir: DataDir,
        state: State,
        keyvalue: Option<KeyValue>,
        versions: Kept,
        config: &Config,
        metrics: &Metrics,
    ) -> Result<Stored, ServeError> {
        let options = |data_type| data_types::topic_options(data_type, &config.log, metrics);
        let options = config.types.iter().map(options).collect();
        let data_dir = Arc::new(data_dir);
        let (configured, opened, cursors) = (config.clone(), data_dir.clone(), state.clone());
        let (log, absent) = blocking(move || {
            let log = Log::open(&opened.log(), options).map_err(ServeError::Log)?;
            let absent = retention::absent(&cursors, &opened, &configured)?;
            Ok::<_, ServeError>((log, absent))
        })
        .await??;
        log.set_reserve(config.log.disk_reserve);
        let topics = || config.types.iter().filter_map(|of| Some((of, log.topic(&of.name)?.clone())));
        let feeds: Feeds =
            topics().map(|(data_type, topic)| data_types::feed(data_type, topic, &data_dir)).collect();
        metrics.log.set_topics(feeds.topics());
        let kept =
            topics().map(|(data_type, topic)| retention::Kept::new(topic, data_type, &absent)).collect();
        let (retained, log) = (Retained::new(kept), OpenLog::new(log));
        Ok(Stored { data_dir, log, state, keyvalue, versions, feeds, retained })
    }
}

/// What receivers keep, if one of them may.
async fn open_keyvalue(data_dir: &DataDir, config: &Config) -> Result<Option<KeyValue>, ServeError> {
    if !config.receivers.iter().any(|receiver| receiver.keyvalue) {
        return Ok(None);
    }
    let path = data_dir.guests();
    blocking(move || KeyValue::open(&path)).await?.map(Some).map_err(ServeError::KeyValue)
}

/// The ids of those data types that remember any.
fn message_ids(config: &Config, feeds: &Feeds, metrics: &Metrics) -> HashMap<String, Arc<Dedup>> {
    let dedup = |data_type: &DataType| {
        let dedup = data_types::message_ids(data_type, &feeds.get(&data_type.name)?, metrics)?;
        Some((data_type.name.clone(), dedup))
    };
    config.types.iter().filter_map(dedup).collect()
}

/// Every request passes the guard first.
fn guarded(routes: Routes, address: SocketAddr, config: &Config) -> Routes {
    let guard = Guard::new(address, &config.listen.allowed_hosts, &config.listen.allowed_origins);
    routes.layer(from_fn_with_state(Arc::new(guard), guard::check))
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, key, source })
}

/// Guests have threads of their own: however busy they are, sockets and disk are served.
fn guest_runtime(threads: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("guests")
        .on_thread_start(give_way)
        .enable_all()
        .build()
}

/// Lets the threads of sockets and disk go first where there are fewer processors than work. Without it, guests that compute
/// delay acknowledgements by whole turns of the system's scheduler.
fn give_way() {
    // Elsewhere this is about the whole process.
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(GUESTS_NICENESS)
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "a thread of guests could not be given a lower priority");
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServeError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ServeError::Start(io::Error::other(error)))
}

/// A size of the config as a length in memory.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

//! The store of one instance: all that the host keeps for it, its limits, and what happens before and after each call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::WasiCtx;

use crate::fault::{DeadlineExceeded, Fault};
use crate::guest_log::Stream;
use crate::http::HttpState;
use crate::limiter::MemoryLimiter;
use crate::shared::Shared;
use crate::usage::HeldMemory;
use crate::wasi::{self, Output};

/// Handles of any kind in an instance, those of objects that its own parts make for each other included.
const MAX_HANDLES: usize = 10_000;

/// Bytes that a guest may hand to the host in one call: many times the largest message, far less than would hurt.
pub(crate) const MAX_HOST_CALL_BYTES: usize = 8 << 20;

/// How much later than the deadline a call is given up that waits in the host. A guest that computes is stopped at the
/// deadline itself, with a backtrace, and must not be taken for one that waits.
pub(crate) const HOST_CALL_GRACE: Duration = Duration::from_millis(50);

/// What the host keeps for one instance.
pub(crate) struct State {
    // Before the table: see `HttpState`.
    pub(crate) http: HttpState,
    pub(crate) table: ResourceTable,
    pub(crate) wasi: WasiCtx,
    pub(crate) shared: Arc<Shared>,
    memory: MemoryLimiter,
    stdout: Output,
    pub(crate) stderr: Output,
    deadline: Instant,
}

/// Makes a store for one instance. It belongs to no call yet.
pub(crate) fn new_store(engine: &Engine, shared: &Arc<Shared>) -> Store<State> {
    let stdout = Output::new(Stream::Stdout, shared.log.clone());
    let stderr = Output::new(Stream::Stderr, shared.log.clone());
    let state = State {
        table: wasi::table(shared.resources),
        wasi: wasi::context(&stdout, &stderr, shared),
        http: HttpState::new(shared),
        shared: shared.clone(),
        memory: MemoryLimiter::new(shared.memory, HeldMemory::new(shared.usage.clone())),
        stdout,
        stderr,
        deadline: Instant::now(),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(MAX_HOST_CALL_BYTES);
    store.set_max_component_handles(MAX_HANDLES);
    store.epoch_deadline_callback(|context| {
        if Instant::now() >= context.data().deadline {
            return Err(DeadlineExceeded.into());
        }
        // The engine's own way to yield puts the guest at the end of the queue, and the runtime looks at timers and sockets
        // only after sixty turns of it. This one lets the runtime do that first, after each slice.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    store
}

/// Prepares a call that may take `limit`. Gives the moment at which to stop waiting for it.
pub(crate) fn start_call(store: &mut Store<State>, limit: Duration) -> tokio::time::Instant {
    let now = Instant::now();
    let state = store.data_mut();
    state.deadline = now + limit;
    state.memory.forget();
    state.stdout.start_call();
    state.stderr.start_call();
    store.set_epoch_deadline(1);
    tokio::time::Instant::from_std(now + limit + HOST_CALL_GRACE)
}

/// Makes an answer or a fault of what came of a call. After a fault the store must be dropped.
pub(crate) fn end_call<T>(
    store: &Store<State>,
    limit: Duration,
    outcome: Result<wasmtime::Result<T>, Elapsed>,
) -> Result<T, Fault> {
    let state = store.data();
    state.stdout.end_call();
    state.stderr.end_call();
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault::new(&error, limit, &state.memory, state.stderr.last_lines())),
        Err(elapsed) => Err(Fault::late(elapsed, limit, state.stderr.last_lines())),
    }
}

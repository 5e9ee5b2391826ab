//! An instance that handles messages: its own store and memory, kept from batch to batch until it fails or is told to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;
use wasmtime::Store;

use crate::bindings::{
    Batch, Failure, PresenceChange, SavedState, handler, handover, lifecycle, presence, timer,
};
use crate::fault::{Evidence, Fault, MAX_MESSAGE, TrapKind, printable};
use crate::receiver::Receiver;
use crate::store::{MAX_HOST_CALL_BYTES, State, end_call, start_call};
use crate::usage::Usage;

/// The largest payload of a snapshot in bytes: as much as an instance can know with the memory that it has by default. The
/// server's memory has to hold those of all instances of one receiver at a time.
pub const MAX_SNAPSHOT_BYTES: usize = 64 << 20;

/// The longest name of a snapshot's format in bytes: a word and a version, several times over.
const MAX_FORMAT_BYTES: usize = 128;

/// One instance of a receiver.
///
/// Every fault means that the instance is gone, with all its memory; so does a call whose future is dropped. Whatever is
/// called afterwards gives [`Fault::Gone`].
pub struct Instance {
    /// Taken out for the time of a call and put back only if that went well.
    running: Option<Running>,
    deadline: Duration,
    usage: Arc<Usage>,
}

struct Running {
    store: Store<State>,
    exports: Exports,
    /// The instance's place among those that the host can have.
    _place: OwnedSemaphorePermit,
}

/// What can be called.
struct Exports {
    handler: handler::Guest,
    lifecycle: Option<lifecycle::Guest>,
    presence: Option<presence::Guest>,
    timer: Option<timer::Guest>,
    handover: Option<handover::Guest>,
}

impl Receiver {
    /// Makes an instance and calls its `init`, if it has one, both within the receiver's deadline.
    pub async fn instantiate(&self) -> Result<Instance, Fault> {
        self.check_grants()?;
        let place = self.host().instances().clone().try_acquire_owned().map_err(|_| {
            Fault::Pool(format!(
                "all {} instances of the host are in use",
                self.host().options().max_instances
            ))
        })?;
        let mut store = self.new_store();
        let end = start_call(&mut store, self.deadline());
        let making = async {
            let instance = self.pre().instantiate_async(&mut store).await?;
            let handler = self.handler().load(&mut store, &instance)?;
            let lifecycle = self.lifecycle().map(|found| found.load(&mut store, &instance)).transpose()?;
            let presence = self.presence().map(|found| found.load(&mut store, &instance)).transpose()?;
            let timer = self.timer().map(|found| found.load(&mut store, &instance)).transpose()?;
            let handover = self.handover().map(|found| found.load(&mut store, &instance)).transpose()?;
            let ready = match &lifecycle {
                Some(lifecycle) => lifecycle.call_init(&mut store).await?,
                None => Ok(()),
            };
            Ok((Exports { handler, lifecycle, presence, timer, handover }, ready))
        };
        let outcome = timeout_at(end, self.usage().metered(making)).await;
        let (exports, ready) = end_call(&store, self.deadline(), outcome)?;
        ready.map_err(|reason| Fault::Init(printable(&reason, MAX_MESSAGE, false)))?;
        let running = Running { store, exports, _place: place };
        Ok(Instance { running: Some(running), deadline: self.deadline(), usage: self.usage().clone() })
    }
}

impl Instance {
    /// Gives a batch to the receiver's `handle`. The answer lists the messages that were not handled; whether it makes sense
    /// is for the caller to check; its reasons are cut to one line of at most 1 KiB.
    pub async fn handle(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault> {
        let mut running = self.running.take().ok_or(Fault::Gone)?;
        let end = start_call(&mut running.store, self.deadline);
        let call = running.exports.handler.call_handle(&mut running.store, batch);
        let outcome = timeout_at(end, self.usage.metered(call)).await;
        let mut failures = end_call(&running.store, self.deadline, outcome)?;
        for failure in &mut failures {
            failure.reason = printable(&failure.reason, MAX_MESSAGE, false);
        }
        self.running = Some(running);
        Ok(failures)
    }

    /// Tells the receiver's `agents-changed`, if it has one, what changed.
    pub async fn agents_changed(&mut self, changes: &[PresenceChange]) -> Result<(), Fault> {
        let mut running = self.running.take().ok_or(Fault::Gone)?;
        if let Some(presence) = &running.exports.presence {
            let end = start_call(&mut running.store, self.deadline);
            let call = presence.call_agents_changed(&mut running.store, changes);
            let outcome = timeout_at(end, self.usage.metered(call)).await;
            end_call(&running.store, self.deadline, outcome)?;
        }
        self.running = Some(running);
        Ok(())
    }

    /// Calls the receiver's `tick`, if it has one.
    pub async fn tick(&mut self) -> Result<(), Fault> {
        let mut running = self.running.take().ok_or(Fault::Gone)?;
        if let Some(timer) = &running.exports.timer {
            let end = start_call(&mut running.store, self.deadline);
            let outcome = timeout_at(end, self.usage.metered(timer.call_tick(&mut running.store))).await;
            end_call(&running.store, self.deadline, outcome)?;
        }
        self.running = Some(running);
        Ok(())
    }

    /// Asks the receiver's `snapshot` for what the instance knows. `None` if it has no `handover`. The instance can go on.
    ///
    /// A payload beyond [`MAX_SNAPSHOT_BYTES`], and a format that is not 1 to 128 bytes without control characters, are
    /// faults.
    pub async fn snapshot(&mut self) -> Result<Option<SavedState>, Fault> {
        let mut running = self.running.take().ok_or(Fault::Gone)?;
        let mut saved = None;
        if let Some(handover) = &running.exports.handover {
            let end = start_call(&mut running.store, self.deadline);
            running.store.set_hostcall_fuel(MAX_SNAPSHOT_BYTES + MAX_FORMAT_BYTES);
            let call = handover.call_snapshot(&mut running.store);
            let outcome = timeout_at(end, self.usage.metered(call)).await;
            running.store.set_hostcall_fuel(MAX_HOST_CALL_BYTES);
            let state = end_call(&running.store, self.deadline, outcome)?;
            check_bounds(&state)?;
            saved = Some(state);
        }
        self.running = Some(running);
        Ok(saved)
    }

    /// Gives the receiver's `restore` what an instance before knew. The inner error is the receiver's refusal, one line of at most
    /// 1 KiB; one that has no `handover` refuses everything. After a refusal the instance can go on.
    pub async fn restore(&mut self, old: &SavedState) -> Result<Result<(), String>, Fault> {
        let mut running = self.running.take().ok_or(Fault::Gone)?;
        let restored = match &running.exports.handover {
            Some(handover) => {
                let end = start_call(&mut running.store, self.deadline);
                let call = handover.call_restore(&mut running.store, old);
                let outcome = timeout_at(end, self.usage.metered(call)).await;
                end_call(&running.store, self.deadline, outcome)?
            }
            None => Err("the component does not export `wharf:receiver/handover`".into()),
        };
        self.running = Some(running);
        Ok(restored.map_err(|reason| printable(&reason, MAX_MESSAGE, false)))
    }

    /// Whether the instance had a fault.
    pub fn is_gone(&self) -> bool {
        self.running.is_none()
    }

    /// Calls the receiver's `terminate`, if it has one, and drops the instance.
    pub async fn terminate(mut self) -> Result<(), Fault> {
        let mut running = self.running.take().ok_or(Fault::Gone)?;
        let Some(lifecycle) = &running.exports.lifecycle else { return Ok(()) };
        let end = start_call(&mut running.store, self.deadline);
        let outcome = timeout_at(end, self.usage.metered(lifecycle.call_terminate(&mut running.store))).await;
        end_call(&running.store, self.deadline, outcome)
    }
}

fn check_bounds(state: &SavedState) -> Result<(), Fault> {
    let SavedState { format, payload } = state;
    let message = if payload.len() > MAX_SNAPSHOT_BYTES {
        format!("its snapshot has {} bytes, the limit is {MAX_SNAPSHOT_BYTES}", payload.len())
    } else if format.is_empty() || format.len() > MAX_FORMAT_BYTES || format.contains(char::is_control) {
        let format = printable(format, MAX_FORMAT_BYTES, false);
        format!(
            "its snapshot has the format {format:?}, expected 1 to {MAX_FORMAT_BYTES} bytes without control characters"
        )
    } else {
        return Ok(());
    };
    Err(Fault::Trap { kind: TrapKind::HostLimit, message, evidence: Evidence::default() })
}

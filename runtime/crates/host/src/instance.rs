//! An instance that handles messages: its own store and memory, kept from batch to batch until it fails or is told to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;
use wasmtime::Store;

use crate::bindings::{Batch, Failure, PresenceChange, handler, lifecycle, presence, timer};
use crate::fault::{Fault, MAX_MESSAGE, printable};
use crate::receiver::Receiver;
use crate::store::{State, end_call, start_call};
use crate::usage::Usage;

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
            let lifecycle = match self.lifecycle() {
                Some(indices) => Some(indices.load(&mut store, &instance)?),
                None => None,
            };
            let presence = match self.presence() {
                Some(indices) => Some(indices.load(&mut store, &instance)?),
                None => None,
            };
            let timer = match self.timer() {
                Some(indices) => Some(indices.load(&mut store, &instance)?),
                None => None,
            };
            let ready = match &lifecycle {
                Some(lifecycle) => lifecycle.call_init(&mut store).await?,
                None => Ok(()),
            };
            Ok((Exports { handler, lifecycle, presence, timer }, ready))
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

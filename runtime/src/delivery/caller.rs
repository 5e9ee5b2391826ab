//! Calls a receiver's component: makes its instance, makes it anew after a fault, and asks the breaker before every call.
//! What is delivered, and what follows from how it went, is `worker`'s.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use wharf_host::{Fault, Instance, Receiver};

use super::batch::{self, Given, Said};
use super::breaker::{Breaker, Pass};
use super::halt::Turn;
use super::status::{Status, WRONG_ANSWER};
use super::{LONGEST_PAUSE, Stopped, or_stop};
use crate::backoff::Backoff;

/// What a call came to.
pub enum Called {
    /// The component answered.
    Answered(Said),
    /// It did not, and what it was given may be the cause, so that it counts as an attempt where a message was alone.
    Failed(Box<Evidence>),
    /// It did not, because the host could not give it an instance or kept it waiting.
    Interrupted,
}

/// What is known of a failure of the component.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What went wrong.
    pub what: String,
    /// The word for it in metrics.
    pub kind: &'static str,
    /// The guest's stack, if there was one.
    pub backtrace: Option<String>,
    /// The last lines that it wrote to standard error.
    pub stderr: String,
}

/// One instance of a receiver's component.
pub struct Caller {
    receiver: Receiver,
    retry_pause: Duration,
    status: Arc<Status>,
    breaker: Arc<Breaker>,
    turn: Turn,
    instance: Option<Instance>,
    /// Whether anything was given to the component since that was asked last.
    has_given: bool,
    /// Whether an instance was lost since this version began, with what it knew.
    is_anew: bool,
    /// What the last call was let through as.
    pass: Pass,
}

impl Caller {
    /// With the instance that there is already, if there is one.
    pub fn new(
        receiver: Receiver,
        retry_pause: Duration,
        status: Arc<Status>,
        breaker: Arc<Breaker>,
        turn: Turn,
        instance: Option<Instance>,
    ) -> Caller {
        Caller {
            receiver,
            retry_pause,
            status,
            breaker,
            turn,
            instance,
            has_given: false,
            is_anew: false,
            pass: Pass::Ordinary,
        }
    }

    /// Lays the instance down, if there is one.
    pub fn lay_down(&mut self) -> Option<Instance> {
        self.instance.take()
    }

    /// Whether an instance was lost since this version began, with what it knew.
    pub fn is_anew(&self) -> bool {
        self.is_anew
    }

    /// Takes it up again, unless somebody else has taken it.
    pub fn pick_up(&mut self, instance: Option<Instance>) {
        self.instance = instance;
    }

    /// Begins another turn.
    pub fn begin(&mut self, turn: Turn) {
        self.turn = turn;
    }

    /// Whether the component was given anything since this was asked last, whatever came of it.
    pub fn take_has_given(&mut self) -> bool {
        std::mem::take(&mut self.has_given)
    }

    /// Makes the first instance before there is anything to deliver, so that `init` fails early and visibly.
    pub async fn start(&mut self) -> Result<(), Stopped> {
        self.ready().await?;
        // Nothing is called yet, so only starts can have failed before.
        self.breaker.succeeded(self.pass);
        Ok(())
    }

    /// Gives the component what it is to handle.
    pub async fn call(&mut self, given: &Given) -> Result<Called, Stopped> {
        let abandon = self.turn.abandon.clone();
        let instance = self.ready().await?;
        let began = Instant::now();
        let outcome = match given {
            Given::Messages(batch) => {
                or_abandoned(&abandon, instance.handle(batch)).await.map(|handled| match handled {
                    Ok(failures) => batch::said(batch, failures).map_err(Wrong::Answer),
                    Err(fault) => Err(Wrong::Fault(fault)),
                })
            }
            Given::Changes(changes) => {
                let told = or_abandoned(&abandon, instance.agents_changed(changes)).await;
                told.map(|told| told.map(|()| Said::new()).map_err(Wrong::Fault))
            }
        };
        self.has_given = true;
        let said = outcome.inspect_err(|Stopped| self.abandoned())?;
        if let Given::Messages(batch) = given {
            self.status.called(batch.messages.len(), began.elapsed());
        }
        match said {
            Ok(said) => {
                self.breaker.succeeded(self.pass);
                Ok(Called::Answered(said))
            }
            Err(wrong) => {
                let evidence = self.fault(&wrong, began.elapsed());
                if wrong.is_of_what_was_given() {
                    return Ok(Called::Failed(Box::new(evidence)));
                }
                self.breaker.failure();
                Ok(Called::Interrupted)
            }
        }
    }

    /// Calls the component's `tick`, unless it is paused or quarantined.
    pub async fn tick(&mut self) -> Result<(), Stopped> {
        if !self.breaker.is_closed() {
            return Ok(());
        }
        let abandon = self.turn.abandon.clone();
        let instance = self.ready().await?;
        let began = Instant::now();
        let ticked = or_abandoned(&abandon, instance.tick()).await;
        match ticked.inspect_err(|Stopped| self.abandoned())? {
            Ok(()) => self.breaker.succeeded(self.pass),
            Err(fault) => {
                self.fault(&Wrong::Fault(fault), began.elapsed());
                self.breaker.failure();
            }
        }
        Ok(())
    }

    /// Lets the instance end in an orderly way.
    pub async fn end(self) {
        if let Some(instance) = self.instance
            && let Err(fault) = instance.terminate().await
        {
            tracing::warn!(receiver.name = self.receiver.name(), %fault, "a receiver's terminate failed");
        }
    }

    /// Waits until the breaker lets a call through and there is an instance for it.
    async fn ready(&mut self) -> Result<&mut Instance, Stopped> {
        self.pass = or_stop(&self.turn.leave, self.breaker.enter()).await?;
        let instance = match self.instance.take() {
            Some(instance) => instance,
            // Nobody else would be let through while this one is said to be the probe.
            None => self.make_instance().await.inspect_err(|Stopped| self.breaker.not_made(self.pass))?,
        };
        Ok(self.instance.insert(instance))
    }

    async fn make_instance(&mut self) -> Result<Instance, Stopped> {
        let mut backoff = Backoff::new(self.retry_pause, LONGEST_PAUSE);
        let mut restarting = false;
        let made = loop {
            let began = Instant::now();
            match or_stop(&self.turn.leave, self.receiver.instantiate()).await {
                Ok(Ok(instance)) => break Ok(instance),
                Ok(Err(fault)) => {
                    let is_ours = matches!(fault, Fault::Pool(_));
                    self.fault(&Wrong::Fault(fault), began.elapsed());
                    // That the host has no room says nothing of the receiver.
                    if !is_ours {
                        self.breaker.failure();
                    }
                }
                Err(Stopped) => break Err(Stopped),
            }
            if !restarting {
                restarting = true;
                self.status.restarting();
            }
            let again = async {
                sleep(backoff.next_pause()).await;
                self.breaker.enter().await
            };
            match or_stop(&self.turn.leave, again).await {
                Ok(pass) => self.pass = pass,
                Err(Stopped) => break Err(Stopped),
            }
        };
        if restarting {
            self.status.restarted();
        }
        if made.is_ok() {
            self.status.instances_started.inc();
        }
        made
    }

    /// A call was ended because somebody waits for this to leave its lanes.
    fn abandoned(&mut self) {
        (self.instance, self.is_anew) = (None, true);
        tracing::warn!(
            receiver.name = self.receiver.name(),
            "a call took longer than a swap waits and was ended; its messages go to the new version"
        );
    }

    /// What a fault leaves: no instance, a line in the log, numbers, and evidence.
    fn fault(&mut self, wrong: &Wrong, spent: Duration) -> Evidence {
        // One that failed before it was there knew nothing.
        self.is_anew |= self.instance.take().is_some();
        // As a probe it has decided now.
        self.breaker.failed(std::mem::replace(&mut self.pass, Pass::Ordinary), spent);
        self.status.fault(wrong.kind(), wrong);
        let left = wrong.evidence();
        let evidence = Evidence {
            what: wrong.to_string(),
            kind: wrong.kind(),
            backtrace: left.and_then(|left| left.backtrace.clone()),
            stderr: left.map(|left| left.stderr.join("\n")).unwrap_or_default(),
        };
        tracing::warn!(
            receiver.name = self.receiver.name(),
            fault = evidence.what,
            kind = evidence.kind,
            stderr = evidence.stderr,
            backtrace = evidence.backtrace.as_deref().unwrap_or_default(),
            "a receiver failed; its instance is made anew"
        );
        evidence
    }
}

/// Does the work, unless it is abandoned first.
async fn or_abandoned<T>(abandon: &CancellationToken, work: impl Future<Output = T>) -> Result<T, Stopped> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = abandon.cancelled() => Err(Stopped),
    }
}

/// What can be wrong with a call.
enum Wrong {
    Fault(Fault),
    Answer(batch::WrongAnswer),
}

impl Wrong {
    /// Whether what was given may be the cause: not so where the host could not give an instance or kept the guest
    /// waiting.
    fn is_of_what_was_given(&self) -> bool {
        match self {
            Wrong::Answer(_) => true,
            Wrong::Fault(fault) => fault.is_of_the_guest(),
        }
    }

    /// The word for it in metrics.
    fn kind(&self) -> &'static str {
        match self {
            Wrong::Answer(_) => WRONG_ANSWER,
            Wrong::Fault(fault) => fault.kind(),
        }
    }

    fn evidence(&self) -> Option<&wharf_host::Evidence> {
        match self {
            Wrong::Answer(_) => None,
            Wrong::Fault(fault) => fault.evidence(),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Fault(fault) => fault.fmt(f),
            Wrong::Answer(wrong) => wrong.fmt(f),
        }
    }
}

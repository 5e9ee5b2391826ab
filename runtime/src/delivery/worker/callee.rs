//! Whom a worker calls: the receiver's component, or what the worker's own tests put in its place.

use wharf_host::Instance;

use crate::delivery::Stopped;
use crate::delivery::batch::Given;
use crate::delivery::caller::{Called, Caller};
use crate::delivery::halt::Turn;

#[cfg(test)]
use futures_util::future::BoxFuture;

/// Whom a worker calls.
pub enum Callee {
    /// A component.
    Component(Box<Caller>),
    /// What a test says that a component answers.
    #[cfg(test)]
    Played(Play),
}

/// What is called in a test.
#[cfg(test)]
pub type Play = Box<dyn FnMut(&Given) -> BoxFuture<'static, Called> + Send>;

impl Callee {
    /// See [`Caller::start`].
    pub async fn start(&mut self) -> Result<(), Stopped> {
        match self {
            Callee::Component(caller) => caller.start().await,
            #[cfg(test)]
            Callee::Played(_) => Ok(()),
        }
    }

    /// See [`Caller::call`].
    pub async fn call(&mut self, given: &Given) -> Result<Called, Stopped> {
        match self {
            Callee::Component(caller) => caller.call(given).await,
            #[cfg(test)]
            Callee::Played(play) => Ok(play(given).await),
        }
    }

    /// See [`Caller::tick`].
    pub async fn tick(&mut self) -> Result<(), Stopped> {
        match self {
            Callee::Component(caller) => caller.tick().await,
            #[cfg(test)]
            Callee::Played(_) => Ok(()),
        }
    }

    /// See [`Caller::lay_down`].
    pub fn lay_down(&mut self) -> Option<Instance> {
        match self {
            Callee::Component(caller) => caller.lay_down(),
            #[cfg(test)]
            Callee::Played(_) => None,
        }
    }

    /// See [`Caller::pick_up`].
    pub fn pick_up(&mut self, instance: Option<Instance>) {
        match self {
            Callee::Component(caller) => caller.pick_up(instance),
            #[cfg(test)]
            Callee::Played(_) => {}
        }
    }

    /// See [`Caller::begin`].
    pub fn begin(&mut self, turn: Turn) {
        match self {
            Callee::Component(caller) => caller.begin(turn),
            #[cfg(test)]
            Callee::Played(_) => {}
        }
    }

    /// See [`Caller::take_has_given`].
    pub fn take_has_given(&mut self) -> bool {
        match self {
            Callee::Component(caller) => caller.take_has_given(),
            #[cfg(test)]
            Callee::Played(_) => true,
        }
    }

    /// See [`Caller::is_anew`].
    pub fn is_anew(&self) -> bool {
        match self {
            Callee::Component(caller) => caller.is_anew(),
            #[cfg(test)]
            Callee::Played(_) => false,
        }
    }

    /// See [`Caller::end`].
    pub async fn end(self) {
        match self {
            Callee::Component(caller) => caller.end().await,
            #[cfg(test)]
            Callee::Played(_) => {}
        }
    }
}

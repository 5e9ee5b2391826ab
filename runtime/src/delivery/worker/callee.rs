//! Whom a worker calls: the receiver's component, or what the worker's own tests put in its place.

use tokio_util::sync::CancellationToken;

use crate::delivery::Stopped;
use crate::delivery::batch::Given;
use crate::delivery::caller::{Called, Caller};

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

    /// See [`Caller::stop_with`].
    pub fn stop_with(&mut self, stop: CancellationToken) {
        match self {
            Callee::Component(caller) => caller.stop_with(stop),
            #[cfg(test)]
            Callee::Played(_) => {}
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

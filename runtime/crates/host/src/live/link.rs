//! The interface `wharf:receiver/live`, for receivers that have the grant.

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::live::{self, Host};
use crate::guest_log::Stream;
use crate::store::State;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    live::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl Host for State {
    fn publish(&mut self, key: Option<String>, payload: String) -> wasmtime::Result<()> {
        // Linked only with the grant, and then there is one.
        if let Some(live) = &self.shared.live
            && let Err(error) = live.publish(key.as_deref(), payload)
        {
            self.shared.log.line(Stream::Host, &error.to_string());
        }
        Ok(())
    }
}

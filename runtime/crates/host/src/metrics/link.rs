//! The interface `wharf:receiver/metrics`.

use wasmtime::component::{HasSelf, Linker};

use super::value::Update;
use crate::bindings::metrics::{self, Host, Label};
use crate::guest_log::Stream;
use crate::store::State;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    metrics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl Host for State {
    fn count(&mut self, name: String, labels: Vec<Label>, by: u64) -> wasmtime::Result<()> {
        self.record(name, labels, Update::Count(by));
        Ok(())
    }

    fn set(&mut self, name: String, labels: Vec<Label>, value: f64) -> wasmtime::Result<()> {
        self.record(name, labels, Update::Set(value));
        Ok(())
    }

    fn observe(&mut self, name: String, labels: Vec<Label>, value: f64) -> wasmtime::Result<()> {
        self.record(name, labels, Update::Observe(value));
        Ok(())
    }
}

impl State {
    fn record(&self, name: String, labels: Vec<Label>, update: Update) {
        let labels = labels.into_iter().map(|label| (label.name, label.value)).collect();
        if let Err(error) = self.shared.metrics.record(name, labels, update) {
            self.shared.log.line(Stream::Host, &error.to_string());
        }
    }
}

//! A receiver's own settings, from its `config` table: as `wasi:config/store`, and as the environment that `wasi:cli` shows.

use wasmtime::component::Linker;

use crate::store::State;

/// Settings as texts under keys; nested tables are dotted keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pairs: Vec<(String, String)>,
}

impl Settings {
    pub(crate) fn new(pairs: Vec<(String, String)>) -> Self {
        Self { pairs }
    }

    /// The settings as environment variables.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

pub(crate) fn link(_linker: &mut Linker<State>) -> wasmtime::Result<()> {
    Ok(())
}

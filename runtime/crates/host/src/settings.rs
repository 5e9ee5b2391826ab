//! A receiver's own settings, from its `config` table: as `wasi:config/store`, and as the environment that `wasi:cli` shows.

use std::collections::BTreeMap;

use wasmtime::component::Linker;
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

use crate::store::State;

/// Settings as texts under keys; nested tables are dotted keys.
pub(crate) struct Settings {
    store: WasiConfigVariables,
    environment: Vec<(String, String)>,
}

impl Settings {
    /// Of two pairs with the same key, the later one counts.
    pub(crate) fn new(pairs: Vec<(String, String)>) -> Self {
        let pairs: BTreeMap<String, String> = pairs.into_iter().collect();
        let variables = pairs.iter().filter(|(name, value)| can_be_variable(name, value));
        let environment = variables.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { store: pairs.into_iter().collect(), environment }
    }

    /// The settings as environment variables, without those that can be none.
    pub(crate) fn environment(&self) -> &[(String, String)] {
        &self.environment
    }
}

/// Guests hold a variable as `NAME=VALUE` with a NUL at the end. What can't be read back from that would be another setting
/// than the config's, so it is only in the store.
fn can_be_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_config::add_to_linker(linker, |state| WasiConfig::new(&state.shared.settings.store))
}

//! WASI without anything to reach: no folders, no environment, no arguments, no network, no input. Clocks and random
//! numbers are real. What guests print becomes lines of the log.

use crate::fault::Fault;
use crate::shared::Shared;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::store::State;
pub(crate) use output::Output;

mod output;

/// Random bytes in one call, which the host makes at once and without a pause. Programs ask for a seed or a key.
const MAX_RANDOM_BYTES: u64 = 64 * 1024;

/// The context of one instance, whose standard output and error are `stdout` and `stderr`.
pub(crate) fn context(stdout: &Output, stderr: &Output, _shared: &Shared) -> Result<WasiCtx, Fault> {
    // Everything that the builder is not given is empty. Sockets are refused twice: no kind of them may be used, and no
    // address is allowed by the builder's own check.
    Ok(WasiCtx::builder()
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .max_random_size(MAX_RANDOM_BYTES)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build())
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// The table of host objects that a guest has handles of, with room for `resources` of them.
pub(crate) fn table(resources: usize) -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(resources);
    table
}

//! WASI with next to nothing to reach: the receiver's settings as its environment, the folders that it was granted, no
//! arguments, no network, no input. Random numbers are real, and so is the time of day; the other clock begins at 0 with each
//! instance, so that it does not tell for how long the machine has been up. What guests print becomes lines of the log.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::io::streams::{Host, HostOutputStream, StreamError};
use wasmtime_wasi::p2::{self, DynOutputStream};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::files;
use crate::shared::Shared;
use crate::store::State;
pub(crate) use output::Output;

mod output;

/// Random bytes in one call, which the host makes at once and without a pause. Programs ask for a seed or a key.
const MAX_RANDOM_BYTES: u64 = 64 * 1024;

/// The context of one instance, whose standard output and error are `stdout` and `stderr`.
pub(crate) fn context(stdout: &Output, stderr: &Output, shared: &Shared) -> WasiCtx {
    // Everything that the builder is not given is empty. Sockets are refused twice: no kind of them may be used, and no
    // address is allowed by the builder's own check.
    let mut context = WasiCtx::builder()
        .envs(shared.settings.environment())
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .max_random_size(MAX_RANDOM_BYTES)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build();
    *context.filesystem() = shared.folders.context();
    context
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    p2::add_to_linker_async(linker)?;
    files::link(linker)?;
    link_error(linker)?;
    link_write(linker)
}

/// Gives a guest the text of an error and no more: the engine's own function gives the whole chain and, when the server runs with
/// `RUST_BACKTRACE`, a backtrace of the server.
fn link_error(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:io/error@0.2.12")?.func_wrap("[method]error.to-debug-string", to_debug_string)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn to_debug_string(
    store: StoreContextMut<'_, State>,
    (error,): (Resource<wasmtime::Error>,),
) -> wasmtime::Result<(String,)> {
    Ok((store.data().table.get(&error)?.to_string(),))
}

/// Puts a bound before the one function of `wasi:io` that has none: a guest may write no more at once than the stream says
/// there is room for. That is how the function is defined, but the engine's streams to files keep whatever they get until a
/// thread has written it, and a guest can have a thousand of them.
fn link_write(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:io/streams@0.2.12")?.func_wrap("[method]output-stream.write", write)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn write(
    mut store: StoreContextMut<'_, State>,
    (stream, bytes): (Resource<DynOutputStream>, Vec<u8>),
) -> wasmtime::Result<(Result<(), StreamError>,)> {
    let table = &mut store.data_mut().table;
    let again = Resource::new_borrow(stream.rep());
    let written = HostOutputStream::check_write(table, again).and_then(|room| {
        if usize::try_from(room).is_ok_and(|room| bytes.len() > room) {
            return Err(p2::StreamError::trap("wrote more to a stream than check-write allows"));
        }
        HostOutputStream::write(table, stream, bytes)
    });
    match written {
        Ok(()) => Ok((Ok(()),)),
        Err(error) => Ok((Err(table.convert_stream_error(error)?),)),
    }
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

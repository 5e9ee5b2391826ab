//! Holds guests to bounds in `wasi:http/types` where the engine's implementation has none of its own: a guest can have a
//! thousand requests that it never sends, and the host keeps all that it said of them.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{HostOutgoingRequest as _, Method};
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;

use super::INTERFACE;
use crate::store::State;

/// The longest method in bytes: several times the longest that is registered.
const MAX_METHOD: usize = 64;

/// The longest authority in bytes: the longest name that DNS has, twice.
const MAX_AUTHORITY: usize = 512;

/// The bytes that a body takes at once, of which it keeps twice as many until somebody reads them.
pub(super) const BODY_CHUNK: usize = 16 * 1024;

/// What a setter of a request gives the guest: no more than whether it took the value.
type Taken = wasmtime::Result<(Result<(), ()>,)>;

/// Puts the bounds before functions that are linked already.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(INTERFACE)?;
    types.func_wrap("[method]outgoing-request.set-method", set_method)?;
    types.func_wrap("[method]outgoing-request.set-authority", set_authority)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn set_method(
    mut store: StoreContextMut<'_, State>,
    (request, method): (Resource<HostOutgoingRequest>, Method),
) -> Taken {
    if matches!(&method, Method::Other(method) if method.len() > MAX_METHOD) {
        return Ok((Err(()),));
    }
    Ok((store.data_mut().http().set_method(request, method)?,))
}

fn set_authority(
    mut store: StoreContextMut<'_, State>,
    (request, authority): (Resource<HostOutgoingRequest>, Option<String>),
) -> Taken {
    if authority.as_ref().is_some_and(|authority| authority.len() > MAX_AUTHORITY) {
        return Ok((Err(()),));
    }
    Ok((store.data_mut().http().set_authority(request, authority)?,))
}

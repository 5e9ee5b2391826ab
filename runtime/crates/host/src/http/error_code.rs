//! `http-error-code` of `wasi:http/types`: tells a guest why the body of an answer failed while it read it. The engine's
//! implementation looks for an error of another type than the one that bodies fail with, and never finds it.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::IoError;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::INTERFACE;
use crate::store::State;

/// Puts our implementation before the one that is linked already.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(INTERFACE)?.func_wrap("http-error-code", http_error_code)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn http_error_code(
    store: StoreContextMut<'_, State>,
    (error,): (Resource<IoError>,),
) -> wasmtime::Result<(Option<ErrorCode>,)> {
    let error = store.data().table.get(&error)?;
    let code = error.downcast_ref::<ErrorCode>().cloned();
    Ok((code.or_else(|| error.downcast_ref::<Error>().map(of_body)),))
}

/// The code of an error that the bodies of `http/outgoing` give.
fn of_body(error: &Error) -> ErrorCode {
    match error {
        Error::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        Error::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        Error::HttpResponseBodySize(size) => ErrorCode::HttpResponseBodySize(*size),
        Error::HttpRequestBodySize(size) => ErrorCode::HttpRequestBodySize(*size),
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        _ => ErrorCode::HttpProtocolError,
    }
}

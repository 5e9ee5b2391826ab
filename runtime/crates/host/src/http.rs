//! `wasi:http`: linked for every receiver, because the toolchains of some languages import it whether it is used or not.
//! Requests to the outside are refused. Pages that a receiver serves are in `http/page.rs`.

use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt;
use wasmtime::component::Linker;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::guest_log::{GuestLog, Stream};
use crate::store::State;
pub(crate) use outgoing::Outgoing;
pub use outgoing::{HttpGrant, Origin};
pub use page::PageError;
pub(crate) use page::PageLimits;

mod outgoing;
mod page;

/// The size of the headers that a guest may collect, as they are in memory: about 16 KiB on the wire, what servers accept.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// What one instance has for HTTP.
pub(crate) struct HttpState {
    context: WasiHttpCtx,
    hooks: Refuse,
}

impl HttpState {
    pub(crate) fn new(log: Arc<GuestLog>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_HEADER_BYTES);
        Self { context, hooks: Refuse { log } }
    }
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.context }
    }
}

/// Sends no request.
struct Refuse {
    log: Arc<GuestLog>,
}

type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Refuse {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        self.log.line(Stream::Host, "refused an outgoing HTTP request: this receiver has no grant for it");
        Box::new(async move {
            // Guests written in JavaScript abort when the body of a request is dropped unread. Reading ends with the body,
            // or with the guest's store, which holds its other end.
            tokio::spawn(async move {
                let mut body = request.into_body();
                while body.frame().await.is_some_and(|frame| frame.is_ok()) {}
            });
            Err(Error::HttpRequestDenied)
        })
    }
}

//! `wasi:http`: linked for every receiver, because the toolchains of some languages import it whether it is used or not.
//! Requests to the outside are refused without a grant, and sent by `http/outgoing` with one. Pages that a receiver serves are
//! in `http/page.rs`.

use std::sync::Arc;

use http::{Request, Response};
use wasmtime::component::Linker;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::guest_log::GuestLog;
use crate::shared::Shared;
use crate::store::State;
pub(crate) use outgoing::Outgoing;
use outgoing::{Admitted, Failure, Report, RequestBody, origin_of};
pub use outgoing::{HttpGrant, Origin};
pub use page::PageError;
pub(crate) use page::PageLimits;

mod bounds;
mod error_code;
mod outgoing;
mod page;

/// The interface as the engine's implementation links it.
const INTERFACE: &str = "wasi:http/types@0.2.12";

/// The size of the headers that a guest may collect, as they are in memory: about 16 KiB on the wire, what servers accept.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// What one instance has for HTTP. Dropped before what the guest left behind unfinished.
pub(crate) struct HttpState {
    context: WasiHttpCtx,
    hooks: Hooks,
}

impl HttpState {
    pub(crate) fn new(shared: &Shared) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_HEADER_BYTES);
        let hooks = Hooks { log: shared.log.clone(), outgoing: shared.outgoing.clone(), alive: Arc::new(()) };
        Self { context, hooks }
    }
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    bounds::link(linker)?;
    error_code::link(linker)
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.context }
    }
}

/// Sends the requests of one instance, or refuses them.
struct Hooks {
    log: GuestLog,
    outgoing: Option<Outgoing>,
    /// There as long as the instance is.
    alive: Arc<()>,
}

impl Hooks {
    fn admit(
        &self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Admitted, Failure> {
        // Without a grant, too, the body is read: see `RequestBody`.
        let limit = self.outgoing.as_ref().map_or(0, Outgoing::max_request_bytes);
        let request = request.map(|body| RequestBody::new(body, limit, Arc::downgrade(&self.alive)));
        match &self.outgoing {
            Some(outgoing) => outgoing.admit(request, options),
            None => Err(Failure::NoGrant(origin_of(request.uri())?)),
        }
    }
}

type Answer = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Hooks {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        bounds::BODY_CHUNK
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let counter = self.outgoing.as_ref().map(Outgoing::failure_counter);
        let report = Report::new(self.log.clone(), counter, &request);
        // Whether there is room is decided in the order in which the guest asks.
        let admitted = self.admit(request, options);
        Box::new(async move {
            let answered = match admitted {
                Ok(admitted) => admitted.send(report.clone()).await,
                Err(failure) => Err(failure),
            };
            let (response, watch) = answered.map_err(|failure| report.failed(&failure))?;
            let watch = async move {
                watch.run().await;
                Ok(())
            };
            Ok((response, Box::new(watch) as Box<_>))
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wasmtime_wasi_http::p2::body::{HostOutgoingBody, StreamContext};

    use super::*;

    #[test]
    fn a_body_that_nobody_reads_keeps_little() {
        let log = GuestLog::new("test".into(), 100);
        let mut hooks = Hooks { log, outgoing: None, alive: Arc::default() };
        let (chunks, size) = (hooks.p2_outgoing_body_buffer_chunks(), hooks.p2_outgoing_body_chunk_size());
        let (mut body, _unread) = HostOutgoingBody::new(StreamContext::Request, None, chunks, size);
        let mut stream = body.take_output_stream().unwrap();
        let mut kept = 0;
        while let room @ 1.. = stream.check_write().unwrap() {
            stream.write(Bytes::from(vec![0; room])).unwrap();
            kept += room;
        }
        assert!((1024..=32 * 1024).contains(&kept), "{kept} bytes are kept");
    }
}

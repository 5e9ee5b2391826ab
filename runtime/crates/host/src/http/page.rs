//! Pages: answers one request with a fresh instance, within the limits that a receiver has for pages. The whole answer is
//! collected before it is given away, so a guest that fails half way gives an error and not half a page.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout_at;
use wasmtime::Store;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler::GuestIndices;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::fault::{Fault, MAX_MESSAGE, printable};
use crate::receiver::Receiver;
use crate::store::{State, end_call, start_call};

/// Why there is no page. Only [`Fault`] and what comes after it is the guest's doing.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The receiver exports no `wasi:http/incoming-handler`.
    #[error("serve a page: the receiver has none")]
    NoPage,
    /// As many requests as may be are being answered, by this receiver or by all together.
    #[error("serve a page: too many requests at a time")]
    Busy,
    /// The request names no host, neither in its URI nor in a header.
    #[error("serve a page: the request names no host")]
    NoHost,
    /// The guest failed, or took longer than it may.
    #[error("serve a page")]
    Fault(#[source] Fault),
    /// The guest returned without an answer.
    #[error("serve a page: the receiver gave no answer")]
    NoAnswer,
    /// The guest answered with an error instead of a response.
    #[error("serve a page: the receiver answered with an error: {0}")]
    Refused(String),
    /// The guest returned before its answer was complete, or gave it up.
    #[error("serve a page: the receiver did not finish its answer")]
    Unfinished,
    /// The answer is larger than the receiver's answers may be.
    #[error("serve a page: the answer has more than {limit} bytes")]
    TooLarge {
        /// The most that is allowed, in bytes.
        limit: u64,
    },
}

type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl Receiver {
    /// Answers a request with a fresh instance.
    ///
    /// Headers reach the guest, and come from it, as they are, but for those that concern the connection: what a page may
    /// not see or set is for the caller to remove. `content-length` is left out of the response; it is the length of the body.
    /// What the guest does after it has finished its answer is not waited for.
    pub async fn serve(&self, request: Request<Bytes>) -> Result<Response<Bytes>, PageError> {
        let (pre, indices) = self.page().ok_or(PageError::NoPage)?;
        self.check_grants().map_err(PageError::Fault)?;
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            return Err(PageError::NoHost);
        }
        let permit =
            |semaphore: &Arc<Semaphore>| semaphore.clone().try_acquire_owned().map_err(|_| PageError::Busy);
        let _of_receiver = permit(self.page_permits())?;
        let _of_host = permit(self.host().pages())?;
        let is_head = request.method() == Method::HEAD;
        let limits = self.page_limits();
        let mut store = self.new_store();
        let end = start_call(&mut store, limits.deadline);
        let answer = Box::pin(answer(&mut store, pre, indices, request, limits.body_bytes));
        let outcome = timeout_at(end, self.usage().metered(answer)).await;
        let mut response = end_call(&store, limits.deadline, outcome).map_err(PageError::Fault)??;
        if !is_head {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        Ok(response)
    }
}

/// The limits of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageLimits {
    pub(crate) deadline: std::time::Duration,
    pub(crate) body_bytes: u64,
}

/// The outer error is a fault of the guest.
async fn answer(
    store: &mut Store<State>,
    pre: &InstancePre<State>,
    indices: &GuestIndices,
    request: Request<Bytes>,
    body_limit: u64,
) -> wasmtime::Result<Result<Response<Bytes>, PageError>> {
    let instance = pre.instantiate_async(&mut *store).await?;
    let guest = indices.load(&mut *store, &instance)?;
    let (sender, receiver) = oneshot::channel();
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request.map(Full::new))?;
    let out = http.new_response_outparam(sender)?;
    // The guest waits while nobody reads what it writes, so both go on together. Without a budget of tokio's, because below
    // "not yet" must mean that there is nothing.
    let mut collect = pin!(tokio::task::unconstrained(collect(receiver, body_limit)));
    let mut call = pin!(guest.call_handle(&mut *store, request, out));
    tokio::select! {
        biased;
        returned = &mut call => returned?,
        collected = &mut collect => return Ok(collected),
    }
    // Nothing is written any more: the answer is complete now or never.
    tokio::select! {
        biased;
        collected = &mut collect => Ok(collected),
        () = std::future::ready(()) => Ok(Err(PageError::Unfinished)),
    }
}

async fn collect(receiver: oneshot::Receiver<Answer>, limit: u64) -> Result<Response<Bytes>, PageError> {
    let (parts, mut body) = match receiver.await {
        Ok(Ok(response)) => response.into_parts(),
        Ok(Err(code)) => return Err(PageError::Refused(printable(&code.to_string(), MAX_MESSAGE, false))),
        Err(_) => return Err(PageError::NoAnswer),
    };
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers have no place in a page.
        let Ok(data) = frame.map_err(|_| PageError::Unfinished)?.into_data() else { continue };
        let length = u64::try_from(bytes.len().saturating_add(data.len())).unwrap_or(u64::MAX);
        if length > limit {
            return Err(PageError::TooLarge { limit });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Response::from_parts(parts, bytes.freeze()))
}

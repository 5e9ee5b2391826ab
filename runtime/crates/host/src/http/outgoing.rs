//! Requests of a receiver to the outside: only to the origins of its grant, within its limits. Redirects are answers as any
//! other: following one is the guest's to ask for, and checked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::timeout_at;
use wasmtime_wasi_http::{RequestOptions, WasiBody};

use answer_body::{AnswerBody, Open, Watch};
use connect::Connector;
pub(crate) use failure::Failure;
pub use origin::Origin;
use pool::{Connection, MAX_ANSWER_HEAD, Pool};
pub(crate) use report::Report;
pub(crate) use request_body::RequestBody;
use slots::{Slot, Slots};
use timeouts::Timeouts;

mod address;
mod answer_body;
mod connect;
mod failure;
mod origin;
mod pool;
mod report;
mod request_body;
mod slots;
mod timeouts;
mod tls;

/// The longest path with its query in bytes, which is what most servers accept.
const MAX_PATH: usize = 8 * 1024;

/// The grant of outgoing requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// Where requests may go.
    pub origins: Vec<Origin>,
    /// Requests of all instances together that may be under way.
    pub max_in_flight: usize,
    /// The longest that a request may take, up to the end of its answer.
    pub timeout: Duration,
    /// The largest body of a request in bytes.
    pub max_request_bytes: u64,
    /// The largest body of an answer in bytes.
    pub max_response_bytes: u64,
}

/// What the instances of a receiver send their requests through. Clones are the same.
#[derive(Clone)]
pub(crate) struct Outgoing {
    inner: Arc<Inner>,
}

struct Inner {
    grant: HttpGrant,
    slots: Slots,
    connector: Connector,
    pool: Arc<Pool>,
    failed: Arc<AtomicU64>,
}

/// A request that may be sent.
pub(crate) struct Admitted {
    outgoing: Outgoing,
    origin: Origin,
    request: Request<RequestBody>,
    timeouts: Timeouts,
    slot: Slot,
}

impl Outgoing {
    pub(crate) fn new(grant: HttpGrant) -> Self {
        Self::with(grant, Slots::default(), Arc::default())
    }

    /// With another grant, but counting on. Connections are kept only if the grant is the same: what one of them reaches was
    /// checked against the grant that it was opened with.
    pub(crate) fn with_grant(&self, grant: HttpGrant) -> Self {
        if grant == self.inner.grant {
            return self.clone();
        }
        Self::with(grant, self.inner.slots.clone(), self.inner.failed.clone())
    }

    fn with(grant: HttpGrant, slots: Slots, failed: Arc<AtomicU64>) -> Self {
        let (connector, pool) = (Connector::new(&grant), Arc::new(Pool::new(grant.max_in_flight)));
        Self { inner: Arc::new(Inner { grant, slots, connector, pool, failed }) }
    }

    pub(crate) fn max_request_bytes(&self) -> u64 {
        self.inner.grant.max_request_bytes
    }

    /// Requests that are under way now.
    pub(crate) fn in_flight(&self) -> usize {
        self.inner.slots.taken()
    }

    /// Requests that were refused or failed since the receiver was loaded.
    pub(crate) fn failed(&self) -> u64 {
        self.inner.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn failure_counter(&self) -> Arc<AtomicU64> {
        self.inner.failed.clone()
    }

    /// Takes a request if it may be sent, and if there is room for it. Its time begins now.
    pub(crate) fn admit(
        &self,
        mut request: Request<RequestBody>,
        options: Option<RequestOptions>,
    ) -> Result<Admitted, Failure> {
        let grant = &self.inner.grant;
        let origin = origin_of(request.uri())?;
        if !grant.origins.contains(&origin) {
            return Err(Failure::NotGranted(origin));
        }
        if request.method() == Method::CONNECT {
            return Err(Failure::Method);
        }
        let path = request.uri().path_and_query().cloned();
        if path.as_ref().is_some_and(|path| path.as_str().len() > MAX_PATH) {
            return Err(Failure::PathTooLong(MAX_PATH));
        }
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if announced.is_some_and(|length| length.parse().unwrap_or(u64::MAX) > grant.max_request_bytes) {
            return Err(Failure::RequestTooLarge(grant.max_request_bytes));
        }
        // What is sent is the path alone, and the host is the one that was checked, however the guest wrote it.
        let host = HeaderValue::try_from(origin.authority()).map_err(|_| Failure::Uri)?;
        request.headers_mut().insert(header::HOST, host);
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
        let slot = self.inner.slots.take(grant.max_in_flight);
        let slot = slot.ok_or(Failure::TooMany(grant.max_in_flight))?;
        let timeouts = Timeouts::new(grant.timeout, options);
        Ok(Admitted { outgoing: self.clone(), origin, request, timeouts, slot })
    }

    async fn connection(&self, origin: &Origin, timeouts: &Timeouts) -> Result<Connection, Failure> {
        if let Some(connection) = self.inner.pool.take(origin) {
            return Ok(connection);
        }
        let end = timeouts.end_of_connect();
        let connecting = timeout_at(end, self.inner.connector.connect(origin, end)).await;
        connecting.unwrap_or(Err(Failure::ConnectTimeout(timeouts.connect)))
    }
}

/// The origin that a request asks for, whether it is granted or not.
pub(crate) fn origin_of(uri: &Uri) -> Result<Origin, Failure> {
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Failure::User);
    }
    Origin::of(uri).ok_or(Failure::Uri)
}

impl Admitted {
    /// Sends the request and gives the head of the answer, its body to read, and the end of its time to wait for. All that
    /// was begun ends when this is dropped, or later when the body is.
    pub(crate) async fn send(self, report: Report) -> Result<(Response<WasiBody>, Watch), Failure> {
        let Self { outgoing, origin, mut request, timeouts, slot } = self;
        let stopped = request.body().stopped();
        let (response, connection) = loop {
            let mut connection = outgoing.connection(&origin, &timeouts).await?;
            let sending = connection.sender.try_send_request(request);
            match timeout_at(timeouts.end_of_first_byte(), sending).await {
                Ok(Ok(response)) => break (response, connection),
                Ok(Err(mut error)) => match error.take_message() {
                    // The server closed a connection that nobody used, just now. Nothing of the request was sent.
                    Some(unsent) if connection.reused => request = unsent,
                    _ => return Err(stopped.or(Failure::of_head(error.error(), MAX_ANSWER_HEAD))),
                },
                Err(_) => return Err(timeouts.no_first_byte()),
            }
        };
        let limit = outgoing.inner.grant.max_response_bytes;
        let (head, body) = response.into_parts();
        if body.size_hint().lower() > limit {
            return Err(Failure::AnswerTooLarge(limit));
        }
        let open = Open { body, connection, pool: outgoing.inner.pool.clone(), slot };
        let (body, watch) = AnswerBody::new(open, limit, timeouts, stopped, report);
        Ok((Response::from_parts(head, body.boxed_unsync()), watch))
    }
}

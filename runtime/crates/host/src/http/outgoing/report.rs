//! Tells the operator what became of a request that failed, in the receiver's log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;
use wasmtime_wasi_http::Error;

use super::failure::Failure;
use super::origin::Origin;
use crate::fault::printable;
use crate::guest_log::{GuestLog, Stream};

/// How much of an authority is logged that is none of a granted origin.
const MAX_AUTHORITY: usize = 300;

/// What a request asked for, and whom to tell if it fails.
#[derive(Clone)]
pub(crate) struct Report {
    log: GuestLog,
    failed: Option<Arc<AtomicU64>>,
    what: Arc<str>,
}

impl Report {
    /// Failures are also counted in `failed`.
    pub(crate) fn new<B>(log: GuestLog, failed: Option<Arc<AtomicU64>>, request: &Request<B>) -> Self {
        Self { log, failed, what: describe(request).into() }
    }

    /// Logs why the request failed, and gives the guest's error.
    pub(crate) fn failed(&self, failure: &Failure) -> Error {
        self.log.line(Stream::Host, &format!("failed to send {}: {failure}", self.what));
        if let Some(failed) = &self.failed {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        failure.code()
    }
}

/// Method and origin. Paths, queries and users often hold secrets.
fn describe<B>(request: &Request<B>) -> String {
    let uri = request.uri();
    let origin = Origin::of(uri).map(|origin| origin.to_string());
    let origin = origin.unwrap_or_else(|| {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("{}://{host}", uri.scheme_str().unwrap_or_default())
    });
    printable(&format!("{} {origin}", request.method()), MAX_AUTHORITY, false)
}

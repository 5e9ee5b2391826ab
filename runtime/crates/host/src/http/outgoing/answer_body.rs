//! The body of an answer, as a guest reads it. The request is under way until it was read to its end or dropped, or until its
//! time is over.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::Error;

use super::failure::Failure;
use super::pool::{Connection, Pool};
use super::report::Report;
use super::request_body::Stopped;
use super::slots::Slot;
use super::timeouts::Timeouts;

/// The body of an answer.
pub(super) struct AnswerBody {
    /// `None` once the guest was given the end, or an error.
    open: Option<Arc<Mutex<Option<Open>>>>,
    limit: u64,
    left: u64,
    timeouts: Timeouts,
    /// Runs while the server keeps the guest waiting.
    pause: Option<Pin<Box<Sleep>>>,
    stopped: Stopped,
    report: Report,
}

/// What a request holds while it is under way.
pub(super) struct Open {
    pub(super) body: Incoming,
    pub(super) connection: Connection,
    pub(super) pool: Arc<Pool>,
    pub(super) slot: Slot,
}

/// Ends a request whose time is over, also if the guest looks no more.
pub(crate) struct Watch {
    open: Weak<Mutex<Option<Open>>>,
    end: Instant,
}

impl AnswerBody {
    /// Bytes that come after `limit` of them, or after the end of `timeouts`, are an error.
    pub(super) fn new(
        open: Open,
        limit: u64,
        timeouts: Timeouts,
        stopped: Stopped,
        report: Report,
    ) -> (Self, Watch) {
        let open = if open.body.is_end_stream() {
            open.finish();
            None
        } else {
            Some(Arc::new(Mutex::new(Some(open))))
        };
        let watch =
            Watch { open: open.as_ref().map(Arc::downgrade).unwrap_or_default(), end: timeouts.end() };
        (Self { open, limit, left: limit, timeouts, pause: None, stopped, report }, watch)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(shared) = self.open.clone() else { return Poll::Ready(None) };
        let mut held = lock(&shared);
        let Some(open) = held.as_mut() else {
            return Poll::Ready(Some(Err(self.timeouts.over())));
        };
        let Poll::Ready(frame) = Pin::new(&mut open.body).poll_frame(context) else {
            let end = self.timeouts.end_of_pause();
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(end)));
            ready!(pause.as_mut().poll(context));
            return Poll::Ready(Some(Err(self.timeouts.paused())));
        };
        self.pause = None;
        if (frame.is_none() || open.body.is_end_stream())
            && let Some(open) = held.take()
        {
            open.finish();
            self.open = None;
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(self.count(&frame).map(|()| frame)),
            Some(Err(error)) => Some(Err(self.stopped.or(Failure::of_body(&error)))),
            None => None,
        })
    }

    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), Failure> {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let left = self.left.checked_sub(u64::try_from(length).unwrap_or(u64::MAX));
        self.left = left.ok_or(Failure::AnswerTooLarge(self.limit))?;
        Ok(())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.poll(context));
        if !matches!(frame, Some(Ok(_))) {
            self.open = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|failure| self.report.failed(&failure))))
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.open.as_ref().map(|open| lock(open));
        held.as_ref()
            .and_then(|held| held.as_ref())
            .map_or_else(SizeHint::default, |open| open.body.size_hint())
    }
}

impl Open {
    /// The answer was read to its end: the request is over, and its connection can serve another.
    fn finish(self) {
        drop(self.slot);
        self.pool.park(self.connection);
    }
}

impl Watch {
    pub(crate) async fn run(self) {
        sleep_until(self.end).await;
        if let Some(open) = self.open.upgrade() {
            lock(&open).take();
        }
    }
}

fn lock(open: &Mutex<Option<Open>>) -> MutexGuard<'_, Option<Open>> {
    // Whether it is open is valid at any moment, so a panic elsewhere does not spoil it.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

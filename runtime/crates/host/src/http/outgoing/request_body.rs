//! The body of a request, as a guest writes it while the request is sent.

use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use wasmtime_wasi_http::WasiBody;

use super::failure::Failure;

/// A body that ends with an error when it has more bytes than it may, or when its guest is gone.
///
/// Whatever becomes of the request, the body is read to its end: guests written in JavaScript abort when it is dropped unread.
pub(crate) struct RequestBody {
    body: Option<WasiBody>,
    limit: u64,
    left: u64,
    guest: Weak<()>,
    stopped: Stopped,
}

/// Why a body ended early, for whoever sees only that its request failed.
#[derive(Clone, Default)]
pub(super) struct Stopped(Arc<OnceLock<Failure>>);

impl RequestBody {
    /// Only a body whose `guest` is still there is whole at its end: what a guest leaves behind unfinished looks the same.
    pub(crate) fn new(body: WasiBody, limit: u64, guest: Weak<()>) -> Self {
        Self { body: Some(body), limit, left: limit, guest, stopped: Stopped::default() }
    }

    pub(super) fn stopped(&self) -> Stopped {
        self.stopped.clone()
    }
}

impl Stopped {
    /// Why the body ended early, or else why its request failed.
    pub(super) fn or(&self, otherwise: Failure) -> Failure {
        self.0.get().cloned().unwrap_or(otherwise)
    }

    fn set(&self, failure: Failure) -> Failure {
        self.0.get_or_init(|| failure).clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
        let failure = match ready!(Pin::new(body).poll_frame(context)) {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match this.left.checked_sub(u64::try_from(length).unwrap_or(u64::MAX)) {
                    Some(left) => {
                        this.left = left;
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    None => Failure::RequestTooLarge(this.limit),
                }
            }
            None if this.guest.strong_count() > 0 => {
                this.body = None;
                return Poll::Ready(None);
            }
            None | Some(Err(_)) => Failure::Unfinished,
        };
        Poll::Ready(Some(Err(this.stopped.set(failure))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        // Without a runtime there is no guest any more that could notice.
        if let Ok(runtime) = Handle::try_current() {
            // Reading ends with the body, or with the guest's store, which holds its other end.
            runtime.spawn(async move { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} });
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::sync::oneshot;

    use super::*;

    fn body(text: &'static str) -> WasiBody {
        Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
    }

    /// Gives the bytes of a body, or why it ended early.
    async fn collect(body: RequestBody) -> Result<Bytes, Failure> {
        let stopped = body.stopped();
        let collected = body.collect().await.map(|collected| collected.to_bytes());
        assert_eq!(collected.is_err(), stopped.0.get().is_some(), "both say whether it ended early");
        collected
    }

    #[tokio::test]
    async fn a_body_within_its_limit_is_passed_on() {
        let guest = Arc::new(());
        for text in ["", "hello"] {
            let body = RequestBody::new(body(text), 5, Arc::downgrade(&guest));
            assert_eq!(collect(body).await.unwrap(), text);
        }
        let body = RequestBody::new(body("hello!"), 5, Arc::downgrade(&guest));
        assert!(matches!(collect(body).await, Err(Failure::RequestTooLarge(5))));
    }

    #[tokio::test]
    async fn what_a_guest_left_behind_is_not_whole() {
        let guest = Arc::new(());
        let body = RequestBody::new(body("hello"), 5, Arc::downgrade(&guest));
        drop(guest);
        assert!(matches!(collect(body).await, Err(Failure::Unfinished)));
    }

    #[tokio::test]
    async fn a_body_that_nobody_wants_is_read_all_the_same() {
        let (sender, read) = oneshot::channel();
        let mut sender = Some(sender);
        let body = body("hello").map_frame(move |frame| {
            let _ = sender.take().map(|sender| sender.send(()));
            frame
        });
        drop(RequestBody::new(body.boxed_unsync(), 0, Weak::new()));
        read.await.unwrap();
    }
}

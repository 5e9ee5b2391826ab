//! A connection's socket: it takes a place among the open ones, is not written to for ever when nobody reads, and ends gently.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

/// How long a closed connection is still read, and what arrives thrown away. A client that is in the middle of sending
/// would otherwise get a reset in place of the refusal that was written to it (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// What an open connection takes: one of the places that there are, counted while it is taken. It goes with the stream, which
/// a WebSocket keeps when its HTTP connection is over.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    open: Gauge,
}

impl Place {
    /// Takes a place.
    pub fn new(permit: OwnedSemaphorePermit, open: Gauge) -> Place {
        open.inc();
        Place { _permit: permit, open }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Bounds how long a write waits for a client that takes nothing at all.
#[derive(Debug)]
pub struct WriteTimeout {
    wait: Duration,
    timed_out: Counter,
    /// Set while a write waits.
    over: Option<Pin<Box<Sleep>>>,
}

impl WriteTimeout {
    /// Writes wait so long at most. `timed_out` counts those that waited in vain.
    pub fn new(wait: Duration, timed_out: Counter) -> WriteTimeout {
        WriteTimeout { wait, timed_out, over: None }
    }

    /// What became of a write, with an error in place of `Pending` once it has waited too long.
    fn check<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.over = None;
            return written;
        }
        let wait = self.wait;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(wait)));
        ready!(over.as_mut().poll(cx));
        self.over = None;
        self.timed_out.inc();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A connection that ends gently: dropped, it is closed for writing and read a little longer.
#[derive(Debug)]
pub struct Stream {
    /// Empty only while it is being dropped.
    inner: Option<TcpStream>,
    place: Option<Place>,
    timeout: WriteTimeout,
}

impl Stream {
    /// A connection that was accepted.
    pub fn new(stream: TcpStream, place: Place, timeout: WriteTimeout) -> Stream {
        Stream { inner: Some(stream), place: Some(place), timeout }
    }

    fn project(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        self.get_mut().inner.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let (Some(stream), Ok(runtime)) = (self.inner.take(), Handle::try_current()) {
            runtime.spawn(linger(stream, self.place.take()));
        }
    }
}

/// Closes for writing and reads what the client is still sending, for a while.
pub async fn linger(mut stream: TcpStream, place: Option<Place>) {
    let discard = async {
        if stream.shutdown().await.is_ok() {
            let mut scratch = vec![0; 8 * 1024];
            while matches!(stream.read(&mut scratch).await, Ok(read) if read > 0) {}
        }
    };
    let _ = tokio::time::timeout(LINGER, discard).await;
    drop(place);
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.project()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.as_mut().project()?.poll_write(cx, bytes);
        self.timeout.check(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.as_mut().project()?.poll_write_vectored(cx, slices);
        self.timeout.check(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

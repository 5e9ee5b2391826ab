//! `GET /agent`: agents over WebSocket. Text frames carry JSON, binary frames MessagePack; every frame gets one answer, in
//! the order of the frames, in the encoding of the frame.
//!
//! One task serves a connection. It reads on while answers are outstanding, up to `max_unanswered` of them and
//! `max_unanswered_bytes`; then it stops reading, and TCP tells the client. Nothing is buffered beyond that.

mod scanner;
mod socket;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router as Routes;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Sleep, sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use wharf_protocol::{Answer, Encoding, Refusal, decode_frame};

use self::socket::{Incoming, Socket};
use crate::frontend::rest::Rejection;
use crate::frontend::room::Taken;
use crate::frontend::unanswered::Unanswered;
use crate::frontend::{Frontend, SHUTDOWN_GRACE};
use crate::presence::clock;
use crate::telemetry::TimeoutLabel;

/// The most that a close handshake may take: an agent that does not answer the close is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// `GET /agent`.
pub fn routes() -> Routes<Arc<Frontend>> {
    Routes::new().route("/agent", get(upgrade))
}

async fn upgrade(State(frontend): State<Arc<Frontend>>, mut request: Request) -> Response {
    let response = match create_response_with_body(&request, Body::empty) {
        Ok(response) => response,
        Err(error) => {
            let message = format!("expected a WebSocket upgrade on this path: {error}");
            let refusal = Refusal::bad_frame(message);
            return Rejection { refusal, encoding: Encoding::Json }.into_response();
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let sockets = frontend.sockets.clone();
    sockets.spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let socket = Socket::new(upgraded, frontend.max_frame);
                Connection::new(frontend, socket).serve().await;
            }
            Err(error) => tracing::debug!(%error, "a client left before its upgrade"),
        }
    });
    response
}

/// An answer, and the bytes that waited for it.
type Written = (Encoding, Answer, usize);

struct Connection {
    frontend: Arc<Frontend>,
    socket: Socket,
    /// Answers that are owed, in the order of their frames.
    owed: FuturesOrdered<BoxFuture<'static, Written>>,
    unanswered: Unanswered,
    /// Room that a large frame waits for. Until it comes, nothing is read.
    room: Option<BoxFuture<'static, Taken>>,
    /// Presence's clock runs while the connection is read.
    clock: clock::Connection,
    begun: Option<Begun>,
    /// When the frame that has begun is looked at next. It is set when one is first seen begun, and left alone while frames
    /// come and go, because they do so far more often than it fires.
    look: Option<Pin<Box<Sleep>>>,
    /// The encoding of the last frame: what a frame that was too large to read is answered in.
    last_encoding: Encoding,
}

/// A frame or message that has begun to arrive.
#[derive(Clone, Copy)]
struct Begun {
    number: u64,
    /// What the connection's clock showed when it was seen first.
    at: Duration,
}

/// Why a connection ends.
struct Closing {
    code: CloseCode,
    reason: &'static str,
}

/// The client left, or the connection broke: there is nobody to tell.
struct Gone;

impl Connection {
    fn new(frontend: Arc<Frontend>, socket: Socket) -> Connection {
        Connection {
            unanswered: Unanswered::new(frontend.metrics.unanswered_bytes.clone()),
            frontend,
            socket,
            owed: FuturesOrdered::new(),
            room: None,
            clock: clock::Connection::new(Instant::now()),
            begun: None,
            look: None,
            last_encoding: Encoding::Json,
        }
    }

    async fn serve(mut self) {
        let stop = self.frontend.stop.clone();
        // From the stop on, calls are answered `shutting_down` until the grace is over.
        let grace = async {
            stop.cancelled().await;
            sleep(SHUTDOWN_GRACE).await;
        };
        let mut grace = std::pin::pin!(grace);
        let closing = loop {
            let reads = self.owed.len() < self.frontend.max_unanswered
                && self.unanswered.bytes() < self.frontend.max_unanswered_bytes
                && self.room.is_none();
            if reads {
                self.clock.reading(Instant::now());
            }
            let step = tokio::select! {
                biased;
                Some(answer) = self.owed.next() => self.write(answer).await,
                () = grace.as_mut() => Err(Some(Closing { code: CloseCode::Away, reason: "the server is stopping" })),
                room = wait_for(&mut self.room), if self.room.is_some() => {
                    self.room = None;
                    self.socket.give_room(room);
                    Ok(())
                }
                () = wait_for(&mut self.look), if reads && self.look.is_some() => self.look_at_begun(),
                incoming = self.socket.next(), if reads => self.read(incoming).await,
            };
            match step {
                Ok(()) => self.follow_begun(),
                Err(Some(closing)) => break closing,
                Err(None) => return,
            }
        };
        // A connection that can't be told why it ends ends all the same.
        let _ = self.close(closing).await;
    }

    /// Takes one frame, or what came instead of one.
    async fn read(&mut self, incoming: Option<Result<Incoming, SocketError>>) -> Result<(), Option<Closing>> {
        self.clock.busy(Instant::now());
        match incoming {
            // The room is kept until the messages are in the queues of the log, which are bounded themselves.
            Some(Ok(Incoming::Message(message, _room))) => match message {
                Message::Text(text) => self.submit(Encoding::Json, Bytes::from(text)).await,
                Message::Binary(bytes) => self.submit(Encoding::Msgpack, bytes).await,
                // The library has a reply for them.
                Message::Ping(_) | Message::Close(_) => {
                    let flushed = self.socket.flush().map(|flushed| flushed.map_err(|_| Gone));
                    in_time(&self.frontend, flushed).await?;
                }
                Message::Pong(_) | Message::Frame(_) => {}
            },
            Some(Ok(Incoming::Begun)) => {}
            Some(Ok(Incoming::Large(bytes, held))) => {
                let room = self.frontend.room.clone();
                let held = held.unwrap_or_else(|| room.none());
                self.room = Some(async move { room.grow(held, bytes).await }.boxed());
            }
            Some(Err(error)) => return Err(self.refuse_unreadable(error)),
            None => return Err(None),
        }
        Ok(())
    }

    /// Remembers when the frame began that is arriving, so that it can't take for ever.
    fn follow_begun(&mut self) {
        let number = self.socket.begun();
        if self.begun.map(|begun| begun.number) == number {
            return;
        }
        let at = self.clock.clock().shows(Instant::now());
        self.begun = number.map(|number| Begun { number, at });
        if self.look.is_none() && self.begun.is_some() {
            self.look = Some(Box::pin(sleep(self.frontend.frame_timeout)));
        }
    }

    /// Closes the connection if the frame that has begun has had its time. Time in which nothing was read does not count.
    fn look_at_begun(&mut self) -> Result<(), Option<Closing>> {
        self.look = None;
        let Some(begun) = self.begun else { return Ok(()) };
        let age = self.clock.clock().shows(Instant::now()).saturating_sub(begun.at);
        let left = self.frontend.frame_timeout.saturating_sub(age);
        if left.is_zero() {
            self.frontend.metrics.timed_out.get_or_create(&TimeoutLabel::FRAME).inc();
            return Err(Some(Closing {
                code: CloseCode::Policy,
                reason: "a frame that had begun did not end within limits.frame-timeout",
            }));
        }
        self.look = Some(Box::pin(sleep(left)));
        Ok(())
    }

    async fn submit(&mut self, encoding: Encoding, bytes: Bytes) {
        self.last_encoding = encoding;
        let router = &self.frontend.router;
        let (answer, waiting) = match decode_frame(encoding, &bytes, &self.frontend.limits) {
            Ok(frame) => {
                let submitted = router.submit(frame, &self.clock).await;
                let waiting = bytes.len().saturating_add(submitted.refused_bytes());
                (async move { (encoding, submitted.answer().await, waiting) }.boxed(), waiting)
            }
            Err(refusal) => {
                let answer = router.refuse(None, refusal);
                (std::future::ready((encoding, answer, bytes.len())).boxed(), bytes.len())
            }
        };
        self.unanswered.add(waiting);
        self.owed.push_back(answer);
    }

    /// What a client hears of a frame that could not be read. The stream is lost after it, so the connection closes.
    fn refuse_unreadable(&mut self, error: SocketError) -> Option<Closing> {
        let (refusal, closing) = match error {
            SocketError::Capacity(_) => {
                let message = format!("found a frame above the bound of {} bytes", self.frontend.max_frame);
                (Refusal::too_large(message), Closing { code: CloseCode::Size, reason: "frame too large" })
            }
            SocketError::Utf8(_) => {
                let refusal = Refusal::bad_frame("found a text frame that is not UTF-8");
                (refusal, Closing { code: CloseCode::Invalid, reason: "text is not UTF-8" })
            }
            SocketError::Protocol(error) => {
                tracing::debug!(%error, "a client broke the WebSocket protocol");
                return Some(Closing { code: CloseCode::Protocol, reason: "WebSocket protocol error" });
            }
            _ => return None,
        };
        let answer = self.frontend.router.refuse(None, refusal);
        self.owed.push_back(std::future::ready((self.last_encoding, answer, 0)).boxed());
        Some(closing)
    }

    /// Writes an answer and every further one that is ready, then flushes once.
    async fn write(&mut self, answer: Written) -> Result<(), Option<Closing>> {
        self.clock.busy(Instant::now());
        let writing = async {
            let mut next = Some(answer);
            while let Some((encoding, answer, waited)) = next {
                self.socket.feed(encoding, answer.encode(encoding)).await.map_err(|_| Gone)?;
                self.unanswered.answered(waited);
                next = self.owed.next().now_or_never().flatten();
            }
            self.socket.flush().await.map_err(|_| Gone)
        };
        in_time(&self.frontend, writing).await
    }

    /// Gives the answers that are still owed, then says why and closes.
    async fn close(&mut self, closing: Closing) -> Result<(), Gone> {
        while let Some(answer) = self.owed.next().await {
            self.write(answer).await.map_err(|_| Gone)?;
        }
        let frame = CloseFrame { code: closing.code, reason: closing.reason.into() };
        let closed = timeout(CLOSE_TIMEOUT, self.socket.close(frame)).await;
        closed.map_err(|_| Gone)?.map_err(|_| Gone)
    }
}

/// Writes for as long as a client may take to accept what it is sent: one that sends without ever reading its answers is not
/// waited for.
async fn in_time(
    frontend: &Frontend,
    writing: impl Future<Output = Result<(), Gone>>,
) -> Result<(), Option<Closing>> {
    let stopped = async {
        frontend.stop.cancelled().await;
        sleep(2 * SHUTDOWN_GRACE).await;
    };
    let written = async {
        tokio::select! {
            written = writing => written,
            () = stopped => Err(Gone),
        }
    };
    match timeout(frontend.frame_timeout, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Gone)) => Err(None),
        Err(_) => {
            frontend.metrics.timed_out.get_or_create(&TimeoutLabel::WRITE).inc();
            Err(None)
        }
    }
}

/// Waits for what is there; for ever if nothing is.
async fn wait_for<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

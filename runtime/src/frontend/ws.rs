//! `GET /agent`: agents over WebSocket. Text frames carry JSON, binary frames MessagePack; every frame gets one answer, in
//! the order of the frames, in the encoding of the frame.
//!
//! One task serves a connection. It reads on while answers are outstanding, up to `max_unanswered` of them; then it stops
//! reading, and TCP tells the client. Nothing is buffered beyond that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router as Routes;
use axum::extract::State;
use axum::extract::ws::{
    CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error as SocketError;
use wharf_protocol::{Answer, Encoding, Refusal, decode_frame};

use crate::frontend::rest::Rejection;
use crate::frontend::{Frontend, SHUTDOWN_GRACE};
use crate::presence::clock;

/// What is read from a socket at once. Small, because every idle agent keeps one: ten thousand take 80 MiB.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Answers are gathered up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// The most that a close handshake may take: an agent that does not answer the close is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// `GET /agent`.
pub fn routes() -> Routes<Arc<Frontend>> {
    Routes::new().route("/agent", get(upgrade))
}

async fn upgrade(
    State(frontend): State<Arc<Frontend>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let message = format!("expected a WebSocket upgrade on this path: {}", rejection.body_text());
            let refusal = Refusal::bad_frame(message);
            return Rejection { refusal, encoding: Encoding::Json }.into_response();
        }
    };
    let sockets = frontend.sockets.clone();
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(frontend.max_frame)
        .max_frame_size(frontend.max_frame)
        .on_upgrade(move |socket| sockets.track_future(Connection::new(frontend, socket).serve()))
}

type Written = (Encoding, Answer);

struct Connection {
    frontend: Arc<Frontend>,
    frames: SplitStream<WebSocket>,
    answers: SplitSink<WebSocket, Message>,
    /// Answers that are owed, in the order of their frames.
    owed: FuturesOrdered<BoxFuture<'static, Written>>,
    /// Presence's clock runs while the connection is read.
    clock: clock::Connection,
    /// The encoding of the last frame: what a frame that was too large to read is answered in.
    last_encoding: Encoding,
}

/// Why a connection ends.
struct Closing {
    code: u16,
    reason: &'static str,
}

/// The client left, or the connection broke: there is nobody to tell.
struct Gone;

impl Connection {
    fn new(frontend: Arc<Frontend>, socket: WebSocket) -> Connection {
        let (answers, frames) = socket.split();
        Connection {
            frontend,
            frames,
            answers,
            owed: FuturesOrdered::new(),
            clock: clock::Connection::new(Instant::now()),
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
            let reads = self.owed.len() < self.frontend.max_unanswered;
            if reads {
                self.clock.reading(Instant::now());
            }
            let step = tokio::select! {
                biased;
                Some(answer) = self.owed.next() => self.write(answer).await,
                () = grace.as_mut() => Err(Some(Closing { code: close_code::AWAY, reason: "the server is stopping" })),
                frame = self.frames.next(), if reads => self.read(frame).await,
            };
            match step {
                Ok(()) => {}
                Err(Some(closing)) => break closing,
                Err(None) => return,
            }
        };
        // A connection that can't be told why it ends ends all the same.
        let _ = self.close(closing).await;
    }

    /// Takes one frame, or what came instead of one.
    async fn read(&mut self, frame: Option<Result<Message, axum::Error>>) -> Result<(), Option<Closing>> {
        self.clock.busy(Instant::now());
        match frame {
            Some(Ok(Message::Text(text))) => self.submit(Encoding::Json, Bytes::from(text)).await,
            Some(Ok(Message::Binary(bytes))) => self.submit(Encoding::Msgpack, bytes).await,
            // Pings are answered and closes returned by the library.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
            Some(Err(error)) => return Err(self.refuse_unreadable(error)),
            None => return Err(None),
        }
        Ok(())
    }

    async fn submit(&mut self, encoding: Encoding, bytes: Bytes) {
        self.last_encoding = encoding;
        let router = &self.frontend.router;
        let answer = match decode_frame(encoding, &bytes, &self.frontend.limits) {
            Ok(frame) => {
                let submitted = router.submit(frame, &self.clock).await;
                async move { (encoding, submitted.answer().await) }.boxed()
            }
            Err(refusal) => {
                let answer = router.refuse(None, refusal);
                std::future::ready((encoding, answer)).boxed()
            }
        };
        self.owed.push_back(answer);
    }

    /// What a client hears of a frame that could not be read. The stream is lost after it, so the connection closes.
    fn refuse_unreadable(&mut self, error: axum::Error) -> Option<Closing> {
        let error = error.into_inner();
        let (refusal, closing) = match error.downcast_ref::<SocketError>() {
            Some(SocketError::Capacity(_)) => {
                let message = format!("found a frame above the bound of {} bytes", self.frontend.max_frame);
                (Refusal::too_large(message), Closing { code: close_code::SIZE, reason: "frame too large" })
            }
            Some(SocketError::Utf8(_)) => {
                let refusal = Refusal::bad_frame("found a text frame that is not UTF-8");
                (refusal, Closing { code: close_code::INVALID, reason: "text is not UTF-8" })
            }
            Some(SocketError::Protocol(error)) => {
                tracing::debug!(%error, "a client broke the WebSocket protocol");
                return Some(Closing { code: close_code::PROTOCOL, reason: "WebSocket protocol error" });
            }
            _ => return None,
        };
        let answer = self.frontend.router.refuse(None, refusal);
        self.owed.push_back(std::future::ready((self.last_encoding, answer)).boxed());
        Some(closing)
    }

    /// Writes an answer and every further one that is ready, then flushes once.
    async fn write(&mut self, answer: Written) -> Result<(), Option<Closing>> {
        self.clock.busy(Instant::now());
        let writing = async {
            let mut next = Some(answer);
            while let Some((encoding, answer)) = next {
                self.answers.feed(encode(encoding, &answer)).await.map_err(|_| Gone)?;
                next = self.owed.next().now_or_never().flatten();
            }
            self.answers.flush().await.map_err(|_| Gone)
        };
        let stop = self.frontend.stop.clone();
        let writing = async {
            tokio::select! {
                written = writing => written,
                () = async { stop.cancelled().await; sleep(2 * SHUTDOWN_GRACE).await } => Err(Gone),
            }
        };
        match timeout(self.frontend.request_timeout, writing).await {
            Ok(Ok(())) => Ok(()),
            // A client that sends without ever reading its answers is not waited for.
            Ok(Err(Gone)) | Err(_) => Err(None),
        }
    }

    /// Gives the answers that are still owed, then says why and closes.
    async fn close(&mut self, closing: Closing) -> Result<(), Gone> {
        while let Some(answer) = self.owed.next().await {
            self.write(answer).await.map_err(|_| Gone)?;
        }
        let frame = CloseFrame { code: closing.code, reason: closing.reason.into() };
        let handshake = async {
            self.answers.send(Message::Close(Some(frame))).await.map_err(|_| Gone)?;
            while let Some(Ok(_)) = self.frames.next().await {}
            Ok(())
        };
        timeout(CLOSE_TIMEOUT, handshake).await.unwrap_or(Err(Gone))
    }
}

fn encode(encoding: Encoding, answer: &Answer) -> Message {
    let bytes = answer.encode(encoding);
    match encoding {
        // The encoder writes JSON from valid text only; a client could do nothing with a broken answer either way.
        Encoding::Json => Message::Text(String::from_utf8_lossy(&bytes).into_owned().into()),
        Encoding::Msgpack => Message::Binary(bytes.into()),
    }
}

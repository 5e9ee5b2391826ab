//! A client of Wharf's own WebSocket protocol: frames go out without waiting, answers come back in the same order.
//!
//! A [`Connection`] lives as long as its socket. It does not reconnect; it hands back what was not answered, and whoever
//! owns the messages decides what to do with them.

use std::{
    collections::VecDeque,
    error::Error,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self,
        protocol::{CloseFrame, Message, WebSocketConfig, frame::Utf8Bytes},
    },
};
use wharf_protocol::{Answer, AnswerError, Code, Encoding, Request, encode_batch, encode_frame};

pub use endpoint::{DEFAULT_ENDPOINT, Endpoint, EndpointError};

mod endpoint;
#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;

/// A handshake takes two round trips; what takes longer than this is a host that drops packets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a frame may stay unanswered while no other is answered either. A server that must hold its agents back may
/// well take seconds; after this the other end is taken for gone, which a TCP socket alone may not notice for hours.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A good-bye is a courtesy: nothing that matters waits for it longer than this.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest answer that is read. It names every refused message of a batch in a few hundred bytes, so this is room
/// for tens of thousands of them.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// What is gathered before the socket is written to. Big enough that a write costs little against what it carries, and
/// all that a connection buffers beside its window.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// What is read from the socket at once: answers are small. The library's own 128 KiB would be zeroed before each read.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The close code with which a server ends a connection that it does not authorize.
const CLOSE_UNAUTHORIZED: u16 = 4401;

/// What went wrong below the protocol.
type Cause = Box<dyn Error + Send + Sync>;

/// Why a connection could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no server, or what is there refused the handshake.
    #[error("connect to {endpoint}")]
    Connect {
        /// The address that was tried.
        endpoint: Endpoint,
        /// What went wrong.
        source: Cause,
    },
    /// Nothing answered the handshake in time.
    #[error("connect to {endpoint} within {CONNECT_TIMEOUT:?}")]
    ConnectTimeout {
        /// The address that was tried.
        endpoint: Endpoint,
    },
    /// The socket broke.
    #[error("keep the connection")]
    Lost {
        /// What went wrong.
        source: Cause,
    },
    /// The server closed the connection, with a code and a reason if it gave them.
    #[error("keep the connection: the server closed it{}", describe(.0.as_ref()))]
    Closed(Option<CloseFrame>),
    /// The server is connected and says nothing.
    #[error("get an answer within {ANSWER_TIMEOUT:?}")]
    Silent,
    /// What came is not an answer.
    #[error("understand an answer of the server")]
    Incomprehensible {
        /// What is wrong with it.
        source: AnswerError,
    },
    /// More answers came than frames were sent.
    #[error("match an answer to a frame: all frames were answered already")]
    Unasked,
}

impl ClientError {
    /// The error and everything that led to it in one line, which fits after "failed to".
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }

    /// Whether a new connection may fare better. Not if the server said that this client may not speak to it, nor if it
    /// speaks something else than this protocol.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout { .. } | Self::Lost { .. } | Self::Silent => true,
            Self::Closed(frame) => {
                frame.as_ref().is_none_or(|frame| u16::from(frame.code) != CLOSE_UNAUTHORIZED)
            }
            Self::Incomprehensible { .. } | Self::Unasked => false,
        }
    }
}

/// The error itself: the one around it would only repeat its text.
fn cause(error: tungstenite::Error) -> Cause {
    match error {
        tungstenite::Error::Io(error) => error.into(),
        tungstenite::Error::Protocol(error) => error.into(),
        error => error.into(),
    }
}

/// Whether the same call may be accepted later, without anyone changing it.
pub fn is_transient(code: Code) -> bool {
    matches!(code, Code::Overloaded | Code::ShuttingDown)
}

fn describe(close: Option<&CloseFrame>) -> String {
    match close {
        Some(frame) if frame.reason.is_empty() => format!(" with code {}", u16::from(frame.code)),
        Some(frame) => format!(" with code {}, {:?}", u16::from(frame.code), frame.reason.as_str()),
        None => String::new(),
    }
}

/// An encoded frame, ready to be sent any number of times. A copy shares its bytes.
#[derive(Debug, Clone)]
pub struct Frame(Message);

impl Frame {
    /// One call as a frame of its own, several as a batch.
    pub fn encode(requests: &[Request], encoding: Encoding) -> Self {
        let bytes = Bytes::from(match requests {
            [request] => encode_frame(request, None, encoding),
            requests => encode_batch(requests, None, encoding),
        });
        Self(match encoding {
            // Encoded JSON is UTF-8; were it not, a server would refuse the empty frame.
            Encoding::Json => Message::Text(Utf8Bytes::try_from(bytes).unwrap_or_default()),
            Encoding::Msgpack => Message::Binary(bytes),
        })
    }
}

/// One WebSocket and the frames on it that are not answered yet, each with a tag by which the caller knows it.
pub struct Connection<T> {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    window: usize,
    unanswered: VecDeque<T>,
    /// Answers that were read while a frame could not be written. There are at most as many as unanswered frames.
    early: VecDeque<Answer>,
    failure: Option<ClientError>,
    /// When an answer came last, or a frame was sent while none was unanswered.
    progress: Instant,
}

impl<T> Connection<T> {
    /// Connects. `window` is how many frames may be unanswered at a time, at least one.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] and [`ClientError::ConnectTimeout`].
    pub async fn open(endpoint: &Endpoint, window: usize) -> Result<Self, ClientError> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_message_size(Some(MAX_ANSWER_BYTES))
            .max_frame_size(Some(MAX_ANSWER_BYTES));
        // Frames are gathered here already; the system's own gathering would only delay the last one.
        let disable_nagle = true;
        let connecting = Box::pin(connect_async_with_config(endpoint.as_str(), Some(config), disable_nagle));
        let (socket, _) = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| ClientError::ConnectTimeout { endpoint: endpoint.clone() })?
            .map_err(|source| ClientError::Connect { endpoint: endpoint.clone(), source: cause(source) })?;
        Ok(Self {
            socket,
            window: window.max(1),
            unanswered: VecDeque::new(),
            early: VecDeque::new(),
            failure: None,
            progress: Instant::now(),
        })
    }

    /// How many frames are unanswered.
    pub fn in_flight(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether the window lets another frame be sent. The caller asks before each [`Connection::send`].
    pub fn has_room(&self) -> bool {
        self.unanswered.len() < self.window
    }

    /// Hands a frame to the socket, waiting while the server does not read, and says whether it had to wait. The frame is on
    /// its way at the latest when [`Connection::answer`] waits. A broken connection shows there too: the frame then counts as
    /// unanswered.
    ///
    /// Dropping this future before it is ready may lose the frame and its tag.
    pub async fn send(&mut self, frame: Frame, tag: T) -> bool {
        debug_assert!(self.has_room(), "the caller asks for room first");
        if self.unanswered.is_empty() {
            self.progress = Instant::now();
        }
        let deadline = self.progress + ANSWER_TIMEOUT;
        let mut frame = Some(frame);
        let mut waited = false;
        let write = poll_fn(|cx| {
            let written = self.poll_write(&mut frame, cx);
            waited |= written.is_pending();
            written
        });
        if timeout_at(deadline, write).await.is_err() {
            self.failure = Some(ClientError::Silent);
        }
        self.unanswered.push_back(tag);
        waited
    }

    /// The next answer, and the tag of its frame. Where no frame is unanswered, this waits for the connection to end.
    /// May be dropped at any time without losing an answer.
    ///
    /// # Errors
    ///
    /// The end of the connection. Whatever was sent and not answered is then in [`Connection::into_unanswered`].
    pub async fn answer(&mut self) -> Result<(T, Answer), ClientError> {
        let deadline = self.progress + ANSWER_TIMEOUT;
        let patient = self.unanswered.is_empty();
        // Most answers of a busy connection are there already and need no timer.
        let answer = match poll_fn(|cx| Poll::Ready(self.poll_answer(cx))).await {
            Poll::Ready(answer) => answer,
            Poll::Pending if patient => poll_fn(|cx| self.poll_answer(cx)).await,
            Poll::Pending => {
                let answer = timeout_at(deadline, poll_fn(|cx| self.poll_answer(cx))).await;
                answer.unwrap_or(Err(ClientError::Silent))
            }
        }?;
        let tag = self.unanswered.pop_front().ok_or(ClientError::Unasked)?;
        Ok((tag, answer))
    }

    /// Closes the connection in an orderly way, if the other end does its part soon.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_TIMEOUT, self.socket.close(None)).await;
    }

    /// The tags of the frames that were not answered, in the order they were sent. The server may have handled them.
    pub fn into_unanswered(self) -> VecDeque<T> {
        self.unanswered
    }

    /// Writes the frame, reading answers while that must wait: a server whose own answers are not read stops reading.
    fn poll_write(&mut self, frame: &mut Option<Frame>, cx: &mut Context<'_>) -> Poll<()> {
        while self.failure.is_none() {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(ready) => {
                    let written = ready.and_then(|()| match frame.take() {
                        Some(frame) => Pin::new(&mut self.socket).start_send(frame.0),
                        None => Ok(()),
                    });
                    if let Err(source) = written {
                        self.fail_to_write(source);
                    }
                    return Poll::Ready(());
                }
                Poll::Pending => match self.poll_read(cx) {
                    Poll::Ready(Ok(answer)) => self.early.push_back(answer),
                    Poll::Ready(Err(failure)) => self.failure = Some(failure),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
        Poll::Ready(())
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, ClientError>> {
        if let Some(answer) = self.early.pop_front() {
            return Poll::Ready(Ok(answer));
        }
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        if let Poll::Ready(answer) = self.poll_read(cx) {
            return Poll::Ready(answer);
        }
        // Nothing is there to be read, so whatever was gathered is what the server waits for.
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Ready(Err(source)) => {
                self.fail_to_write(source);
                self.poll_answer(cx)
            }
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, ClientError>> {
        loop {
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(source))) => {
                    return Poll::Ready(Err(ClientError::Lost { source: cause(source) }));
                }
                Poll::Ready(None) => return Poll::Ready(Err(ClientError::Closed(None))),
                Poll::Pending => return Poll::Pending,
            };
            let decoded = match &message {
                Message::Text(text) => Answer::decode(Encoding::Json, text.as_bytes()),
                Message::Binary(bytes) => Answer::decode(Encoding::Msgpack, bytes),
                Message::Close(frame) => return Poll::Ready(Err(ClientError::Closed(frame.clone()))),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            self.progress = Instant::now();
            return Poll::Ready(if self.early.len() < self.unanswered.len() {
                decoded.map_err(|source| ClientError::Incomprehensible { source })
            } else {
                Err(ClientError::Unasked)
            });
        }
    }

    /// A server that closes says why before the socket refuses to be written to, and may have answered before that. So
    /// what has arrived is read before the connection is given up.
    fn fail_to_write(&mut self, source: tungstenite::Error) {
        let mut failure = ClientError::Lost { source: cause(source) };
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(read) = self.poll_read(&mut cx) {
            match read {
                Ok(answer) => self.early.push_back(answer),
                Err(ClientError::Lost { .. }) => break,
                Err(better) => {
                    failure = better;
                    break;
                }
            }
        }
        self.failure = Some(failure);
    }
}

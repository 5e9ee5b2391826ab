//! A WebSocket whose memory is known: between messages it has its two small buffers, and a message that becomes larger than they
//! are is read only into room that was taken for it, and its buffer goes with it.
//!
//! The protocol is the library's (`tungstenite`). This file moves the bytes, watching them, so that it knows when the
//! library's buffers are empty and can be replaced: the library itself keeps a buffer as large as its largest frame.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};
use wharf_protocol::Encoding;

use super::scanner::{Announced, Scanner};
use crate::frontend::room::{FREE_BYTES, Taken, next_step};

/// What is read from a socket at once. Small, because every idle agent keeps one: ten thousand take 80 MiB.
const READ_BUFFER_BYTES: usize = FREE_BYTES;
/// Answers are gathered up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// An answer that is longer is sent in fragments of this size, so that the write buffer, which is kept, stays small. Only
/// batches with very many wrong calls have such answers.
const MAX_WRITTEN_BYTES: usize = 16 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Socket {
    stream: TokioIo<Upgraded>,
    library: WebSocketContext,
    max_frame: usize,
    scanner: Scanner,
    /// Room for the message that is arriving.
    room: Option<Taken>,
    /// The message of which it was said that it has begun.
    told: Option<u64>,
    has_ended: bool,
}

/// What comes from a client.
#[derive(Debug)]
pub enum Incoming {
    /// A message or control frame, with the room that it takes until it is dropped.
    Message(Message, Option<Taken>),
    /// A message has begun whose end is not here yet: see [`Socket::begun`].
    Begun,
    /// A large message is arriving that needs room for so many bytes in all, with the room that it has. Nothing more is read until
    /// [`Socket::give_room`].
    Large(usize, Option<Taken>),
}

impl Socket {
    /// A socket whose handshake is over. `max_frame` is the largest message, in bytes.
    pub fn new(upgraded: Upgraded, max_frame: usize) -> Socket {
        Socket {
            stream: TokioIo::new(upgraded),
            library: library(max_frame),
            max_frame,
            scanner: Scanner::default(),
            room: None,
            told: None,
            has_ended: false,
        }
    }

    /// The next that comes; `None` at the end, and after an error. Can be dropped and called again. Who gets a ping or a close
    /// must call [`Socket::flush`] before it reads on, or the replies to a flood of pings pile up.
    pub async fn next(&mut self) -> Option<Result<Incoming, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The room that [`Incoming::Large`] asked for.
    pub fn give_room(&mut self, room: Taken) {
        self.room = Some(room);
    }

    /// The number of the message that has begun to arrive and not ended.
    pub fn begun(&self) -> Option<u64> {
        self.scanner.begun()
    }

    /// Sends a message, of which a part may wait for [`Socket::flush`].
    pub async fn feed(&mut self, encoding: Encoding, bytes: Vec<u8>) -> Result<(), Error> {
        let mut bytes = Bytes::from(bytes);
        let mut data = match encoding {
            Encoding::Json => Data::Text,
            Encoding::Msgpack => Data::Binary,
        };
        loop {
            let part = bytes.split_to(bytes.len().min(MAX_WRITTEN_BYTES));
            let is_last = bytes.is_empty();
            self.write(Message::Frame(Frame::message(part, OpCode::Data(data), is_last))).await?;
            if is_last {
                return Ok(());
            }
            data = Data::Continue;
        }
    }

    /// Waits until everything was written.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says why the connection ends, and waits until the client has said so too. What else arrives is thrown away.
    pub async fn close(&mut self, frame: CloseFrame) -> Result<(), Error> {
        self.write(Message::Close(Some(frame))).await?;
        while let Some(Ok(Incoming::Message(..) | Incoming::Begun)) = self.next().await {}
        Ok(())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match self.with_library(cx, |library, io| library.read(io)) {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                let room = self.room.take();
                // With room, nothing was read beyond the message: the library's read buffer is empty, and without a close
                // under way or an answer half written there is nothing else in it.
                if room.is_some() && self.library.can_read() && self.library.can_write() {
                    self.library = library(self.max_frame);
                }
                Poll::Ready(Some(Ok(Incoming::Message(message, room))))
            }
            Ok(message) => Poll::Ready(Some(Ok(Incoming::Message(message, None)))),
            Err(error) if would_block(&error) => {
                if let Some(error) = too_large(&self.scanner, self.max_frame) {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                let begun = self.scanner.begun();
                if begun.is_some() && begun != self.told {
                    self.told = begun;
                    return Poll::Ready(Some(Ok(Incoming::Begun)));
                }
                match missing_room(&self.scanner, self.room.as_ref(), self.max_frame) {
                    Some(bytes) => Poll::Ready(Some(Ok(Incoming::Large(bytes, self.room.take())))),
                    None => Poll::Pending,
                }
            }
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                self.has_ended = true;
                Poll::Ready(None)
            }
            Err(error) => {
                self.has_ended = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    async fn write(&mut self, message: Message) -> Result<(), Error> {
        let mut message = Some(message);
        poll_fn(|cx| {
            if let Some(message) = message.take() {
                match self.with_library(cx, |library, io| library.write(io, message)) {
                    // The library has it, and the socket takes no more now.
                    Err(error) if would_block(&error) => {}
                    written => return Poll::Ready(written),
                }
            }
            self.poll_flush(cx)
        })
        .await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.with_library(cx, |library, io| library.flush(io)) {
            Err(error) if would_block(&error) => Poll::Pending,
            flushed => Poll::Ready(flushed),
        }
    }

    fn with_library<T>(
        &mut self,
        cx: &mut Context<'_>,
        run: impl FnOnce(&mut WebSocketContext, &mut Io<'_, '_>) -> T,
    ) -> T {
        let Socket { stream, library, max_frame, scanner, room, .. } = self;
        run(library, &mut Io { stream, scanner, room: room.as_ref(), max_frame: *max_frame, cx })
    }
}

fn library(max_frame: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(max_frame))
        .max_frame_size(Some(max_frame));
    WebSocketContext::new(Role::Server, Some(config))
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// What is wrong with what is arriving, if that can be known before it is there. The library would read it first.
fn too_large(scanner: &Scanner, max_frame: usize) -> Option<Error> {
    let size = usize::try_from(scanner.announced().bytes).unwrap_or(usize::MAX);
    if scanner.is_control_too_large() {
        Some(ProtocolError::ControlFrameTooBig.into())
    } else if size > max_frame {
        Some(CapacityError::MessageTooLong { size, max_size: max_frame }.into())
    } else {
        None
    }
}

/// How many bytes of a message may be held.
fn held(room: Option<&Taken>) -> usize {
    room.map_or(FREE_BYTES, |room| room.bytes().max(FREE_BYTES))
}

/// Room that has to be there for the message that is arriving, before more of it is read.
fn missing_room(scanner: &Scanner, room: Option<&Taken>, max_frame: usize) -> Option<usize> {
    let Announced { bytes, arrived, whole } = scanner.announced();
    let [bytes, arrived] = [bytes, arrived].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let held = held(room);
    if bytes <= held || arrived < held {
        return None;
    }
    // How large a message of several frames becomes is not known before its end.
    Some(next_step(arrived, if whole { bytes } else { max_frame }))
}

/// How much may be read at once: of a large message only as much as there is room for, and nothing beyond it, because what follows
/// is not to be in its buffer.
fn readable(scanner: &Scanner, room: Option<&Taken>) -> usize {
    let Announced { bytes, arrived, .. } = scanner.announced();
    let [bytes, arrived] = [bytes, arrived].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if bytes <= FREE_BYTES {
        return usize::MAX;
    }
    let left = scanner.left_of_frame();
    // Headers, and control frames between its parts, are none of its bytes.
    if arrived < bytes { left.min(held(room).saturating_sub(arrived)) } else { left }
}

/// The socket as the library wants it: it says `WouldBlock` and wakes the task later.
struct Io<'a, 'cx> {
    stream: &'a mut TokioIo<Upgraded>,
    scanner: &'a mut Scanner,
    room: Option<&'a Taken>,
    max_frame: usize,
    cx: &'a mut Context<'cx>,
}

impl Read for Io<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if too_large(self.scanner, self.max_frame).is_some()
            || missing_room(self.scanner, self.room, self.max_frame).is_some()
        {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = buffer.len().min(readable(self.scanner, self.room));
        let mut buffer = ReadBuf::new(buffer.get_mut(..most).unwrap_or_default());
        match Pin::new(&mut *self.stream).poll_read(self.cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                self.scanner.scan(buffer.filled());
                Ok(buffer.filled().len())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Io<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.stream).poll_write(self.cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.stream).poll_flush(self.cx))
    }
}

fn now<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

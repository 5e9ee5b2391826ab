//! A server for tests that does exactly what its test says. Panics where the client does something else.

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{Message, protocol::CloseFrame},
};
use wharf_protocol::{Answer, Encoding, Frame, Limits, Refusal, Request, decode_frame};

use super::Endpoint;

/// A server that waits for connections.
pub struct Fake {
    listener: TcpListener,
}

/// One of its connections.
pub struct Served {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
}

impl Fake {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn endpoint(&self) -> Endpoint {
        format!("ws://{}/agent", self.listener.local_addr().unwrap()).parse().unwrap()
    }

    pub async fn accept(&self) -> Served {
        let (socket, _) = self.listener.accept().await.unwrap();
        Served { socket: accept_async(socket).await.unwrap(), encoding: Encoding::Json }
    }
}

impl Served {
    /// The calls of the next frame, or nothing where the client closed.
    pub async fn frame(&mut self) -> Option<Vec<Request>> {
        let message = self.socket.next().await.unwrap().unwrap();
        self.encoding = match &message {
            Message::Text(_) => Encoding::Json,
            Message::Binary(_) => Encoding::Msgpack,
            Message::Close(_) => return None,
            other => panic!("unexpected {other:?}"),
        };
        let frame = decode_frame(self.encoding, &message.into_data(), &Limits::default());
        Some(match frame.unwrap() {
            Frame::One { request, .. } => vec![request.unwrap()],
            Frame::Batch { requests, .. } => requests.into_iter().map(Result::unwrap).collect(),
        })
    }

    pub async fn answer(&mut self, answer: Answer) {
        let bytes = answer.encode(self.encoding);
        let message = match self.encoding {
            Encoding::Json => Message::text(String::from_utf8(bytes).unwrap()),
            Encoding::Msgpack => Message::binary(bytes),
        };
        self.socket.send(message).await.unwrap();
    }

    /// Accepts as many calls as were in the frame.
    pub async fn accept(&mut self, calls: usize) {
        self.answer(match calls {
            1 => Answer::Success { reference: None, token: None },
            _ => {
                Answer::Batch { reference: None, accepted: u64::try_from(calls).unwrap(), errors: Vec::new() }
            }
        })
        .await;
    }

    pub async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket.close(Some(frame)).await.unwrap();
    }

    pub async fn refuse(&mut self, refusal: Refusal) {
        self.answer(Answer::Error { reference: None, refusal }).await;
    }
}

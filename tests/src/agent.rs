//! An agent that speaks WebSocket, well or badly as a test wants.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::encoding::Encoding;
use crate::wait::within;

/// One connection.
#[derive(Debug)]
pub struct Agent {
    socket: WebSocketStream<TcpStream>,
}

impl Agent {
    /// Connects to `/agent`.
    pub async fn connect(address: SocketAddr) -> Agent {
        Agent::open(address, "/agent").await.expect("an agent is let in")
    }

    /// Connects to a path, if the server lets it.
    pub async fn open(address: SocketAddr, path: &str) -> Result<Agent, Error> {
        within("a WebSocket", async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            // Small buffers: a test may hold a thousand connections.
            let config = WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0);
            let url = format!("ws://{address}{path}");
            let (socket, _) = client_async_with_config(url, stream, Some(config)).await?;
            Ok(Agent { socket })
        })
        .await
    }

    /// Sends a frame.
    pub async fn send(&mut self, encoding: Encoding, frame: &Value) {
        self.send_bytes(encoding, encoding.encode(frame)).await;
    }

    /// Sends bytes as a frame of that encoding, whatever they are.
    pub async fn send_bytes(&mut self, encoding: Encoding, bytes: impl Into<Vec<u8>>) {
        self.try_send_bytes(encoding, bytes).await.expect("the server reads");
    }

    /// Sends bytes as a frame, unless the connection is over.
    pub async fn try_send_bytes(
        &mut self,
        encoding: Encoding,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<(), Error> {
        self.try_send(fragment(encoding, bytes, true)).await
    }

    /// Sends a frame, however long the server takes to read it.
    pub async fn send_patiently(
        &mut self,
        encoding: Encoding,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<(), Error> {
        self.socket.send(fragment(encoding, bytes, true)).await
    }

    /// Sends a message in fragments.
    pub async fn send_fragments(&mut self, encoding: Encoding, parts: &[&[u8]]) {
        let last = parts.len() - 1;
        for (index, part) in parts.iter().enumerate() {
            let frame = match index {
                0 => fragment(encoding, *part, index == last),
                _ => {
                    Message::Frame(Frame::message(part.to_vec(), OpCode::Data(Data::Continue), index == last))
                }
            };
            self.try_send(frame).await.expect("the server reads");
        }
    }

    /// Sends whatever it is.
    pub async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        within("the server to read", self.socket.send(message)).await
    }

    /// The next answer and its encoding.
    pub async fn answer(&mut self) -> (Encoding, Value) {
        match self.try_answer().await {
            Ok(answer) => answer,
            Err(end) => panic!("got no answer: {end:?}"),
        }
    }

    /// The next answer and its encoding, or how the connection ended.
    pub async fn try_answer(&mut self) -> Result<(Encoding, Value), End> {
        loop {
            let encoding = match self.next("an answer").await? {
                Message::Text(text) => return Ok((Encoding::Json, Encoding::Json.decode(text.as_bytes()))),
                Message::Binary(bytes) => return Ok((Encoding::Msgpack, Encoding::Msgpack.decode(&bytes))),
                other => other,
            };
            assert!(encoding.is_ping() || encoding.is_pong(), "got {encoding:?} in place of an answer");
        }
    }

    /// Sends a frame and gives its answer, which must be in the same encoding.
    pub async fn call(&mut self, encoding: Encoding, frame: &Value) -> Value {
        self.call_bytes(encoding, encoding.encode(frame)).await
    }

    /// Sends bytes as a frame and gives their answer, which must be in the same encoding.
    pub async fn call_bytes(&mut self, encoding: Encoding, bytes: impl Into<Vec<u8>>) -> Value {
        self.send_bytes(encoding, bytes).await;
        let (answered_in, answer) = self.answer().await;
        assert_eq!(answered_in, encoding, "{answer}");
        answer
    }

    /// The next text frame, as a browser gets it.
    pub async fn text(&mut self) -> String {
        match self.next("a text frame").await {
            Ok(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("got {other:?} in place of a text frame"),
        }
    }

    /// Waits for the close of the server, after which nothing may come, and gives its code.
    pub async fn close_code(&mut self) -> u16 {
        match self.next("a close").await {
            Err(End::Closed(Some(code))) => code,
            other => panic!("got {other:?} in place of a close with a code"),
        }
    }

    /// Leaves, and waits until the server has said good-bye.
    pub async fn close(mut self) {
        within("the close", async {
            self.socket.close(None).await.expect("the connection is open");
            while let Some(Ok(_)) = self.socket.next().await {}
        })
        .await;
    }

    async fn next(&mut self, what: &str) -> Result<Message, End> {
        match within(what, self.socket.next()).await {
            Some(Ok(Message::Close(frame))) => Err(End::Closed(frame.map(|frame| frame.code.into()))),
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(End::Broken(error)),
            None => Err(End::Closed(None)),
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// The server closed it, with a code if it gave one.
    Closed(Option<u16>),
    /// It broke.
    Broken(Error),
}

fn fragment(encoding: Encoding, bytes: impl Into<Vec<u8>>, is_last: bool) -> Message {
    let data = match encoding {
        Encoding::Json => Data::Text,
        Encoding::Msgpack => Data::Binary,
    };
    Message::Frame(Frame::message(bytes.into(), OpCode::Data(data), is_last))
}

//! A TCP connection on which a test writes HTTP or WebSocket frames by hand, whole, in part or wrong.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::within;

/// One connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// Read and not given out.
    buffered: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The status line and the headers, in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("the server accepts");
        Raw { stream, buffered: Vec::new() }
    }

    /// A WebSocket of an agent, past its handshake.
    pub async fn websocket(address: SocketAddr) -> Raw {
        let mut raw = Raw::connect(address).await;
        raw.write(format!(
            "GET /agent HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
        let response = raw.response().await;
        assert_eq!(response.status, 101, "{}", response.head);
        raw
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        within("the server to read", self.stream.write_all(bytes.as_ref()))
            .await
            .expect("the connection is open");
    }

    /// The next answer. It may be an interim one, such as `100 Continue`.
    pub async fn response(&mut self) -> Response {
        let head = self.take_until(b"\r\n\r\n").await.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("an answer begins with a status line: {head:?}"));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().expect("a length is a number"));
        while self.buffered.len() < length {
            assert!(self.read().await > 0, "the answer is complete");
        }
        Response { status, head, body: self.buffered.drain(..length).collect() }
    }

    /// Waits until the server has said this.
    pub async fn hear(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.buffered).contains(text) {
            assert!(self.read().await > 0, "the connection ended without {text:?}");
        }
    }

    /// Waits until the server closes the connection, and gives what it said before.
    pub async fn closed(self) -> String {
        String::from_utf8_lossy(&self.ended().await).into_owned()
    }

    /// The same, for what is not text.
    pub async fn ended(mut self) -> Vec<u8> {
        while self.read().await > 0 {}
        self.buffered
    }

    /// Writes one part after the other, each when `pace` lets it, until the server closes the connection, and gives what it
    /// said before.
    pub async fn trickle(
        self,
        parts: impl IntoIterator<Item = Vec<u8>>,
        mut pace: impl AsyncFnMut(),
    ) -> Vec<u8> {
        let Raw { stream, mut buffered } = self;
        let (mut from_server, mut to_server) = stream.into_split();
        let writing = async {
            for part in parts {
                pace().await;
                if to_server.write_all(&part).await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        };
        // A reset is an end too.
        let reading = async { drop(from_server.read_to_end(&mut buffered).await) };
        within("the server to close the connection", async {
            tokio::select! {
                () = writing => {}
                () = reading => {}
            }
        })
        .await;
        buffered
    }

    async fn take_until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.buffered.windows(end.len()).position(|window| window == end) {
                let taken = self.buffered.drain(..at + end.len()).collect();
                return String::from_utf8(taken).expect("a head is text");
            }
            assert!(
                self.read().await > 0,
                "the connection ended after {:?}",
                String::from_utf8_lossy(&self.buffered)
            );
        }
    }

    async fn read(&mut self) -> usize {
        let mut chunk = [0; 4096];
        let read = within("bytes of the server", self.stream.read(&mut chunk)).await;
        // A reset is an end too.
        let read = read.unwrap_or(0);
        self.buffered.extend_from_slice(&chunk[..read]);
        read
    }
}

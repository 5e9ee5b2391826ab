//! The ceiling of what a server can do that speaks WebSocket with this stack, for `make bench`: it answers every frame with
//! the same success, and neither decodes nor stores anything.
//!
//! Arguments: the number of messages in each frame, and `each` to send each answer by itself, which is the plain loop, or
//! `gathered` to answer what has arrived and send all of that at once, which is the most that can be done.

use std::io::Write;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpListener;
use wharf_protocol::{Answer, Encoding};

/// As the server's own frontend has them.
const READ_BUFFER_BYTES: usize = 8 * 1024;
const WRITE_BUFFER_BYTES: usize = 4 * 1024;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [calls, sending] = args.as_slice() else { anyhow::bail!("expected MESSAGES each|gathered") };
    let answers = Answers::new(calls.parse()?)?;
    let gathered = sending == "gathered";
    let upgrade = async move |upgrade: WebSocketUpgrade| {
        upgrade
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .on_upgrade(move |socket| echo(socket, answers, gathered))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "listening agents http://{}", listener.local_addr()?)?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, Router::new().route("/agent", get(upgrade))).await?;
    Ok(())
}

#[derive(Clone)]
struct Answers {
    json: Message,
    msgpack: Message,
}

impl Answers {
    fn new(calls: u64) -> anyhow::Result<Answers> {
        let answer = match calls {
            1 => Answer::Success { reference: None, token: None },
            accepted => Answer::Batch { reference: None, accepted, errors: Vec::new() },
        };
        let json = String::from_utf8(answer.encode(Encoding::Json))?;
        let msgpack = Bytes::from(answer.encode(Encoding::Msgpack));
        Ok(Answers { json: Message::Text(json.into()), msgpack: Message::Binary(msgpack) })
    }

    fn to(&self, frame: &Message) -> Option<Message> {
        match frame {
            Message::Text(_) => Some(self.json.clone()),
            Message::Binary(_) => Some(self.msgpack.clone()),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
        }
    }
}

async fn echo(socket: WebSocket, to: Answers, gathered: bool) {
    let (mut answers, mut frames) = socket.split();
    while let Some(Ok(frame)) = frames.next().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            if let Some(answer) = to.to(&frame)
                && answers.feed(answer).await.is_err()
            {
                return;
            }
            next = if gathered { frames.next().now_or_never().flatten().and_then(Result::ok) } else { None };
        }
        if answers.flush().await.is_err() {
            return;
        }
    }
}

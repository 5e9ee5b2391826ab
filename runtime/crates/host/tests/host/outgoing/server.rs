//! A server on the loopback address whose answers depend on the path, good and bad ones, and which tells what it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Longer than anything here takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server saw.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// A whole request: method and path, the `host` header, the bytes of its body.
    Request { line: String, host: String, body: usize },
    /// The first of the body of a request to `/upload`.
    Begun,
    /// The body of a request began, and was not finished.
    Truncated,
    /// A connection on which an answer was under way was closed by the client.
    Closed,
}

pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Server {
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    pub async fn with_tls(acceptor: TlsAcceptor) -> Self {
        Self::listen(Some(acceptor)).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (sender, seen) = mpsc::unbounded_channel();
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (sender, tls) = (sender.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            // A client that does not trust this server hangs up here.
                            let Ok(stream) = tls.accept(stream).await else { return };
                            serve(stream, sender).await;
                        }
                        None => serve(stream, sender).await,
                    }
                });
            }
        });
        Self { address, connections, seen }
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next thing that the server sees.
    pub async fn next(&mut self) -> Seen {
        timeout(PATIENCE, self.seen.recv()).await.unwrap().unwrap()
    }

    /// Whether nothing was seen that was not asked for.
    pub fn is_idle(&mut self) -> bool {
        self.seen.is_empty()
    }
}

/// Serves one connection until it ends.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: mpsc::UnboundedSender<Seen>) {
    let mut stream = BufStream::new(stream);
    while let Some(Head { line, host, length }) = read_head(&mut stream).await {
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        if path == "/upload" && stream.fill_buf().await.is_ok() {
            seen.send(Seen::Begun).unwrap();
        }
        let Some(body) = read_body(&mut stream, length).await else {
            seen.send(Seen::Truncated).unwrap();
            return;
        };
        seen.send(Seen::Request { line, host, body }).unwrap();
        let keep = match path.as_str() {
            "/hello" => write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await,
            "/chunks" => {
                let answer =
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
                write(&mut stream, answer).await
            }
            "/none" => write(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await,
            "/redirect" => {
                let answer =
                    "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/hello\r\ncontent-length: 0\r\n\r\n";
                write(&mut stream, answer).await
            }
            // An answer, and then the connection is closed without a word of it.
            "/once" => {
                write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
                false
            }
            "/gone" => false,
            "/garbage" => {
                write(&mut stream, "this is not HTTP at all\r\n\r\n").await;
                false
            }
            "/long-head" => {
                let head = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(64 * 1024));
                write(&mut stream, &head).await;
                false
            }
            "/half" => {
                write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
                false
            }
            "/long" => {
                write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
                wait_for_end(&mut stream, &seen).await
            }
            "/pause" => {
                write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
                wait_for_end(&mut stream, &seen).await
            }
            "/endless" => {
                write(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                while write(&mut stream, "5\r\nhello\r\n").await {}
                seen.send(Seen::Closed).unwrap();
                false
            }
            // Also what has no path that is known here.
            _ => wait_for_end(&mut stream, &seen).await,
        };
        if !keep {
            return;
        }
    }
}

struct Head {
    line: String,
    host: String,
    length: Length,
}

enum Length {
    Known(usize),
    Chunked,
}

type Stream<T> = BufStream<T>;

async fn read_head<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut Stream<T>) -> Option<Head> {
    let line = read_line(stream).await?;
    let mut head = Head { line, host: String::new(), length: Length::Known(0) };
    loop {
        let field = read_line(stream).await?;
        match field.split_once(": ") {
            Some(("host", host)) => head.host = host.into(),
            Some(("content-length", length)) => head.length = Length::Known(length.parse().ok()?),
            Some(("transfer-encoding", "chunked")) => head.length = Length::Chunked,
            Some(_) => {}
            None => return Some(head),
        }
    }
}

/// The length of a body; `None` if it ends early.
async fn read_body<T: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut Stream<T>,
    length: Length,
) -> Option<usize> {
    let mut read = 0;
    match length {
        Length::Known(length) => {
            stream.read_exact(&mut vec![0; length]).await.ok()?;
            read = length;
        }
        Length::Chunked => loop {
            let chunk = usize::from_str_radix(&read_line(stream).await?, 16).ok()?;
            stream.read_exact(&mut vec![0; chunk + 2]).await.ok()?;
            read += chunk;
            if chunk == 0 {
                break;
            }
        },
    }
    Some(read)
}

/// A line without its end; `None` at the end of the connection.
async fn read_line<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut Stream<T>) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.strip_suffix("\r\n").map(str::to_owned)
}

/// Whether it could be written.
async fn write<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut Stream<T>, text: &str) -> bool {
    stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok()
}

/// Says nothing more until the client hangs up.
async fn wait_for_end<T: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut Stream<T>,
    seen: &mpsc::UnboundedSender<Seen>,
) -> bool {
    let _ = stream.read_to_end(&mut Vec::new()).await;
    seen.send(Seen::Closed).unwrap();
    false
}

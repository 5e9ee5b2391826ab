//! Opens connections: resolves the name of an origin, checks what it resolved to, and connects to what passed, so that no
//! second look at the name can lead elsewhere. With `https` the server must prove that it is the origin.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::HttpGrant;
use super::address::prohibited;
use super::failure::Failure;
use super::origin::{Host, Origin, Scheme};
use super::pool::Connection;
use super::tls;

/// Names of one receiver that are resolved at a time. The system's resolver holds a thread until it gives up, which may be
/// long after the request did; the threads are the whole process's.
const MAX_LOOKUPS: usize = 4;

/// Addresses of a name that are tried: more would not be reached within the time of a request.
const MAX_ADDRESSES: usize = 8;

/// A connection that HTTP can be spoken on.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens connections for one receiver.
pub(super) struct Connector {
    /// What the grant names as an address.
    named: Vec<SocketAddr>,
    lookups: Arc<Semaphore>,
    lookup_timeout: Duration,
    /// `None` if no origin needs it, or if the system has none.
    tls: Option<TlsConnector>,
}

impl Connector {
    pub(super) fn new(grant: &HttpGrant) -> Self {
        let named = |origin: &Origin| match origin.host() {
            Host::Address(address) => Some(SocketAddr::new(address.to_canonical(), origin.port())),
            Host::Name(_) => None,
        };
        let needs_tls = grant.origins.iter().any(|origin| origin.scheme() == Scheme::Https);
        Self {
            named: grant.origins.iter().filter_map(named).collect(),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            // What is left is for the connection and the answer.
            lookup_timeout: grant.timeout / 2,
            tls: needs_tls.then(tls::connector).flatten(),
        }
    }

    /// Connects to the server of an origin. Whoever calls this gives up at `end`.
    pub(super) async fn connect(&self, origin: &Origin, end: Instant) -> Result<Connection, Failure> {
        let addresses = self.addresses(origin).await?;
        let stream = open(&addresses, end).await?;
        // A request is written at once, and its rest as the guest gives it: nothing is gained by waiting for more.
        stream.set_nodelay(true).map_err(|error| Failure::Connect(error.kind()))?;
        let stream: Box<dyn Stream> = match origin.scheme() {
            Scheme::Http => Box::new(stream),
            Scheme::Https => {
                let tls = self.tls.as_ref().ok_or(Failure::NoTls)?;
                let secured = tls.connect(server_name(origin.host())?, stream).await;
                Box::new(secured.map_err(|error| Failure::of_tls(&error))?)
            }
        };
        Connection::start(origin.clone(), stream).await
    }

    /// Where to connect to: an address that the grant names, or those of a name that passed.
    async fn addresses(&self, origin: &Origin) -> Result<Vec<SocketAddr>, Failure> {
        let name = match origin.host() {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, origin.port())]),
            Host::Name(name) => name,
        };
        let lookup = timeout(self.lookup_timeout, self.lookup(name.clone(), origin.port())).await;
        let found = lookup
            .map_err(|_| Failure::NameTimeout(self.lookup_timeout))?
            .map_err(|error| Failure::Name(error.to_string()))?;
        let mut allowed = Vec::new();
        let mut refused = Failure::Name("it has no address".into());
        for address in found {
            match prohibited(address.ip()) {
                Some(kind) if !self.is_named(address) => {
                    refused = Failure::Prohibited {
                        host: name.clone(),
                        address: address.ip(),
                        kind,
                        wanted: origin.at(address.ip()),
                    };
                }
                _ => allowed.push(address),
            }
        }
        if allowed.is_empty() { Err(refused) } else { Ok(allowed) }
    }

    fn is_named(&self, address: SocketAddr) -> bool {
        self.named.contains(&SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    async fn lookup(&self, name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        let permit = self.lookups.clone().acquire_owned().await.map_err(io::Error::other)?;
        let lookup = move || {
            let _permit = permit;
            (name.as_str(), port).to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect())
        };
        spawn_blocking(lookup).await.map_err(io::Error::other)?
    }
}

/// Connects to the first address that answers. Each gets its share of the time, so that one which is silent leaves some to
/// the others.
async fn open(addresses: &[SocketAddr], end: Instant) -> Result<TcpStream, Failure> {
    let mut failure = Failure::Connect(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in (0..).zip(addresses) {
        let left = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_sub(tried).max(1);
        let time = end.saturating_duration_since(Instant::now());
        match timeout_at(Instant::now() + time / left, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = Failure::Connect(error.kind()),
            Err(_) => failure = Failure::ConnectTimeout(time),
        }
    }
    Err(failure)
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Failure> {
    match host {
        Host::Address(address) => Ok(ServerName::from(IpAddr::to_canonical(address))),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|error| Failure::Tls(error.to_string()))
        }
    }
}

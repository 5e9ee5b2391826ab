//! Checks `Host` and, where a browser sends one, `Origin` of every request, before anything else looks at it.
//!
//! A page that somebody visits anywhere can make their browser send requests to a server on their own machine. `Origin`
//! tells such a page apart; `Host` tells apart a foreign name that was made to resolve to this machine (DNS rebinding).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use wharf_protocol::{Encoding, Refusal};

use crate::frontend::rest::Rejection;

/// Names and origins that a listener answers to.
#[derive(Debug)]
pub struct Guard {
    hosts: HashSet<String>,
    origins: HashSet<String>,
}

impl Guard {
    /// The listener's own address, the names of the loopback interface if it listens there, and what the config adds.
    /// A configured host without a port is allowed with the listener's own port as well as without one.
    pub fn new(address: SocketAddr, allowed_hosts: &[String], allowed_origins: &[String]) -> Guard {
        let port = address.port();
        let mut own = vec![match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        }];
        if address.ip().is_loopback() {
            own.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        }
        // Without a port a name means port 80, where somebody else may listen: an own name counts only with the port.
        let mut hosts: HashSet<String> = own.iter().map(|name| format!("{name}:{port}")).collect();
        if port == 80 {
            hosts.extend(own);
        }
        for name in allowed_hosts.iter().map(|host| host.to_ascii_lowercase()) {
            hosts.insert(format!("{name}:{port}"));
            hosts.insert(name);
        }
        let mut origins: HashSet<String> =
            hosts.iter().flat_map(|host| [format!("http://{host}"), format!("https://{host}")]).collect();
        origins.extend(allowed_origins.iter().map(|origin| origin.to_ascii_lowercase()));
        Guard { hosts, origins }
    }

    fn check(&self, request: &Request) -> Result<(), String> {
        // In HTTP/1.1 the host may also stand in the request line, and then that one counts (RFC 9112, 3.2.2).
        let host = match request.uri().authority() {
            Some(authority) => Some(authority.as_str().to_owned()),
            None => header(request, &HOST)?,
        };
        match host {
            None => return Err("found no `Host` header, expected one".to_owned()),
            Some(host) if !self.hosts.contains(&host.to_ascii_lowercase()) => {
                return Err(format!(
                    "found host {:?}, which this listener does not answer to: if it should, add it to `listen.allowed-hosts`",
                    shorten(&host)
                ));
            }
            Some(_) => {}
        }
        match header(request, &ORIGIN)? {
            Some(origin) if !self.origins.contains(&origin.to_ascii_lowercase()) => Err(format!(
                "found origin {:?}, whose pages may not speak to this server: if they should, add it to `listen.allowed-origins`",
                shorten(&origin)
            )),
            _ => Ok(()),
        }
    }
}

fn header(request: &Request, name: &http::HeaderName) -> Result<Option<String>, String> {
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(|text| Some(text.to_owned()))
            .map_err(|_| format!("found a `{name}` header that is not text")),
        (Some(_), Some(_)) => Err(format!("found two `{name}` headers, expected one")),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The middleware: lets a request through or answers 403 `forbidden`.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(message) => {
            Rejection { refusal: Refusal::forbidden(message), encoding: Encoding::Json }.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(host: Option<&str>, origin: Option<&str>) -> Result<(), String> {
        let guard = Guard::new(
            "127.0.0.1:4000".parse().unwrap(),
            &["wharf.example.com".to_owned()],
            &["https://board.example.com".to_owned()],
        );
        let mut request = Request::builder().uri("/");
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        guard.check(&request.body(axum::body::Body::empty()).unwrap())
    }

    #[test]
    fn own_names_are_answered() {
        for host in ["127.0.0.1:4000", "localhost:4000", "LOCALHOST:4000", "[::1]:4000", "wharf.example.com"]
        {
            verdict(Some(host), None).unwrap();
            verdict(Some(host), Some("http://localhost:4000")).unwrap();
        }
    }

    #[test]
    fn foreign_names_are_refused() {
        for host in
            ["evil.example.com", "127.0.0.1:4001", "localhost.evil.example.com:4000", "127.0.0.1:40000"]
        {
            assert!(verdict(Some(host), None).unwrap_err().contains("allowed-hosts"));
        }
        assert!(verdict(None, None).unwrap_err().contains("no `Host`"));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        verdict(Some("localhost:4000"), Some("https://board.example.com")).unwrap();
        for origin in [
            "https://evil.example.com",
            "null",
            "http://localhost:8000",
            "http://localhost",
            "http://board.example.com",
        ] {
            assert!(verdict(Some("localhost:4000"), Some(origin)).unwrap_err().contains("allowed-origins"));
        }
    }
}

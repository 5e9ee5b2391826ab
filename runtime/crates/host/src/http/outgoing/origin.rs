//! Where a request goes: a scheme, a host and a port. The config and the requests of guests are read with the same strict
//! grammar, so whatever one of them could mean by other ways to write a host can't be taken for something else by the other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

/// The longest name that DNS has, in bytes.
const MAX_NAME: usize = 253;

/// The longest part of a name between dots.
const MAX_LABEL: usize = 63;

/// A scheme, a host and a port, such as `https://api.example.com`. Equal if they lead to the same server, however they were
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// In lower case.
    Name(String),
    Address(IpAddr),
}

impl Origin {
    /// Reads an origin: `http://` or `https://`, a name or an IP address (version 6 in brackets), and a port unless it is the
    /// scheme's own. `None` if the text is anything else, also with a path, a user or a wildcard.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = match text.split_once("://")? {
            ("http", authority) => (Scheme::Http, authority),
            ("https", authority) => (Scheme::Https, authority),
            _ => return None,
        };
        Self::new(scheme, authority)
    }

    /// The origin that a request asks for. `None` if its URI names none that could be granted.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = match uri.scheme_str()? {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Self::new(scheme, uri.authority()?.as_str())
    }

    fn new(scheme: Scheme, authority: &str) -> Option<Self> {
        // The colons of an address in brackets are not before a port.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, parse_port(port)?),
            _ => (authority, scheme.port()),
        };
        Some(Self { scheme, host: Host::parse(host)?, port })
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The same with an address as the host.
    pub(super) fn at(&self, address: IpAddr) -> Self {
        Self { host: Host::Address(address), ..self.clone() }
    }

    /// Host and port as the `host` header has them: without the scheme's own port.
    pub(super) fn authority(&self) -> String {
        if self.port == self.scheme.port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme, self.authority())
    }
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().ok().map(|address| Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        is_name(text).then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(formatter, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    // `u16` would read a plus sign, too.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Resolvers take "127.1", "0x7f.1" and "2130706433" for addresses; no top-level domain begins with a digit.
    let last_is_number =
        text.rsplit('.').next().is_some_and(|label| label.starts_with(|first: char| first.is_ascii_digit()));
    text.len() <= MAX_NAME && text.split('.').all(is_label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_origins_are_written_alike() {
        for (text, expected) in [
            ("https://api.example.com", "https://api.example.com"),
            ("https://API.Example.com:443", "https://api.example.com"),
            ("http://api.example.com:80", "http://api.example.com"),
            ("http://api.example.com:443", "http://api.example.com:443"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("https://[2606:4700:0:0::1111]", "https://[2606:4700::1111]"),
            ("http://localhost", "http://localhost"),
            ("http://my_service.internal:65535", "http://my_service.internal:65535"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ] {
            let origin = Origin::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(origin.to_string(), expected);
            assert_eq!(Origin::parse(expected), Some(origin.clone()), "{text}");
            assert_eq!(
                Origin::of(&format!("{text}/some/path?query").parse().unwrap()),
                Some(origin),
                "{text}"
            );
        }
    }

    #[test]
    fn an_origin_is_nothing_else() {
        let long = format!("http://{}.example", "a".repeat(64));
        for text in [
            "",
            "example.com",
            "//example.com",
            "HTTP://example.com",
            "ftp://example.com",
            "http://",
            "http://:80",
            "http://example.com/",
            "http://example.com/path",
            "http://example.com?query",
            "http://example.com#fragment",
            "http://user@example.com",
            "http://user:secret@example.com",
            "http://*.example.com",
            "http://*",
            "http://example.com:",
            "http://example.com:0",
            "http://example.com:+80",
            "http://example.com:65536",
            "http://example.com:80:80",
            "http://example..com",
            "http://example.com.",
            "http://.example.com",
            "http://-example.com",
            "http://example-.com",
            "http://exam ple.com",
            "http://bücher.example",
            "http://127.1",
            "http://0x7f.1",
            "http://0x7f000001",
            "http://2130706433",
            "http://0177.0.0.1",
            "http://127.0.0.01",
            "http://256.0.0.1",
            "http://::1",
            "http://[::1",
            "http://[127.0.0.1]",
            "http://[fe80::1%25eth0]",
            "http://[::1]8000",
            &long,
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}

//! The address of a server as a person types it. Says what it should have been; opens nothing.

use std::{fmt, str::FromStr};

use url::Url;

/// Where agents connect: a WebSocket address, e.g. `ws://127.0.0.1:4000/agent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

/// Where agents connect when nothing else is said: what `wharf run` listens on by default.
pub const DEFAULT_ENDPOINT: &str = "ws://127.0.0.1:4000/agent";

/// The path of the WebSocket, used where the address has none.
const AGENT_PATH: &str = "/agent";

/// A text that is not the address of a server.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointError {
    /// Not a URL, or one of another kind.
    #[error("use {0:?} as the address of a server: expected ws://HOST:PORT or http://HOST:PORT")]
    Unusable(String),
    /// A URL that asks for TLS.
    #[error(
        "use {0:?} as the address of a server: this program speaks no TLS; expected ws://HOST:PORT or http://HOST:PORT"
    )]
    Tls(String),
}

impl Endpoint {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let unusable = || EndpointError::Unusable(text.to_owned());
        let mut url = Url::parse(text).map_err(|_| unusable())?;
        match url.scheme() {
            "ws" => {}
            "http" => url.set_scheme("ws").map_err(|()| unusable())?,
            "wss" | "https" => return Err(EndpointError::Tls(text.to_owned())),
            _ => return Err(unusable()),
        }
        if matches!(url.path(), "" | "/") {
            url.set_path(AGENT_PATH);
        }
        // A fragment has no meaning for a WebSocket, and the handshake refuses it with a much less clear text.
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_the_websocket_of_agents() {
        for (typed, meant) in [
            (DEFAULT_ENDPOINT, DEFAULT_ENDPOINT),
            ("http://127.0.0.1:4000", "ws://127.0.0.1:4000/agent"),
            ("http://wharf.example:80/", "ws://wharf.example/agent"),
            ("ws://[::1]:4000", "ws://[::1]:4000/agent"),
            ("ws://localhost:1/behind/a/proxy#top", "ws://localhost:1/behind/a/proxy"),
        ] {
            assert_eq!(typed.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(meant.to_owned()));
        }
    }

    #[test]
    fn what_is_not_an_address_is_quoted_and_explained() {
        for typed in ["", "localhost:4000", "127.0.0.1:4000", "ftp://localhost", "ws://", "http:"] {
            assert_eq!(typed.parse::<Endpoint>(), Err(EndpointError::Unusable(typed.to_owned())));
        }
        for typed in ["wss://localhost", "https://localhost"] {
            assert_eq!(typed.parse::<Endpoint>(), Err(EndpointError::Tls(typed.to_owned())));
        }
    }
}

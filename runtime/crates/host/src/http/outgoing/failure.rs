//! Why a request got no answer: one text for the receiver's log, which says what to do, and one code for the guest.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio_rustls::rustls;
use wasmtime_wasi_http::Error;

use super::origin::Origin;

/// Why a request got no answer, or not all of it. The text follows "failed to send GET https://…: ".
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the receiver has no grant for requests; add `http = [\"{0}\"]` to its config if it may")]
    NoGrant(Origin),
    #[error("its origin is not granted; add \"{0}\" to `http` in the receiver's config if it may")]
    NotGranted(Origin),
    #[error(
        "found a URI without a host that could be granted, expected one like \"https://api.example.com/path\""
    )]
    Uri,
    #[error("found a user or a password in the URI, expected none; send them in a header")]
    User,
    #[error("its path and query have more than {0} bytes; send the data as the body")]
    PathTooLong(usize),
    #[error("found the method CONNECT, which is for proxies only; use another")]
    Method,
    #[error(
        "{host} leads to {address}, {kind}, which is reached only where the grant names it as an address; add \"{wanted}\" to \
         `http` in the receiver's config if it may"
    )]
    Prohibited { host: String, address: IpAddr, kind: &'static str, wanted: Origin },
    #[error(
        "{0} requests of this receiver are under way, which is the most; raise `outgoing-requests` in its config"
    )]
    TooMany(usize),
    #[error("its body has more than {0} bytes; raise `outgoing-body` in the receiver's config")]
    RequestTooLarge(u64),
    #[error("the receiver gave its body up before it was whole")]
    Unfinished,
    #[error("its name was not found: {0}")]
    Name(String),
    #[error("its name was not resolved within {0:?}")]
    NameTimeout(Duration),
    #[error("failed to connect: {0}")]
    Connect(io::ErrorKind),
    #[error("there was no connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("the server's certificate is not trusted: {0}")]
    Certificate(rustls::CertificateError),
    #[error("the server refused the TLS connection: {0:?}")]
    TlsAlert(rustls::AlertDescription),
    #[error("failed to speak TLS with the server: {0}")]
    Tls(String),
    #[error("TLS is not available: the server's log of its start says why")]
    NoTls,
    #[error("the answer did not begin within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("the answer paused for longer than {0:?}")]
    BetweenBytesTimeout(Duration),
    #[error("it took longer than {0:?} with its answer; raise `outgoing-timeout` in the receiver's config")]
    Timeout(Duration),
    #[error("the head of the answer has more than {0} bytes")]
    AnswerHeadTooLarge(usize),
    #[error("the answer has more than {0} bytes; raise `outgoing-answer` in the receiver's config")]
    AnswerTooLarge(u64),
    #[error("the connection ended before the answer began")]
    NoAnswer,
    #[error("the connection ended before the answer was whole")]
    AnswerIncomplete,
    #[error("the answer is not HTTP: {0}")]
    Protocol(String),
}

impl Failure {
    /// What a guest is told.
    pub(crate) fn code(&self) -> Error {
        match self {
            Self::NoGrant(_) | Self::NotGranted(_) => Error::HttpRequestDenied,
            Self::Uri | Self::User => Error::HttpRequestUriInvalid,
            Self::PathTooLong(_) => Error::HttpRequestUriTooLong,
            Self::Method => Error::HttpRequestMethodInvalid,
            Self::Prohibited { .. } => Error::DestinationIpProhibited,
            Self::TooMany(_) => Error::ConnectionLimitReached,
            Self::RequestTooLarge(limit) => Error::HttpRequestBodySize(Some(*limit)),
            Self::Unfinished | Self::Protocol(_) => Error::HttpProtocolError,
            // What the resolver says has no code of DNS in it.
            Self::Name(_) => Error::DnsError { rcode: None, info_code: None },
            Self::NameTimeout(_) => Error::DnsTimeout,
            Self::Connect(io::ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
            Self::Connect(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
                Error::DestinationIpUnroutable
            }
            Self::Connect(io::ErrorKind::TimedOut) | Self::ConnectTimeout(_) => Error::ConnectionTimeout,
            Self::Connect(_) => Error::DestinationUnavailable,
            Self::Certificate(_) => Error::TlsCertificateError,
            Self::TlsAlert(alert) => Error::TlsAlertReceived {
                alert_id: Some(u8::from(*alert)),
                alert_message: Some(format!("{alert:?}")),
            },
            Self::Tls(_) => Error::TlsProtocolError,
            Self::NoTls => Error::ConfigurationError,
            Self::FirstByteTimeout(_) | Self::BetweenBytesTimeout(_) => Error::ConnectionReadTimeout,
            Self::Timeout(_) => Error::HttpResponseTimeout,
            Self::AnswerHeadTooLarge(limit) => {
                Error::HttpResponseHeaderSectionSize(Some(u32::try_from(*limit).unwrap_or(u32::MAX)))
            }
            Self::AnswerTooLarge(limit) => Error::HttpResponseBodySize(Some(*limit)),
            Self::NoAnswer => Error::ConnectionTerminated,
            Self::AnswerIncomplete => Error::HttpResponseIncomplete,
        }
    }

    /// Why a TLS handshake failed.
    pub(super) fn of_tls(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(reason)) => Self::Certificate(reason.clone()),
            Some(rustls::Error::AlertReceived(alert)) => Self::TlsAlert(*alert),
            Some(other) => Self::Tls(other.to_string()),
            None => Self::NoAnswer,
        }
    }

    /// Why a connection gave no head of an answer.
    pub(super) fn of_head(error: &hyper::Error, max_head: usize) -> Self {
        if error.is_parse_too_large() {
            Self::AnswerHeadTooLarge(max_head)
        } else if error.is_parse() {
            Self::Protocol(error.to_string())
        } else {
            Self::NoAnswer
        }
    }

    /// Why a connection did not give the rest of an answer.
    pub(super) fn of_body(error: &hyper::Error) -> Self {
        let invalid =
            error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(|source| {
                matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
            });
        if invalid { Self::Protocol(error.to_string()) } else { Self::AnswerIncomplete }
    }
}

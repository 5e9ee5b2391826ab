//! Asks a running server on its admin listener: what the operators' commands share.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Method, Response};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::cli::Usage;

/// Where the admin listener is when nothing else is said: what `wharf run` listens on by default.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:4001";

/// A server that is well answers in milliseconds; who asks wants to know soon when it is not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A row of the answer takes a few hundred bytes, so this is room for thousands of receivers, and a bound on what some
/// other server at that address can make this program hold.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Which server.
#[derive(Debug, clap::Args)]
pub struct Server {
    /// Address of the server's admin listener
    #[arg(long, value_name = "URL", env = "WHARF_ADMIN", default_value = DEFAULT_ADMIN)]
    pub admin: String,
}

/// What is asked of a server.
#[derive(Debug)]
pub struct Request<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    body: Option<Body>,
    max_answer_bytes: usize,
    timeout: Duration,
}

impl<'a> Request<'a> {
    /// A request to the path that is made of these parts.
    pub fn new(method: Method, path: &'a [&'a str]) -> Request<'a> {
        let (query, body) = (Vec::new(), None);
        let (max_answer_bytes, timeout) = (MAX_ANSWER_BYTES, ANSWER_TIMEOUT);
        Request { method, path, query, body, max_answer_bytes, timeout }
    }

    /// With this parameter.
    pub fn query(mut self, key: &'static str, value: impl ToString) -> Self {
        self.query.push((key, value.to_string()));
        self
    }

    /// With this as its body.
    pub fn body(mut self, body: serde_json::Value) -> Self {
        self.body = Some(Body::Json(body));
        self
    }

    /// With these bytes as its body.
    pub fn bytes(mut self, bytes: Vec<u8>) -> Self {
        self.body = Some(Body::Bytes(bytes));
        self
    }

    /// For an answer of at most so many bytes.
    pub fn up_to(mut self, max_answer_bytes: usize) -> Self {
        self.max_answer_bytes = max_answer_bytes;
        self
    }

    /// For an answer within this time.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

#[derive(Debug)]
enum Body {
    Json(serde_json::Value),
    Bytes(Vec<u8>),
}

/// What a server answered, and the address that was asked, for errors.
#[derive(Debug)]
pub struct Answer {
    url: Url,
    body: Vec<u8>,
}

/// An answer that says no.
#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Server {
    /// Gets what is at this path, made of these parts.
    ///
    /// # Errors
    ///
    /// [`Usage`] for an address that is none; otherwise when there is no answer, or not that of a Wharf server, or when it
    /// says no.
    pub async fn get(&self, path: &[&str], shutdown: &CancellationToken) -> anyhow::Result<Answer> {
        self.ask(Request::new(Method::GET, path), shutdown).await
    }

    /// Posts to this path.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub async fn post(&self, path: &[&str], shutdown: &CancellationToken) -> anyhow::Result<Answer> {
        self.ask(Request::new(Method::POST, path), shutdown).await
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub async fn ask(&self, request: Request<'_>, shutdown: &CancellationToken) -> anyhow::Result<Answer> {
        let url = address(&self.admin, request.path)?;
        let body = tokio::select! {
            body = fetch(request, &url) => body?,
            () = shutdown.cancelled() => bail!("interrupted before {url} answered"),
        };
        Ok(Answer { url, body })
    }
}

impl Answer {
    /// The answer as a value.
    ///
    /// # Errors
    ///
    /// When it is not of this shape.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!("failed to understand what {} answered; is this the admin address of wharf?", self.url)
        })
    }
}

/// The address of a path, whatever path was typed with the server's.
fn address(admin: &str, path: &[&str]) -> anyhow::Result<Url> {
    let unusable =
        || Usage(format!("failed to use {admin:?} as the admin address: expected http://HOST:PORT"));
    let mut url = Url::parse(admin).map_err(|_| unusable())?;
    if url.scheme() != "http" || !url.has_host() {
        return Err(unusable().into());
    }
    url.set_query(None);
    url.set_fragment(None);
    url.path_segments_mut().map_err(|()| unusable())?.clear().extend(path);
    Ok(url)
}

async fn fetch(request: Request<'_>, url: &Url) -> anyhow::Result<Vec<u8>> {
    let Request { method, path: _, query, body, max_answer_bytes, timeout } = request;
    // The admin listener is on this host or in the operator's network: a proxy for the web is not on the way there.
    let client = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(timeout)
        .build()
        .context("failed to prepare an HTTP client")?;
    let mut asked = url.clone();
    if !query.is_empty() {
        asked.query_pairs_mut().extend_pairs(query);
    }
    let mut asking = client.request(method, asked);
    asking = match body {
        Some(Body::Json(body)) => asking.json(&body),
        Some(Body::Bytes(bytes)) => asking.body(bytes),
        None => asking,
    };
    let answer = asking.send().await.map_err(|error| {
        let hint = if error.is_connect() { ": is wharf running, and is this its admin address?" } else { "" };
        // The URL is in this text already.
        anyhow::Error::new(error.without_url()).context(format!("failed to reach {url}{hint}"))
    })?;
    let status = answer.status();
    let body = read(answer, max_answer_bytes)
        .await
        .with_context(|| format!("failed to read the answer of {url}"))?;
    if status.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice::<Refused>(&body) {
        Ok(Refused { error }) => {
            // What is wrong with a config has lines.
            bail!("{}", error.replace(|char: char| char.is_control() && char != '\n', "\u{fffd}"))
        }
        Err(_) => bail!("{url} answered {status}; is this the admin address of wharf?"),
    }
}

async fn read(mut answer: Response, max_bytes: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len().saturating_add(chunk.len()) > max_bytes {
            bail!("it is larger than {max_bytes} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: [&str; 3] = ["admin", "v1", "status"];

    #[test]
    fn the_path_of_the_status_replaces_whatever_was_typed() {
        for typed in
            ["http://127.0.0.1:4001", "http://127.0.0.1:4001/", "http://127.0.0.1:4001/metrics?x=1#y"]
        {
            assert_eq!(address(typed, &STATUS).unwrap().as_str(), "http://127.0.0.1:4001/admin/v1/status");
        }
    }

    #[test]
    fn an_address_that_is_none_is_the_callers_mistake() {
        for typed in
            ["", "127.0.0.1:4001", "localhost:4001", "https://localhost:4001", "http:", "file:///etc"]
        {
            let error = address(typed, &STATUS).unwrap_err();
            let usage = error.downcast_ref::<Usage>().unwrap_or_else(|| panic!("{typed:?} gave {error:?}"));
            assert!(usage.0.contains(&format!("{typed:?}")), "{}", usage.0);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_asked_after() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let server = Server { admin: format!("http://{address}") };
        let error = server.get(&STATUS, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to reach http://{address}/admin/v1/status: is wharf running, and is this its admin address?"
            )
        );
        assert!(!error.is::<Usage>());
    }
}

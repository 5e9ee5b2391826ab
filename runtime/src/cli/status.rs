//! `wharf status`: asks a running server how it is and prints the answer, for people as a table, for programs as it
//! came. Changes nothing.

use std::{io::Write, time::Duration};

use anyhow::{Context, bail};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::cli::Usage;

mod render;

/// Where the admin listener is when nothing else is said: what `wharf run` listens on by default.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:4001";

/// A server that is well answers in milliseconds; who asks wants to know soon when it is not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A row of the answer takes a few hundred bytes, so this is room for thousands of receivers, and a bound on what some
/// other server at that address can make this program hold.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Show what a running server does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the server's admin listener
    #[arg(long, value_name = "URL", env = "WHARF_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// Print the answer as JSON, as the server gave it
    #[arg(long)]
    json: bool,
}

/// Prints the status of the server to standard output.
///
/// # Errors
///
/// [`Usage`] for an address that is none; otherwise when there is no answer, or not that of a Wharf server.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let url = status_url(&args.admin)?;
    let body = tokio::select! {
        body = fetch(&url) => body?,
        () = shutdown.cancelled() => bail!("interrupted before {url} answered"),
    };
    let text = if args.json {
        let answer: &RawValue = understand(&url, &body)?;
        format!("{answer}\n")
    } else {
        render::table(&understand(&url, &body)?)
    };
    std::io::stdout().write_all(text.as_bytes()).context("failed to print the status")
}

fn status_url(admin: &str) -> anyhow::Result<Url> {
    let unusable =
        || Usage(format!("failed to use {admin:?} as the admin address: expected http://HOST:PORT"));
    let mut url = Url::parse(admin).map_err(|_| unusable())?;
    if url.scheme() != "http" || !url.has_host() {
        return Err(unusable().into());
    }
    url.set_path("/admin/v1/status");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

async fn fetch(url: &Url) -> anyhow::Result<Vec<u8>> {
    // The admin listener is on this host or in the operator's network: a proxy for the web is not on the way there.
    let client = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER_TIMEOUT)
        .build()
        .context("failed to prepare an HTTP client")?;
    let answer = client.get(url.clone()).send().await.map_err(|error| {
        let hint = if error.is_connect() { ": is wharf running, and is this its admin address?" } else { "" };
        // The URL is in this text already.
        anyhow::Error::new(error.without_url()).context(format!("failed to reach {url}{hint}"))
    })?;
    let status = answer.status();
    if !status.is_success() {
        bail!("failed to get the status: {url} answered {status}; is this the admin address of wharf?");
    }
    read(answer).await.with_context(|| format!("failed to read the answer of {url}"))
}

async fn read(mut answer: Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len().saturating_add(chunk.len()) > MAX_ANSWER_BYTES {
            bail!("it is larger than {MAX_ANSWER_BYTES} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn understand<'a, T: Deserialize<'a>>(url: &Url, body: &'a [u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).with_context(|| {
        format!("failed to understand what {url} answered; is this the admin address of wharf?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_status_replaces_whatever_was_typed() {
        for typed in
            ["http://127.0.0.1:4001", "http://127.0.0.1:4001/", "http://127.0.0.1:4001/metrics?x=1#y"]
        {
            assert_eq!(status_url(typed).unwrap().as_str(), "http://127.0.0.1:4001/admin/v1/status");
        }
    }

    #[test]
    fn an_address_that_is_none_is_the_callers_mistake() {
        for typed in
            ["", "127.0.0.1:4001", "localhost:4001", "https://localhost:4001", "http:", "file:///etc"]
        {
            let error = status_url(typed).unwrap_err();
            let usage = error.downcast_ref::<Usage>().unwrap_or_else(|| panic!("{typed:?} gave {error:?}"));
            assert!(usage.0.contains(&format!("{typed:?}")), "{}", usage.0);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_asked_after() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let args = Args { admin: format!("http://{address}"), json: false };
        let error = run(args, CancellationToken::new()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to reach http://{address}/admin/v1/status: is wharf running, and is this its admin address?"
            )
        );
        assert!(!error.is::<Usage>());
    }
}

//! A client of everything that speaks HTTP: the calls of agents, pages, and the operator's side.

use std::net::SocketAddr;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::encoding::Encoding;
use crate::wait::within;

/// A client of one listener.
#[derive(Debug, Clone)]
pub struct Rest {
    client: Client,
    base: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Rest {
    pub fn new(address: SocketAddr) -> Rest {
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        Rest { client: client.expect("a client can be made"), base: format!("http://{address}") }
    }

    /// Makes a call, and asks for the answer in the same encoding.
    pub async fn call(&self, path: &str, encoding: Encoding, body: &Value) -> Answered {
        self.call_bytes(path, encoding, encoding.encode(body)).await
    }

    /// Makes a call with this body, whatever it is.
    pub async fn call_bytes(&self, path: &str, encoding: Encoding, body: Vec<u8>) -> Answered {
        let media_type = encoding.media_type();
        let request =
            self.request(Method::POST, path).header(CONTENT_TYPE, media_type).header(ACCEPT, media_type);
        send(request.body(body)).await
    }

    pub async fn get(&self, path: &str) -> Answered {
        send(self.request(Method::GET, path)).await
    }

    /// A request that a test adds to.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }
}

/// Sends a request and reads its answer.
pub async fn send(request: RequestBuilder) -> Answered {
    within("an answer over HTTP", async {
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("the answer is complete").to_vec();
        Answered { status, headers, body }
    })
    .await
}

impl Answered {
    /// A header that is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().expect("headers are text");
        assert!(values.next().is_none(), "{name} is there more than once");
        Some(value)
    }

    /// The body in the encoding that the answer claims.
    pub fn value(&self) -> Value {
        let content_type = self.header("content-type").unwrap_or_default();
        match content_type.split(';').next().unwrap_or_default() {
            "application/json" => Encoding::Json.decode(&self.body),
            "application/msgpack" => Encoding::Msgpack.decode(&self.body),
            other => panic!("the answer is {other:?}: {}", self.text()),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

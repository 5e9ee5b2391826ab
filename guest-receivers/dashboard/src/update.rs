//! Turns a message into what the page gets: a key, so that the host keeps one value per agent, data type and kind, and a
//! JSON payload. A body that is not understood is shown as it is; nothing that an agent sends makes this fail.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::wharf::receiver::types::{Body, Message};

/// The largest payload that the host publishes (see `live.wit`).
const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// The longest kind that is taken as one. An agent id has at most 255 bytes, so with this a key stays below the host's
/// bound of 1 KiB whatever an agent sends.
const MAX_KIND_BYTES: usize = 255;

/// The kind of a message that does not say one.
const NO_KIND: &str = "message";

/// One update of the page.
pub struct Update {
    pub key: String,
    pub payload: String,
}

/// What agents usually send: a kind and what it is about. Other fields are ignored.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// What the page gets. `page/fleet.js` reads it.
#[derive(Serialize)]
struct Payload<'a> {
    agent: &'a str,
    #[serde(rename = "type")]
    data_type: &'a str,
    kind: &'a str,
    /// Unix time in milliseconds, when the server accepted the message.
    at: u64,
    /// With the data type, tells a message that comes again from a new one.
    offset: u64,
    /// `null` where the body is left out.
    body: Option<&'a RawValue>,
    /// Where the body is left out: how large it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted_bytes: Option<usize>,
}

/// Gives the update for a message of a data type.
pub fn from_message(data_type: &str, message: &Message) -> Update {
    let (kind, body, bytes) = match &message.body {
        Body::Json(text) => {
            let (kind, body) = split(text);
            (kind, body, text.len())
        }
        // Only with `encoding = "as-sent"`, which is of no use to a browser.
        Body::Msgpack(bytes) => (Cow::Borrowed(NO_KIND), None, bytes.len()),
    };
    let payload = |body: Option<&RawValue>| {
        serde_json::to_string(&Payload {
            agent: &message.agent,
            data_type,
            kind: &kind,
            at: message.received_at,
            offset: message.offset,
            body,
            omitted_bytes: body.is_none().then_some(bytes),
        })
        // An empty payload would make the host forget the key; text and numbers always have a JSON form.
        .unwrap_or_default()
    };
    let whole = payload(body);
    let payload = if whole.len() > MAX_PAYLOAD_BYTES { payload(None) } else { whole };
    Update { key: key(&message.agent, data_type, &kind), payload }
}

/// Splits a body into its kind and what it is about; a body of another shape is all content.
fn split(text: &str) -> (Cow<'_, str>, Option<&RawValue>) {
    match serde_json::from_str::<Envelope<'_>>(text) {
        Ok(envelope) if !envelope.kind.is_empty() && envelope.kind.len() <= MAX_KIND_BYTES => {
            (envelope.kind, Some(envelope.body))
        }
        _ => (Cow::Borrowed(NO_KIND), serde_json::from_str(text).ok()),
    }
}

/// Names the three parts without ambiguity, in a length that escaping cannot blow up: each but the last is preceded by its
/// length.
fn key(agent: &str, data_type: &str, kind: &str) -> String {
    format!("{}:{agent}{}:{data_type}{kind}", agent.len(), data_type.len())
}

#[cfg(test)]
mod tests;

//! From typed calls to the bytes of a frame: the client's side of `decode`.

use std::borrow::Cow;

use rmp::Marker;

use crate::body::Body;
use crate::call::{Call, Reference, Request};
use crate::encoding::Encoding;

/// A frame of one call, also the body of a REST request. The body of a message is copied as it is if it has that
/// encoding, and transcoded if it has the other.
pub fn encode_frame(request: &Request, reference: Option<&Reference>, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    write_call(request, reference, encoding, &mut out);
    out
}

/// A frame of a list of calls. A list has no place for a `ref` of its own, so its first call carries it, and an empty
/// list carries none.
pub fn encode_batch(requests: &[Request], reference: Option<&Reference>, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        Encoding::Json => out.push(b'['),
        Encoding::Msgpack => write_head(Marker::Array32, requests.len(), &mut out),
    }
    for (position, request) in requests.iter().enumerate() {
        if encoding == Encoding::Json && position > 0 {
            out.push(b',');
        }
        write_call(request, reference.filter(|_| position == 0), encoding, &mut out);
    }
    if encoding == Encoding::Json {
        out.push(b']');
    }
    out
}

/// The value of a field, ready to be written.
enum Field<'a> {
    Text(&'a str),
    Unsigned(u64),
    Reference(&'a Reference),
    Body(&'a Body),
}

fn write_call(request: &Request, reference: Option<&Reference>, encoding: Encoding, out: &mut Vec<u8>) {
    let mut fields = vec![("call", Field::Text(request.call.kind().as_str()))];
    if let Some(reference) = reference {
        fields.push(("ref", Field::Reference(reference)));
    }
    if let Some(token) = &request.token {
        fields.push(("token", Field::Text(token)));
    }
    if let Some(agent) = request.call.agent() {
        fields.push(("id", Field::Text(agent.as_str())));
    }
    match &request.call {
        Call::Session { user, password } => {
            fields.extend([("user", Field::Text(user)), ("password", Field::Text(password))]);
        }
        Call::Ping { .. } | Call::Bye { .. } => {}
        Call::Data(message) => {
            fields.push(("type", Field::Text(&message.data_type)));
            if let Some(id) = &message.message_id {
                fields.push(("message_id", Field::Text(id)));
            }
            if let Some(milliseconds) = message.sent_at {
                fields.push(("sent_at", Field::Unsigned(milliseconds)));
            }
            if let Some(trace) = &message.traceparent {
                fields.push(("traceparent", Field::Text(trace)));
            }
            fields.push(("data", Field::Body(&message.body)));
        }
    }
    match encoding {
        Encoding::Json => {
            for (position, (name, field)) in fields.iter().enumerate() {
                out.push(if position == 0 { b'{' } else { b',' });
                out.extend_from_slice(&encoding.write(name));
                out.push(b':');
                out.extend_from_slice(&field.encoded(encoding));
            }
            out.push(b'}');
        }
        Encoding::Msgpack => {
            write_head(Marker::Map32, fields.len(), out);
            for (name, field) in &fields {
                out.extend_from_slice(&encoding.write(name));
                out.extend_from_slice(&field.encoded(encoding));
            }
        }
    }
}

/// The head of a list or a map, always in its longest form: its four bytes more are nothing beside a message.
fn write_head(marker: Marker, count: usize, out: &mut Vec<u8>) {
    out.push(marker.to_u8());
    // More than 32 bits can count do not fit a frame, whatever its limit.
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

impl Field<'_> {
    fn encoded(&self, encoding: Encoding) -> Cow<'_, [u8]> {
        match (self, encoding) {
            (Field::Text(text), _) => Cow::Owned(encoding.write(text)),
            (Field::Unsigned(number), _) => Cow::Owned(encoding.write(number)),
            (Field::Reference(reference), _) => Cow::Owned(encoding.write(reference)),
            (Field::Body(body), Encoding::Msgpack) => body.to_msgpack(),
            (Field::Body(body), Encoding::Json) => match body.to_json() {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
        }
    }
}

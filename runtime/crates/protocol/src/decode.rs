//! From the bytes of a frame to typed calls. The two submodules know one encoding each and give the raw fields of each
//! call; what the fields must hold is checked here, once for both.
//!
//! A frame is read in one pass. Bytes that are no frame at all are refused as a whole; anything that is wrong with one
//! call is that call's own refusal.

mod json;
mod msgpack;

use std::borrow::Cow;

use bytes::Bytes;

use crate::agent::AgentId;
use crate::body::Body;
use crate::call::{
    Call, CallKind, Frame, MAX_DATA_TYPE_BYTES, MAX_MESSAGE_ID_BYTES, MAX_PASSWORD_BYTES,
    MAX_REFERENCE_BYTES, MAX_TOKEN_BYTES, MAX_TRACEPARENT_BYTES, MAX_USER_BYTES, Message, Reference, Request,
};
use crate::encoding::{Encoding, Limits};
use crate::field::{self, Slot, mismatch};
use crate::refusal::Refusal;
use crate::traceparent;
use crate::value::{Raw, Value};

/// Decodes a frame of a WebSocket: a call, whose name is in its `call` field, or a list of such.
///
/// The bodies of messages are slices of the frame, so the frame's memory lives as long as one of them does.
///
/// # Errors
///
/// `bad_frame` if the bytes are not in that encoding or are neither an object nor a list, `too_large` for a list of
/// more calls than the limits allow. What is wrong with single calls is in the [`Frame`].
pub fn decode_frame(encoding: Encoding, bytes: &Bytes, limits: &Limits) -> Result<Frame, Refusal> {
    decode(None, encoding, bytes, limits)
}

/// Decodes the body of a REST request, where the path says which call it is; a field `call` is ignored. Only `data`
/// may be a list.
///
/// # Errors
///
/// As [`decode_frame`]; a list is `bad_frame` for other calls than `data`.
pub fn decode_body(
    kind: CallKind,
    encoding: Encoding,
    bytes: &Bytes,
    limits: &Limits,
) -> Result<Frame, Refusal> {
    decode(Some(kind), encoding, bytes, limits)
}

fn decode(
    kind: Option<CallKind>,
    encoding: Encoding,
    bytes: &Bytes,
    limits: &Limits,
) -> Result<Frame, Refusal> {
    let context = Context { kind, bytes, limits };
    match encoding {
        Encoding::Json => json::decode(context),
        Encoding::Msgpack => msgpack::decode(context),
    }
}

/// What decoding a frame goes by.
#[derive(Clone, Copy)]
struct Context<'a> {
    /// The call, if it is not in the object itself.
    kind: Option<CallKind>,
    bytes: &'a Bytes,
    limits: &'a Limits,
}

/// What stands where a call should.
#[expect(
    clippy::large_enum_variant,
    reason = "one lives at a time, on the stack; a box would be an allocation per call"
)]
enum Element<'a> {
    Object(Fields<'a>),
    /// The kind of something else.
    Other(&'static str),
}

/// The fields that calls can have, as they came. All others are ignored, so that the protocol can grow.
#[derive(Default)]
struct Fields<'a> {
    call: Slot<'a>,
    reference: Slot<'a>,
    token: Slot<'a>,
    id: Slot<'a>,
    data_type: Slot<'a>,
    data: Slot<'a>,
    message_id: Slot<'a>,
    sent_at: Slot<'a>,
    traceparent: Slot<'a>,
    user: Slot<'a>,
    password: Slot<'a>,
}

impl<'a> Fields<'a> {
    fn set(&mut self, key: &[u8], value: Raw<'a>) {
        let slot = match key {
            b"call" => &mut self.call,
            b"ref" => &mut self.reference,
            b"token" => &mut self.token,
            b"id" => &mut self.id,
            b"type" => &mut self.data_type,
            b"data" => &mut self.data,
            b"message_id" => &mut self.message_id,
            b"sent_at" => &mut self.sent_at,
            b"traceparent" => &mut self.traceparent,
            b"user" => &mut self.user,
            b"password" => &mut self.password,
            _ => return,
        };
        slot.fill(value);
    }
}

/// Calls of a list, gathered into a frame.
#[derive(Default)]
struct Batch {
    reference: Option<Reference>,
    requests: Vec<Result<Request, Refusal>>,
}

impl Batch {
    fn push(&mut self, context: Context<'_>, element: Element<'_>) {
        let (reference, request) = context.check(element);
        if self.reference.is_none() {
            self.reference = reference;
        }
        self.requests.push(request);
    }

    fn into_frame(self) -> Frame {
        Frame::Batch { reference: self.reference, requests: self.requests }
    }
}

impl<'a> Context<'a> {
    fn takes_lists(&self) -> bool {
        matches!(self.kind, None | Some(CallKind::Data))
    }

    /// The frame of a value that is no list of calls.
    fn one(&self, element: Element<'a>) -> Result<Frame, Refusal> {
        if let Element::Other(kind) = element {
            let expected = if self.takes_lists() { "an object or a list of objects" } else { "an object" };
            return Err(Refusal::bad_frame(format!("found {kind}, expected {expected}")));
        }
        let (reference, request) = self.check(element);
        Ok(Frame::One { reference, request })
    }

    fn too_many_calls(&self) -> Refusal {
        let limit = self.limits.max_calls;
        Refusal::too_large(format!("found a list of more than {limit} calls, expected at most {limit}"))
    }

    /// The `ref` of a call as far as it can be read, and the call.
    fn check(&self, element: Element<'_>) -> (Option<Reference>, Result<Request, Refusal>) {
        let fields = match element {
            Element::Object(fields) => fields,
            Element::Other(kind) => {
                return (None, Err(Refusal::bad_frame(format!("found {kind}, expected an object"))));
            }
        };
        match reference(fields.reference) {
            Ok(reference) => (reference, self.request(&fields)),
            // Other mistakes are found first, as if `ref` were the last of the fields.
            Err(refusal) => (None, self.request(&fields).and(Err(refusal))),
        }
    }

    fn request(&self, fields: &Fields<'_>) -> Result<Request, Refusal> {
        let kind = match self.kind {
            Some(kind) => kind,
            None => call_kind(fields.call)?,
        };
        let call = match kind {
            CallKind::Session => session(fields)?,
            CallKind::Ping => Call::Ping { agent: agent(fields)? },
            CallKind::Data => Call::Data(self.message(fields)?),
            CallKind::Bye => Call::Bye { agent: agent(fields)? },
        };
        let token = match fields.token.optional("token")? {
            Some(raw) => Some(field::secret("token", raw, 1..=MAX_TOKEN_BYTES)?),
            None => None,
        };
        Ok(Request { call, token })
    }

    fn message(&self, fields: &Fields<'_>) -> Result<Message, Refusal> {
        Ok(Message {
            agent: agent(fields)?,
            data_type: field::text("type", fields.data_type.required("type")?, 1..=MAX_DATA_TYPE_BYTES)?
                .into_owned(),
            body: Body::of_value(fields.data.required("data")?, self.bytes, self.limits)?,
            message_id: match fields.message_id.optional("message_id")? {
                Some(raw) => Some(field::text("message_id", raw, 1..=MAX_MESSAGE_ID_BYTES)?.into_owned()),
                None => None,
            },
            sent_at: fields.sent_at.optional("sent_at")?.map(sent_at).transpose()?,
            traceparent: fields.traceparent.optional("traceparent")?.map(trace).transpose()?,
        })
    }
}

fn call_kind(call: Slot<'_>) -> Result<CallKind, Refusal> {
    let name = field::text("call", call.required("call")?, 0..=usize::MAX)?;
    CallKind::from_name(&name).ok_or_else(|| Refusal::unknown_call(&name))
}

fn reference(slot: Slot<'_>) -> Result<Option<Reference>, Refusal> {
    let Some(raw) = slot.optional("ref")? else { return Ok(None) };
    match raw.read() {
        Value::Unsigned(number) => Ok(Some(Reference::Integer(number))),
        Value::Negative(number) => Ok(Some(Reference::Negative(number))),
        Value::Text(text) => {
            field::bounded("ref", &text, 0..=MAX_REFERENCE_BYTES)?;
            Ok(Some(Reference::Text(text.into_owned())))
        }
        found => Err(mismatch("ref", found, "an integer of 64 bits or a text")),
    }
}

fn session(fields: &Fields<'_>) -> Result<Call, Refusal> {
    let user = field::text("user", fields.user.required("user")?, 1..=MAX_USER_BYTES)?;
    let password = field::secret("password", fields.password.required("password")?, 1..=MAX_PASSWORD_BYTES)?;
    Ok(Call::Session { user: user.into_owned(), password })
}

fn agent(fields: &Fields<'_>) -> Result<AgentId, Refusal> {
    match fields.id.required("id")?.read() {
        Value::Text(id) => AgentId::new(id),
        found => Err(mismatch("id", found, format_args!("text of 1 to {} bytes", crate::MAX_AGENT_ID_BYTES))),
    }
}

fn sent_at(raw: Raw<'_>) -> Result<u64, Refusal> {
    match raw.read() {
        Value::Unsigned(milliseconds) => Ok(milliseconds),
        found => Err(mismatch("sent_at", found, "an unsigned integer, Unix time in milliseconds")),
    }
}

fn trace(raw: Raw<'_>) -> Result<String, Refusal> {
    let text = field::text("traceparent", raw, 0..=MAX_TRACEPARENT_BYTES)?;
    if traceparent::has_shape(&text) {
        Ok(text.into_owned())
    } else {
        Err(mismatch("traceparent", Value::Text(Cow::Borrowed(&text)), "the shape that W3C gives it"))
    }
}

#[cfg(test)]
mod tests;

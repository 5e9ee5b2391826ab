//! Frames in MessagePack, read by a cursor that neither copies nor recurses.

use super::{Batch, Context, Element, Fields};
use crate::call::Frame;
use crate::msgpack::{Cursor, Malformed, Token};
use crate::refusal::Refusal;
use crate::value::Raw;

pub(super) fn decode(context: Context<'_>) -> Result<Frame, Refusal> {
    let mut cursor = Cursor::new(context.bytes);
    let mut after_head = cursor.clone();
    if context.takes_lists()
        && let Token::List(count) = after_head.token().map_err(not_msgpack)?
    {
        return list(context, after_head, count);
    }
    let element = element(&mut cursor).map_err(not_msgpack)?;
    cursor.end().map_err(not_msgpack)?;
    context.one(element)
}

fn not_msgpack(error: Malformed) -> Refusal {
    Refusal::bad_frame(format!("not MessagePack: {error}"))
}

fn list<'a>(context: Context<'a>, mut cursor: Cursor<'a>, count: u32) -> Result<Frame, Refusal> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > context.limits.max_calls {
        return Err(context.too_many_calls());
    }
    let mut batch = Batch::default();
    // A claimed count reserves no more than the bytes could hold: each call takes at least one.
    batch.requests.reserve(count.min(cursor.rest().len()));
    for _ in 0..count {
        batch.push(context, element(&mut cursor).map_err(not_msgpack)?);
    }
    cursor.end().map_err(not_msgpack)?;
    Ok(batch.into_frame())
}

/// Reads what stands where a call should.
fn element<'a>(cursor: &mut Cursor<'a>) -> Result<Element<'a>, Malformed> {
    let mut after_head = cursor.clone();
    let Token::Map(count) = after_head.token()? else {
        let value = Raw::Msgpack(cursor.skip()?);
        return Ok(Element::Other(value.read().kind()));
    };
    *cursor = after_head;
    let mut fields = Fields::default();
    for _ in 0..count {
        let mut key = Cursor::new(cursor.skip()?);
        let value = Raw::Msgpack(cursor.skip()?);
        if let Token::Text(key) = key.token()? {
            fields.set(key, value);
        }
    }
    Ok(Element::Object(fields))
}

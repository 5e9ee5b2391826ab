//! Frames in JSON. `serde_json` checks the syntax and finds the ends of values; it passes over what is nested without
//! recursion, so no depth of a frame reaches the stack.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Batch, Context, Element, Fields};
use crate::call::Frame;
use crate::refusal::Refusal;
use crate::value::{Raw, json_text};

pub(super) fn decode(context: Context<'_>) -> Result<Frame, Refusal> {
    let text = std::str::from_utf8(context.bytes)
        .map_err(|error| Refusal::bad_frame(format!("not JSON: no UTF-8 at byte {}", error.valid_up_to())))?;
    let is_list = text.trim_ascii_start().starts_with('[');
    let mut deserializer = serde_json::Deserializer::from_str(text);
    if is_list && context.takes_lists() {
        let list = List(context).deserialize(&mut deserializer).map_err(not_json)?;
        deserializer.end().map_err(not_json)?;
        list
    } else {
        let element = OneElement.deserialize(&mut deserializer).map_err(not_json)?;
        deserializer.end().map_err(not_json)?;
        context.one(element)
    }
}

fn not_json(error: serde_json::Error) -> Refusal {
    Refusal::bad_frame(format!("not JSON: {error}"))
}

/// Reads what stands where a call should.
struct OneElement;

impl<'de> DeserializeSeed<'de> for OneElement {
    type Value = Element<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneElement {
    type Value = Element<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        // Keys are taken raw too, because to decode one fails the whole frame if it is no Unicode text.
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            if let Some(key) = json_text(key.get()) {
                fields.set(key.as_bytes(), Raw::Json(value.get()));
            }
        }
        Ok(Element::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Element::Other("a list"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Element::Other("a text"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Element::Other("a number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Element::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Element::Other("a number"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Element::Other("a boolean"))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Element::Other("null"))
    }
}

/// Reads a list of calls. The inner error is that of a list which is JSON but too long.
struct List<'a>(Context<'a>);

impl<'de> DeserializeSeed<'de> for List<'de> {
    type Value = Result<Frame, Refusal>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'de> {
    type Value = Result<Frame, Refusal>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of calls")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let List(context) = self;
        let mut batch = Batch::default();
        for _ in 0..context.limits.max_calls {
            match list.next_element_seed(OneElement)? {
                Some(element) => batch.push(context, element),
                None => return Ok(Ok(batch.into_frame())),
            }
        }
        let mut too_many = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            too_many = true;
        }
        Ok(if too_many { Err(context.too_many_calls()) } else { Ok(batch.into_frame()) })
    }
}

//! One value of a call in either encoding, read no deeper than its first level: enough to take a text or a number from
//! it, or to say what was found in place of one.

use std::borrow::Cow;
use std::fmt;

use crate::msgpack::{Cursor, Token};
use crate::quote::Quoted;

/// The bytes of one well-formed value, as they lie in the frame.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Raw<'a> {
    /// Without white space around it.
    Json(&'a str),
    Msgpack(&'a [u8]),
}

/// What a value is, and its content where it is a scalar that calls use. Displayed as what was found, shortened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    /// Any other number, as text.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// A text that no Unicode string can hold.
    BrokenText,
    Binary,
    Extension,
    List,
    Object,
}

impl<'a> Raw<'a> {
    pub(crate) fn read(self) -> Value<'a> {
        match self {
            Raw::Json(text) => read_json(text),
            Raw::Msgpack(bytes) => read_msgpack(bytes),
        }
    }
}

fn read_json(text: &str) -> Value<'_> {
    match text.as_bytes().first() {
        Some(b'{') => Value::Object,
        Some(b'[') => Value::List,
        Some(b'"') => json_text(text).map_or(Value::BrokenText, Value::Text),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ => text
            .parse()
            .map(Value::Unsigned)
            .or_else(|_| text.parse().map(signed))
            .unwrap_or(Value::Number(Cow::Borrowed(text))),
    }
}

/// The content of a JSON text literal, or nothing if an escape in it makes it no Unicode text.
pub(crate) fn json_text(literal: &str) -> Option<Cow<'_, str>> {
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    if inner.as_bytes().contains(&b'\\') {
        serde_json::from_str(literal).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn read_msgpack(bytes: &[u8]) -> Value<'_> {
    match Cursor::new(bytes).token() {
        Ok(Token::Nil) => Value::Null,
        Ok(Token::Bool(value)) => Value::Bool(value),
        Ok(Token::Unsigned(number)) => Value::Unsigned(number),
        Ok(Token::Negative(number)) => Value::Negative(number),
        Ok(Token::F32(number)) => Value::Number(Cow::Owned(number.to_string())),
        Ok(Token::F64(number)) => Value::Number(Cow::Owned(number.to_string())),
        Ok(Token::Text(text)) => {
            std::str::from_utf8(text).map_or(Value::BrokenText, |text| Value::Text(Cow::Borrowed(text)))
        }
        Ok(Token::List(_)) => Value::List,
        Ok(Token::Map(_)) => Value::Object,
        Ok(Token::Extension(..)) => Value::Extension,
        // Only well-formed values are read, so an error does not occur.
        Ok(Token::Binary(_)) | Err(_) => Value::Binary,
    }
}

/// `-0` is an integer to JSON, and not below zero.
fn signed<'a>(number: i64) -> Value<'a> {
    u64::try_from(number).map_or(Value::Negative(number), Value::Unsigned)
}

impl Value<'_> {
    /// The kind alone, for values that nobody else may read.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Unsigned(_) | Value::Negative(_) | Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::BrokenText => "a text that is not Unicode",
            Value::Binary => "binary data",
            Value::Extension => "an extension type",
            Value::List => "a list",
            Value::Object => "an object",
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "the boolean `{value}`"),
            Value::Unsigned(number) => write!(f, "the number `{number}`"),
            Value::Negative(number) => write!(f, "the number `{number}`"),
            Value::Number(number) => write!(f, "the number {}", Quoted(number)),
            Value::Text(text) => write!(f, "the text {}", Quoted(text)),
            _ => f.write_str(self.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        Raw::Json(text).read().to_string()
    }

    #[test]
    fn json_values_are_named_with_their_content() {
        assert_eq!(json("null"), "null");
        assert_eq!(json("true"), "the boolean `true`");
        assert_eq!(json("-0"), "the number `0`");
        assert_eq!(json("18446744073709551615"), "the number `18446744073709551615`");
        assert_eq!(json("1.50"), "the number `1.50`");
        assert_eq!(json(r#""a\u00e9""#), "the text `aé`");
        assert_eq!(json(r#""\ud800""#), "a text that is not Unicode");
        assert_eq!(json("[1]"), "a list");
        assert_eq!(json("{}"), "an object");
        assert!(json(&"1".repeat(1 << 20)).len() < 100);
    }

    #[test]
    fn msgpack_values_are_named_with_their_content() {
        let msgpack = |bytes: &[u8]| Raw::Msgpack(bytes).read().to_string();
        assert_eq!(msgpack(b"\xc0"), "null");
        assert_eq!(msgpack(b"\xd0\xff"), "the number `-1`");
        assert_eq!(msgpack(b"\xca\x3f\x80\x00\x00"), "the number `1`");
        assert_eq!(msgpack(b"\xa1\xff"), "a text that is not Unicode");
        assert_eq!(msgpack(b"\xc4\x01a"), "binary data");
        assert_eq!(msgpack(b"\xd4\x01a"), "an extension type");
    }
}

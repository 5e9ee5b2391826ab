//! The mapping from MessagePack to JSON, as `body` describes it. It writes straight from the bytes, without a tree.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::Problem;
use crate::encoding::DEEPEST;
use crate::msgpack::{Cursor, Malformed, Token};

/// The extension type that MessagePack itself defines.
const TIMESTAMP: i8 = -1;

/// Where a value stands. Inside a key, only simple keys are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Value,
    Key,
}

/// One value as JSON.
pub(super) fn to_json(bytes: &[u8]) -> Result<String, Problem> {
    let mut cursor = Cursor::new(bytes);
    let mut out = Vec::with_capacity(bytes.len() * 3 / 2);
    let token = cursor.token()?;
    write(token, &mut cursor, &mut out, DEEPEST, Place::Value)?;
    cursor.end()?;
    String::from_utf8(out).map_err(|_| Problem::NotUtf8)
}

/// The text that a key has in JSON, before escaping; what follows its token is read from the cursor.
pub(super) fn key_text<'a>(
    token: Token<'a>,
    cursor: &mut Cursor<'a>,
    levels: usize,
    place: Place,
) -> Result<Cow<'a, str>, Problem> {
    match token {
        Token::Text(text) => Ok(Cow::Borrowed(utf8(text)?)),
        Token::Binary(data) => Ok(Cow::Owned(BASE64.encode(data))),
        Token::List(_) | Token::Map(_) | Token::Extension(..) if place == Place::Key => {
            Err(Problem::KeyInKey)
        }
        _ => {
            let mut out = Vec::new();
            write(token, cursor, &mut out, levels, Place::Key)?;
            String::from_utf8(out).map(Cow::Owned).map_err(|_| Problem::NotUtf8)
        }
    }
}

pub(super) fn utf8(text: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(text).map_err(|_| Problem::NotUtf8)
}

/// The levels that are left inside of a list or an object.
pub(super) fn deeper(levels: usize) -> Result<usize, Problem> {
    levels.checked_sub(1).ok_or(Problem::TooDeep { limit: DEEPEST })
}

/// Writes the value that begins with this token; its recursion ends with the levels.
fn write<'a>(
    token: Token<'a>,
    cursor: &mut Cursor<'a>,
    out: &mut Vec<u8>,
    levels: usize,
    place: Place,
) -> Result<(), Problem> {
    match token {
        Token::Nil => out.extend_from_slice(b"null"),
        Token::Bool(value) => write_scalar(&value, out)?,
        Token::Unsigned(number) => write_scalar(&number, out)?,
        Token::Negative(number) => write_scalar(&number, out)?,
        // Both give `null` for what is not finite.
        Token::F32(number) => write_scalar(&number, out)?,
        Token::F64(number) => write_scalar(&number, out)?,
        Token::Text(text) => write_scalar(utf8(text)?, out)?,
        Token::Binary(data) => write_scalar(&BASE64.encode(data), out)?,
        Token::Extension(kind, data) => {
            deeper(levels)?;
            write_extension(kind, data, out)?;
        }
        Token::List(count) => {
            let levels = deeper(levels)?;
            out.push(b'[');
            for position in 0..count {
                if position > 0 {
                    out.push(b',');
                }
                write(cursor.token()?, cursor, out, levels, place)?;
            }
            out.push(b']');
        }
        Token::Map(count) => {
            let levels = deeper(levels)?;
            out.push(b'{');
            for position in 0..count {
                if position > 0 {
                    out.push(b',');
                }
                let key = key_text(cursor.token()?, cursor, levels, place)?;
                write_scalar(key.as_ref(), out)?;
                out.push(b':');
                write(cursor.token()?, cursor, out, levels, place)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// Numbers, booleans and text, as `serde_json` writes them.
fn write_scalar<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Problem> {
    // Neither these values nor memory can make it fail.
    serde_json::to_writer(out, value).map_err(|_| Problem::Malformed(Malformed::Truncated))
}

fn write_extension(kind: i8, data: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    #[derive(Serialize)]
    struct Extension {
        #[serde(rename = "$ext")]
        kind: i8,
        data: String,
    }
    #[derive(Serialize)]
    struct Timestamp {
        #[serde(rename = "$ext")]
        kind: i8,
        seconds: i64,
        nanoseconds: u32,
    }
    match timestamp(data).filter(|_| kind == TIMESTAMP) {
        Some((seconds, nanoseconds)) => write_scalar(&Timestamp { kind, seconds, nanoseconds }, out),
        None => write_scalar(&Extension { kind, data: BASE64.encode(data) }, out),
    }
}

/// Seconds since 1970 and nanoseconds, from the three forms that MessagePack defines: seconds of 32 bits, nanoseconds
/// of 30 before seconds of 34, nanoseconds of 32 before signed seconds of 64.
fn timestamp(data: &[u8]) -> Option<(i64, u32)> {
    let (seconds, nanoseconds) = match data.len() {
        4 => (u32::from_be_bytes(data.try_into().ok()?).into(), 0),
        8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            (i64::try_from(both & ((1 << 34) - 1)).ok()?, u32::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanoseconds, seconds) = data.split_first_chunk()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanoseconds))
        }
        _ => return None,
    };
    (nanoseconds < 1_000_000_000).then_some((seconds, nanoseconds))
}

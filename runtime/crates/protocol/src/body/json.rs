//! Bodies in JSON: what syntax alone does not promise, and the way to MessagePack that clients use.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::Problem;
use super::mapping::deeper;
use crate::encoding::DEEPEST;

/// Checks text that is valid JSON for its depth and for lone surrogates.
pub(super) fn check(text: &str, max_depth: usize) -> Result<(), Problem> {
    let bytes = text.as_bytes();
    // Nearly every body passes here, at the speed of a count: with so few brackets it cannot be too deep, and without
    // a backslash it has no escapes.
    let brackets = count_opening(bytes);
    if brackets <= max_depth && !bytes.contains(&b'\\') {
        return Ok(());
    }
    let mut depth: usize = 0;
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(Problem::TooDeep { limit: max_depth });
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => check_text(&mut rest)?,
            _ => {}
        }
    }
    Ok(())
}

/// How many brackets open lists or objects, or stand in texts.
fn count_opening(bytes: &[u8]) -> usize {
    // Counted in single bytes, which pieces this short cannot overflow, the compiler makes vector instructions of it.
    const PIECE: usize = 128;
    let opens = |byte: &u8| u8::from(matches!(byte, b'{' | b'['));
    let pieces = bytes.chunks(PIECE);
    pieces.map(|piece| usize::from(piece.iter().map(opens).fold(0, u8::wrapping_add))).sum()
}

/// Reads on to the end of a text, whose opening quotation mark is behind us.
fn check_text(rest: &mut std::slice::Iter<'_, u8>) -> Result<(), Problem> {
    let mut high_surrogate = false;
    loop {
        let low_surrogate_due = std::mem::take(&mut high_surrogate);
        let unit = match rest.next() {
            Some(b'\\') => match rest.next() {
                Some(b'u') => utf16_unit(rest),
                _ => 0,
            },
            Some(b'"') | None if low_surrogate_due => return Err(Problem::LoneSurrogate),
            Some(b'"') | None => return Ok(()),
            Some(_) => 0,
        };
        high_surrogate = (0xd800..0xdc00).contains(&unit);
        if (0xdc00..0xe000).contains(&unit) != low_surrogate_due {
            return Err(Problem::LoneSurrogate);
        }
    }
}

/// The number behind `\u`.
fn utf16_unit(rest: &mut std::slice::Iter<'_, u8>) -> u32 {
    let digits = rest.by_ref().take(4);
    digits.fold(0, |unit, digit| unit << 4 | char::from(*digit).to_digit(16).unwrap_or(0))
}

/// The same object as MessagePack.
pub(super) fn to_msgpack(bytes: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut out = Vec::with_capacity(bytes.len());
    write(serde_json::from_slice(bytes)?, DEEPEST, &mut out)?;
    Ok(out)
}

/// Each level is parsed anew, which is slow for what is deep and simple for everything. The recursion ends with the
/// levels, also for bytes that nobody checked.
fn write(value: &RawValue, levels: usize, out: &mut Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let levels = deeper(levels)?;
            let pairs: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            rmp::encode::write_map_len(out, pairs.len().try_into()?)?;
            for (key, value) in pairs {
                rmp::encode::write_str(out, &key)?;
                write(value, levels, out)?;
            }
        }
        Some(b'[') => {
            let levels = deeper(levels)?;
            let values: Vec<&RawValue> = serde_json::from_str(text)?;
            rmp::encode::write_array_len(out, values.len().try_into()?)?;
            for value in values {
                write(value, levels, out)?;
            }
        }
        Some(b'"') => {
            let text: String = serde_json::from_str(text)?;
            rmp::encode::write_str(out, &text)?;
        }
        Some(b't') => rmp::encode::write_bool(out, true)?,
        Some(b'f') => rmp::encode::write_bool(out, false)?,
        Some(b'n') => rmp::encode::write_nil(out)?,
        _ => write_number(text, out)?,
    }
    Ok(())
}

fn write_number(text: &str, out: &mut Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(number) = text.parse() {
        rmp::encode::write_uint(out, number)?;
    } else if let Ok(number) = text.parse() {
        rmp::encode::write_sint(out, number)?;
    } else {
        rmp::encode::write_f64(out, text.parse()?)?;
    }
    Ok(())
}

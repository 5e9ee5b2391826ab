//! Bodies in MessagePack: everything is refused here that `mapping` could fail on, or could only map by losing
//! something.

use std::borrow::Cow;

use super::Problem;
use super::mapping::{Place, deeper, key_text, utf8};
use crate::msgpack::{Cursor, Token};

/// Up to so many keys it is cheaper to compare each with each than to sort them.
const FEW_KEYS: usize = 16;

/// Checks one well-formed value for its depth, its text and its keys.
pub(super) fn check(bytes: &[u8], max_depth: usize) -> Result<(), Problem> {
    let mut cursor = Cursor::new(bytes);
    let checked = Check { keys: Vec::with_capacity(FEW_KEYS) }.value(&mut cursor, max_depth, Place::Value);
    // Inside, the limit is counted down, so only here it is known.
    checked.map_err(|problem| match problem {
        Problem::TooDeep { .. } => Problem::TooDeep { limit: max_depth },
        other => other,
    })
}

/// A walk over a body. Its recursion ends with the levels that the limits allow.
struct Check<'a> {
    /// The keys so far of all maps that are open, those of the innermost map last.
    keys: Vec<Cow<'a, str>>,
}

impl<'a> Check<'a> {
    fn value(&mut self, cursor: &mut Cursor<'a>, levels: usize, place: Place) -> Result<(), Problem> {
        match cursor.token()? {
            Token::Text(text) => {
                utf8(text)?;
            }
            Token::Extension(..) => {
                deeper(levels)?;
            }
            Token::List(count) => {
                let levels = deeper(levels)?;
                for _ in 0..count {
                    self.value(cursor, levels, place)?;
                }
            }
            Token::Map(count) => {
                let levels = deeper(levels)?;
                let outer_keys = self.keys.len();
                for _ in 0..count {
                    self.key(cursor, levels, place)?;
                    self.value(cursor, levels, place)?;
                }
                check_distinct(self.keys.get_mut(outer_keys..).unwrap_or_default())?;
                self.keys.truncate(outer_keys);
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks a key and puts its text to the others of its map.
    fn key(&mut self, cursor: &mut Cursor<'a>, levels: usize, place: Place) -> Result<(), Problem> {
        let before = cursor.rest();
        let token = cursor.token()?;
        if let Token::Text(text) = token {
            self.keys.push(Cow::Borrowed(utf8(text)?));
            return Ok(());
        }
        if place == Place::Value && matches!(token, Token::List(_) | Token::Map(_)) {
            self.value(&mut Cursor::new(before), levels, Place::Key)?;
        }
        self.keys.push(key_text(token, cursor, levels, place)?);
        Ok(())
    }
}

fn check_distinct(keys: &mut [Cow<'_, str>]) -> Result<(), Problem> {
    let twice = if keys.len() <= FEW_KEYS {
        keys.iter()
            .enumerate()
            .find(|(position, key)| keys.iter().take(*position).any(|other| other == *key))
            .map(|(_, key)| key)
    } else {
        keys.sort_unstable();
        keys.iter().zip(keys.iter().skip(1)).find(|(one, next)| one == next).map(|(one, _)| one)
    };
    match twice {
        Some(key) => Err(Problem::SameKeys(key.to_string())),
        None => Ok(()),
    }
}

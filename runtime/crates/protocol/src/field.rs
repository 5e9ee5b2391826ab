//! The checks that fields of a call share, and how their refusals are worded.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use crate::quote::Quoted;
use crate::refusal::Refusal;
use crate::value::{Raw, Value};

/// What came under a name.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Slot<'a> {
    #[default]
    Absent,
    Once(Raw<'a>),
    /// More than one value: which of them was meant cannot be told.
    Repeated,
}

impl<'a> Slot<'a> {
    pub(crate) fn fill(&mut self, raw: Raw<'a>) {
        *self = match self {
            Slot::Absent => Slot::Once(raw),
            Slot::Once(_) | Slot::Repeated => Slot::Repeated,
        };
    }

    /// The value of a field that need not be there.
    pub(crate) fn optional(self, field: &str) -> Result<Option<Raw<'a>>, Refusal> {
        match self {
            Slot::Absent => Ok(None),
            Slot::Once(raw) => Ok(Some(raw)),
            Slot::Repeated => Err(Refusal::invalid_field(field, "found more than once, expected once")),
        }
    }

    /// The value of a field that the call needs.
    pub(crate) fn required(self, field: &str) -> Result<Raw<'a>, Refusal> {
        self.optional(field)?.ok_or_else(|| Refusal::missing_field(field))
    }
}

/// `found …, expected …`, as every message about a field says it.
pub(crate) fn mismatch(field: &str, found: impl fmt::Display, expected: impl fmt::Display) -> Refusal {
    Refusal::invalid_field(field, format_args!("found {found}, expected {expected}"))
}

/// A text within these lengths, in bytes.
pub(crate) fn text<'a>(
    field: &str,
    raw: Raw<'a>,
    bytes: RangeInclusive<usize>,
) -> Result<Cow<'a, str>, Refusal> {
    match raw.read() {
        Value::Text(text) => {
            bounded(field, &text, bytes)?;
            Ok(text)
        }
        other => Err(mismatch(field, other, Lengths(bytes))),
    }
}

/// A text within these lengths that nobody else may read, so that a refusal says its kind and never its content.
pub(crate) fn secret(field: &str, raw: Raw<'_>, bytes: RangeInclusive<usize>) -> Result<String, Refusal> {
    match raw.read() {
        Value::Text(text) if bytes.contains(&text.len()) => Ok(text.into_owned()),
        Value::Text(text) => Err(mismatch(field, format_args!("{} bytes", text.len()), Lengths(bytes))),
        other => Err(mismatch(field, other.kind(), Lengths(bytes))),
    }
}

/// The text, if its length is within these bounds.
pub(crate) fn bounded<'a>(
    field: &str,
    text: &'a str,
    bytes: RangeInclusive<usize>,
) -> Result<&'a str, Refusal> {
    if bytes.contains(&text.len()) {
        return Ok(text);
    }
    let found = format_args!("the text {} of {} bytes", Quoted(text), text.len());
    Err(mismatch(field, found, Lengths(bytes)))
}

struct Lengths(RangeInclusive<usize>);

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.start() {
            0 => write!(f, "text of at most {} bytes", self.0.end()),
            start => write!(f, "text of {start} to {} bytes", self.0.end()),
        }
    }
}

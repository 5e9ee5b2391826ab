//! Text from outside as it may stand in a message for people: short, on one line, and valid UTF-8.

use std::fmt;

/// How much of a text from outside is quoted back. Enough to recognise a value, too little to fill a log with.
pub(crate) const MAX_QUOTED_BYTES: usize = 64;

/// Displays a text in backquotes, cut to [`MAX_QUOTED_BYTES`] and with control characters escaped.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.floor_char_boundary(MAX_QUOTED_BYTES);
        let (shown, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
        let dots = if rest.is_empty() { "" } else { "…" };
        write!(f, "`{}{dots}`", shown.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_quoted_whole() {
        assert_eq!(Quoted("node-7").to_string(), "`node-7`");
        assert_eq!(Quoted("").to_string(), "``");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "a".repeat(MAX_QUOTED_BYTES - 1) + "éé";
        assert_eq!(Quoted(&text).to_string(), format!("`{}…`", "a".repeat(MAX_QUOTED_BYTES - 1)));
    }

    #[test]
    fn control_characters_cannot_forge_log_lines() {
        assert_eq!(Quoted("a\nb\u{1b}[2J").to_string(), r"`a\nb\u{1b}[2J`");
    }
}

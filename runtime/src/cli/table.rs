//! Tables for people on a terminal. Pure: text from values.

/// Space between two columns.
const GAP: &str = "  ";

/// On which side of its column a text stands.
#[derive(Debug, Clone, Copy)]
pub enum Align {
    /// As texts do.
    Left,
    /// As numbers do.
    Right,
}

/// The heads and the rows, one line each, every column as wide as its widest cell.
pub fn columns<const N: usize>(heads: [(&str, Align); N], rows: Vec<[String; N]>) -> String {
    Table::new(heads).page(rows)
}

/// A table that is printed page by page. Its columns become wider with the pages, and never narrower.
#[derive(Debug)]
pub struct Table<const N: usize> {
    /// Until they are printed.
    heads: Option<[String; N]>,
    layout: [(Align, usize); N],
}

impl<const N: usize> Table<N> {
    /// A table of which nothing is printed yet.
    pub fn new(heads: [(&str, Align); N]) -> Table<N> {
        Table {
            heads: Some(heads.map(|(head, _)| head.to_owned())),
            layout: heads.map(|(_, align)| (align, 0)),
        }
    }

    /// The next rows, one line each; the first time below the heads.
    pub fn page(&mut self, rows: Vec<[String; N]>) -> String {
        let lines: Vec<[String; N]> = self.heads.take().into_iter().chain(rows).collect();
        for cells in &lines {
            for ((_, widest), cell) in self.layout.iter_mut().zip(cells) {
                *widest = width(cell).max(*widest);
            }
        }
        lines.iter().map(|cells| line(cells, &self.layout)).collect()
    }
}

fn line(cells: &[String], layout: &[(Align, usize)]) -> String {
    let mut text = String::new();
    for (cell, (align, widest)) in std::iter::zip(cells, layout) {
        let padding = " ".repeat(widest.saturating_sub(width(cell)));
        match align {
            Align::Left => text.extend([cell, padding.as_str(), GAP]),
            Align::Right => text.extend([padding.as_str(), cell, GAP]),
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text with control characters replaced: what receivers and agents say must not steer the operator's terminal.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// The same for a text of several lines, of which each is indented, so that none can pass for a line of our own.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(|line| format!("    {}\n", printable(line))).collect()
}

/// JSON with the control characters in its texts escaped, as far as JSON itself does not ask for it.
pub fn printable_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_control() && !character.is_ascii_whitespace() {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
    text
}

/// The lines, each cut to so many characters.
pub fn cut(lines: &str, max_chars: usize) -> String {
    let cut = |line: &str| match line.char_indices().nth(max_chars) {
        None => format!("{line}\n"),
        Some(_) => line.chars().take(max_chars.saturating_sub(1)).chain("…\n".chars()).collect(),
    };
    lines.lines().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_several_pages_has_its_heads_once_and_becomes_wider() {
        let mut table = Table::new([("ID", Align::Right), ("NAME", Align::Left)]);
        let row = |id: &str, name: &str| [id.to_owned(), name.to_owned()];
        let pages = [
            table.page(vec![row("1", "a"), row("2", "bb")]),
            table.page(vec![row("1000", "c")]),
            table.page(vec![row("3", "d")]),
            table.page(Vec::new()),
        ];
        assert_eq!(pages, ["ID  NAME\n 1  a\n 2  bb\n", "1000  c\n", "   3  d\n", ""]);
    }

    #[test]
    fn nothing_of_what_is_printed_steers_a_terminal() {
        let hostile = "a\u{1b}[2J\u{7f}\u{9b}31m";
        assert_eq!(printable(hostile), "a\u{fffd}[2J\u{fffd}\u{fffd}31m");
        assert_eq!(printable_lines("one\r\ntw\ro\n\u{1b}x"), "    one\n    tw\u{fffd}o\n    \u{fffd}x\n");
        let json = serde_json::to_string(&[hostile]).unwrap();
        let printed = printable_json(&json);
        assert_eq!(printed, r#"["a\u001b[2J\u007f\u009b31m"]"#);
        assert_eq!(serde_json::from_str::<[String; 1]>(&printed).unwrap(), [hostile]);
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        assert_eq!(cut("123\n1234\n12345\nä漢ö漢ü\n", 4), "123\n1234\n123…\nä漢ö…\n");
    }
}

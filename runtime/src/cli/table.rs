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
    let first = heads.map(|(head, _)| head.to_owned());
    let lines: Vec<[String; N]> = std::iter::once(first).chain(rows).collect();
    let mut layout = heads.map(|(_, align)| (align, 0));
    for cells in &lines {
        for ((_, widest), cell) in layout.iter_mut().zip(cells) {
            *widest = width(cell).max(*widest);
        }
    }
    lines.iter().map(|cells| line(cells, &layout)).collect()
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

//! The terminal that standard output may be.

use std::io::IsTerminal;

use rustix::termios::tcgetwinsize;

/// How much fits on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters of a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
}

/// Its size now, if there is one that says it.
pub fn size() -> Option<Size> {
    let out = std::io::stdout();
    let size = out.is_terminal().then(|| tcgetwinsize(&out).ok())??;
    let size = Size { width: usize::from(size.ws_col), height: usize::from(size.ws_row) };
    (size.width > 0 && size.height > 0).then_some(size)
}

//! `wasi:filesystem`: the folders that a receiver was granted, and nothing around them.

use std::path::PathBuf;

/// The grant of one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderGrant {
    /// The folder on the server's machine.
    pub host: PathBuf,
    /// Where the guest sees it: an absolute path, such as `/out`.
    pub guest: String,
    /// Whether it may be written to.
    pub write: bool,
}

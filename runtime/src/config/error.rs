//! What is wrong with a configuration, told so that an operator can mend it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::MAX_FILE_BYTES;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("read the configuration {file:?}")]
    Read {
        /// The file, as it was named.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The file is far too large to be a configuration.
    #[error("read the configuration {file:?}: it has more than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The file, as it was named.
        file: PathBuf,
    },

    /// The file is not UTF-8.
    #[error("read the configuration {file:?}: it is not UTF-8 text")]
    NotText {
        /// The file, as it was named.
        file: PathBuf,
    },

    /// The file was read, but says something that cannot be.
    #[error("accept the configuration:{}", report(file, problems))]
    Invalid {
        /// The file, as it was named.
        file: PathBuf,
        /// What is wrong, in the order of the file: at least one problem, and at most 50 of them.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// The key with its tables, as in `limits.max-frame`. Empty for the file as a whole.
    pub key: String,
    /// What was found there and what was expected.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => formatter.write_str(&self.text),
            key => write!(formatter, "{key}: {}", self.text),
        }
    }
}

/// A line for each problem, in the form that editors and terminals turn into a link.
fn report(file: &Path, problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n{}:{}: {problem}", file.display(), problem.line)).collect()
}

//! What the receiver contract has against a component. The texts are for whoever wrote the config or the component: what was
//! found, what was expected, what to do.

use std::fmt::{self, Display};

use serde::{Serialize, Serializer};

use crate::contract::{Grant, Import, Standing};

/// How many names a text lists. What is wrong with more of them is wrong with these, too.
const MAX_LISTED: usize = 20;

/// A reason to refuse a component. Its text fits "load FILE: …"; it is serialised as that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It exports no handler.
    #[error(
        "it exports {}, expected `wharf:receiver/handler`; build it for a world that includes \
         `wharf:receiver/base`",
        listed(exports)
    )]
    NoHandler {
        /// What it exports.
        exports: Vec<String>,
    },
    /// An interface is exported in a version that this host can't call.
    #[error(
        "it exports `{found}`, expected version {expected}; build it against the WIT package of this server"
    )]
    ExportVersion {
        /// The export with its version.
        found: String,
        /// The versions that work.
        expected: &'static str,
    },
    /// An interface is exported, but a function is missing or has another type.
    #[error("its export `{interface}` {problem}; build it against the WIT package of this server")]
    ExportIncomplete {
        /// The export.
        interface: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It imports what no receiver can have.
    #[error(
        "it imports {}, which this server does not provide; remove that from the component's world or use a \
         version that is listed in the receiver contract",
        listed(imports)
    )]
    UnknownImports {
        /// These imports.
        imports: Vec<Import>,
    },
    /// An import has a known name, but not the functions or types that this host provides under it.
    #[error("{reason}; build it against the interface versions that are listed in the receiver contract")]
    Link {
        /// What does not match.
        reason: String,
    },
    /// It imports what the receiver was not granted.
    #[error(
        "it imports {}, and receiver {receiver:?} has no grant for that; add {} to the receiver's config if \
         it may",
        listed(imports),
        listed(grants)
    )]
    NotGranted {
        /// The receiver.
        receiver: String,
        /// The imports that lack a grant.
        imports: Vec<Import>,
        /// These grants.
        grants: Vec<Grant>,
    },
    /// The receiver's config has a tick, and nothing listens to it.
    #[error(
        "it does not export `wharf:receiver/timer`, which the `tick` of receiver {receiver:?} is for; export \
         it or remove `tick` from the receiver's config"
    )]
    NoTimer {
        /// The receiver.
        receiver: String,
    },
    /// It starts with more memory than the receiver has.
    #[error(
        "it starts with a memory of {needed} bytes, and the receiver may use {limit} bytes; raise the \
         receiver's memory"
    )]
    MemoryTooSmall {
        /// What the component's largest memory starts with, in bytes.
        needed: u64,
        /// The receiver's `memory`.
        limit: u64,
    },
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An import as a problem names it: with the version that was expected, where that is what is wrong.
impl Display for Import {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`", self.name)?;
        match self.standing {
            Standing::OtherVersion { expected } => write!(formatter, " (expected version {expected})"),
            _ => Ok(()),
        }
    }
}

/// The problems of one component, to follow a colon: one in the same line, several in a line each.
pub(crate) fn together(problems: &[Problem]) -> String {
    match problems {
        [problem] => format!(" {problem}"),
        problems => problems.iter().map(|problem| format!("\n  - {problem}")).collect(),
    }
}

fn listed<T: Display>(names: &[T]) -> String {
    if names.is_empty() {
        return "nothing".into();
    }
    let mut text = names.iter().take(MAX_LISTED).map(T::to_string).collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(MAX_LISTED) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

//! What components may import, and what each import needs: the table of the receiver contract.

use std::fmt::{self, Display};

use serde::{Serialize, Serializer};

use super::printable_name;
use super::versions::{OURS, Versions, WASI, split_version};
use crate::grants::Grants;

/// Interfaces of one package that stand alike.
struct Provided {
    package: &'static str,
    interfaces: &'static [&'static str],
    versions: Versions,
    standing: Standing,
}

/// An import of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    /// Its name with the version.
    pub name: String,
    /// What it takes to have it.
    #[serde(flatten)]
    pub standing: Standing,
}

/// What it takes to have an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// Every receiver has it.
    Free,
    /// A grant, without which it does not link.
    NeedsGrant {
        /// The grant.
        grant: Grant,
    },
    /// It links without a grant and reaches nothing then. The toolchains of some languages import these interfaces whether a
    /// program uses them or not.
    IdleWithoutGrant {
        /// The grant.
        grant: Grant,
    },
    /// It links, for those toolchains, and never reaches anything.
    ReachesNothing,
    /// Only other versions of it can be had.
    OtherVersion {
        /// The versions that can be had.
        expected: &'static str,
    },
    /// No receiver can have it.
    Unknown,
}

/// What a receiver can be granted. It is serialised as it would stand in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// To publish to open pages.
    Live,
    /// A durable store.
    KeyValue,
    /// Requests to some origins.
    Http,
    /// Folders of the server's machine.
    Files,
}

/// The versions of `wasi:keyvalue`.
const KEYVALUE: Versions = Versions::Exactly("0.2.0-draft2");

/// All that a component can import.
const PROVIDED: &[Provided] = &[
    Provided {
        package: "wharf:receiver",
        interfaces: &["metrics", "types"],
        versions: OURS,
        standing: Standing::Free,
    },
    Provided {
        package: "wharf:receiver",
        interfaces: &["live"],
        versions: OURS,
        standing: Standing::NeedsGrant { grant: Grant::Live },
    },
    Provided {
        package: "wasi:cli",
        interfaces: &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
        versions: WASI,
        standing: Standing::Free,
    },
    Provided {
        package: "wasi:clocks",
        interfaces: &["monotonic-clock", "wall-clock"],
        versions: WASI,
        standing: Standing::Free,
    },
    Provided {
        package: "wasi:config",
        interfaces: &["store"],
        versions: Versions::Exactly("0.2.0-rc.1"),
        standing: Standing::Free,
    },
    Provided {
        package: "wasi:filesystem",
        interfaces: &["preopens", "types"],
        versions: WASI,
        standing: Standing::IdleWithoutGrant { grant: Grant::Files },
    },
    Provided { package: "wasi:http", interfaces: &["types"], versions: WASI, standing: Standing::Free },
    Provided {
        package: "wasi:http",
        interfaces: &["outgoing-handler"],
        versions: WASI,
        standing: Standing::IdleWithoutGrant { grant: Grant::Http },
    },
    Provided {
        package: "wasi:io",
        interfaces: &["error", "poll", "streams"],
        versions: WASI,
        standing: Standing::Free,
    },
    Provided {
        package: "wasi:keyvalue",
        interfaces: &["atomics", "batch", "store"],
        versions: KEYVALUE,
        standing: Standing::NeedsGrant { grant: Grant::KeyValue },
    },
    Provided {
        package: "wasi:logging",
        interfaces: &["logging"],
        versions: Versions::Exactly("0.1.0-draft"),
        standing: Standing::Free,
    },
    Provided {
        package: "wasi:random",
        interfaces: &["insecure", "insecure-seed", "random"],
        versions: WASI,
        standing: Standing::Free,
    },
    Provided {
        package: "wasi:sockets",
        interfaces: &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
        versions: WASI,
        standing: Standing::ReachesNothing,
    },
];

impl Import {
    /// Looks an import up, by its name with the version.
    pub(super) fn new(name: &str) -> Self {
        Self { name: printable_name(name), standing: look_up(name) }
    }

    /// Its name without the version: what stays the same when a component is built again with newer tools.
    pub fn interface(&self) -> &str {
        split_version(&self.name).0
    }
}

fn look_up(import: &str) -> Standing {
    let (interface, version) = split_version(import);
    let Some((package, name)) = interface.split_once('/') else {
        return Standing::Unknown;
    };
    let found = PROVIDED.iter().find(|row| row.package == package && row.interfaces.contains(&name));
    match found {
        None => Standing::Unknown,
        Some(row) if row.versions.contain(version) => row.standing,
        Some(row) => Standing::OtherVersion { expected: row.versions.expected() },
    }
}

impl Standing {
    /// Whether no grant helps.
    pub fn is_refused(self) -> bool {
        matches!(self, Self::OtherVersion { .. } | Self::Unknown)
    }

    /// The grant without which it can't be had, or is of no use.
    pub fn grant(self) -> Option<Grant> {
        match self {
            Self::NeedsGrant { grant } | Self::IdleWithoutGrant { grant } => Some(grant),
            Self::Free | Self::ReachesNothing | Self::OtherVersion { .. } | Self::Unknown => None,
        }
    }
}

impl Grant {
    pub(super) const ALL: [Self; 4] = [Self::Live, Self::KeyValue, Self::Http, Self::Files];

    /// The grant as it would stand in a receiver's config. Where it takes values, these are examples.
    pub fn in_config(self) -> &'static str {
        match self {
            Self::Live => "live = true",
            Self::KeyValue => "keyvalue = true",
            Self::Http => r#"http = ["https://api.example.com"]"#,
            Self::Files => r#"files = [{ host = "out", guest = "/out", write = true }]"#,
        }
    }

    /// Its key in a receiver's config.
    pub fn key(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::KeyValue => "keyvalue",
            Self::Http => "http",
            Self::Files => "files",
        }
    }

    /// The import, or the package of imports, that it is for.
    pub(super) fn import(self) -> &'static str {
        match self {
            Self::Live => "wharf:receiver/live",
            Self::KeyValue => "wasi:keyvalue",
            Self::Http => "wasi:http/outgoing-handler",
            Self::Files => "wasi:filesystem",
        }
    }

    pub(super) fn is_in(self, grants: &Grants) -> bool {
        match self {
            Self::Live => grants.live.is_some(),
            Self::KeyValue => grants.keyvalue.is_some(),
            Self::Http => grants.http.is_some(),
            Self::Files => !grants.files.is_empty(),
        }
    }
}

impl Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`", self.in_config())
    }
}

impl Serialize for Grant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.in_config())
    }
}

//! What components may import, and what each import needs: the table of the receiver contract.

use super::versions::{OURS, Versions, WASI, split_version};
use crate::grants::Grants;

/// Interfaces of one package that need the same.
struct Provided {
    package: &'static str,
    interfaces: &'static [&'static str],
    versions: Versions,
    needs: Needs,
}

/// What an import needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: every receiver has it.
    Nothing,
    /// A grant without which it does not link.
    GrantToLink(Grant),
    /// A grant without which it links and reaches nothing. The toolchains of some languages import these interfaces whether a
    /// program uses them or not.
    GrantToReach(Grant),
    /// It links, for those toolchains, and never reaches anything.
    ReachesNothing,
}

/// What a receiver can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    Live,
    KeyValue,
    Http,
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
        needs: Needs::Nothing,
    },
    Provided {
        package: "wharf:receiver",
        interfaces: &["live"],
        versions: OURS,
        needs: Needs::GrantToLink(Grant::Live),
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
        needs: Needs::Nothing,
    },
    Provided {
        package: "wasi:clocks",
        interfaces: &["monotonic-clock", "wall-clock"],
        versions: WASI,
        needs: Needs::Nothing,
    },
    Provided {
        package: "wasi:config",
        interfaces: &["store"],
        versions: Versions::Exactly("0.2.0-rc.1"),
        needs: Needs::Nothing,
    },
    Provided {
        package: "wasi:filesystem",
        interfaces: &["preopens", "types"],
        versions: WASI,
        needs: Needs::GrantToReach(Grant::Files),
    },
    Provided { package: "wasi:http", interfaces: &["types"], versions: WASI, needs: Needs::Nothing },
    Provided {
        package: "wasi:http",
        interfaces: &["outgoing-handler"],
        versions: WASI,
        needs: Needs::GrantToReach(Grant::Http),
    },
    Provided {
        package: "wasi:io",
        interfaces: &["error", "poll", "streams"],
        versions: WASI,
        needs: Needs::Nothing,
    },
    Provided {
        package: "wasi:keyvalue",
        interfaces: &["atomics", "batch", "store"],
        versions: KEYVALUE,
        needs: Needs::GrantToLink(Grant::KeyValue),
    },
    Provided {
        package: "wasi:logging",
        interfaces: &["logging"],
        versions: Versions::Exactly("0.1.0-draft"),
        needs: Needs::Nothing,
    },
    Provided {
        package: "wasi:random",
        interfaces: &["insecure", "insecure-seed", "random"],
        versions: WASI,
        needs: Needs::Nothing,
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
        needs: Needs::ReachesNothing,
    },
];

/// What the table says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It can be had.
    Provided(Needs),
    /// Only other versions of it can be had.
    OtherVersion {
        /// The versions that can be had.
        expected: String,
    },
    /// It is not in the table.
    Unknown,
}

/// Looks an import up, by its name with the version.
pub(crate) fn look_up(import: &str) -> Lookup {
    let (interface, version) = split_version(import);
    let Some((package, name)) = interface.split_once('/') else {
        return Lookup::Unknown;
    };
    let found = PROVIDED.iter().find(|row| row.package == package && row.interfaces.contains(&name));
    match found {
        None => Lookup::Unknown,
        Some(row) if row.versions.contain(version) => Lookup::Provided(row.needs),
        Some(row) => Lookup::OtherVersion { expected: row.versions.expected() },
    }
}

impl Needs {
    /// The grant, if there is one.
    pub(crate) fn grant(self) -> Option<Grant> {
        match self {
            Self::GrantToLink(grant) | Self::GrantToReach(grant) => Some(grant),
            Self::Nothing | Self::ReachesNothing => None,
        }
    }
}

impl Grant {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Live, Self::KeyValue, Self::Http, Self::Files];

    /// The grant as it would stand in a receiver's config. Where it takes values, these are examples.
    pub(crate) fn in_config(self) -> &'static str {
        match self {
            Self::Live => "live = true",
            Self::KeyValue => "keyvalue = true",
            Self::Http => r#"http = ["https://api.example.com"]"#,
            Self::Files => r#"files = [{ host = "out", guest = "/out", write = true }]"#,
        }
    }

    /// Whether a receiver has it.
    pub(crate) fn is_in(self, grants: &Grants) -> bool {
        match self {
            Self::Live => grants.live.is_some(),
            Self::KeyValue => grants.keyvalue.is_some(),
            Self::Http => grants.http.is_some(),
            Self::Files => !grants.files.is_empty(),
        }
    }
}

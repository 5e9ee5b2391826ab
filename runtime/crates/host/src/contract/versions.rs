//! Names of interfaces with versions, and which versions of an interface are the one that the host knows.

/// The versions of an interface that work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    /// All that are compatible, such as `0.2.x`.
    Compatible(&'static str),
    /// One draft. Drafts are compatible with nothing but themselves.
    Exactly(&'static str),
}

/// The versions of `wharf:receiver`.
pub(crate) const OURS: Versions = Versions::Compatible("0.1.x");

/// The versions of WASI but for its drafts.
pub(crate) const WASI: Versions = Versions::Compatible("0.2.x");

impl Versions {
    /// Whether `name` is `interface` in one of these versions.
    pub(crate) fn match_name(self, name: &str, interface: &str) -> bool {
        let (base, version) = split_version(name);
        base == interface && self.contain(version)
    }

    /// Whether `version` is one of these.
    pub(crate) fn contain(self, version: &str) -> bool {
        match self {
            Self::Exactly(draft) => version == draft,
            Self::Compatible(series) => {
                let patch = version.strip_prefix(series.trim_end_matches('x'));
                // What follows a number (`0.2.0-rc.1`) makes a draft of it.
                patch
                    .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
            }
        }
    }

    /// The versions as people write them.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Exactly(versions) | Self::Compatible(versions) => versions,
        }
    }
}

/// `wasi:cli/exit@0.2.6` is `wasi:cli/exit` and `0.2.6`.
pub(crate) fn split_version(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_match_by_series_and_drafts_exactly() {
        let draft = Versions::Exactly("0.2.0-draft2");
        for (versions, version, matches) in [
            (WASI, "0.2.0", true),
            (WASI, "0.2.12", true),
            (WASI, "0.2", false),
            (WASI, "0.2.", false),
            (WASI, "0.20.1", false),
            (WASI, "0.3.0", false),
            (WASI, "0.2.0-rc.1", false),
            (WASI, "", false),
            (draft, "0.2.0-draft2", true),
            (draft, "0.2.0-draft", false),
            (draft, "0.2.0-draft22", false),
            (draft, "0.2.0", false),
        ] {
            let name = format!("wasi:any/thing@{version}");
            assert_eq!(versions.match_name(&name, "wasi:any/thing"), matches, "{name} in {versions:?}");
            assert!(!versions.match_name(&name, "wasi:any/other"), "{name}");
        }
    }
}

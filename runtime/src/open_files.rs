//! The system's limit on open files, of which every connection takes one. The log needs some whatever the agents do: a
//! topic that can't open its next segment can't store.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are kept for everything but connections of agents: standard streams, sockets, the state database, admin
/// connections, components, and what a runtime opens for itself.
const KEPT: u64 = 512;
/// Files that a topic may have open at a time: its segment, a new one, its bound, its folder, and readers that lag.
const KEPT_FOR_TOPIC: u64 = 16;

/// Raises the limit as far as the system lets us, and says how many connections it leaves room for, at most `wanted`, beside
/// the files that receivers may have open.
pub fn room_for_connections(wanted: usize, topics: usize, of_receivers: usize) -> usize {
    // No limit at all.
    let Some(current) = raise_limit() else { return wanted };
    let room = connections(current, topics, of_receivers);
    if room < wanted {
        tracing::warn!(
            limit = current,
            room,
            wanted,
            "the limit on open files leaves room for fewer connections than `limits.max-connections`; raise it (`ulimit -n`), or lower that key"
        );
    }
    room.min(wanted)
}

/// Raises the limit as far as the system lets us, and gives what it is then, if there is one.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "failed to raise the limit on open files");
            limit.current
        }
    }
}

/// The connections that fit below a limit on open files. A quarter of a small limit goes to connections all the same.
fn connections(limit: u64, topics: usize, of_receivers: usize) -> usize {
    let of_topics = KEPT_FOR_TOPIC.saturating_mul(u64::try_from(topics).unwrap_or(u64::MAX));
    let kept = KEPT.saturating_add(of_topics).saturating_add(u64::try_from(of_receivers).unwrap_or(u64::MAX));
    usize::try_from(limit.saturating_sub(kept).max(limit / 4)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_log() {
        assert_eq!(connections(20_000, 3, 0), 20_000 - 512 - 48);
        assert_eq!(connections(20_000, 3, 1000), 20_000 - 512 - 48 - 1000);
        assert_eq!(connections(1024, 3, 0), 464);
        assert_eq!(connections(256, 3, 0), 64);
    }
}

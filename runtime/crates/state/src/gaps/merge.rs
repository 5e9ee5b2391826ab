//! How gap records are kept few.

use super::{Gap, GapReason};

/// How many gap records of a receiver and topic are kept apart: as many as an operator may want to look through, and little
/// enough to be written anew with each.
pub const MAX_GAPS: usize = 256;

const _: () =
    assert!(MAX_GAPS >= GapReason::WORDS.len(), "beyond the bound, two records must be of one kind");

/// Adds a record, at the end: those that touch it and have the same reason become one with it, and beyond the bound the
/// two oldest of one kind become one.
pub fn add(gaps: &mut Vec<Gap>, gap: Gap) {
    let mut gap = gap;
    gap.offsets.end = gap.offsets.end.max(gap.offsets.start);
    // Each seek is an event of its own.
    if !matches!(gap.reason, GapReason::Seek { .. }) && !gap.offsets.is_empty() {
        // One that is taken in may make it touch another one.
        while let Some(touching) = gaps.iter().position(|other| touch(other, &gap)) {
            gap = unite(gaps.remove(touching), gap);
        }
    }
    gaps.push(gap);
    while gaps.len() > MAX_GAPS {
        let Some((older, newer)) = oldest_of_one_kind(gaps) else { break };
        let newer = gaps.remove(newer);
        if let Some(older) = gaps.get_mut(older) {
            let both = older.merged.saturating_add(newer.merged);
            *older = unite(older.clone(), newer);
            older.merged = both.saturating_add(1);
        }
    }
}

fn touch(a: &Gap, b: &Gap) -> bool {
    a.reason == b.reason && a.offsets.start <= b.offsets.end && b.offsets.start <= a.offsets.end
}

/// One record for two of the same kind, with the reason of the newer.
fn unite(older: Gap, newer: Gap) -> Gap {
    let offsets = match (older.offsets.is_empty(), newer.offsets.is_empty()) {
        (_, true) => older.offsets,
        (true, _) => newer.offsets,
        _ => older.offsets.start.min(newer.offsets.start)..older.offsets.end.max(newer.offsets.end),
    };
    // No message is skipped twice, unless the cursors were moved back in between.
    let most = offsets.end.saturating_sub(offsets.start);
    let count = older.count.zip(newer.count).map(|(older, newer)| older.saturating_add(newer).min(most));
    Gap {
        offsets,
        count,
        reason: newer.reason,
        since: older.since.min(newer.since),
        until: older.until.max(newer.until),
        merged: older.merged.saturating_add(newer.merged),
    }
}

/// The first record that has a later one of its kind, and the first such.
fn oldest_of_one_kind(gaps: &[Gap]) -> Option<(usize, usize)> {
    gaps.iter().enumerate().find_map(|(older, gap)| {
        let later = gaps.iter().skip(older + 1).position(|other| other.reason.word() == gap.reason.word())?;
        Some((older, older + 1 + later))
    })
}

//! Receipts for people: one in full, or many in a table. Pure: text from values.

use bytesize::ByteSize;

use super::{Missing, Swap};
use crate::cli::table::{Align, columns, printable};
use crate::cli::time;

/// As many characters of a digest as tell two components apart at a glance.
const DIGEST_CHARACTERS: usize = 12;

/// A receipt in full.
pub fn receipt(swap: &Swap) -> String {
    let Swap { state, counts, .. } = swap;
    let done = match (swap.kind.as_str(), swap.outcome.as_str()) {
        (_, "refused") => "refused".to_owned(),
        ("rollback", _) => "rolled back".to_owned(),
        ("reload", _) => "reloaded".to_owned(),
        _ => "swapped".to_owned(),
    };
    let mut text =
        format!("{} {done}, receipt {}, {}\n", printable(&swap.receiver), swap.id, printable(&swap.outcome));
    let mut line =
        |name: &str, value: String| text.push_str(&format!("  {name:<10} {}\n", printable(&value)));
    line(
        "component",
        format!("{} -> {}", short(&swap.old), swap.new.as_deref().map_or("?".to_owned(), short)),
    );
    line("by", format!("{}, {}", swap.who, time::write(swap.at)));
    if let Some(reason) = &swap.reason {
        line("because", reason.clone());
    }
    for (name, imports) in [("gained", &swap.imports_gained), ("lost", &swap.imports_lost)] {
        if !imports.is_empty() {
            line(name, imports.join(", "));
        }
    }
    if let Some(compile) = swap.compile_ms {
        line("ready in", milliseconds(compile));
    }
    if !swap.pause_ms.is_empty() {
        line("pause", swap.pause_ms.iter().map(|pause| milliseconds(*pause)).collect::<Vec<_>>().join(", "));
    }
    if state.snapshots > 0 {
        let formats = state.formats.join(", ");
        line("state", format!("{} handed over ({formats}), {}", state.snapshots, ByteSize(state.bytes)));
    }
    for dropped in &state.dropped {
        line("state", format!("dropped: {dropped}"));
    }
    if !state.missing.is_empty() {
        line(
            "state",
            format!("does not contain {}", state.missing.iter().map(missing).collect::<Vec<_>>().join(", ")),
        );
    }
    if swap.outcome != "refused" {
        line(
            "messages",
            format!(
                "{} around it: {} handled before, {} after, {} again, {} dead, {} dropped, {} pending, {} lost",
                counts.accepted,
                counts.by_old,
                counts.by_new,
                counts.redelivered,
                counts.dead,
                counts.gaps,
                counts.pending,
                counts.lost
            ),
        );
    }
    if let Some(probation) = &swap.probation {
        let reason = probation.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        line("probation", format!("{}{reason}", probation.outcome));
    }
    text
}

/// Many, one line each, the newest last.
pub fn table(swaps: &[Swap]) -> String {
    let heads = [
        ("RECEIPT", Align::Right),
        ("WHEN", Align::Left),
        ("RECEIVER", Align::Left),
        ("WHAT", Align::Left),
        ("OUTCOME", Align::Left),
        ("OLD", Align::Left),
        ("NEW", Align::Left),
        ("PAUSE", Align::Right),
        ("MESSAGES", Align::Right),
        ("AGAIN", Align::Right),
        ("DEAD", Align::Right),
        ("PENDING", Align::Right),
        ("LOST", Align::Right),
        ("PROBATION", Align::Left),
        ("BY", Align::Left),
        ("BECAUSE", Align::Left),
    ];
    let rows = swaps.iter().map(|swap| {
        let longest = swap.pause_ms.iter().copied().reduce(f64::max);
        [
            swap.id.to_string(),
            time::write(swap.at),
            printable(&swap.receiver),
            printable(&swap.kind),
            printable(&swap.outcome),
            printable(&short(&swap.old)),
            swap.new.as_deref().map_or_else(|| "?".to_owned(), |new| printable(&short(new))),
            longest.map_or_else(|| "-".to_owned(), milliseconds),
            swap.counts.accepted.to_string(),
            swap.counts.redelivered.to_string(),
            swap.counts.dead.to_string(),
            swap.counts.pending.to_string(),
            swap.counts.lost.to_string(),
            swap.probation.as_ref().map_or_else(|| "-".to_owned(), |of| printable(&of.outcome)),
            printable(&swap.who),
            swap.reason.as_deref().map_or_else(|| "-".to_owned(), printable),
        ]
    });
    columns(heads, rows.collect())
}

fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARACTERS).collect()
}

fn missing(missing: &Missing) -> String {
    let Missing { r#type, from, to, lanes } = missing;
    let lanes = match lanes {
        Some(lanes) => format!(" in {} lanes", lanes.len()),
        None => String::new(),
    };
    format!("{from} to {} of {type}{lanes}", to.saturating_sub(1))
}

fn milliseconds(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{:.1} s", milliseconds / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swaps() -> Vec<Swap> {
        serde_json::from_str(
            r#"[{"id":3,"receiver":"dashboard","kind":"swap","outcome":"settled","who":"me@here","at":1777629600000,
                "old":"9f86d081884c7d659a2feaa0c55ad015","new":"60303ae22b998861bce3b28f33eec1be","imports_gained":["wharf:receiver/live@0.1.0"],
                "compile_ms":1234.5,"pause_ms":[2.13,1.9],"state":{"snapshots":2,"formats":["counter/1"],"bytes":2048},
                "counts":{"accepted":1204,"by_old":800,"by_new":404,"by_both":0,"redelivered":3,"dead":0,"gaps":0,"pending":0,"lost":0},
                "lanes":[],"later":1,"probation":{"outcome":"running"}},
               {"id":4,"receiver":"dashboard","kind":"rollback","outcome":"refused","reason":"no\u001b[2J","who":"probation","at":1777629601000,
                "old":"60303ae22b998861bce3b28f33eec1be"}]"#,
        )
        .unwrap()
    }

    #[test]
    fn a_receipt_is_told_in_full() {
        let swaps = swaps();
        insta::assert_snapshot!(receipt(&swaps[0]), @"
        dashboard swapped, receipt 3, settled
          component  9f86d081884c -> 60303ae22b99
          by         me@here, 2026-05-01T10:00:00Z
          gained     wharf:receiver/live@0.1.0
          ready in   1.2 s
          pause      2.1 ms, 1.9 ms
          state      2 handed over (counter/1), 2.0 KiB
          messages   1204 around it: 800 handled before, 404 after, 3 again, 0 dead, 0 dropped, 0 pending, 0 lost
          probation  running
        ");
        insta::assert_snapshot!(receipt(&swaps[1]), @"
        dashboard refused, receipt 4, refused
          component  60303ae22b99 -> ?
          by         probation, 2026-05-01T10:00:01Z
          because    no�[2J
        ");
        assert!(swaps[0].raw().unwrap().contains(r#""later":1"#), "what is not known here stays");
    }

    #[test]
    fn receipts_become_a_table() {
        insta::assert_snapshot!(table(&swaps()), @"
        RECEIPT  WHEN                  RECEIVER   WHAT      OUTCOME  OLD           NEW            PAUSE  MESSAGES  AGAIN  DEAD  PENDING  LOST  PROBATION  BY         BECAUSE
              3  2026-05-01T10:00:00Z  dashboard  swap      settled  9f86d081884c  60303ae22b99  2.1 ms      1204      3     0        0     0  running    me@here    -
              4  2026-05-01T10:00:01Z  dashboard  rollback  refused  60303ae22b99  ?                  -         0      0     0        0     0  -          probation  no�[2J
        ");
    }
}

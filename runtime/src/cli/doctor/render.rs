//! What a check found, for people. Pure: text from values.

use std::ops::Range;

use bytesize::ByteSize;

use super::report::{Finding, Report};
use crate::cli::table::{Align, columns, printable};

/// As many ranges of lost offsets as are printed of one finding. All are in the JSON.
const SHOWN_RANGES: usize = 8;

/// The whole report: what is there as tables, then what is not as it should be.
pub fn page(report: &Report) -> String {
    let mut text = format!(
        "{}, {}\n",
        printable(&report.data_dir.display().to_string()),
        if report.stopped_cleanly { "stopped in an orderly way" } else { "not stopped in an orderly way" }
    );
    text.push('\n');
    text.push_str(&topics(report));
    if !report.cursors.is_empty() {
        text.push('\n');
        text.push_str(&receivers(report));
    }
    text.push_str(&format!(
        "\n{} agents, {} values of receivers, {} compiled components\n",
        report.agents,
        report.values.iter().map(|of| of.values).fold(0, u64::saturating_add),
        report.compiled_components
    ));
    let (damage, notes): (Vec<_>, Vec<_>) = report.findings.iter().partition(|finding| finding.damage);
    for (head, findings) in [("DAMAGED", damage), ("NOTED", notes)] {
        for finding in findings {
            text.push_str(&self::finding(head, finding));
        }
    }
    text.push_str(match report.findings.as_slice() {
        [] => "\neverything is whole\n",
        _ if report.whole => "\nnothing is damaged\n",
        _ => "\nwhat is not listed as damaged is whole\n",
    });
    text
}

fn topics(report: &Report) -> String {
    let heads = [
        ("DATA TYPE", Align::Left),
        ("SEGMENTS", Align::Right),
        ("BLOCKS", Align::Right),
        ("RECORDS", Align::Right),
        ("SIZE", Align::Right),
        ("FIRST", Align::Right),
        ("LAST", Align::Right),
    ];
    let offset = |offset: Option<u64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    let rows = report.topics.iter().map(|topic| {
        [
            printable(&topic.name),
            topic.segments.to_string(),
            topic.blocks.to_string(),
            topic.records.to_string(),
            ByteSize(topic.bytes).to_string(),
            offset(topic.first),
            offset(topic.last),
        ]
    });
    columns(heads, rows.collect())
}

fn receivers(report: &Report) -> String {
    let heads = [
        ("RECEIVER", Align::Left),
        ("DATA TYPE", Align::Left),
        ("FINISHED BELOW", Align::Right),
        ("GAP RECORDS", Align::Right),
        ("DEAD LETTERS", Align::Right),
    ];
    let mut before = "";
    let rows = report.cursors.iter().map(|of| {
        let gaps = report.gaps.iter().filter(|gaps| gaps.receiver == of.receiver && gaps.topic == of.topic);
        let letters = report.dead_letters.iter().filter(|letters| letters.receiver == of.receiver);
        // They are a receiver's, whatever the data type.
        let is_first = std::mem::replace(&mut before, &of.receiver) != of.receiver;
        let letters = letters.map(|letters| letters.count).fold(0, u64::saturating_add);
        [
            printable(&of.receiver),
            printable(&of.topic),
            of.lowest.to_string(),
            gaps.map(|gaps| gaps.count).fold(0, u64::saturating_add).to_string(),
            if is_first { letters.to_string() } else { String::new() },
        ]
    });
    columns(heads, rows.collect())
}

fn finding(head: &str, finding: &Finding) -> String {
    let mut text = format!("\n{head}  {}\n", printable(&finding.file.display().to_string()));
    text.push_str(&format!("  found     {}\n", printable(&finding.found)));
    if let Some(lost) = &finding.lost {
        text.push_str(&format!("  lost      {} of {}\n", ranges(&lost.offsets), printable(&lost.topic)));
        if !lost.unfinished_by.is_empty() {
            let receivers = printable(&lost.unfinished_by.join(", "));
            text.push_str(&format!("  missed by {receivers}\n"));
        }
    }
    text.push_str(&format!("  at start  {}\n", printable(&finding.at_start)));
    text
}

/// Ranges as people count: with their last offset.
fn ranges(ranges: &[Range<u64>]) -> String {
    let shown: Vec<_> = ranges
        .iter()
        .take(SHOWN_RANGES)
        .map(|range| match range.end.saturating_sub(1) {
            last if last > range.start => format!("{} to {last}", range.start),
            _ => range.start.to_string(),
        })
        .collect();
    let more = ranges.len().saturating_sub(SHOWN_RANGES);
    let more = if more > 0 { format!(" and {more} more ranges") } else { String::new() };
    format!("offsets {}{more}", shown.join(", "))
}

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
    text.push_str(&format!("  found      {}\n", printable(&finding.found)));
    if let Some(lost) = &finding.lost {
        text.push_str(&format!("  lost       {} of {}\n", ranges(&lost.offsets), printable(&lost.topic)));
        if !lost.unfinished_by.is_empty() {
            let receivers = printable(&lost.unfinished_by.join(", "));
            text.push_str(&format!("  missed by  {receivers}\n"));
        }
    }
    text.push_str(&format!("  at start   {}\n", printable(&finding.at_start)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::{Cursors, DeadLetters, Gaps, Lost, Topic};

    fn report(findings: Vec<Finding>) -> Report {
        let cursors = |receiver: &str, lowest| Cursors {
            receiver: receiver.to_owned(),
            topic: "metrics".to_owned(),
            lowest,
            end: lowest,
        };
        Report {
            data_dir: "data".into(),
            whole: !findings.iter().any(|finding| finding.damage),
            stopped_cleanly: true,
            topics: vec![
                Topic {
                    name: "metrics".to_owned(),
                    segments: 3,
                    blocks: 120,
                    records: 4096,
                    bytes: 3 << 20,
                    first: Some(12),
                    last: Some(4107),
                    reserved: Some(4108),
                    closed_cleanly: true,
                },
                Topic {
                    name: "blocks".to_owned(),
                    segments: 0,
                    blocks: 0,
                    records: 0,
                    bytes: 0,
                    first: None,
                    last: None,
                    reserved: Some(0),
                    closed_cleanly: true,
                },
            ],
            cursors: vec![cursors("dashboard", 4108), cursors("journal", 700)],
            agents: 7,
            dead_letters: vec![DeadLetters { receiver: "journal".to_owned(), count: 2 }],
            gaps: vec![Gaps { receiver: "journal".to_owned(), topic: "metrics".to_owned(), count: 1 }],
            values: vec![],
            compiled_components: 2,
            findings,
        }
    }

    #[test]
    fn a_whole_directory_is_shown_as_tables() {
        insta::assert_snapshot!(page(&report(vec![])), @"
        data, stopped in an orderly way

        DATA TYPE  SEGMENTS  BLOCKS  RECORDS     SIZE  FIRST  LAST
        metrics           3     120     4096  3.0 MiB     12  4107
        blocks            0       0        0      0 B      -     -

        RECEIVER   DATA TYPE  FINISHED BELOW  GAP RECORDS  DEAD LETTERS
        dashboard  metrics              4108            0             0
        journal    metrics               700            1             2

        7 agents, 0 values of receivers, 2 compiled components

        everything is whole
        ");
    }

    #[test]
    fn damage_is_shown_before_what_is_only_noted() {
        let found = |file: &str, lost, damage| Finding {
            file: file.into(),
            found: "blocks are damaged or missing\u{1b}".to_owned(),
            lost,
            at_start: "these offsets are skipped".to_owned(),
            damage,
        };
        let lost = Lost {
            topic: "metrics".to_owned(),
            offsets: vec![20..21, 30..40],
            unfinished_by: vec!["journal".to_owned()],
        };
        let findings =
            vec![found("data/stray", None, false), found("data/log/metrics/0.seg", Some(lost), true)];
        let text = page(&report(findings));
        let (_, text) = text.split_once("compiled components\n").unwrap();
        insta::assert_snapshot!(text, @"

        DAMAGED  data/log/metrics/0.seg
          found      blocks are damaged or missing�
          lost       offsets 20, 30 to 39 of metrics
          missed by  journal
          at start   these offsets are skipped

        NOTED  data/stray
          found      blocks are damaged or missing�
          at start   these offsets are skipped

        what is not listed as damaged is whole
        ");
    }

    #[test]
    fn not_every_range_is_shown() {
        let many: Vec<_> = (0..20).map(|n| n * 10..n * 10 + 1).collect();
        assert_eq!(ranges(&many), "offsets 0, 10, 20, 30, 40, 50, 60, 70 and 12 more ranges");
    }
}

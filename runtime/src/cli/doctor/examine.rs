//! Looks at everything in a data directory, and at how it fits together. Changes nothing; blocks on the disk.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use wharf_log::LogCheck;
use wharf_state::StateProblem;

use super::report::{Finding, Lost, Report, Topic};
use crate::data_dir;
use crate::data_dir::offline::{Format, Offline};
use crate::swaps;

/// Looks at everything. `scratch` is an empty folder for copies of the databases; `progress` is told how many bytes more were
/// looked at, `length` how many there will be, roughly.
pub fn examine(
    data_dir: &Offline,
    scratch: &Path,
    progress: impl Fn(u64),
    length: impl Fn(u64),
) -> anyhow::Result<Report> {
    let mut report = Report {
        data_dir: data_dir.path().to_owned(),
        whole: true,
        stopped_cleanly: !data_dir.was_running(),
        topics: Vec::new(),
        cursors: Vec::new(),
        agents: 0,
        dead_letters: Vec::new(),
        gaps: Vec::new(),
        values: Vec::new(),
        compiled_components: 0,
        findings: Vec::new(),
    };
    if let Some(finding) = format(data_dir)? {
        report.findings.push(finding);
        // Of what another version wrote, nothing can be said.
        if data_dir.format()? != Format::Missing {
            report.whole = false;
            return Ok(report);
        }
    }
    for path in data_dir.strangers()? {
        report.findings.push(note(path, "it is not one of a data directory's files", "it is left alone"));
    }
    length(size(&data_dir::log(data_dir.path())));
    log(data_dir, &mut report, &progress)?;
    let folder = |name: &str| {
        let folder = scratch.join(name);
        fs::create_dir(&folder).context("failed to make a temporary folder").map(|()| folder)
    };
    let state = wharf_state::check_state(&data_dir::state(data_dir.path()), &folder("state")?, &progress)?;
    report.findings.extend(state.problems.into_iter().map(Finding::from));
    let has_state = state.content.is_some();
    if let Some(content) = state.content {
        report.take_state(content);
    }
    let values =
        wharf_state::check_values(&data_dir::guests(data_dir.path()), &folder("guests")?, &progress)?;
    report.findings.extend(values.problems.into_iter().map(Finding::from));
    if let Some(content) = values.content {
        report.take_values(content);
    }
    cursors(data_dir, &mut report);
    if has_state {
        unfinished(&mut report);
    }
    marks(data_dir, &mut report);
    compiled(data_dir, &mut report)?;
    kept(data_dir, &mut report)?;
    report.whole = !report.findings.iter().any(|finding| finding.damage);
    Ok(report)
}

fn format(data_dir: &Offline) -> anyhow::Result<Option<Finding>> {
    let expected = data_dir.expected_format();
    let (found, at_start) = match data_dir.format()? {
        Format::Ours => return Ok(None),
        Format::Missing => (
            "it is missing".to_owned(),
            format!("the directory is taken for one of format {expected:?}, and the file is written"),
        ),
        Format::Other(found) => (
            format!("found format {found:?}, expected {expected:?}; nothing else was looked at"),
            format!(
                "the start is refused; use the version of wharf that wrote it, or, if no other ever did, write {expected} into it"
            ),
        ),
    };
    let file = data_dir.path().join("FORMAT");
    Ok(Some(Finding { file, found, lost: None, at_start, damage: true }))
}

fn log(data_dir: &Offline, report: &mut Report, progress: &impl Fn(u64)) -> anyhow::Result<()> {
    let dir = data_dir::log(data_dir.path());
    if !dir.is_dir() {
        return Ok(());
    }
    let LogCheck { topics, ignored } = wharf_log::check(&dir, progress).context("failed to check the log")?;
    let is_ignored = |path| note(path, "it is not one of the log's files", "it is left alone");
    report.findings.extend(ignored.into_iter().map(is_ignored));
    for topic in topics {
        report.topics.push(Topic::from(&topic));
        for finding in topic.findings {
            report.findings.push(Finding {
                at_start: finding.effect.describe(),
                damage: finding.is_damage(),
                lost: (!finding.lost.is_empty()).then(|| Lost {
                    topic: topic.topic.clone(),
                    offsets: finding.lost,
                    unfinished_by: Vec::new(),
                }),
                file: finding.file,
                found: finding.found,
            });
        }
        report.findings.extend(topic.ignored.into_iter().map(is_ignored));
    }
    Ok(())
}

/// Whether cursors and topics belong together.
fn cursors(data_dir: &Offline, report: &mut Report) {
    let reserved: HashMap<_, _> =
        report.topics.iter().map(|topic| (topic.name.as_str(), topic.reserved)).collect();
    let mut findings = Vec::new();
    for cursors in &report.cursors {
        let (receiver, topic, end) = (&cursors.receiver, &cursors.topic, cursors.end);
        let found = match reserved.get(topic.as_str()) {
            None if end > 0 => format!(
                "the cursors of receiver {receiver:?} in {topic:?} stand at offset {end}, and the log has no such topic"
            ),
            Some(Some(reserved)) if end > *reserved => format!(
                "the cursors of receiver {receiver:?} in {topic:?} stand at offset {end}, and the log has never given out an offset \
                 above {reserved}"
            ),
            _ => continue,
        };
        findings.push(Finding {
            file: data_dir::state(data_dir.path()),
            found,
            lost: None,
            at_start: "the start is refused if this receiver is mapped to this data type; restore `log` and `state` from the same \
                       backup, or move `state` out of the directory: receivers are then given everything again"
                .to_owned(),
            damage: true,
        });
    }
    report.findings.append(&mut findings);
}

/// Whom the loss of offsets concerns.
fn unfinished(report: &mut Report) {
    for lost in report.findings.iter_mut().filter_map(|finding| finding.lost.as_mut()) {
        let end = lost.offsets.last().map_or(0, |range| range.end);
        let concerned = report.cursors.iter().filter(|of| of.topic == lost.topic && of.lowest < end);
        lost.unfinished_by = concerned.map(|of| of.receiver.clone()).collect();
    }
}

fn marks(data_dir: &Offline, report: &mut Report) {
    for (file, found, advice) in data_dir.damaged_marks() {
        let at_start = format!("the start is refused; {advice}");
        report.findings.push(Finding { file, found, lost: None, at_start, damage: true });
    }
    if report
        .findings
        .iter()
        .any(|finding| finding.damage && finding.file.starts_with(data_dir::state(data_dir.path())))
    {
        return;
    }
    for (receiver, topic) in data_dir.known_receivers() {
        if !report.cursors.iter().any(|of| of.receiver == receiver && of.topic == topic) {
            report.findings.push(Finding {
                file: data_dir::state(data_dir.path()),
                found: format!("receiver {receiver:?} once had cursors in {topic:?}, and has none"),
                lost: None,
                at_start:
                    "if it is mapped to this data type, it is given everything again that the log keeps"
                        .to_owned(),
                damage: true,
            });
        }
    }
}

fn compiled(data_dir: &Offline, report: &mut Report) -> anyhow::Result<()> {
    let checked = wharf_host::check_cache(&data_dir::components(data_dir.path()))
        .context("failed to read compiled components")?;
    report.compiled_components = checked.whole;
    for path in checked.damaged {
        report.findings.push(note(path, "the compiled component is damaged", "it is compiled again"));
    }
    Ok(())
}

fn kept(data_dir: &Offline, report: &mut Report) -> anyhow::Result<()> {
    let damaged = swaps::damaged(&data_dir::versions(data_dir.path()))
        .context("failed to read the components of receivers")?;
    report.findings.extend(damaged.into_iter().map(|file| Finding {
        file,
        found: "the component is not what its name says".to_owned(),
        lost: None,
        at_start: "a receiver that had it gets that of the config instead, and a receipt tells so".to_owned(),
        damage: true,
    }));
    Ok(())
}

fn note(file: PathBuf, found: &str, at_start: &str) -> Finding {
    Finding { file, found: found.to_owned(), lost: None, at_start: at_start.to_owned(), damage: false }
}

impl From<StateProblem> for Finding {
    fn from(StateProblem { path, found, effect, is_damage }: StateProblem) -> Self {
        Self { file: path, found, lost: None, at_start: effect, damage: is_damage }
    }
}

/// What the files in a folder and those in it have together, as far as that can be seen.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

//! The names of series: what a metric and its labels may be called, and which two are the same.

use super::value::Kind;
use super::{Metric, MetricValue};
use crate::fault::printable;

/// The longest name of a metric or label: as long as people still read it.
const MAX_NAME: usize = 64;

/// The most labels of a series: dashboards group by one or two.
const MAX_LABELS: usize = 8;

/// The longest value of a label in bytes: a host name or an address fits.
const MAX_VALUE: usize = 128;

/// How much of a wrong name is quoted, in bytes.
const MAX_QUOTED: usize = 2 * MAX_NAME;

/// Endings that the export adds to names itself. With one of them in a name, the series of two metrics could not be told
/// apart, and whoever reads them might refuse all.
const RESERVED_ENDINGS: [&str; 6] = ["_total", "_created", "_bucket", "_count", "_sum", "_info"];

/// Labels that the export adds itself: whose the series is, and the bound of a bucket.
const RESERVED_LABELS: [&str; 2] = ["receiver", "le"];

/// What tells a series from the others of its receiver: kind, name, and labels in the order of their names.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    kind: Kind,
    name: Box<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
}

/// Why there can be no such series.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error(
        "record a metric: found the name {0:?}, expected 1 to {MAX_NAME} of a-z, 0-9 and \"_\", beginning with a letter"
    )]
    Name(String),
    #[error(
        "record the metric {0:?}: its name ends like those that the export makes, expected none of {RESERVED_ENDINGS:?}"
    )]
    Ending(String),
    #[error("record the metric {name:?}: found {found} labels, expected at most {MAX_LABELS}")]
    Labels { name: String, found: usize },
    #[error(
        "record the metric {name:?}: found the label {label:?}, expected 1 to {MAX_NAME} of a-z, 0-9 and \"_\", beginning \
         with a letter"
    )]
    Label { name: String, label: String },
    #[error(
        "record the metric {name:?}: found the label {label:?}, which the export adds itself, expected another name"
    )]
    ReservedLabel { name: String, label: String },
    #[error("record the metric {name:?}: found the label {label:?} twice, expected each label once")]
    LabelTwice { name: String, label: String },
    #[error(
        "record the metric {name:?}: found {bytes} bytes in the label {label:?}, expected at most {MAX_VALUE}"
    )]
    Value { name: String, label: String, bytes: usize },
}

impl Name {
    pub(super) fn new(
        kind: Kind,
        name: String,
        mut labels: Vec<(String, String)>,
    ) -> Result<Self, NameError> {
        if !is_name(&name) {
            return Err(NameError::Name(quoted(&name)));
        }
        if RESERVED_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            return Err(NameError::Ending(name));
        }
        if labels.len() > MAX_LABELS {
            return Err(NameError::Labels { name, found: labels.len() });
        }
        if let Some((label, _)) = labels.iter().find(|(label, _)| !is_name(label)) {
            return Err(NameError::Label { label: quoted(label), name });
        }
        if let Some((label, _)) = labels.iter().find(|(label, _)| RESERVED_LABELS.contains(&label.as_str())) {
            return Err(NameError::ReservedLabel { label: label.clone(), name });
        }
        if let Some((label, value)) = labels.iter().find(|(_, value)| value.len() > MAX_VALUE) {
            return Err(NameError::Value { label: label.clone(), bytes: value.len(), name });
        }
        labels.sort_unstable();
        let mut pairs = labels.iter().zip(labels.iter().skip(1));
        if let Some(((label, _), _)) = pairs.find(|((one, _), (next, _))| one == next) {
            return Err(NameError::LabelTwice { label: label.clone(), name });
        }
        // To whoever reads the export, a label without a value is none.
        labels.retain(|(_, value)| !value.is_empty());
        let labels = labels.into_iter().map(|(label, value)| (label.into(), value.into())).collect();
        Ok(Self { kind, name: name.into(), labels })
    }

    pub(super) fn text(&self) -> &str {
        &self.name
    }

    pub(super) fn metric(&self, value: MetricValue) -> Metric {
        let labels = self.labels.iter().map(|(label, value)| (label.to_string(), value.to_string()));
        Metric { name: self.name.to_string(), labels: labels.collect(), value }
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn quoted(name: &str) -> String {
    printable(name, MAX_QUOTED, false)
}

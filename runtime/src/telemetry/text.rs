//! The two text formats in which the numbers are read: OpenMetrics, and the older one of Prometheus, which everything reads that
//! reads either.

use std::fmt::Write;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// That of Prometheus, version 0.0.4.
    Prometheus,
}

impl Format {
    /// The format for whoever says that it accepts this: OpenMetrics only if it is named.
    pub fn accepted_by(accept: &str) -> Format {
        let named =
            |part: &str| part.split(';').next().unwrap_or_default().trim() == "application/openmetrics-text";
        if accept.split(',').any(named) { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The content type of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What is OpenMetrics, in this format. In the older one a counter is described under the name that its samples have, and
    /// nothing marks the end.
    pub(super) fn of_openmetrics(self, text: String) -> String {
        if self == Format::OpenMetrics {
            return text;
        }
        let mut older = String::with_capacity(text.len());
        let mut lines = text.lines().filter(|line| *line != "# EOF").peekable();
        while let Some(line) = lines.next() {
            let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
            let name = described.and_then(|described| described.split(' ').next());
            let kind = if line.starts_with("# TYPE ") { Some(line) } else { lines.peek().copied() };
            let is_counter = |name: &str| kind.is_some_and(|kind| kind == format!("# TYPE {name} counter"));
            let written = match name.filter(|name| is_counter(name)) {
                Some(name) => writeln!(older, "{}", line.replacen(name, &format!("{name}_total"), 1)),
                None => writeln!(older, "{line}"),
            };
            // A string takes whatever is written.
            let _ = written;
        }
        older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_under_the_name_of_their_samples() {
        let text = "\
# HELP wharf_calls Calls, # TYPE wharf_calls counter.
# TYPE wharf_calls counter
wharf_calls_total{code=\"a\"} 1
# HELP wharf_open Open.
# TYPE wharf_open gauge
wharf_open 2
# EOF
";
        let expected = "\
# HELP wharf_calls_total Calls, # TYPE wharf_calls counter.
# TYPE wharf_calls_total counter
wharf_calls_total{code=\"a\"} 1
# HELP wharf_open Open.
# TYPE wharf_open gauge
wharf_open 2
";
        assert_eq!(Format::Prometheus.of_openmetrics(text.to_owned()), expected);
        assert_eq!(Format::OpenMetrics.of_openmetrics(text.to_owned()), text);
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        // As Prometheus 2 and 3 ask.
        for accept in [
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "text/plain;q=0.5, application/openmetrics-text; version=1.0.0",
        ] {
            assert_eq!(Format::accepted_by(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in ["", "*/*", "text/plain;version=0.0.4", "application/openmetrics-texture"] {
            assert_eq!(Format::accepted_by(accept), Format::Prometheus, "{accept}");
        }
    }
}

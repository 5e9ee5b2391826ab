//! Times as operators read and write them: in UTC, as RFC 3339 has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last millisecond of the year 9999, behind which the format ends.
const LAST: u64 = 253_402_300_799_999;

/// A time, Unix milliseconds, to the second.
pub fn write(milliseconds: u64) -> String {
    if milliseconds > LAST {
        return format!("{milliseconds} ms");
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(milliseconds)).to_string()
}

/// Unix milliseconds from a text such as `2026-05-01T10:00:00Z`, `2026-05-01 10:00:00`, which is UTC as well, or `2h ago`.
///
/// # Errors
///
/// What was expected.
pub fn read(text: &str, now: SystemTime) -> Result<u64, String> {
    let time = match text.strip_suffix("ago") {
        Some(age) => humantime::parse_duration(age.trim()).ok().and_then(|age| now.checked_sub(age)),
        None => humantime::parse_rfc3339_weak(text).ok(),
    };
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let milliseconds = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    milliseconds.ok_or_else(|| "expected a time such as 2026-05-01T10:00:00Z or \"2h ago\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_in_utc() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T00:00:01.250Z", Some(1_250)),
            ("1970-01-01 00:01:00", Some(60_000)),
            ("2h ago", Some(2_800_000)),
            ("1h 30m ago", Some(4_600_000)),
            ("3h ago", None),
            ("ago", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-05-01T10:00:00+02:00", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(read(text, now).ok(), expected, "{text:?}");
        }
        assert_eq!(write(1_777_629_600_999), "2026-05-01T10:00:00Z");
        assert_eq!([write(LAST), write(LAST + 1)], ["9999-12-31T23:59:59Z", "253402300800000 ms"]);
    }
}

//! The numbers of dead letters as people write them: `17`, `10-20`, or several with commas between. The command line and the
//! admin interface read them with this.

use std::ops::RangeInclusive;

/// The most ranges of one request: ten kilobytes of an address.
pub const MAX_RANGES: usize = 256;

/// One number, or a range with both ends in it.
///
/// # Errors
///
/// What was found, and what was expected.
pub fn parse_one(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |digits: &str| {
        // A sign is no part of a number here.
        let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok())
    };
    let range = match text.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)),
        None => number(text).map(|id| (id, id)),
    };
    let found: String = text.chars().take(64).collect();
    match range {
        Some((first, last)) if first <= last => Ok(first..=last),
        Some((first, last)) => Err(format!("found the range {found:?}, expected {last}-{first}")),
        None => {
            Err(format!("found {found:?}, expected the number of a dead letter, or a range such as 10-20"))
        }
    }
}

/// Several, with commas between.
///
/// # Errors
///
/// What was found, and what was expected.
pub fn parse(text: &str) -> Result<Vec<RangeInclusive<u64>>, String> {
    if text.split(',').nth(MAX_RANGES).is_some() {
        return Err(format!("found more than {MAX_RANGES} ranges, expected fewer at a time"));
    }
    let ranges: Result<_, _> = text.split(',').map(parse_one).collect();
    ranges.map(merge)
}

/// The same numbers in as few ranges as possible, ascending.
pub fn merge(mut ranges: Vec<RangeInclusive<u64>>) -> Vec<RangeInclusive<u64>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The text of ranges, as [`parse`] reads it.
pub fn write(ranges: &[RangeInclusive<u64>]) -> String {
    let texts = ranges.iter().map(|range| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read_and_merged() {
        for (text, expected) in [
            ("17", "17"),
            ("10-20", "10-20"),
            ("7-7", "7"),
            ("20,1-3,2-5,6,8", "1-6,8,20"),
            ("0-18446744073709551615,4", "0-18446744073709551615"),
        ] {
            assert_eq!(parse(text).map(|ranges| write(&ranges)), Ok(expected.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_number_and_no_range_is_named() {
        for text in ["", ",", "1,", "-", "-1", "1-", "+1", "1--2", "1-+2", "1 2", "x", "18446744073709551616"]
        {
            let error = parse(text).unwrap_err();
            assert!(
                error.ends_with("expected the number of a dead letter, or a range such as 10-20"),
                "{error}"
            );
        }
        assert_eq!(parse("9-3").unwrap_err(), r#"found the range "9-3", expected 3-9"#);
        assert!(parse(&"x".repeat(1 << 20)).unwrap_err().len() < 200);
    }

    #[test]
    fn there_are_only_so_many_ranges() {
        let ranges = |count: usize| (0..count).map(|id| (2 * id).to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(parse(&ranges(MAX_RANGES)).unwrap().len(), MAX_RANGES);
        assert_eq!(
            parse(&ranges(MAX_RANGES + 1)).unwrap_err(),
            "found more than 256 ranges, expected fewer at a time"
        );
    }
}

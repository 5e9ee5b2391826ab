//! The short lists that lie in a data directory as text: what is read is what was written, or it is refused.
//!
//! The first line is [`CHECKSUM`] and XXH3-64 of the rest, in hexadecimal digits. A list that an operator wrote by hand has no
//! such line, and is taken if every line has the right number of words.

use xxhash_rust::xxh3::xxh3_64;

/// How the first line begins. It has more words than a line of any list, so that none can become the other by chance.
const CHECKSUM: &str = "# checksum of what follows: ";

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The name of its file.
    pub name: &'static str,
    /// How many words a line has.
    words: usize,
    /// What an operator can do if it is damaged.
    pub advice: &'static str,
}

/// The receivers that an operator paused.
pub const PAUSED: Mark = Mark {
    name: "PAUSED",
    words: 1,
    advice: "write the names of the receivers that are to be paused into it, one a line, or remove it to pause none",
};

/// Every receiver and data type that ever had a cursor.
pub const RECEIVERS: Mark = Mark {
    name: "RECEIVERS",
    words: 2,
    advice: "remove it: it is written anew, and is only needed when cursors are lost",
};

/// Receivers and data types that the config does not map any more, and since when.
pub const ABSENT: Mark = Mark {
    name: "ABSENT",
    words: 3,
    advice: "remove it: receivers that left the config are then taken to have left now",
};

/// Every list.
pub const ALL: [Mark; 3] = [PAUSED, RECEIVERS, ABSENT];

impl Mark {
    /// The text of the file.
    pub fn encode(lines: &str) -> String {
        let lines = format!("{lines}\n");
        format!("{CHECKSUM}{:016x}\n{lines}", xxh3_64(lines.as_bytes()))
    }

    /// The lines of the text of a file, or what is wrong with it.
    pub fn decode(self, text: &[u8]) -> Result<Vec<String>, String> {
        let damaged = || "it is damaged".to_owned();
        let text = str::from_utf8(text).map_err(|_| damaged())?;
        let (first, rest) = text.split_once('\n').ok_or_else(damaged)?;
        let lines = match first.strip_prefix(CHECKSUM) {
            Some(checksum) if checksum == format!("{:016x}", xxh3_64(rest.as_bytes())) => rest,
            Some(_) => return Err(damaged()),
            None => text,
        };
        let lines = lines.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let is_name = |word: &str| {
                    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
                };
                let is_one = line.split(' ').count() == self.words && line.split(' ').all(is_name);
                is_one.then(|| line.to_owned()).ok_or_else(|| format!("a line of it is not one: {line:?}"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for lines in ["", "a", "a\nb"] {
            let expected: Vec<_> = lines.lines().map(str::to_owned).collect();
            assert_eq!(PAUSED.decode(Mark::encode(lines).as_bytes()).unwrap(), expected);
        }
        assert_eq!(RECEIVERS.decode(Mark::encode("a t\nb t").as_bytes()).unwrap(), ["a t", "b t"]);
    }

    #[test]
    fn what_somebody_wrote_by_hand_is_read() {
        assert_eq!(PAUSED.decode(b"a\n\nb\n").unwrap(), ["a", "b"]);
        assert_eq!(PAUSED.decode(b"\n").unwrap(), [""; 0]);
        assert_eq!(PAUSED.decode(b"a b\n").unwrap_err(), "a line of it is not one: \"a b\"");
        assert_eq!(RECEIVERS.decode(b"a\n").unwrap_err(), "a line of it is not one: \"a\"");
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        for (mark, lines) in
            [(PAUSED, "journal\ndashboard"), (RECEIVERS, "journal metrics\ndashboard metrics")]
        {
            let whole = Mark::encode(lines).into_bytes();
            for bit in 0..whole.len() * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(mark.decode(&damaged).is_err(), "bit {bit} of {}", mark.name);
            }
            for length in 0..whole.len() {
                assert!(mark.decode(&whole[..length]).is_err(), "{length} bytes of {}", mark.name);
            }
        }
    }
}

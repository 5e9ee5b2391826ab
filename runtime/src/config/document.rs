//! A TOML file as tables whose keys are asked for one by one.
//!
//! Asking for a key declares it: what nobody asked for is an unknown key. Whatever is wrong becomes a [`Problem`] and the
//! default stands in, so that one reading finds all problems. What the keys mean is not known here.

use std::{cell::RefCell, fmt::Display, ops::RangeInclusive, time::Duration};

use bytesize::ByteSize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{KIB, Problem};

/// How alike, from 0 to 1, a known key must be to an unknown one to be suggested. Two letters swapped or one missing in a
/// word of six are above it, unrelated words below.
const ALIKE: f64 = 0.85;

/// How many problems are noted: more than anybody mends at a time, and few enough when the file is no configuration at all.
const MAX_PROBLEMS: usize = 50;

/// The length at which a quoted value is cut.
const QUOTED_CHARS: usize = 60;

/// Collects what is wrong with a text.
pub struct Problems<'t> {
    text: &'t str,
    found: RefCell<Vec<Problem>>,
    /// Keys that were asked for and are not in the file.
    #[cfg(test)]
    pub absent: RefCell<Vec<String>>,
}

impl<'t> Problems<'t> {
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            found: RefCell::default(),
            #[cfg(test)]
            absent: RefCell::default(),
        }
    }

    /// The problems, in the order of the file.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.found.into_inner();
        problems.sort();
        problems
    }

    /// Notes a problem of `key` at the byte `position`, unless there are [`MAX_PROBLEMS`] already.
    pub fn add(&self, position: usize, key: String, text: String) {
        if self.found.borrow().len() >= MAX_PROBLEMS {
            return;
        }
        let before = self.text.bytes().take(position);
        let line = 1 + before.filter(|&byte| byte == b'\n').count();
        self.found.borrow_mut().push(Problem { line, key, text });
    }
}

/// A table of the file, or an empty one in place of a table that is not there.
pub struct Table<'t> {
    problems: &'t Problems<'t>,
    /// The table's own name with those around it; empty for the file itself.
    path: String,
    /// Where it begins in the file.
    position: usize,
    entries: Option<&'t DeTable<'t>>,
    asked: Vec<&'static str>,
}

/// A text of the file with its place, for checks that come later.
pub struct Text {
    pub value: String,
    pub position: usize,
}

impl<'t> Table<'t> {
    /// The table that is the whole file.
    pub fn root(problems: &'t Problems<'t>, entries: &'t DeTable<'t>) -> Self {
        Self { problems, path: String::new(), position: 0, entries: Some(entries), asked: Vec::new() }
    }

    /// Reads the table `key`, absent or not.
    pub fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'t>) -> T) -> T {
        let value = self.get(key);
        self.inner(key, value, read)
    }

    /// Reads every table in the table `key`, with its name, in the order of the names.
    pub fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Table<'t>) -> T,
    ) -> Vec<T> {
        let value = self.get(key);
        self.inner(key, value, |outer| {
            let entries = outer.entries.into_iter().flatten();
            entries
                .map(|(name, value)| {
                    outer.inner(name.get_ref(), Some(value), |inner| read(name.get_ref(), inner))
                })
                .collect()
        })
    }

    /// Reads every table in the list `key`.
    pub fn records<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Table<'t>) -> T) -> Vec<T> {
        let list = self.value(key, None, "a list of tables", |value| value.as_array().map(Some));
        let records = list.into_iter().flat_map(|list| list.iter());
        records.map(|record| self.inner(key, Some(record), &mut read)).collect()
    }

    /// Everything in the table `key`, whatever its keys, as texts: tables within it become dotted keys.
    pub fn free(&mut self, key: &'static str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        if let Some(value) = self.get(key) {
            self.inner(key, Some(value), |table| table.collect_free("", &mut pairs));
        }
        pairs
    }

    fn collect_free(&self, prefix: &str, pairs: &mut Vec<(String, String)>) {
        for (name, value) in self.entries.into_iter().flatten() {
            let name = name.get_ref();
            let key = format!("{prefix}{name}");
            let refuse =
                |why: &str| self.problems.add(value.span().start, self.path_of(name), why.to_owned());
            let text = match value.get_ref() {
                DeValue::Table(_) => {
                    self.inner(name, Some(value), |inner| inner.collect_free(&format!("{key}."), pairs));
                    continue;
                }
                DeValue::Array(_) => {
                    refuse("found a list, expected a text, a number, true or false: a receiver gets texts");
                    continue;
                }
                DeValue::String(text) => text.clone().into_owned(),
                DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => number.to_string(),
                    Err(_) => number.to_string(),
                },
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(value) => value.to_string(),
                DeValue::Datetime(value) => value.to_string(),
            };
            // Each pair is an environment variable too, and those have neither names nor values of any shape.
            if key.is_empty() || key.contains(['=', '\0']) {
                refuse("expected a name that is not empty and has neither \"=\" nor a NUL character in it");
            } else if text.contains('\0') {
                refuse("found a NUL character, expected a text without");
            } else if pairs.iter().any(|(other, _)| *other == key) {
                refuse("found twice, as a table within and with dots in its name, expected each key once");
            } else {
                pairs.push((key, text));
            }
        }
    }

    fn inner<T>(
        &self,
        key: &str,
        value: Option<&'t Spanned<DeValue<'t>>>,
        read: impl FnOnce(&mut Table<'t>) -> T,
    ) -> T {
        let path = self.path_of(key);
        let position = value.map_or(self.position, |value| value.span().start);
        let entries = value.and_then(|value| match value.get_ref() {
            DeValue::Table(entries) => Some(entries),
            other => {
                self.problems.add(
                    position,
                    path.clone(),
                    format!("found {}, expected a table [{path}]", quote(other)),
                );
                None
            }
        });
        let mut table = Table { problems: self.problems, path, position, entries, asked: Vec::new() };
        let result = read(&mut table);
        table.refuse_unknown();
        result
    }

    /// Notes every key that was not asked for. For [`root`](Self::root) only; inner tables do it by themselves.
    pub fn refuse_unknown(&self) {
        // A table of names has no keys of its own, and its entries were read as tables.
        if self.asked.is_empty() {
            return;
        }
        for key in self.entries.into_iter().flat_map(|entries| entries.keys()) {
            let name = key.get_ref().as_ref();
            if !self.asked.contains(&name) {
                self.problems.add(key.span().start, self.path_of(name), unknown_key(name, &self.asked));
            }
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        let value = self.entries.and_then(|entries| entries.get(key));
        #[cfg(test)]
        if value.is_none() {
            self.problems.absent.borrow_mut().push(self.path_of(key));
        }
        value
    }

    fn path_of(&self, key: &str) -> String {
        let bare = |key: &str| {
            !key.is_empty()
                && key.chars().all(|char| char.is_ascii_alphanumeric() || char == '_' || char == '-')
        };
        let key = if bare(key) { key.to_owned() } else { format!("{key:?}") };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// Notes a problem of `key`, at its place or, if it is absent, at the table's.
    pub fn problem(&self, key: &str, text: String) {
        let value = self.entries.and_then(|entries| entries.get(key));
        let position = value.map_or(self.position, |value| value.span().start);
        self.problem_at(position, key, text);
    }

    /// Notes a problem of `key` at the byte `position`, for one of several values of a key.
    pub fn problem_at(&self, position: usize, key: &str, text: String) {
        self.problems.add(position, self.path_of(key), text);
    }

    /// Notes a problem of the table as a whole.
    pub fn problem_here(&self, text: String) {
        self.problems.add(self.position, self.path.clone(), text);
    }

    /// The value of `key` as `parse` reads it, or `default`.
    fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        expected: &str,
        parse: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> T {
        let Some(value) = self.get(key) else { return default };
        match parse(value.get_ref()) {
            Some(parsed) => parsed,
            None => {
                self.problem(key, format!("found {}, expected {expected}", quote(value.get_ref())));
                default
            }
        }
    }

    /// `default` instead of `value` if that is outside `range`.
    fn within<T: PartialOrd + Copy>(
        &self,
        key: &str,
        value: T,
        default: T,
        range: &RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) -> T {
        if range.contains(&value) {
            return value;
        }
        let (least, most) = (show(*range.start()), show(*range.end()));
        self.problem(key, format!("found {}, expected {least} to {most}", show(value)));
        default
    }

    /// A yes or no.
    pub fn switch(&mut self, key: &'static str, default: bool) -> bool {
        self.value(key, default, "true or false", DeValue::as_bool)
    }

    /// A whole number.
    pub fn count<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i128> + PartialOrd + Copy + Display,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.value(key, default, &expected, |value| {
            let number = value.as_integer()?;
            let number = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            T::try_from(number).ok().filter(|number| range.contains(number))
        })
    }

    /// A size in bytes, written with its unit.
    pub fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let size = self.value(key, default, "a size with a unit such as \"64MiB\"", |value| {
            let text = value.as_str()?;
            // Without a unit nobody can tell whether bytes were meant.
            let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
            has_unit.then(|| text.parse::<ByteSize>().ok()).flatten().map(|size| size.as_u64())
        });
        self.within(key, size, default, &range, show_size)
    }

    /// A length of time, written with its unit.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let duration = self.value(key, default, "a duration with a unit such as \"250ms\"", |value| {
            humantime::parse_duration(value.as_str()?).ok()
        });
        self.within(key, duration, default, &range, |duration| {
            humantime::format_duration(duration).to_string()
        })
    }

    /// One of several words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.value(key, default, &alternatives(&words), |value| {
            let text = value.as_str()?;
            choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice)
        })
    }

    /// A text that `parse` understands.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        default: T,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        self.value(key, default, expected, |value| parse(value.as_str()?))
    }

    /// A text that must be there and that `parse` understands.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if self.has(key) {
            return self.parsed(key, None, expected, |text| parse(text).map(Some));
        }
        self.asked.push(key);
        self.problem_here(format!("found no {key:?}, expected {expected}"));
        None
    }

    /// Declares a key that is not in the table and has no default.
    pub fn absent(&mut self, key: &'static str) {
        self.asked.push(key);
    }

    /// Whether the table has the key, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// A list of texts, each of which `check` accepts. `None` if the key is absent or no list.
    pub fn texts(
        &mut self,
        key: &'static str,
        expected: &str,
        check: impl Fn(&str) -> bool,
    ) -> Option<Vec<Text>> {
        let expected_list = format!("a list, each of which is {expected}");
        let list = self.value(key, None, &expected_list, |value| value.as_array().map(Some))?;
        let mut texts = Vec::new();
        for item in list.iter() {
            let position = item.span().start;
            match item.get_ref() {
                DeValue::String(text) if check(text) => {
                    texts.push(Text { value: text.clone().into_owned(), position })
                }
                other => {
                    self.problem_at(position, key, format!("found {}, expected {expected}", quote(other)))
                }
            }
        }
        Some(texts)
    }
}

/// What is said of a key that is not known.
fn unknown_key(name: &str, known: &[&str]) -> String {
    let alike = |known: &&&str| strsim::jaro_winkler(name, known);
    let nearest =
        known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))).filter(|nearest| alike(nearest) >= ALIKE);
    match nearest {
        Some(nearest) => format!("unknown key, did you mean {nearest:?}?"),
        None => format!("unknown key, expected {}", alternatives(known)),
    }
}

/// "a, b or c".
pub fn alternatives(words: &[impl AsRef<str>]) -> String {
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// A value as a message shows it.
fn quote(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote_text(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A text in quotes, escaped, cut when it is long.
pub fn quote_text(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// A size in the largest unit that leaves it whole.
pub fn show_size(bytes: u64) -> String {
    let mut amount = bytes;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if amount == 0 || !amount.is_multiple_of(KIB) {
            break;
        }
        (amount, unit) = (amount / KIB, larger);
    }
    format!("{amount}{unit}")
}

//! Lines of JSON from a reader that blocks, checked and handed on in blocks. Says of a bad line what is wrong with it and
//! goes on with the next.

use std::{
    borrow::Cow,
    io::{self, BufRead, BufReader, Read},
    thread,
};

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use wharf_protocol::{Body, Encoding, Limits, MAX_MESSAGE_ID_BYTES, Refusal};

/// The longest line. No server takes larger frames unless its config says so.
const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// How much is read at once, and after how much text a block is handed on. Large against the cost of handing on, small
/// against what is in flight.
const BLOCK_BYTES: usize = 256 * 1024;

/// Blocks that may wait. With more, the reader would only run further ahead of the server.
const MAX_BLOCKS: usize = 2;

/// One line that was not empty.
#[derive(Debug)]
pub struct Line {
    /// Its number, from 1, counting empty lines too.
    pub number: u64,
    /// The object on it.
    pub body: Result<Body, LineError>,
}

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Longer than any frame.
    #[error("longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Not a JSON object.
    #[error("{}", .0.message)]
    NoBody(Refusal),
    /// The input broke off here.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
}

/// The id that a line gives its message itself: a text at its top that can be one, under the name that agents use for it.
pub fn own_id(body: &Body) -> Option<String> {
    #[derive(Deserialize)]
    struct Own<'a> {
        #[serde(borrow)]
        message_id: Cow<'a, str>,
    }
    let text = str::from_utf8(body.bytes()).ok()?;
    // Most lines have none and need not be read twice.
    if !text.contains("\"message_id\"") {
        return None;
    }
    let Own { message_id } = serde_json::from_str(text).ok()?;
    (1..=MAX_MESSAGE_ID_BYTES).contains(&message_id.len()).then(|| message_id.into_owned())
}

/// Reads lines on a thread of its own, until the input or the receiver is gone. A thread and not a task, because a
/// process must be able to end while standard input waits.
///
/// # Errors
///
/// When no thread can be started.
pub fn read(source: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<Vec<Line>>> {
    let (blocks, receiver) = mpsc::channel(MAX_BLOCKS);
    thread::Builder::new().name("input".to_owned()).spawn(move || {
        let source = BufReader::with_capacity(BLOCK_BYTES, source);
        let mut lines = Lines { source, number: 0, ended: false };
        while let Some(block) = lines.next_block() {
            if blocks.blocking_send(block).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

struct Lines<R> {
    source: BufReader<R>,
    number: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    /// The next lines, at least one: as many as can be had without waiting for more input, up to a block.
    fn next_block(&mut self) -> Option<Vec<Line>> {
        let mut block = Vec::new();
        let mut bytes = 0_usize;
        while !self.ended && (block.is_empty() || (bytes < BLOCK_BYTES && self.holds_a_line())) {
            let (text, complete) = match self.next_text() {
                Ok(Some(read)) => read,
                Ok(None) => {
                    self.ended = true;
                    continue;
                }
                Err(error) => {
                    self.ended = true;
                    block.push(Line { number: self.number, body: Err(LineError::Unreadable(error)) });
                    continue;
                }
            };
            bytes = bytes.saturating_add(text.len());
            if !complete {
                block.push(Line { number: self.number, body: Err(LineError::TooLong) });
            } else if !text.trim_ascii().is_empty() {
                let text = Bytes::copy_from_slice(text.trim_ascii());
                let body = Body::new(Encoding::Json, text, &Limits::default());
                block.push(Line { number: self.number, body: body.map_err(LineError::NoBody) });
            }
        }
        (!block.is_empty()).then_some(block)
    }

    /// Whether a whole line can be had without waiting.
    fn holds_a_line(&self) -> bool {
        self.source.buffer().contains(&b'\n')
    }

    /// The text of the next line, and whether that is the whole of it.
    fn next_text(&mut self) -> io::Result<Option<(Vec<u8>, bool)>> {
        self.number = self.number.saturating_add(1);
        let mut text = Vec::new();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        if self.source.by_ref().take(limit).read_until(b'\n', &mut text)? == 0 {
            return Ok(None);
        }
        if text.len() <= MAX_LINE_BYTES || text.ends_with(b"\n") {
            return Ok(Some((text, true)));
        }
        self.source.skip_until(b'\n')?;
        Ok(Some((Vec::new(), false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: impl Into<Vec<u8>>) -> Vec<Line> {
        let mut receiver = read(io::Cursor::new(text.into())).unwrap();
        std::iter::from_fn(|| receiver.blocking_recv()).flatten().collect()
    }

    #[test]
    fn objects_come_with_their_line_numbers() {
        let lines = lines("{\"a\":1}\n\n  \r\n {\"b\":2} \r\n{\"c\":3}");
        let read: Vec<_> =
            lines.iter().map(|line| (line.number, line.body.as_ref().unwrap().to_json())).collect();
        assert_eq!(read, [(1, r#"{"a":1}"#.into()), (4, r#"{"b":2}"#.into()), (5, r#"{"c":3}"#.into())]);
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_and_the_next_is_read() {
        let lines = lines(b"{\"a\":\n[1]\n7\n\xff\n{} {}\n{\"good\":true}\n".as_slice());
        let said: Vec<String> = lines
            .iter()
            .map(|line| match &line.body {
                Ok(body) => format!("{}: {}", line.number, body.to_json()),
                Err(error) => format!("{}: {error}", line.number),
            })
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        1: field `data` is invalid: found no JSON: EOF while parsing a value at line 1 column 5, expected an object
        2: field `data` is invalid: found a list, expected an object
        3: field `data` is invalid: found the number `7`, expected an object
        4: field `data` is invalid: found bytes that are not UTF-8, expected an object
        5: field `data` is invalid: found no JSON: trailing characters at line 1 column 4, expected an object
        6: {"good":true}
        "#);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole() {
        let text = [&b"{\"a\":\""[..], &vec![b'x'; MAX_LINE_BYTES], b"\"}\n{\"b\":2}\n"].concat();
        let lines = lines(text);
        assert_eq!(lines.len(), 2);
        assert!(matches!(lines[0].body, Err(LineError::TooLong)), "{:?}", lines[0]);
        assert_eq!(lines[1].number, 2);
        assert_eq!(lines[1].body.as_ref().unwrap().to_json(), r#"{"b":2}"#);
    }

    #[test]
    fn a_line_may_give_its_message_an_id() {
        let own = |text: &str| own_id(lines(text)[0].body.as_ref().unwrap());
        assert_eq!(own(r#"{"a":1,"message_id":"m-1"}"#).as_deref(), Some("m-1"));
        assert_eq!(own(r#"{"message_id":"m\n"}"#).as_deref(), Some("m\n"));
        let long = format!(r#"{{"message_id":"{}"}}"#, "x".repeat(MAX_MESSAGE_ID_BYTES + 1));
        for text in
            [r#"{"message_id":7}"#, r#"{"message_id":""}"#, r#"{"a":{"message_id":"m"}}"#, "{}", &long]
        {
            assert_eq!(own(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_is_no_line() {
        assert!(lines("").is_empty());
        assert!(lines("\n\n \n").is_empty());
    }

    #[test]
    fn a_reader_that_fails_is_the_last_line() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken pipe"))
            }
        }
        let mut receiver = read(io::Cursor::new("{}\n").chain(Broken)).unwrap();
        assert!(receiver.blocking_recv().unwrap()[0].body.is_ok());
        let last = receiver.blocking_recv().unwrap();
        assert_eq!(last[0].body.as_ref().unwrap_err().to_string(), "cannot be read: broken pipe");
    }

    #[test]
    fn a_line_is_handed_on_while_the_next_is_awaited() {
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut receiver = read(reader).unwrap();
        io::Write::write_all(&mut writer, b"{\"a\":1}\n{\"b\"").unwrap();
        assert_eq!(receiver.blocking_recv().unwrap().len(), 1);
        io::Write::write_all(&mut writer, b":2}\n").unwrap();
        assert_eq!(receiver.blocking_recv().unwrap()[0].number, 2);
    }
}

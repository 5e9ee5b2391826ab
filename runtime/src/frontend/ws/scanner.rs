//! Watches the bytes of a client go by and knows where its WebSocket messages begin and end, and how large they say they are.
//! It judges nothing: whatever breaks the protocol is refused by the library that reads the same bytes.

/// The longest header of a frame: two bytes, a length of eight, a mask of four (RFC 6455, 5.2).
const MAX_HEADER: usize = 14;
/// The longest payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL_PAYLOAD: u64 = 125;

/// Where a client is in what it sends.
#[derive(Debug, Default)]
pub struct Scanner {
    header: [u8; MAX_HEADER],
    /// Bytes of the header of the current frame that have come.
    header_filled: usize,
    /// Bytes of the payload of the current frame that have yet to come.
    payload_left: u64,
    /// The current frame, once its header is complete.
    frame: Option<Frame>,
    /// Bytes of the current message that its frames have announced so far, and those of them that have come.
    announced: u64,
    arrived: u64,
    /// A message of several frames has begun.
    fragmented: bool,
    /// Messages that have ended, and control frames between messages.
    ended: u64,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    is_last: bool,
    is_control: bool,
    payload: u64,
}

/// A message that has begun, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Bytes that its frames have announced so far.
    pub bytes: u64,
    /// Those of them that have come.
    pub arrived: u64,
    /// No further frame will come.
    pub whole: bool,
}

impl Scanner {
    /// Takes in what came next.
    pub fn scan(&mut self, mut bytes: &[u8]) {
        loop {
            if let Some(frame) = self.frame {
                let here = self.payload_left.min(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                self.payload_left = self.payload_left.saturating_sub(here);
                if !frame.is_control {
                    self.arrived = self.arrived.saturating_add(here);
                }
                bytes = usize::try_from(here).ok().and_then(|here| bytes.get(here..)).unwrap_or_default();
                if self.payload_left > 0 {
                    return;
                }
                self.end_frame();
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(place) = self.header.get_mut(self.header_filled) {
                *place = *byte;
            }
            self.header_filled += 1;
            if self.header_filled == self.header_length() {
                self.begin_frame();
            }
        }
    }

    /// The number of the message that has begun and not ended, or of the control frame if it is between messages.
    pub fn begun(&self) -> Option<u64> {
        (self.fragmented || self.header_filled > 0).then_some(self.ended)
    }

    /// What is known of the message that has begun and not ended.
    pub fn announced(&self) -> Announced {
        let whole = self.frame.is_some_and(|frame| frame.is_last && !frame.is_control);
        Announced { bytes: self.announced, arrived: self.arrived, whole }
    }

    /// Whether a control frame has begun that is larger than one may be. The library sees that only when it has read it.
    pub fn is_control_too_large(&self) -> bool {
        self.frame.is_some_and(|frame| frame.is_control && frame.payload > MAX_CONTROL_PAYLOAD)
    }

    /// Bytes of the current frame that have yet to come; of its header first, as far as its length is known.
    pub fn left_of_frame(&self) -> usize {
        match self.frame {
            Some(_) => usize::try_from(self.payload_left).unwrap_or(usize::MAX),
            None => self.header_length().saturating_sub(self.header_filled),
        }
    }

    /// The length of the current header, as far as its first two bytes have come.
    fn header_length(&self) -> usize {
        let [_, second, ..] = self.header;
        if self.header_filled < 2 {
            return 2;
        }
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_frame(&mut self) {
        let [first, second, a, b, c, d, e, f, g, h, ..] = self.header;
        let payload = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            length => u64::from(length),
        };
        let frame = Frame { is_last: first & 0x80 != 0, is_control: first & 0x08 != 0, payload };
        if !frame.is_control {
            self.announced = self.announced.saturating_add(payload);
        }
        self.payload_left = payload;
        self.frame = Some(frame);
    }

    fn end_frame(&mut self) {
        let Some(frame) = self.frame.take() else { return };
        self.header_filled = 0;
        if !frame.is_control {
            self.fragmented = !frame.is_last;
            if frame.is_last {
                (self.announced, self.arrived) = (0, 0);
            }
        }
        if !self.fragmented {
            self.ended = self.ended.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u8 = 1;
    const CONTINUATION: u8 = 0;
    const PING: u8 = 9;
    const LAST: u8 = 0x80;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(0x80 | u8::try_from(payload).unwrap()),
            126..65536 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend(u64::try_from(payload).unwrap().to_be_bytes());
            }
        }
        bytes.extend([0xff; 4]);
        bytes.extend(vec![0xff; payload]);
        bytes
    }

    fn announced(bytes: u64, arrived: u64, whole: bool) -> Announced {
        Announced { bytes, arrived, whole }
    }

    #[test]
    fn it_knows_the_ends_of_messages_however_their_bytes_come() {
        let sizes = [0, 1, 125, 126, 65_535, 65_536, 100_000];
        let stream: Vec<u8> = sizes.iter().flat_map(|size| frame(LAST | TEXT, *size)).collect();
        for chunk in [1, 2, 3, 7, 8_192, stream.len()] {
            let mut scanner = Scanner::default();
            let mut ends = Vec::new();
            for bytes in stream.chunks(chunk) {
                assert!(chunk > 1 || scanner.left_of_frame() >= 1);
                scanner.scan(bytes);
                if scanner.begun().is_none() {
                    ends.push(scanner.ended);
                }
            }
            assert_eq!(scanner.ended, 7);
            assert_eq!(scanner.begun(), None);
            if chunk == 1 {
                assert_eq!(ends, [1, 2, 3, 4, 5, 6, 7]);
            }
        }
    }

    #[test]
    fn a_message_is_begun_from_the_first_byte_of_its_first_frame_to_the_last_of_its_last() {
        let mut scanner = Scanner::default();
        assert_eq!(scanner.begun(), None);
        let first = frame(TEXT, 10);
        scanner.scan(&first[..1]);
        assert_eq!((scanner.begun(), scanner.left_of_frame()), (Some(0), 1));
        scanner.scan(&first[1..2]);
        assert_eq!(scanner.left_of_frame(), 4);
        scanner.scan(&first[2..8]);
        assert_eq!((scanner.announced(), scanner.left_of_frame()), (announced(10, 2, false), 8));
        scanner.scan(&first[8..]);
        assert_eq!(scanner.begun(), Some(0));
        // A control frame between its fragments is not its end.
        scanner.scan(&frame(LAST | PING, 3));
        assert_eq!((scanner.begun(), scanner.announced()), (Some(0), announced(10, 10, false)));
        scanner.scan(&frame(CONTINUATION, 0));
        scanner.scan(&frame(LAST | CONTINUATION, 5)[..8]);
        assert_eq!((scanner.begun(), scanner.announced()), (Some(0), announced(15, 12, true)));
        scanner.scan(&[0; 3]);
        assert_eq!((scanner.begun(), scanner.announced()), (None, announced(0, 0, false)));
        // Nor is a control frame between messages the beginning of one that lasts.
        let ping = frame(LAST | PING, 1);
        scanner.scan(&ping[..3]);
        assert_eq!(scanner.begun(), Some(1));
        scanner.scan(&ping[3..]);
        assert_eq!((scanner.begun(), scanner.ended), (None, 2));
    }
}

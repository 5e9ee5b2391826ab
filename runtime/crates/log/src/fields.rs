//! Reads the fixed fields of headers: little-endian numbers, one after the other. Running out of bytes is
//! `None`, never a panic.

/// The bytes that are not read yet.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// A length in memory as a length in a file. Nothing is lost: no supported machine has larger addresses.
pub(crate) fn length(bytes: usize) -> u64 {
    bytes as u64
}

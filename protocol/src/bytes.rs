//! A cursor over foreign bytes: every read is checked, nothing is allocated for a length that was not checked first.

/// Why bytes are not what they should be. It says where the format was broken and holds nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes end inside the named field.
    #[error("bytes end inside {0}")]
    Truncated(&'static str),
    /// Bytes remain after the last field.
    #[error("bytes remain after the last field")]
    TrailingBytes,
    /// The named field is longer than SPEC §10 allows.
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// The named field has a value that its definition does not allow.
    #[error("{0} has a value that is not allowed")]
    Invalid(&'static str),
    /// The format version is not 1.
    #[error("version {0} is not supported")]
    Version(u8),
    /// The cipher suite is not supported.
    #[error("suite {0} is not supported")]
    Suite(u16),
}

/// Reads big-endian fields from the front of a slice.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], ParseError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(ParseError::Truncated(field))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ParseError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(ParseError::Truncated(field))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, ParseError> {
        self.array::<1>(field).map(|[b]| b)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, ParseError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, ParseError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, ParseError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// `lp32`: a u32 length, then that many bytes, at most `max`.
    pub(crate) fn lp32(&mut self, max: usize, field: &'static str) -> Result<&'a [u8], ParseError> {
        let len = self.u32(field)? as usize;
        if len > max {
            return Err(ParseError::TooLong(field));
        }
        self.take(len, field)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn finish(self) -> Result<(), ParseError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ParseError::TrailingBytes) }
    }
}

/// Appends `lp32(bytes)`. Callers hold values whose length was bounded when they were made.
pub(crate) fn write_lp32(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("every lp32 field is bounded far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

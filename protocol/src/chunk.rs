//! The chunks of a sealed request body: `( varint(len) ‖ sealed )* ‖ varint(0) ‖ final` (SPEC §4.3).

use crate::bytes::ParseError;

/// Longest plaintext of a chunk in bytes.
pub const MAX_PLAINTEXT_LEN: usize = 16_384;
/// Length of an AES-GCM tag in bytes.
pub const TAG_LEN: usize = 16;
/// Longest sealed chunk in bytes.
pub const MAX_SEALED_LEN: usize = MAX_PLAINTEXT_LEN + TAG_LEN;

/// One sealed chunk of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Ciphertext with its tag.
    pub sealed: &'a [u8],
    /// Whether it is the last; then it extends to the end of the body.
    pub last: bool,
}

/// Splits a whole body into its chunks.
///
/// Ends after the final chunk or the first error; a body that stops before its final chunk yields
/// [`ParseError::Truncated`].
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    rest: &'a [u8],
    done: bool,
}

impl<'a> Chunks<'a> {
    /// Over the bytes after the header.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body, done: false }
    }

    fn read(&mut self) -> Result<Chunk<'a>, ParseError> {
        let (len, rest) = parse_varint(self.rest)?;
        let len = usize::try_from(len).map_err(|_| ParseError::TooLong("chunk"))?;
        let (last, len) = if len == 0 { (true, rest.len()) } else { (false, len) };
        if len > MAX_SEALED_LEN {
            return Err(ParseError::TooLong("chunk"));
        }
        // Shorter than a tag is no ciphertext; exactly a tag is an empty plaintext, which only the final chunk may have.
        if len < TAG_LEN || (len == TAG_LEN && !last) {
            return Err(ParseError::Invalid("chunk"));
        }
        let (sealed, rest) = rest.split_at_checked(len).ok_or(ParseError::Truncated("chunk"))?;
        self.rest = rest;
        self.done = last;
        Ok(Chunk { sealed, last })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let chunk = self.read();
        self.done |= chunk.is_err();
        Some(chunk)
    }
}

/// Appends the length in front of a sealed chunk: its `varint`, or `varint(0)` for the last.
pub fn write_chunk_len(out: &mut Vec<u8>, sealed_len: usize, last: bool) {
    debug_assert!((TAG_LEN..=MAX_SEALED_LEN).contains(&sealed_len), "chunk length is the sealer's to keep");
    match (last, u16::try_from(sealed_len)) {
        (true, _) => out.push(0),
        (false, Ok(len @ ..0x40)) => out.push(len.to_le_bytes()[0]),
        (false, Ok(len @ ..0x4000)) => out.extend_from_slice(&(len | 0x4000).to_be_bytes()),
        (false, _) => {
            let len = u32::try_from(sealed_len).expect("a sealed chunk is at most 16,400 bytes");
            out.extend_from_slice(&(len | 0x8000_0000).to_be_bytes());
        }
    }
}

/// QUIC's variable-length integer (RFC 9000 §16), shortest form only.
fn parse_varint(bytes: &[u8]) -> Result<(u64, &[u8]), ParseError> {
    let field = "chunk length";
    let first = *bytes.first().ok_or(ParseError::Truncated(field))?;
    let len = 1usize << (first >> 6);
    let (head, rest) = bytes.split_at_checked(len).ok_or(ParseError::Truncated(field))?;
    let value = head[1..].iter().fold(u64::from(first & 0x3f), |value, b| value << 8 | u64::from(*b));
    let shortest = match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    };
    if len == shortest { Ok((value, rest)) } else { Err(ParseError::Invalid(field)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_rfc_9000_appendix_a() {
        for (hex, value) in
            [("25", 37), ("7bbd", 15_293), ("9d7f3e7d", 494_878_333), ("c2197c5eff14e88c", 151_288_809_941_952_652)]
        {
            let bytes = hex::decode(hex).unwrap();
            assert_eq!(parse_varint(&bytes), Ok((value, &[][..])));
        }
        assert_eq!(parse_varint(&[0x40, 0x25]), Err(ParseError::Invalid("chunk length")), "37 in two bytes");
    }

    #[test]
    fn lengths_read_back() {
        for len in [17, 63, 64, 65, 16_383, 16_384, MAX_SEALED_LEN] {
            let mut body = Vec::new();
            write_chunk_len(&mut body, len, false);
            body.resize(body.len() + len, 7);
            write_chunk_len(&mut body, TAG_LEN, true);
            body.resize(body.len() + TAG_LEN, 8);
            let lens: Vec<_> = Chunks::new(&body).map(|c| c.map(|c| (c.sealed.len(), c.last))).collect();
            assert_eq!(lens, [Ok((len, false)), Ok((TAG_LEN, true))]);
        }
    }
}

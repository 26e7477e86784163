//! Padding: how much of a length an observer learns (SPEC §4.3, §5.2).

/// Multiple to which the plaintext of a response frame is padded, in bytes.
pub const FRAME_MULTIPLE: usize = 256;

/// How the sender of a request wants lengths hidden, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Lengths are exact.
    None,
    /// Requests to the next Padmé size, response frames to a multiple of 256 bytes.
    Padme,
}

impl Padding {
    /// The byte in the header.
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Padme => 1,
        }
    }

    /// From the byte in the header.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Padme),
            _ => None,
        }
    }

    /// The padded length of a request plaintext of `len` bytes.
    pub fn request_len(self, len: usize) -> usize {
        match self {
            Self::None => len,
            Self::Padme => padme(len),
        }
    }

    /// The padded length of a response frame's plaintext of `len` bytes.
    pub fn frame_len(self, len: usize) -> usize {
        match self {
            Self::None => len,
            Self::Padme => len.next_multiple_of(FRAME_MULTIPLE),
        }
    }
}

/// The next Padmé size: `n` up to a multiple of `2^(E-S)`, `E = floor(log2 n)`, `S = floor(log2 E) + 1`.
/// At most 12 % longer, and only `O(log log n)` bits of the length remain visible.
pub fn padme(n: usize) -> usize {
    let Some(e) = n.checked_ilog2() else { return n };
    let Some(s) = e.checked_ilog2() else { return n };
    n.next_multiple_of(1 << (e - (s + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_is_idempotent_and_grows_by_at_most_an_eighth() {
        for n in (0..100_000).chain([1 << 20, (1 << 20) + 1, (1 << 23) - 5]) {
            let padded = padme(n);
            assert!(padded >= n && padded <= n + n / 8, "{n} -> {padded}");
            assert_eq!(padme(padded), padded, "{n}");
        }
    }

    #[test]
    fn padme_known_values() {
        for (n, padded) in [(0, 0), (1, 1), (2, 2), (9, 10), (100, 104), (1000, 1024), (1025, 1088), (65_537, 67_584)] {
            assert_eq!(padme(n), padded, "{n}");
        }
    }
}

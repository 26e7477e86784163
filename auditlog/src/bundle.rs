//! Entry bundles: `length (2, big-endian) ‖ entry`, up to 256 times (C2SP tlog-tiles, "Log Entries").

use alloc::vec::Vec;

use bytes::Bytes;

use crate::tile::TILE_WIDTH;

/// Bytes in the longest entry: what 16 bits of length can say.
pub const MAX_ENTRY_LEN: usize = u16::MAX as usize;

/// Bytes in the longest bundle: 256 · (2 + 65,535), about 16 MiB.
pub const MAX_BUNDLE_LEN: usize = TILE_WIDTH as usize * (2 + MAX_ENTRY_LEN);

/// Appends `entry` to `bundle`.
pub fn write_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), BundleError> {
    let length = u16::try_from(entry.len()).map_err(|_| BundleError::EntryTooLong)?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// All entries of a bundle, which share its memory.
pub fn parse_bundle(bundle: &Bytes) -> Result<Vec<Bytes>, BundleError> {
    let mut entries = Vec::new();
    let mut rest: &[u8] = bundle;
    while let Some((length, tail)) = rest.split_first_chunk() {
        if entries.len() == usize::from(TILE_WIDTH) {
            return Err(BundleError::TooManyEntries);
        }
        let (entry, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(BundleError::Truncated)?;
        entries.push(bundle.slice_ref(entry));
        rest = tail;
    }
    if rest.is_empty() { Ok(entries) } else { Err(BundleError::Truncated) }
}

/// Why bytes are not an entry bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// An entry is longer than [`MAX_ENTRY_LEN`].
    #[error("entry longer than 65535 bytes")]
    EntryTooLong,
    /// More than 256 entries.
    #[error("more than 256 entries in a bundle")]
    TooManyEntries,
    /// The bundle ends inside a length or an entry.
    #[error("bundle ends inside an entry")]
    Truncated,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn longest_and_too_long() {
        let mut bundle = Vec::new();
        write_entry(&mut bundle, &vec![7; MAX_ENTRY_LEN]).unwrap();
        assert_eq!(write_entry(&mut bundle, &vec![7; MAX_ENTRY_LEN + 1]), Err(BundleError::EntryTooLong));
        let bundle = Bytes::from(bundle);
        assert_eq!(parse_bundle(&bundle).unwrap()[0].len(), MAX_ENTRY_LEN);
        assert_eq!(parse_bundle(&bundle.slice(..bundle.len() - 1)), Err(BundleError::Truncated));
        assert_eq!(parse_bundle(&Bytes::from_static(&[0])), Err(BundleError::Truncated));
        assert_eq!(parse_bundle(&Bytes::from(vec![0; 2 * 257])), Err(BundleError::TooManyEntries));
    }

    proptest! {
        #[test]
        fn parse_undoes_write(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..=256)) {
            let mut bundle = Vec::new();
            for entry in &entries {
                write_entry(&mut bundle, entry).unwrap();
            }
            prop_assert_eq!(parse_bundle(&bundle.into()).unwrap(), entries);
        }
    }
}

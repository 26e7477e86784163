//! The staged form of a round: everything it will write, in one object.
//!
//! ```text
//! "fanlight staging 1\n" ‖ objects ‖ SHA-256 of all before
//! object   path length (1) ‖ path ‖ length (4, big-endian) ‖ bytes
//! ```

use bytes::Bytes;

use crate::checkpoint::VerifiedCheckpoint;
use crate::hash::sha256;
use crate::store::STAGING_PREFIX;
use crate::tile::TilePath;
use crate::tree::Object;

const MAGIC: &[u8] = b"fanlight staging 1\n";

/// The key under which the round that leads to `checkpoint` is staged.
pub(super) fn key(checkpoint: &VerifiedCheckpoint) -> String {
    format!("{STAGING_PREFIX}{}-{}", checkpoint.tree_size(), checkpoint.root_hash().to_hex())
}

/// The tree size in a key that [`key`] made.
pub(super) fn size_in_key(key: &str) -> Option<u64> {
    key.strip_prefix(STAGING_PREFIX)?.split_once('-')?.0.parse().ok()
}

pub(super) fn write(objects: &[Object]) -> Bytes {
    let mut staged = MAGIC.to_vec();
    for Object { path, bytes } in objects {
        let path = path.to_string();
        staged.push(u8::try_from(path.len()).expect("tile paths are short"));
        staged.extend_from_slice(path.as_bytes());
        staged.extend_from_slice(&u32::try_from(bytes.len()).expect("bundles are at most 16 MiB").to_be_bytes());
        staged.extend_from_slice(bytes);
    }
    let sum = sha256(&[&staged]);
    staged.extend_from_slice(&sum);
    staged.into()
}

/// The objects of a staged round; `None` when it was damaged.
pub(super) fn parse(staged: &Bytes) -> Option<Vec<Object>> {
    let (body, sum) = staged.split_last_chunk::<32>()?;
    if sha256(&[body]) != *sum {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut objects = Vec::new();
    while let Some((path_length, tail)) = rest.split_first() {
        let (path, tail) = tail.split_at_checked(usize::from(*path_length))?;
        let (length, tail) = tail.split_first_chunk()?;
        let (bytes, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let path = TilePath::parse(std::str::from_utf8(path).ok()?).ok()?;
        objects.push(Object { path, bytes: staged.slice_ref(bytes) });
        rest = tail;
    }
    Some(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;
    use crate::tree::Tree;

    #[test]
    fn any_flipped_bit_is_noticed() {
        let objects = Tree::empty().append([(leaf_hash(b"a"), b"a".as_slice()), (leaf_hash(b"b"), b"b")]);
        let staged = write(&objects);
        assert_eq!(parse(&staged), Some(objects));
        for position in 0..staged.len() {
            let mut damaged = staged.to_vec();
            damaged[position] ^= 1;
            assert_eq!(parse(&damaged.into()), None);
        }
        assert_eq!(parse(&staged.slice(1..)), None);
    }
}

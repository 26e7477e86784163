//! Logs made without a sequencer: the objects of each checkpoint on the way, and the last one signed.

use bytes::Bytes;
use fanlight_auditlog::tree::Tree;
use fanlight_auditlog::{Checkpoint, Signer, VerifiedCheckpoint, leaf_hash};

use crate::support::{MemoryStore, ORIGIN, log_key};

/// A log that was published at each of these sizes.
pub(crate) fn grown(sizes: &[usize]) -> MemoryStore {
    store_of(ORIGIN, sizes, None)
}

/// A log of the same key in which one entry is another one.
pub(crate) fn forged(size: usize, index: usize) -> MemoryStore {
    store_of(ORIGIN, &[size], Some(index))
}

pub(crate) fn store_of(origin: &str, sizes: &[usize], forged: Option<usize>) -> MemoryStore {
    let mut entries = entries(*sizes.last().expect("a size"));
    if let Some(index) = forged {
        entries[index] = Bytes::from_static(b"forged");
    }
    let store = MemoryStore::default();
    let mut tree = Tree::empty();
    let mut rest = entries.iter();
    let mut size = 0;
    for &next in sizes {
        let round: Vec<_> = rest.by_ref().take(next - size).map(|entry| (leaf_hash(entry), &entry[..])).collect();
        size = next;
        let objects = tree.append(round);
        store.edit(|all| all.extend(objects.into_iter().map(|object| (object.path.to_string(), object.bytes))));
    }
    let checkpoint = Checkpoint::new(origin, tree.edge().size(), tree.edge().root());
    let note = signer_of(origin).sign(&checkpoint.to_string());
    store.edit(|all| {
        all.insert("checkpoint".to_owned(), note.into());
    });
    store
}

pub(crate) fn signer_of(origin: &str) -> Signer {
    Signer::new(origin, &[42; 32]).expect("a good name")
}

/// Entries of different lengths, none of them empty.
pub(crate) fn entries(n: usize) -> Vec<Bytes> {
    (0..n).map(|i| Bytes::from(format!("{i:x}"))).collect()
}

pub(crate) fn checkpoint(store: &MemoryStore) -> VerifiedCheckpoint {
    VerifiedCheckpoint::verify(&store.objects()["checkpoint"], &log_key()).expect("the log's own signature")
}

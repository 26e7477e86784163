//! Trees and proofs against an independent implementation of RFC 6962, and against damage.

mod support;

use bytes::Bytes;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use fanlight_auditlog::hash::EMPTY_ROOT;
use fanlight_auditlog::proof::{verify_consistency, verify_inclusion};
use fanlight_auditlog::tile::TilePath;
use fanlight_auditlog::tree::{RightEdge, Tree};
use fanlight_auditlog::{Checkpoint, Hash, ObjectStore as _, Reader, VerifiedCheckpoint, leaf_hash};
use proptest::prelude::*;
use sha2::Sha256;
use support::{MemoryStore, ORIGIN, log_key, signer};
use tokio::sync::OnceCell;

type Oracle = MemoryBackedTree<Sha256, Vec<u8>>;

const MAX_SIZE: u64 = 300;

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn checkpoint(size: u64, root: Hash) -> VerifiedCheckpoint {
    let note = signer().sign(&Checkpoint::new(ORIGIN, size, root).to_string());
    VerifiedCheckpoint::verify(note.as_bytes(), &log_key()).expect("just signed")
}

/// The roots of all trees of at most `max` entries, with every tile of each in the store.
async fn grow(store: &MemoryStore, max: u64) -> Vec<Hash> {
    let mut tree = Tree::empty();
    let mut roots = vec![tree.edge().root()];
    for index in 0..max {
        let entry = entry(index);
        for object in tree.append([(leaf_hash(&entry), entry.as_slice())]) {
            store.put_new(&object.path.to_string(), object.bytes).await.expect("no faults");
        }
        roots.push(tree.edge().root());
    }
    roots
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks().0.iter().map(|chunk| Hash::new(*chunk)).collect()
}

#[tokio::test]
async fn a_reader_proves_what_it_read() {
    let store = MemoryStore::default();
    let roots = grow(&store, MAX_SIZE).await;
    let mut oracle = Oracle::new();
    for size in 1..=MAX_SIZE {
        oracle.push(entry(size - 1));
        if size % 37 > 0 && !(255..258).contains(&size) {
            continue;
        }
        let root = roots[usize::try_from(size).unwrap()];
        assert_eq!(root.as_bytes().as_slice(), oracle.root().as_bytes().as_slice(), "root of {size}");
        let reader = Reader::at(&store, checkpoint(size, root)).await.unwrap();
        for index in 0..size {
            let (path, _) = reader.inclusion_proof(index).await.unwrap();
            let expected = oracle.prove_inclusion(usize::try_from(index).unwrap());
            assert_eq!(path, hashes(expected.as_bytes()), "entry {index} of {size}");
        }
        for old in 1..=size {
            let proof = reader.consistency_proof(old).await.unwrap();
            let expected = oracle.prove_consistency(usize::try_from(size - old).unwrap());
            assert_eq!(proof, hashes(expected.as_bytes()), "{old} to {size}");
        }
        assert!(reader.inclusion_proof(size).await.is_err());
        assert!(reader.consistency_proof(size + 1).await.is_err());
    }
}

#[test]
fn roots_at_the_edges_of_tiles() {
    let mut tree = Tree::empty();
    let mut oracle = Oracle::new();
    let mut paths = Vec::new();
    let mut index = 0;
    for size in [255u64, 256, 257, 65_535, 65_536, 65_537] {
        let entries: Vec<Vec<u8>> = (index..size).map(entry).collect();
        let before = tree.clone();
        let appended = entries.iter().map(|entry| (leaf_hash(entry), entry.as_slice()));
        paths = tree.append(appended).into_iter().map(|object| object.path.to_string()).collect();
        for entry in entries {
            oracle.push(entry);
        }
        assert_eq!(tree.edge().size(), size);
        assert_eq!(tree.edge().root().as_bytes().as_slice(), oracle.root().as_bytes().as_slice(), "{size}");
        assert_eq!(before.edge().size(), index, "the tree before is untouched");
        index = size;
        if size == 256 {
            assert_eq!(paths, ["tile/0/000", "tile/entries/000", "tile/1/000.p/1"]);
        }
        if size == 65_536 {
            assert_eq!(paths, ["tile/0/255", "tile/1/000", "tile/entries/255", "tile/2/000.p/1"]);
        }
    }
    assert_eq!(paths, ["tile/0/256.p/1", "tile/entries/256.p/1"]);
}

#[test]
fn right_edge_needs_exactly_its_tiles() {
    let widths = |size| RightEdge::tiles_of(size).iter().map(TilePath::width).collect::<Vec<_>>();
    assert_eq!(widths(0), [0; 0]);
    assert_eq!(widths(70_000), [112, 17, 1]);
    let tile = |width: usize| vec![EMPTY_ROOT; width];
    assert!(RightEdge::from_tiles(70_000, [tile(112), tile(17), tile(1)]).is_some());
    assert!(RightEdge::from_tiles(70_000, [tile(112), tile(16), tile(1)]).is_none());
    assert!(RightEdge::from_tiles(70_000, [tile(112), tile(17)]).is_none());
    assert!(RightEdge::from_tiles(70_000, [tile(112), tile(17), tile(1), tile(1)]).is_none());
}

#[tokio::test]
async fn a_partial_tile_may_be_gone_once_the_full_one_is_there() {
    let store = MemoryStore::default();
    let roots = grow(&store, 300).await;
    store.edit(|objects| objects.retain(|key, _| !key.contains("000.p/")));
    let reader = Reader::at(&store, checkpoint(200, roots[200])).await.unwrap();
    assert_eq!(reader.entry(150).await.unwrap(), entry(150));
    reader.inclusion_proof(150).await.unwrap();
}

#[tokio::test]
async fn entries_stream_in_order() {
    use futures_util::TryStreamExt as _;

    let store = MemoryStore::default();
    let roots = grow(&store, 600).await;
    let reader = Reader::at(&store, checkpoint(600, roots[600])).await.unwrap();
    let read: Vec<(u64, Bytes)> = reader.entries(250..1000).try_collect().await.unwrap();
    let expected: Vec<(u64, Bytes)> = (250..600).map(|index| (index, entry(index).into())).collect();
    assert_eq!(read, expected);
    let nothing: Vec<(u64, Bytes)> = reader.entries(600..700).try_collect().await.unwrap();
    assert_eq!(nothing, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Of everything that a proof consists of, no bit can change.
    #[test]
    fn one_flipped_bit_fails(size in 2u64..300, at in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            static LOG: OnceCell<(MemoryStore, Vec<Hash>)> = OnceCell::const_new();
            let (store, roots) = LOG.get_or_init(async || {
                let store = MemoryStore::default();
                let roots = grow(&store, MAX_SIZE).await;
                (store, roots)
            }).await;
            let root = roots[usize::try_from(size).unwrap()];
            let index = at.index(usize::try_from(size).unwrap()) as u64;
            let reader = Reader::at(store, checkpoint(size, root)).await.unwrap();

            let (path, inclusion) = reader.inclusion_proof(index).await.unwrap();
            let mut parts = vec![inclusion.leaf(), root];
            parts.extend(path);
            let holds = |parts: &[Hash]| verify_inclusion(parts[0], index, size, parts[1], &parts[2..]).is_ok();
            assert!(holds(&parts));
            assert!(!holds(&flip(&parts, bit)));

            let old = index + 1;
            let mut parts = vec![roots[usize::try_from(old).unwrap()], root];
            parts.extend(reader.consistency_proof(old).await.unwrap());
            let holds = |parts: &[Hash]| verify_consistency(old, parts[0], size, parts[1], &parts[2..]).is_ok();
            assert!(holds(&parts));
            assert!(!holds(&flip(&parts, bit)));
        });
    }
}

fn flip(parts: &[Hash], bit: prop::sample::Index) -> Vec<Hash> {
    let bit = bit.index(parts.len() * 256);
    let mut flipped = parts.to_vec();
    let mut bytes = *flipped[bit / 256].as_bytes();
    bytes[bit % 256 / 8] ^= 1 << (bit % 8);
    flipped[bit / 256] = Hash::new(bytes);
    flipped
}

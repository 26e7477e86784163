//! Trees and proofs against two other implementations of RFC 6962: `ct-merkle`, which keeps the tree in memory, and
//! `tlog_tiles`, which descends from Go's checksum database.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use fanlight_auditlog::hash::{EMPTY_ROOT, node_hash};
use fanlight_auditlog::proof::{MissingTile, ProofError, Prover, verify_consistency, verify_inclusion};
use fanlight_auditlog::tile::{TileContent, TilePath};
use fanlight_auditlog::tree::RightEdge;
use fanlight_auditlog::{Hash, leaf_hash};
use proptest::prelude::*;
use sha2::Sha256;

/// Sizes around those at which a tile of some level becomes full.
const EDGES: [u64; 9] = [255, 256, 257, 65_535, 65_536, 65_537, (1 << 24) - 1, 1 << 24, (1 << 24) + 1];

/// Entries of which any number exist without being anywhere: all are alike but those of some indices, around which a
/// swapped hash is noticed. The root of a subtree without such an entry depends on its height alone.
struct Entries {
    distinct: BTreeSet<u64>,
    // By height, and position where the subtree is not like the others.
    subtrees: RefCell<HashMap<(u8, Option<u64>), Hash>>,
    // By size.
    roots: RefCell<HashMap<u64, Hash>>,
}

impl Entries {
    fn new(distinct: impl IntoIterator<Item = u64>) -> Self {
        Self { distinct: distinct.into_iter().collect(), subtrees: RefCell::default(), roots: RefCell::default() }
    }

    fn entry(&self, index: u64) -> Vec<u8> {
        if self.distinct.contains(&index) { format!("entry {index}").into_bytes() } else { b"entry".to_vec() }
    }

    /// The root over the entries `n·2^height .. (n + 1)·2^height`.
    fn subtree(&self, height: u8, n: u64) -> Hash {
        let is_distinct = self.distinct.range(n << height..).next().is_some_and(|index| index >> height == n);
        let key = (height, is_distinct.then_some(n));
        if let Some(root) = self.subtrees.borrow().get(&key) {
            return *root;
        }
        let root = match height {
            0 => leaf_hash(&self.entry(n)),
            _ => node_hash(&self.subtree(height - 1, 2 * n), &self.subtree(height - 1, 2 * n + 1)),
        };
        self.subtrees.borrow_mut().insert(key, root);
        root
    }

    /// The root over the first `size` entries.
    fn root(&self, size: u64) -> Hash {
        let known = self.roots.borrow().get(&size).copied();
        known.unwrap_or_else(|| Log::new(self, size).root)
    }

    fn tile(&self, path: TilePath) -> Vec<Hash> {
        let TileContent::Hashes(level) = path.content() else { unreachable!("a prover asks for hashes") };
        (0..u64::from(path.width())).map(|position| self.subtree(8 * level, path.index() * 256 + position)).collect()
    }
}

impl tlog_tiles::HashReader for Entries {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        let hash = |index: &u64| {
            let (height, n) = tlog_tiles::split_stored_hash_index(*index);
            tlog_tiles::Hash(*self.subtree(height, n).as_bytes())
        };
        Ok(indexes.iter().map(hash).collect())
    }
}

/// The tree over the first entries.
struct Log<'a> {
    entries: &'a Entries,
    size: u64,
    root: Hash,
    prover: Prover,
}

impl<'a> Log<'a> {
    fn new(entries: &'a Entries, size: u64) -> Self {
        let tiles = RightEdge::tiles_of(size).into_iter().map(|path| entries.tile(path));
        let edge = RightEdge::from_tiles(size, tiles).expect("the tiles it asked for");
        let root = edge.root();
        entries.roots.borrow_mut().insert(size, root);
        Self { entries, size, root, prover: Prover::new(&edge) }
    }

    fn insert(&mut self, missing: MissingTile) {
        let path = missing.path();
        let TileContent::Hashes(level) = path.content() else { unreachable!("a prover asks for hashes") };
        while let Err(above) =
            self.prover.insert_checked(level, path.index(), self.entries.tile(path)).map(|taken| assert!(taken))
        {
            self.insert(above);
        }
    }

    fn prove(&mut self, prove: impl Fn(&Prover) -> Result<Vec<Hash>, MissingTile>) -> Vec<Hash> {
        loop {
            match prove(&self.prover) {
                Ok(proof) => return proof,
                Err(missing) => self.insert(missing),
            }
        }
    }

    fn inclusion(&mut self, index: u64) -> Vec<Hash> {
        self.prove(|prover| prover.audit_path(index))
    }

    fn consistency(&mut self, old_size: u64) -> Vec<Hash> {
        self.prove(|prover| prover.consistency_proof(old_size))
    }

    /// The audit path of an entry, once both others agree on it and on whether it holds.
    fn agreed_inclusion(&mut self, index: u64) -> Vec<Hash> {
        let (size, root) = (self.size, self.root);
        let context = format!("entry {index} of {size}");
        let path = self.inclusion(index);
        let entry = self.entries.entry(index);
        let leaf = leaf_hash(&entry);

        let theirs = tlog_tiles::prove_record(size, index, self.entries).expect("the index is in the tree");
        assert_eq!(path, theirs.iter().map(|hash| Hash::new(hash.0)).collect::<Vec<_>>(), "{context}");
        tlog_tiles::check_record(&theirs, size, go_hash(root), index, go_hash(leaf)).expect(&context);
        let proof = InclusionProof::<Sha256>::try_from_bytes(bytes(&path)).expect("whole hashes");
        ct_root(size, root).verify_inclusion(&entry, index, &proof).expect(&context);
        assert_eq!(verify_inclusion(leaf, index, size, root, &path), Ok(()), "{context}");
        path
    }

    /// The proof that a smaller tree is a prefix, once both others agree on it and on whether it holds.
    fn agreed_consistency(&mut self, old_size: u64) -> Vec<Hash> {
        let (size, root) = (self.size, self.root);
        let context = format!("{old_size} to {size}");
        let old_root = self.entries.root(old_size);
        let proof = self.consistency(old_size);
        if old_size > 0 {
            let theirs = tlog_tiles::prove_tree(size, old_size, self.entries).expect("the tree is smaller");
            assert_eq!(proof, theirs.iter().map(|hash| Hash::new(hash.0)).collect::<Vec<_>>(), "{context}");
            tlog_tiles::check_tree(&theirs, size, go_hash(root), old_size, go_hash(old_root)).expect(&context);
            let theirs = ConsistencyProof::<Sha256>::try_from_bytes(bytes(&proof)).expect("whole hashes");
            ct_root(size, root).verify_consistency(&ct_root(old_size, old_root), &theirs).expect(&context);
        }
        assert_eq!(verify_consistency(old_size, old_root, size, root, &proof), Ok(()), "{context}");
        proof
    }
}

fn go_hash(hash: Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash.as_bytes())
}

fn ct_root(size: u64, root: Hash) -> RootHash<Sha256> {
    RootHash::new((*root.as_bytes()).into(), size)
}

fn bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.as_bytes().to_vec()).collect()
}

/// Calls `check` for every tree of 1 to 300 entries, once both others agree on its root.
fn for_each_small_tree(mut check: impl FnMut(&mut Log<'_>, &MemoryBackedTree<Sha256, Vec<u8>>)) {
    const MAX_SIZE: u64 = 300;
    let entries = Entries::new(0..MAX_SIZE);
    let mut memory = MemoryBackedTree::new();
    for size in 1..=MAX_SIZE {
        memory.push(entries.entry(size - 1));
        let mut log = Log::new(&entries, size);
        assert_eq!(log.root.as_bytes().as_slice(), memory.root().as_bytes().as_slice(), "root of {size}");
        assert_eq!(log.root.as_bytes(), &tlog_tiles::tree_hash(size, &entries).expect("hashes are read").0, "root of {size}");
        check(&mut log, &memory);
    }
}

#[test]
fn every_inclusion_proof_of_trees_up_to_300_entries() {
    let mut n_proofs = 0;
    for_each_small_tree(|log, memory| {
        for index in 0..log.size {
            let path = log.agreed_inclusion(index);
            let theirs = memory.prove_inclusion(usize::try_from(index).expect("small"));
            assert_eq!(bytes(&path), theirs.as_bytes(), "entry {index} of {}", log.size);
            n_proofs += 1;
        }
    });
    assert_eq!(n_proofs, 300 * 301 / 2);
}

#[test]
fn every_consistency_proof_of_trees_up_to_300_entries() {
    let mut n_proofs = 0;
    for_each_small_tree(|log, memory| {
        assert_eq!(log.agreed_consistency(0), []);
        for old in 1..=log.size {
            let proof = log.agreed_consistency(old);
            let theirs = memory.prove_consistency(usize::try_from(log.size - old).expect("small"));
            assert_eq!(bytes(&proof), theirs.as_bytes(), "{old} to {}", log.size);
            n_proofs += 1;
        }
    });
    assert_eq!(n_proofs, 300 * 301 / 2);
}

#[test]
fn proofs_where_tiles_become_full() {
    // Distinct entries at the ends of the tree and beside every edge, so that no two subtrees of importance are alike.
    let entries =
        Entries::new(EDGES.into_iter().chain([1, 2, 128, 259, 32_768, 70_000, 1 << 23]).flat_map(|near| [near - 1, near]));
    for size in EDGES {
        let mut log = Log::new(&entries, size);
        assert_eq!(log.root.as_bytes(), &tlog_tiles::tree_hash(size, &entries).expect("hashes are read").0, "root of {size}");
        let near = entries.distinct.iter().copied().filter(|index| *index <= size).collect::<Vec<_>>();
        for index in near {
            if index < size {
                log.agreed_inclusion(index);
            }
            log.agreed_consistency(index);
        }
    }
}

#[test]
fn trees_grow_where_tiles_become_full() {
    let entries = Entries::new(EDGES.into_iter().flat_map(|near| [near - 2, near - 1, near]));
    for size in EDGES {
        let before = size - 2;
        let tiles = RightEdge::tiles_of(before).into_iter().map(|path| entries.tile(path));
        let mut edge = RightEdge::from_tiles(before, tiles).expect("the tiles it asked for");
        let mut n_full = 0;
        for index in before..size {
            edge.push(leaf_hash(&entries.entry(index)), |path, hashes| {
                assert_eq!(hashes, entries.tile(path), "{path} of {size}");
                n_full += 1;
            });
        }
        assert_eq!(edge.root(), entries.root(size), "{size}");
        let fills = |size: u64| size.trailing_zeros() / 8;
        assert_eq!(n_full, fills(size - 1) + fills(size), "full tiles from {before} to {size}");
    }
}

#[test]
fn whatever_else_is_refused() {
    const MAX_SIZE: u64 = 40;
    let entries = Entries::new(0..MAX_SIZE);
    for size in 1..=MAX_SIZE {
        let mut log = Log::new(&entries, size);
        let root = log.root;
        for index in 0..size {
            let path = log.inclusion(index);
            let leaf = leaf_hash(&entries.entry(index));
            for wrong in (0..=size + 1).filter(|wrong| *wrong != index) {
                let refused = verify_inclusion(leaf, wrong, size, root, &path).expect_err("another index");
                assert_eq!(refused == ProofError::IndexOutsideTree, wrong >= size, "{index} as {wrong} of {size}");
            }
            assert_eq!(verify_inclusion(leaf, u64::MAX, size, root, &path), Err(ProofError::IndexOutsideTree));
            assert_eq!(verify_inclusion(leaf, index, 0, root, &path), Err(ProofError::IndexOutsideTree));
            refuses_other_hashes(&path, |path| verify_inclusion(leaf, index, size, root, path));
        }
        for old in 1..size {
            let old_root = entries.root(old);
            let proof = log.consistency(old);
            assert_eq!(verify_consistency(size, root, old, old_root, &proof), Err(ProofError::SizesReversed));
            assert!(verify_consistency(old, root, size, root, &proof).is_err());
            assert!(verify_consistency(old, old_root, size, old_root, &proof).is_err());
            refuses_other_hashes(&proof, |proof| verify_consistency(old, old_root, size, root, proof));
        }
    }
    let root = entries.root(7);
    assert_eq!(verify_consistency(7, root, 7, root, &[EMPTY_ROOT]), Err(ProofError::TooLong));
    assert_eq!(verify_consistency(0, EMPTY_ROOT, 7, root, &[EMPTY_ROOT]), Err(ProofError::TooLong));
    assert_eq!(verify_consistency(0, root, 7, root, &[]), Err(ProofError::RootMismatch));
    assert_eq!(verify_consistency(0, EMPTY_ROOT, 0, root, &[]), Err(ProofError::RootMismatch));
    assert_eq!(verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, &[]), Ok(()));
    assert_eq!(verify_consistency(7, EMPTY_ROOT, 7, root, &[]), Err(ProofError::RootMismatch));
}

/// Every proof that differs from a good one by a hash too many, a hash too few, or two hashes that changed places.
fn refuses_other_hashes(proof: &[Hash], verify: impl Fn(&[Hash]) -> Result<(), ProofError>) {
    assert_eq!(verify(proof), Ok(()));
    for length in 0..proof.len() {
        assert_eq!(verify(&proof[..length]), Err(ProofError::TooShort));
        assert!(verify(&proof[length + 1..]).is_err(), "the first hashes are missing");
        let without = [&proof[..length], &proof[length + 1..]].concat();
        assert!(verify(&without).is_err(), "a hash is missing");
    }
    for extra in proof.iter().copied().chain([EMPTY_ROOT]) {
        assert_eq!(verify(&[proof, &[extra]].concat()), Err(ProofError::TooLong));
        assert!(verify(&[&[extra], proof].concat()).is_err(), "a hash more in front");
    }
    for first in 0..proof.len() {
        for second in first + 1..proof.len() {
            let mut swapped = proof.to_vec();
            swapped.swap(first, second);
            assert!(verify(&swapped).is_err(), "hashes {first} and {second} changed places");
        }
    }
}

#[test]
fn a_prover_refuses_foreign_tiles() {
    let entries = Entries::new([0, 70_000]);
    let log = Log::new(&entries, 70_001);
    let mut prover = log.prover;
    let top = prover.audit_path(0).expect_err("no tile is there").path();
    assert_eq!(top.to_string(), "tile/0/000");
    let good = entries.tile(top);
    let above = prover.insert_checked(0, 0, good.clone()).expect_err("the tile above is missing").path();
    assert_eq!(above.to_string(), "tile/1/000");
    assert_eq!(prover.insert_checked(1, 0, entries.tile(above)), Ok(true));
    assert_eq!(prover.insert_checked(0, 0, vec![]), Ok(false));
    assert_eq!(prover.insert_checked(0, 0, good[..255].to_vec()), Ok(false));
    assert_eq!(prover.insert_checked(0, 1, good.clone()), Ok(false));
    assert_eq!(prover.insert_checked(0, 1 << 40, good.clone()), Ok(false));
    assert_eq!(prover.insert_checked(u8::MAX, 0, good.clone()), Ok(false));
    assert_eq!(prover.insert_checked(0, 0, good), Ok(true));
    assert_eq!(prover.audit_path(70_001), Ok(vec![]));
    assert_eq!(prover.node(0, 70_001), Ok(None));
    assert_eq!(prover.node(u8::MAX, 0), Ok(None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Logs of up to 2^40 entries, far beyond what could be built.
    #[test]
    fn any_proof_of_any_tree(size in 1u64..1 << 40, shift in 0u32..40, at in any::<u64>(), near in any::<u64>()) {
        let size = (size >> shift).max(1);
        let (index, old) = (at % size, near % (size + 1));
        let entries = Entries::new([index, index ^ 1, old, old.saturating_sub(1), size - 1]);
        let mut log = Log::new(&entries, size);
        log.agreed_inclusion(index);
        log.agreed_consistency(old);
    }
}

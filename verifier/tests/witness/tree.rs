//! A log that can lie: a tree in memory, by the definitions of RFC 6962 §2.1, with a key that signs whatever it is asked.

use fanlight_auditlog::hash::{EMPTY_ROOT, leaf_hash, node_hash};
use fanlight_auditlog::{Hash, Signer, VerifierKey};

pub(crate) struct Tree {
    origin: String,
    seed: u8,
    leaves: Vec<Hash>,
}

impl Tree {
    /// A tree of `size` leaves; the seed decides its key.
    pub(crate) fn new(origin: &str, seed: u8, size: usize) -> Self {
        let mut tree = Self { origin: origin.to_owned(), seed, leaves: Vec::new() };
        tree.grow(size, 0);
        tree
    }

    /// Appends leaves, which differ by the salt.
    pub(crate) fn grow(&mut self, n: usize, salt: u8) {
        let start = self.leaves.len();
        self.leaves.extend((start..start + n).map(|index| leaf_hash(format!("{salt} {index}").as_bytes())));
    }

    /// The same log with other leaves from `at` on.
    pub(crate) fn forked(&self, at: usize, salt: u8) -> Self {
        let mut fork = Self { origin: self.origin.clone(), seed: self.seed, leaves: self.leaves[..at].to_vec() };
        fork.grow(self.leaves.len() - at, salt);
        fork
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn size(&self) -> usize {
        self.leaves.len()
    }

    pub(crate) fn signer(&self) -> Signer {
        Signer::new(&self.origin, &[self.seed; 32]).expect("a good name")
    }

    pub(crate) fn key(&self) -> VerifierKey {
        self.signer().verifier_key()
    }

    /// The text of the checkpoint of the first `size` leaves.
    pub(crate) fn text(&self, size: usize) -> String {
        format!("{}\n{size}\n{}\n", self.origin, root(&self.leaves[..size]))
    }

    /// The signed checkpoint of the first `size` leaves.
    pub(crate) fn note(&self, size: usize) -> String {
        self.signer().sign(&self.text(size))
    }

    /// The consistency proof from `old` to `new` leaves (RFC 6962 §2.1.2).
    pub(crate) fn proof(&self, old: usize, new: usize) -> Vec<Hash> {
        if old == 0 { Vec::new() } else { subproof(old, &self.leaves[..new], true) }
    }

    /// A request to cosign the first `new` leaves.
    pub(crate) fn request(&self, old: usize, new: usize) -> String {
        request(old, &self.proof(old, new), &self.note(new))
    }
}

pub(crate) fn request(old: usize, proof: &[Hash], note: &str) -> String {
    let head = proof.iter().fold(format!("old {old}\n"), |lines, hash| lines + &hash.to_string() + "\n");
    format!("{head}\n{note}")
}

fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `n`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// `whole` says that the old tree is a subtree of its own, whose root the verifier knows.
fn subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![root(leaves)] };
    }
    let at = split(leaves.len());
    let (left, right) = leaves.split_at(at);
    let (mut proof, sibling) =
        if old <= at { (subproof(old, left, whole), root(right)) } else { (subproof(old - at, right, false), root(left)) };
    proof.push(sibling);
    proof
}

//! Arbitrary bytes.

use fanlight_verifier::witness::Witness;
use proptest::prelude::*;

use crate::running::{NOW, ORIGIN, witness};
use crate::tree::Tree;

fn decide(witness: &Witness, request: &[u8]) -> Option<String> {
    let submission = witness.parse(request).ok()?;
    Some(witness.cosign(&submission, None, NOW).ok()?.note().to_owned())
}

proptest! {
    #[test]
    fn bytes_that_no_log_signed_are_never_cosigned(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let tree = Tree::new(ORIGIN, 1, 3);
        let witness = witness([tree.key()]);
        prop_assert_eq!(decide(&witness, &bytes), None);
        let mut request = b"old 0\n\n".to_vec();
        request.extend_from_slice(&bytes);
        prop_assert_eq!(decide(&witness, &request), None);
    }

    #[test]
    fn only_what_the_log_signed_is_cosigned(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..4),
    ) {
        let tree = Tree::new(ORIGIN, 1, 3);
        let witness = witness([tree.key()]);
        let mut bytes = tree.request(0, 3).into_bytes();
        prop_assert!(decide(&witness, &bytes).is_some());
        for (index, byte, kind) in edits {
            let index = index.index(bytes.len());
            match kind {
                0 => bytes[index] = byte,
                1 => bytes.insert(index, byte),
                _ => drop(bytes.remove(index)),
            }
        }
        if let Some(note) = decide(&witness, &bytes) {
            let text = tree.text(3);
            prop_assert!(note.starts_with(&format!("{text}\n")), "{note}");
        }
    }
}

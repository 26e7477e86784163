//! What is remembered of one provider, and the rules that its next entry is judged by.

use std::collections::BTreeMap;

use fanlight_protocol::entry::{Evidence, IdentityKey, KeyStatement, Receipt, Signed};
use fanlight_protocol::{Digest, UnixTime};
use serde::{Deserialize, Serialize};

use super::Limits;
use super::chain::{Chain, Inserted, Link};
use super::finding::Finding;
use super::search::Question;
use crate::receipt::Validity;

/// A provider whose key is known, since evidence or a statement of it was logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Provider {
    #[serde(with = "spki_hex")]
    pub(super) identity: IdentityKey,
    /// No entry that carries the key stands before this leaf.
    pub(super) first_index: u64,
    pub(super) last_index: u64,
    pub(super) n_receipts: u64,
    // Leaf of each evidence that is remembered.
    evidence: BTreeMap<Digest, u64>,
    statements: BTreeMap<Digest, Terms>,
    // Whether some were dropped for the limits, so that an unknown one may have been logged all the same.
    forgot_evidence: bool,
    forgot_statements: bool,
    chain: Chain,
}

/// What receipts are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Terms {
    index: u64,
    validity: Validity,
}

/// What one entry of a provider leads to, beside becoming part of what is remembered.
#[derive(Debug)]
pub(super) enum Ruling {
    Found(Finding),
    /// Only a look back into the log tells.
    Asked(Question),
}

impl Provider {
    /// A provider known from the entry at `index`. It may have been `forgotten` before: then what it did earlier may be
    /// anywhere in the log.
    pub(super) fn new(identity: IdentityKey, index: u64, forgotten: bool) -> Self {
        Self {
            identity,
            first_index: if forgotten { 0 } else { index },
            last_index: index,
            n_receipts: 0,
            evidence: BTreeMap::new(),
            statements: BTreeMap::new(),
            forgot_evidence: forgotten,
            forgot_statements: forgotten,
            chain: Chain::default(),
        }
    }

    /// Returns whether it was not there yet: a log need not refuse the same bytes twice.
    pub(super) fn take_evidence(&mut self, index: u64, evidence: &Signed<Evidence>, limits: &Limits) -> bool {
        if self.evidence.contains_key(&evidence.digest()) {
            return false;
        }
        self.evidence.insert(evidence.digest(), index);
        self.forgot_evidence |= drop_oldest(&mut self.evidence, limits.max_evidence, |index| *index);
        true
    }

    /// Returns whether it was not there yet.
    pub(super) fn take_statement(
        &mut self,
        index: u64,
        statement: &Signed<KeyStatement>,
        limits: &Limits,
        mut rule: impl FnMut(Ruling),
    ) -> bool {
        if self.statements.contains_key(&statement.digest()) {
            return false;
        }
        if !self.evidence.contains_key(&statement.evidence_digest) {
            rule(if self.forgot_evidence {
                Ruling::Asked(Question::Evidence { index, digest: statement.evidence_digest })
            } else {
                Ruling::Found(Finding::EvidenceNotLogged { index })
            });
        }
        let terms = Terms { index, validity: Validity::of(statement) };
        self.statements.insert(statement.digest(), terms);
        self.forgot_statements |= drop_oldest(&mut self.statements, limits.max_statements, |terms| terms.index);
        true
    }

    /// Returns whether it was not there yet, as far as is remembered.
    pub(super) fn take_receipt(
        &mut self,
        index: u64,
        receipt: &Signed<Receipt>,
        seen: UnixTime,
        limits: &Limits,
        mut rule: impl FnMut(Ruling),
    ) -> bool {
        let counter = receipt.counter;
        let link = Link { digest: receipt.digest(), previous: receipt.previous, index, signed: receipt.time.min(seen) };
        match self.chain.insert(counter, link) {
            Inserted::Repeated => return false,
            Inserted::Forked { first } => rule(Ruling::Found(Finding::Fork { counter, first, second: index })),
            Inserted::Forgotten => {
                rule(Ruling::Asked(Question::Receipt { index, counter, digest: receipt.digest() }));
            }
            Inserted::New | Inserted::ForkedAgain => {}
        }
        self.n_receipts += 1;
        match self.statements.get(&receipt.statement_digest) {
            Some(terms) => {
                if let Some(finding) = outside(terms.validity, index, receipt) {
                    rule(Ruling::Found(finding));
                }
            }
            None if self.forgot_statements => {
                let digest = receipt.statement_digest;
                rule(Ruling::Asked(Question::Statement { index, counter, digest, time: receipt.time }));
            }
            None => rule(Ruling::Found(Finding::StatementNotLogged { index, counter })),
        }
        self.chain.forget(limits, |finding| rule(Ruling::Found(finding)));
        true
    }

    /// What is wrong with the chain as it stands, which later receipts may still put right. A gap comes with when the
    /// receipt after it was signed.
    pub(super) fn standing(&self) -> impl Iterator<Item = (Finding, Option<UnixTime>)> {
        let mismatches = self.chain.mismatches().map(|finding| (finding, None));
        self.chain.gaps().map(|(gap, signed)| (gap, Some(signed))).chain(mismatches)
    }

    /// The highest counter seen.
    pub(super) fn newest_counter(&self) -> Option<u64> {
        self.chain.newest()
    }
}

/// Whether a receipt counts under a statement that was logged before it.
fn outside(validity: Validity, index: u64, receipt: &Signed<Receipt>) -> Option<Finding> {
    (!validity.signed_in_time(receipt.time)).then_some(Finding::OutsideValidity { index, counter: receipt.counter })
}

fn drop_oldest<V>(map: &mut BTreeMap<Digest, V>, max: usize, index: impl Fn(&V) -> u64) -> bool {
    if map.len() <= max {
        return false;
    }
    if let Some(oldest) = map.iter().min_by_key(|(_, value)| index(value)).map(|(digest, _)| *digest) {
        map.remove(&oldest);
    }
    true
}

/// The key as hexadecimal SubjectPublicKeyInfo; reading checks that it is a point of the curve.
mod spki_hex {
    use fanlight_protocol::entry::{EntryError, IdentityKey};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(key: &IdentityKey, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(key.spki()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IdentityKey, D::Error> {
        let spki = hex::decode(String::deserialize(deserializer)?).map_err(de::Error::custom)?;
        IdentityKey::from_spki(&spki).map_err(|error: EntryError| de::Error::custom(error))
    }
}

//! The history of one provider: a fold over every entry of a log (SPEC §7.3, §11).

use std::collections::{BTreeMap, HashMap};

use fanlight_protocol::entry::{
    self, EntryError, EntryType, Evidence, IdentityKey, KeyStatement, LinkAuth, Receipt, SelfKeyed, Signed,
};
use fanlight_protocol::{Digest, ProviderId, UnixTime};

pub use self::finding::{Finding, Note};
use crate::appraisal::{AppraisalError, AttestationResult, appraise};
use crate::receipt::signed_in_time;

mod finding;

/// Receipts kept until the provider's key is known. Forged ones cost an attacker nothing, so more are not kept.
const MAX_EARLY_RECEIPTS: usize = 1024;

/// Folds a log into what it says of one provider.
///
/// Entries go in as they stand in the log, from leaf 0 and none left out, each already checked against a checkpoint:
/// the fold takes their order for the order of events.
#[derive(Debug)]
pub struct ProviderHistory {
    provider_id: ProviderId,
    next_index: u64,
    // Known from the first evidence or key statement on; receipts do not carry it.
    identity: Option<IdentityKey>,
    evidence: Vec<(u64, Signed<Evidence>)>,
    statements: Vec<LoggedStatement>,
    // Positions in `statements`.
    statement_of: HashMap<Digest, usize>,
    // By counter; more than one at a counter is a fork.
    receipts: BTreeMap<u64, Vec<LoggedReceipt>>,
    // Receipts from before the identity was known, not verified.
    early: Vec<(u64, Vec<u8>)>,
    findings: Vec<Finding>,
    notes: Vec<Note>,
}

impl ProviderHistory {
    /// The history of `provider_id` before the first entry.
    pub fn new(provider_id: ProviderId) -> Self {
        Self {
            provider_id,
            next_index: 0,
            identity: None,
            evidence: Vec::new(),
            statements: Vec::new(),
            statement_of: HashMap::new(),
            receipts: BTreeMap::new(),
            early: Vec::new(),
            findings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Takes the log's next entry. Entries of others cost a look at their header.
    pub fn push(&mut self, entry: &[u8]) {
        let index = self.next_index;
        self.next_index += 1;
        let Ok(claimed) = entry::peek(entry) else { return };
        if claimed.provider_id != self.provider_id {
            return;
        }
        let taken = match claimed.entry_type {
            EntryType::Evidence => self.push_evidence(index, entry),
            EntryType::KeyStatement => self.push_statement(index, entry),
            EntryType::Receipt => self.push_receipt(index, entry),
            EntryType::Link => Signed::<LinkAuth>::verify_self_keyed(entry).map(|_| {
                self.findings.push(Finding::NeverLogged { index });
            }),
        };
        if let Err(error) = taken {
            self.notes.push(Note::Unverifiable { index, error });
        }
    }

    /// Judges the whole: the chain of receipts is complete only now, since concurrent receipts are logged in any order.
    pub fn finish(mut self, now: UnixTime) -> HistoryReport {
        self.judge_early();
        let mut findings = std::mem::take(&mut self.findings);
        self.judge_chain(&mut findings);
        let results = self.evidence.iter().map(|(index, evidence)| (*index, appraise(evidence, now)));
        let evidence: Vec<_> = results.map(|(index, result)| LoggedEvidence { index, result }).collect();
        let refused = evidence.iter().filter(|logged| logged.result.is_err());
        findings.extend(refused.map(|logged| Finding::EvidenceRefused { index: logged.index }));
        if evidence.is_empty() {
            findings.push(Finding::NoEvidence);
        }
        findings.sort_by_key(Finding::index);
        self.notes.sort_by_key(Note::index);
        HistoryReport {
            provider_id: self.provider_id,
            tree_size: self.next_index,
            evidence,
            statements: self.statements,
            receipts: self.receipts.into_values().flatten().collect(),
            findings,
            notes: self.notes,
        }
    }

    fn push_evidence(&mut self, index: u64, bytes: &[u8]) -> Result<(), EntryError> {
        let evidence = Signed::<Evidence>::verify_self_keyed(bytes)?;
        self.learn_identity(&*evidence);
        // Appending is idempotent for a log's recent entries only, so the same bytes may stand twice.
        if self.evidence.iter().all(|(_, known)| known.digest() != evidence.digest()) {
            self.evidence.push((index, evidence));
        }
        Ok(())
    }

    fn push_statement(&mut self, index: u64, bytes: &[u8]) -> Result<(), EntryError> {
        let statement = Signed::<KeyStatement>::verify_self_keyed(bytes)?;
        self.learn_identity(&*statement);
        if self.statement_of.contains_key(&statement.digest()) {
            return Ok(());
        }
        if self.evidence.iter().all(|(_, known)| known.digest() != statement.evidence_digest) {
            self.findings.push(Finding::EvidenceNotLogged { index });
        }
        self.statement_of.insert(statement.digest(), self.statements.len());
        self.statements.push(LoggedStatement { index, statement, n_receipts: 0 });
        Ok(())
    }

    fn push_receipt(&mut self, index: u64, bytes: &[u8]) -> Result<(), EntryError> {
        let Some(identity) = &self.identity else {
            if self.early.len() < MAX_EARLY_RECEIPTS {
                self.early.push((index, bytes.to_owned()));
            } else {
                self.notes.push(Note::UnknownKey { index });
            }
            return Ok(());
        };
        let receipt = Signed::<Receipt>::verify(bytes, identity)?;
        let counter = receipt.counter;
        let with_same_counter = self.receipts.entry(counter).or_default();
        if with_same_counter.iter().any(|known| known.digest() == receipt.digest()) {
            return Ok(());
        }
        let statement = self.statement_of.get(&receipt.statement_digest).and_then(|at| self.statements.get_mut(*at));
        match statement {
            None => self.findings.push(Finding::StatementNotLogged { index, counter }),
            Some(LoggedStatement { statement, n_receipts, .. }) => {
                *n_receipts += 1;
                if !signed_in_time(statement, receipt.time) {
                    self.findings.push(Finding::OutsideValidity { index, counter });
                }
            }
        }
        with_same_counter.push(LoggedReceipt { index, receipt });
        Ok(())
    }

    fn learn_identity(&mut self, entry: &impl SelfKeyed) {
        // The entry verified under this key and its kid is ours, so its key is the one and only.
        self.identity.get_or_insert_with(|| entry.identity().clone());
    }

    /// Only now is the key known that tells the provider's receipts from those in its name.
    fn judge_early(&mut self) {
        for (index, bytes) in std::mem::take(&mut self.early) {
            match self.identity.as_ref().map(|identity| Signed::<Receipt>::verify(&bytes, identity)) {
                Some(Ok(_)) => self.findings.push(Finding::NotEnrolled { index }),
                Some(Err(error)) => self.notes.push(Note::Unverifiable { index, error }),
                None => self.notes.push(Note::UnknownKey { index }),
            }
        }
    }

    fn judge_chain(&self, findings: &mut Vec<Finding>) {
        let mut expected = 0;
        let mut before: &[LoggedReceipt] = &[];
        for (&counter, receipts) in &self.receipts {
            if counter > expected {
                findings.push(Finding::Gap { first: expected, last: counter - 1 });
                before = &[];
            }
            if let [first, second, ..] = receipts.as_slice() {
                findings.push(Finding::Fork { counter, first: first.index, second: second.index });
            }
            // The first receipt has no predecessor to disagree with, and after a gap the predecessor is not known.
            if !before.is_empty() {
                let fits = |r: &&LoggedReceipt| before.iter().any(|b| b.digest() == r.receipt.previous);
                let broken = receipts.iter().filter(|receipt| !fits(receipt));
                findings.extend(broken.map(|receipt| Finding::PreviousMismatch { index: receipt.index, counter }));
            }
            before = receipts;
            expected = counter.saturating_add(1);
        }
    }
}

/// What a log says of one provider.
#[derive(Clone, Debug)]
pub struct HistoryReport {
    /// Whose history it is.
    pub provider_id: ProviderId,
    /// How many entries of the log were read.
    pub tree_size: u64,
    /// Evidence that verified, in order of the log.
    pub evidence: Vec<LoggedEvidence>,
    /// Key statements that verified, in order of the log.
    pub statements: Vec<LoggedStatement>,
    /// Receipts that verified, in order of counter.
    pub receipts: Vec<LoggedReceipt>,
    /// Everything that is wrong, in order of the log; findings about the chain as a whole come last.
    ///
    /// The newest receipts of a chain can be withheld unseen: nothing that is logged names them.
    pub findings: Vec<Finding>,
    /// Entries in the provider's name that are not known to be its own, in order of the log.
    pub notes: Vec<Note>,
}

impl HistoryReport {
    /// Whether nothing is wrong. A provider that the log does not know is not good; notes do not count, since anybody can
    /// cause them.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Evidence in the log, appraised.
#[derive(Clone, Debug)]
pub struct LoggedEvidence {
    /// Its leaf.
    pub index: u64,
    /// What it is worth.
    pub result: Result<AttestationResult, AppraisalError>,
}

/// A key statement in the log.
#[derive(Clone, Debug)]
pub struct LoggedStatement {
    /// Its leaf.
    pub index: u64,
    /// The statement.
    pub statement: Signed<KeyStatement>,
    /// How many logged receipts are under it.
    pub n_receipts: u64,
}

/// A receipt in the log.
#[derive(Clone, Debug)]
pub struct LoggedReceipt {
    /// Its leaf.
    pub index: u64,
    /// The receipt.
    pub receipt: Signed<Receipt>,
}

impl LoggedReceipt {
    fn digest(&self) -> Digest {
        self.receipt.digest()
    }
}

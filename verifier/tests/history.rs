//! The history of one provider: a good one, and one fault each.

mod world;

use fanlight_protocol::entry::{EntryError, KeyStatement, LinkAuth, Receipt, ReceiptDetails, Signed};
use fanlight_protocol::{Digest, UnixTime};
use fanlight_verifier::{Finding, Grade, HistoryReport, Note, ProviderHistory};
use proptest::prelude::*;
use world::{END, Identity, NOW, START, details};

/// A provider with evidence, a statement and a chain of receipts, none of it logged yet.
struct Chain {
    provider: Identity,
    statement: Signed<KeyStatement>,
    receipts: Vec<Signed<Receipt>>,
}

impl Chain {
    fn new(n_receipts: usize) -> Self {
        let provider = Identity::new(7);
        let statement = provider.statement(|_| ());
        let mut receipts: Vec<Signed<Receipt>> = Vec::new();
        for _ in 0..n_receipts {
            receipts.push(provider.receipt(&statement, &details(), receipts.last()));
        }
        Self { provider, statement, receipts }
    }

    /// Evidence and statement, then these entries.
    fn judge(&self, entries: &[&[u8]]) -> HistoryReport {
        let evidence = self.provider.evidence();
        judge(&self.provider, &[&[evidence.bytes(), self.statement.bytes()], entries].concat())
    }

    fn findings(&self, entries: &[&[u8]]) -> Vec<Finding> {
        self.judge(entries).findings
    }

    /// The receipt `edit` makes of receipt `n`.
    fn edited(&self, n: usize, edit: impl FnOnce(&mut Receipt)) -> Signed<Receipt> {
        let mut receipt = (*self.receipts[n]).clone();
        edit(&mut receipt);
        self.provider.sign(&receipt)
    }

    fn bytes(&self) -> Vec<&[u8]> {
        self.receipts.iter().map(Signed::bytes).collect()
    }
}

fn judge(provider: &Identity, entries: &[&[u8]]) -> HistoryReport {
    let mut history = ProviderHistory::new(provider.id());
    for entry in entries {
        history.push(entry);
    }
    history.finish(NOW)
}

#[test]
fn a_good_history_among_the_entries_of_others() {
    let chain = Chain::new(3);
    let other = Chain { provider: Identity::new(8), ..Chain::new(0) };
    let others = other.provider.evidence();
    let [r0, r1, r2] = chain.bytes()[..] else { unreachable!("three receipts") };
    // Concurrent receipts are logged in any order, and an entry may stand twice.
    let report = chain.judge(&[b"not an entry", others.bytes(), r1, r0, chain.statement.bytes(), r2, r0]);
    assert!(report.is_good(), "{:?}", report.findings);
    assert_eq!(report.tree_size, 9);
    assert_eq!(report.evidence.len(), 1);
    assert_eq!(report.evidence[0].result.as_ref().unwrap().grade(), Grade::SelfSigned);
    let [statement] = report.statements.as_slice() else { panic!("one statement") };
    assert_eq!((statement.index, statement.n_receipts), (1, 3));
    let order: Vec<_> = report.receipts.iter().map(|r| (r.receipt.counter, r.index)).collect();
    assert_eq!(order, [(0, 5), (1, 4), (2, 7)]);
}

#[test]
fn a_provider_that_the_log_does_not_know() {
    let report = judge(&Identity::new(9), &[Identity::new(7).evidence().bytes()]);
    assert_eq!(report.findings, [Finding::NoEvidence]);
}

#[test]
fn withheld_receipts_are_gaps() {
    let chain = Chain::new(6);
    let [_, r1, _, _, r4, r5] = chain.bytes()[..] else { unreachable!("six receipts") };
    let gaps = [Finding::Gap { first: 0, last: 0 }, Finding::Gap { first: 2, last: 3 }];
    assert_eq!(chain.findings(&[r1, r4, r5]), gaps);
    // The newest cannot be missed, by anyone.
    assert_eq!(chain.findings(&chain.bytes()[..4]), []);

    let last = chain.edited(5, |r| r.counter = u64::MAX);
    let gap = Finding::Gap { first: 1, last: u64::MAX - 1 };
    assert_eq!(chain.findings(&[chain.bytes()[0], last.bytes()]), [gap]);
}

#[test]
fn two_receipts_with_one_number_are_a_fork() {
    let chain = Chain::new(3);
    let second = chain.edited(1, |r| r.commitment = Digest([9; 32]));
    let [r0, r1, r2] = chain.bytes()[..] else { unreachable!("three receipts") };
    let fork = Finding::Fork { counter: 1, first: 3, second: 5 };
    // Receipt 2 fits one branch, so the fork is all there is to say.
    assert_eq!(chain.findings(&[r0, r1, r2, second.bytes()]), [fork]);
}

#[test]
fn previous_mismatch() {
    let chain = Chain::new(3);
    let broken = chain.edited(2, |r| r.previous = Digest([9; 32]));
    let [r0, r1, _] = chain.bytes()[..] else { unreachable!("three receipts") };
    assert_eq!(chain.findings(&[r0, r1, broken.bytes()]), [Finding::PreviousMismatch { index: 4, counter: 2 }]);
}

#[test]
fn receipts_under_statements_that_do_not_count() {
    let chain = Chain::new(1);
    let [r0] = chain.bytes()[..] else { unreachable!("one receipt") };
    let evidence = chain.provider.evidence();
    let not_logged = Finding::StatementNotLogged { index: 1, counter: 0 };
    assert_eq!(judge(&chain.provider, &[evidence.bytes(), r0, chain.statement.bytes()]).findings, [not_logged]);
    assert_eq!(judge(&chain.provider, &[evidence.bytes(), r0]).findings, [not_logged]);

    // Logged, valid, but another provider's.
    let other = Identity::new(8).statement(|_| ());
    let borrowed = chain.provider.receipt(&other, &details(), None);
    let findings = chain.findings(&[Identity::new(8).evidence().bytes(), other.bytes(), borrowed.bytes()]);
    assert_eq!(findings, [Finding::StatementNotLogged { index: 4, counter: 0 }]);

    // Whose it is shows only afterwards.
    let early = judge(&chain.provider, &[r0, evidence.bytes(), chain.statement.bytes()]);
    assert_eq!((early.findings, early.notes), (vec![Finding::NotEnrolled { index: 0 }], vec![]));
}

#[test]
fn receipts_outside_of_their_statement() {
    let chain = Chain::new(0);
    let ending = |ended| ReceiptDetails { ended: UnixTime::from_secs(ended), ..details() };
    let outside = [Finding::OutsideValidity { index: 2, counter: 0 }];
    // The public time is a minute: opened in the grace, and answered for at most an hour.
    let last = (END + 300 + 3_600) / 60 * 60;
    for (ended, expected) in [(START, &[][..]), (START / 60 * 60 - 1, &outside), (last + 59, &[]), (last + 60, &outside)] {
        let receipt = chain.provider.receipt(&chain.statement, &ending(ended), None);
        assert_eq!(chain.findings(&[receipt.bytes()]), expected, "{ended}");
    }
}

#[test]
fn statements_on_evidence_that_is_not_there() {
    let chain = Chain::new(0);
    let other = chain.provider.statement(|s| s.evidence_digest = Digest([9; 32]));
    assert_eq!(chain.findings(&[other.bytes()]), [Finding::EvidenceNotLogged { index: 2 }]);
    let alone = judge(&chain.provider, &[chain.statement.bytes()]);
    assert_eq!(alone.findings, [Finding::EvidenceNotLogged { index: 0 }, Finding::NoEvidence]);
}

#[test]
fn entries_in_the_provider_s_name_that_are_not_its_own() {
    let chain = Chain::new(1);
    let forger = Identity::new(8);
    let [r0] = chain.bytes()[..] else { unreachable!("one receipt") };
    let in_its_name = forger.sign_as(&chain.provider, &chain.receipts[0]);
    let bad_signature = |index| Note::Unverifiable { index, error: EntryError::BadSignature };
    let report = chain.judge(&[r0, &in_its_name]);
    assert!(report.is_good(), "{:?}", report.findings);
    assert_eq!(report.notes, [bad_signature(3)]);

    // Logged before the provider enrolled, or without it.
    let evidence = chain.provider.evidence();
    let report = judge(&chain.provider, &[&in_its_name, evidence.bytes(), chain.statement.bytes(), r0]);
    assert!(report.is_good(), "{:?}", report.findings);
    assert_eq!(report.notes, [bad_signature(0)]);
    let report = judge(&chain.provider, &[&in_its_name]);
    assert_eq!((report.findings, report.notes), (vec![Finding::NoEvidence], vec![Note::UnknownKey { index: 0 }]));

    let auth = LinkAuth {
        identity: chain.provider.public.clone(),
        challenge: [0; 32],
        statement_digest: chain.statement.digest(),
        time: NOW,
    };
    let link = chain.provider.sign(&auth);
    assert_eq!(chain.findings(&[r0, link.bytes()]), [Finding::NeverLogged { index: 3 }]);
    let report = chain.judge(&[r0, &forger.sign_as(&chain.provider, &link)]);
    assert!(report.is_good(), "{:?}", report.findings);
    assert_eq!(report.notes, [bad_signature(3)]);
}

#[test]
fn evidence_of_tomorrow() {
    let chain = Chain::new(0);
    let mut evidence = (*chain.provider.evidence()).clone();
    evidence.created = UnixTime::from_secs(NOW.as_secs() + 61);
    assert_eq!(chain.findings(&[chain.provider.sign(&evidence).bytes()]), [Finding::EvidenceRefused { index: 2 }]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_the_whole_chain_is_good(order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let chain = Chain::new(order.len());
        let entries: Vec<&[u8]> = order.iter().map(|n| chain.receipts[*n].bytes()).collect();
        prop_assert_eq!(chain.findings(&entries), []);
    }

    #[test]
    fn any_receipt_missing_but_the_last_is_found(missing in 0..7_u64) {
        let chain = Chain::new(8);
        let kept = chain.receipts.iter().filter(|r| r.counter != missing).map(Signed::bytes);
        let entries: Vec<&[u8]> = kept.collect();
        prop_assert_eq!(chain.findings(&entries), [Finding::Gap { first: missing, last: missing }]);
    }
}

//! The history of providers: a fold over every entry of a log (SPEC §7.3, §11).
//!
//! One set of rules ([`Ledger`]) serves both who reads a whole log for one provider at once ([`ProviderHistory`]) and
//! who follows a log for all of them ([`monitor`](crate::monitor)).

use std::collections::HashMap;

use fanlight_protocol::entry::{self, Evidence, KeyStatement, Receipt, Signed};
use fanlight_protocol::{ProviderId, UnixTime};

pub use self::finding::{Finding, Note};
pub use self::ledger::{Census, Ledger, Limits, Remark, Taken};
pub use self::search::Search;
use crate::appraisal::{AppraisalError, AttestationResult, appraise};

mod chain;
mod finding;
mod ledger;
mod provider;
mod search;

/// Folds a log into what it says of one provider.
///
/// Entries go in as they stand in the log, from leaf 0 and none left out, each already checked against a checkpoint:
/// the fold takes their order for the order of events.
#[derive(Debug)]
pub struct ProviderHistory {
    provider_id: ProviderId,
    next_index: u64,
    ledger: Ledger,
    evidence: Vec<(u64, Signed<Evidence>)>,
    statements: Vec<(u64, Signed<KeyStatement>)>,
    receipts: Vec<LoggedReceipt>,
    findings: Vec<Finding>,
    notes: Vec<Note>,
}

impl ProviderHistory {
    /// The history of `provider_id` before the first entry.
    pub fn new(provider_id: ProviderId) -> Self {
        Self {
            provider_id,
            next_index: 0,
            ledger: Ledger::new(),
            evidence: Vec::new(),
            statements: Vec::new(),
            receipts: Vec::new(),
            findings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Takes the log's next entry. Entries of others cost a look at their header.
    pub fn push(&mut self, entry: &[u8]) {
        let index = self.next_index;
        self.next_index += 1;
        let ours = entry::peek(entry).is_ok_and(|claimed| claimed.provider_id == self.provider_id);
        if !ours {
            self.ledger.skip();
            return;
        }
        let Self { findings, notes, .. } = self;
        let taken = self.ledger.take(entry, LAST_TIME, &Limits::NONE, |_, remark| match remark {
            Remark::Finding(finding) => findings.push(finding),
            Remark::Note(note) => notes.push(note),
        });
        match taken {
            Taken::Evidence(evidence) => self.evidence.push((index, evidence)),
            Taken::Nothing => {}
            Taken::Receipt(receipt) => self.receipts.push(LoggedReceipt { index, receipt }),
            Taken::Statement(statement) => self.statements.push((index, statement)),
        }
    }

    /// Judges the whole: the chain of receipts is complete only now, since concurrent receipts are logged in any order.
    pub fn finish(mut self, now: UnixTime) -> HistoryReport {
        let Self { ledger, mut findings, mut notes, .. } = self;
        findings.extend(ledger.standing().map(|(_, finding, _)| finding));
        notes.extend(ledger.early().map(|(_, note)| note));
        let results = self.evidence.iter().map(|(index, evidence)| (*index, appraise(evidence, now)));
        let evidence: Vec<_> = results.map(|(index, result)| LoggedEvidence { index, result }).collect();
        let refused = evidence.iter().filter(|logged| logged.result.is_err());
        findings.extend(refused.map(|logged| Finding::EvidenceRefused { index: logged.index }));
        if evidence.is_empty() {
            findings.push(Finding::NoEvidence);
        }
        findings.sort_by_key(Finding::index);
        notes.sort_by_key(Note::index);
        self.receipts.sort_by_key(|logged| (logged.receipt.counter, logged.index));
        let logged = |(index, statement)| LoggedStatement { index, statement, n_receipts: 0 };
        let mut statements: Vec<LoggedStatement> = self.statements.into_iter().map(logged).collect();
        let place: HashMap<_, _> = statements.iter().enumerate().map(|(at, logged)| (logged.statement.digest(), at)).collect();
        for LoggedReceipt { index, receipt } in &self.receipts {
            let statement = place.get(&receipt.statement_digest).and_then(|at| statements.get_mut(*at));
            if let Some(statement) = statement.filter(|statement| statement.index < *index) {
                statement.n_receipts += 1;
            }
        }
        HistoryReport {
            provider_id: self.provider_id,
            tree_size: self.next_index,
            evidence,
            statements,
            receipts: self.receipts,
            findings,
            notes,
        }
    }
}

/// Later than every receipt: a whole log is judged by what it says, not by when it was read.
const LAST_TIME: UnixTime = UnixTime::from_millis(u64::MAX);

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

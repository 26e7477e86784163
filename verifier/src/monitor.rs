//! Following a log: what is remembered between looks at it, and what is then wrong.
//!
//! The one who looks reads checkpoints and entries, checks them against each other, and gives them to a [`State`]. It
//! judges every provider by the rules of [`history`](crate::history), in memory that does not grow with the log, and
//! keeps a book of [`Alert`]s. Reading, writing and the clock are the caller's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use fanlight_auditlog::{Hash, leaf_hash};
use fanlight_protocol::{ProviderId, UnixTime};

use self::alert::MAX_DETAILS;
pub use self::alert::{Alert, AlertBook, AlertKind, AlertName, MAX_CLOSED, MAX_OPEN, Observation, Severity};
pub use self::freshness::Freshness;
pub use self::promise::{Promise, PromiseError};
pub use self::state::{Ahead, Expected, MAX_AHEAD, MAX_STATE_LEN, State, StateError};
use crate::appraisal::appraise;
use crate::history::{Finding, Limits, Note, Remark, Search, Taken};

/// Entries that may be read again at every look.
const FREE_SEARCH: u64 = 1 << 16;

/// Seconds between two looks back over more than those.
const SEARCH_PERIOD_SECS: u64 = 3_600;

mod alert;
mod freshness;
mod promise;
mod state;

impl State {
    /// Takes the log's next entry, which was checked against [`State::checkpoint`].
    pub fn take(&mut self, entry: &[u8], limits: &Limits, now: UnixTime) {
        let leaf = leaf_hash(entry);
        let index = self.edge.size();
        self.edge.push(leaf, |_, _| ());
        self.find(leaf, index);
        let Self { ledger, alerts, .. } = self;
        let taken = ledger.take(entry, now, limits, |provider_id, remark| {
            if let Some(observation) = observe_remark(provider_id, remark) {
                alerts.observe(observation, now);
            }
        });
        if let Taken::Evidence(evidence) = taken
            && appraise(&evidence, now).is_err()
        {
            let finding = Finding::EvidenceRefused { index };
            alerts.observe(observe_finding(evidence.signer().provider_id(), finding), now);
        }
    }

    /// Waits for these entries, and for no others from now on.
    pub fn expect(&mut self, expected: BTreeMap<String, Expected>) {
        self.awaited.clear();
        for (label, expected) in expected.iter().filter(|(_, expected)| expected.found.is_none()) {
            self.awaited.entry(expected.leaf).or_default().push(label.clone());
        }
        self.expected = expected;
    }

    /// Takes note of where a leaf is, if somebody waits for it.
    pub fn find(&mut self, leaf: Hash, index: u64) {
        for label in self.awaited.remove(&leaf).unwrap_or_default() {
            if let Some(expected) = self.expected.get_mut(&label) {
                expected.found = Some(index);
            }
        }
    }

    /// Entries that are waited for, found or not.
    pub const fn expected(&self) -> &BTreeMap<String, Expected> {
        &self.expected
    }

    /// Whether one that is not found was not looked for among all entries that were taken.
    pub fn is_unsearched(&self) -> bool {
        let size = self.edge.size();
        self.expected.values().any(|expected| expected.found.is_none() && expected.searched < size)
    }

    /// Whether everything that is waited for was found.
    pub fn is_all_found(&self) -> bool {
        self.awaited.is_empty()
    }

    /// All entries that were taken were searched for what is waited for.
    pub fn searched(&mut self) {
        self.searched_from(0);
    }

    /// Entries from `start` on were searched for what is waited for, as they were taken.
    pub fn searched_from(&mut self, start: u64) {
        let size = self.edge.size();
        let in_line = self.expected.values_mut().filter(|expected| expected.searched >= start);
        in_line.for_each(|expected| expected.searched = size);
    }

    /// Whether the entries of a search may be read again now. It costs a provider nothing to do something at every look
    /// that is judged by what is long past, so that many are read once in an hour only; what is asked waits.
    pub fn may_search(&self, range: &Range<u64>, now: UnixTime) -> bool {
        let is_due = |last: UnixTime| now.as_secs().abs_diff(last.as_secs()) >= SEARCH_PERIOD_SECS;
        range.end.saturating_sub(range.start) <= FREE_SEARCH || self.last_search.is_none_or(is_due)
    }

    /// The entries of a search are read again now.
    pub fn note_search(&mut self, range: &Range<u64>, now: UnixTime) {
        if range.end.saturating_sub(range.start) > FREE_SEARCH {
            self.last_search = Some(now);
        }
    }

    /// A search of the entries that were taken, for what the ledger no longer remembers.
    pub fn search(&self) -> Search {
        Search::new(&self.ledger)
    }

    /// Takes what a search found, which may lead to new questions.
    pub fn conclude(&mut self, search: Search, limits: &Limits, now: UnixTime) {
        let Self { ledger, alerts, .. } = self;
        search.finish(ledger, limits, now, |provider_id, remark| {
            if let Some(observation) = observe_remark(provider_id, remark) {
                alerts.observe(observation, now);
            }
        });
    }

    /// What is wrong with the entries as they stand. A gap counts once the receipt after it is `gap_grace_secs` old:
    /// concurrent receipts are logged in any order, but they are signed in theirs.
    pub fn standing(&self, gap_grace_secs: u64, now: UnixTime) -> Vec<Observation> {
        let mut observations = Vec::new();
        for (provider_id, finding, signed) in self.ledger.standing() {
            let is_due = |signed: UnixTime| now.as_secs().saturating_sub(signed.as_secs()) >= gap_grace_secs;
            let observation = observe_finding(provider_id, finding);
            // Once it counted it counts until it is filled, even if the clock goes back.
            if signed.is_none_or(is_due) || self.alerts.is_open(observation.name, &observation.subject) {
                observations.push(observation);
            }
        }
        let unknown = self.ledger.early().map(|(provider_id, note)| format!("{note} (provider {})", provider_id.short()));
        observations.extend(unknown.map(|detail| Observation::of_log(AlertName::ReceiptUnknownKey, detail)));
        let census = self.ledger.census();
        if census.unknown_key > 0 {
            let detail = format!("{} more receipts by keys that were not logged before them", census.unknown_key);
            observations.push(Observation::of_log(AlertName::ReceiptUnknownKey, detail));
        }
        summed_up(observations)
    }

    /// What the names of [`Self::standing`] are, for [`AlertBook::settle`].
    pub fn standing_names() -> BTreeSet<AlertName> {
        [AlertName::ReceiptGap, AlertName::ReceiptPrevious, AlertName::ReceiptUnknownKey].into()
    }
}

/// No more of one alert than it keeps, or what it keeps would change with every look. What is left out is counted, and
/// its last named, so that more of it is seen to be more.
fn summed_up(mut observations: Vec<Observation>) -> Vec<Observation> {
    let mut n_of: HashMap<(AlertName, String), usize> = HashMap::new();
    let mut left_out: BTreeMap<(AlertName, String), (usize, String)> = BTreeMap::new();
    observations.retain(|seen| {
        let key = (seen.name, seen.subject.clone());
        let n = n_of.entry(key.clone()).or_default();
        *n += 1;
        let is_kept = *n < MAX_DETAILS;
        if !is_kept {
            left_out.insert(key, (*n + 1 - MAX_DETAILS, seen.detail.clone()));
        }
        is_kept
    });
    let more = left_out.into_iter().map(|((name, subject), (n, last))| match n {
        1 => Observation::of(name, subject, last),
        _ => Observation::of(name, subject, format!("and {n} more, the last of them: {last}")),
    });
    observations.extend(more);
    observations
}

/// The alert of what one entry showed; `None` for what [`State::standing`] says of all of them.
fn observe_remark(provider_id: ProviderId, remark: Remark) -> Option<Observation> {
    match remark {
        // The ledger no longer waits for those: nothing that is logged later will close them.
        Remark::Finding(finding @ (Finding::Gap { .. } | Finding::PreviousMismatch { .. })) => {
            let detail = format!("{finding}; there are too many of them to go on waiting");
            Some(Observation::of(AlertName::StateFull, provider_id.to_string(), detail))
        }
        Remark::Finding(finding) => Some(observe_finding(provider_id, finding)),
        Remark::Note(Note::UnknownKey { .. }) => None,
        Remark::Note(note @ Note::Unverifiable { .. }) => {
            let detail = format!("{note} (provider {})", provider_id.short());
            Some(Observation::of_log(AlertName::EntryUnverifiable, detail))
        }
    }
}

fn observe_finding(provider_id: ProviderId, finding: Finding) -> Observation {
    let name = match finding {
        Finding::EvidenceNotLogged { .. } => AlertName::EvidenceNotLogged,
        Finding::EvidenceRefused { .. } => AlertName::EvidenceRefused,
        Finding::Fork { .. } => AlertName::ReceiptFork,
        Finding::Gap { .. } => AlertName::ReceiptGap,
        Finding::NeverLogged { .. } => AlertName::EntryNeverLogged,
        // Only who asks for one provider can miss its evidence.
        Finding::NoEvidence | Finding::NotEnrolled { .. } => AlertName::ReceiptNotEnrolled,
        Finding::OutsideValidity { .. } => AlertName::ReceiptOutsideValidity,
        Finding::PreviousMismatch { .. } => AlertName::ReceiptPrevious,
        Finding::StatementNotLogged { .. } => AlertName::ReceiptStatementNotLogged,
    };
    Observation::of(name, provider_id.to_string(), finding.to_string())
}

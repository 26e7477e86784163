//! A look back into the log, for what is no longer remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fanlight_protocol::entry::{self, EntryType, Evidence, IdentityKey, KeyStatement, Receipt, SelfKeyed, Signed};
use fanlight_protocol::{Digest, ProviderId, UnixTime};
use serde::{Deserialize, Serialize};

use super::finding::Finding;
use super::ledger::{Ledger, Limits, Remark};
use crate::receipt::Validity;

/// What only the log itself can answer. The leaf is that of the entry that raised the question; what answers it stands
/// before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Was this evidence logged before the statement?
    Evidence { index: u64, digest: Digest },
    /// Is the receipt a repeat, or was there another one with its counter?
    Receipt { index: u64, counter: u64, digest: Digest },
    /// Was this statement logged before the receipt, and was it in force?
    Statement { index: u64, counter: u64, digest: Digest, time: UnixTime },
}

impl Question {
    const fn index(&self) -> u64 {
        match self {
            Self::Evidence { index, .. } | Self::Receipt { index, .. } | Self::Statement { index, .. } => *index,
        }
    }

    /// What is wrong when nothing in the log answers.
    const fn unanswered(&self) -> Option<Finding> {
        match *self {
            Self::Evidence { index, .. } => Some(Finding::EvidenceNotLogged { index }),
            // Nothing else has the counter: it came late, after the gap that it fills had been written off.
            Self::Receipt { .. } => None,
            Self::Statement { index, counter, .. } => Some(Finding::StatementNotLogged { index, counter }),
        }
    }
}

/// Answers a ledger's open questions from the entries of [`Self::range`], read again in order.
#[derive(Debug)]
pub struct Search {
    range: Range<u64>,
    open: Vec<(ProviderId, Question)>,
    providers: BTreeSet<ProviderId>,
    found: Vec<(ProviderId, Finding)>,
    // Leaf of the last receipt of each provider that may have been forgotten; its key has to stand before that.
    lost: BTreeMap<ProviderId, u64>,
    recalled: Vec<(IdentityKey, u64)>,
}

impl Search {
    /// A search for everything that `ledger` asks.
    pub fn new(ledger: &Ledger) -> Self {
        let open = ledger.questions().to_vec();
        let providers: BTreeSet<ProviderId> = open.iter().map(|(provider_id, _)| *provider_id).collect();
        let lost: BTreeMap<ProviderId, u64> = ledger.pending().collect();
        let start = providers.iter().map(|provider_id| ledger.first_index(provider_id)).min().unwrap_or(0);
        let start = if lost.is_empty() { start } else { 0 };
        let end = open.iter().map(|(_, question)| question.index()).chain(lost.values().copied()).max().unwrap_or(0);
        Self { range: start..end, open, providers, found: Vec::new(), lost, recalled: Vec::new() }
    }

    /// The leaves to read: from the first entry of those who are asked about to the last that raised a question.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Whether everything is answered, so that the rest need not be read.
    pub fn is_done(&self) -> bool {
        self.open.is_empty() && self.lost.is_empty()
    }

    /// Takes one entry of the log, already checked against a checkpoint.
    pub fn take(&mut self, index: u64, entry: &[u8], ledger: &Ledger) {
        let Ok(claimed) = entry::peek(entry) else { return };
        let provider_id = claimed.provider_id;
        if !self.providers.contains(&provider_id) && !self.lost.contains_key(&provider_id) {
            return;
        }
        let Self { lost, recalled, .. } = self;
        let mut recall = |identity: &IdentityKey| {
            if lost.get(&provider_id).is_some_and(|last| index < *last) {
                lost.remove(&provider_id);
                recalled.push((identity.clone(), index));
            }
        };
        let found = &mut self.found;
        let mut answer = |answers: &dyn Fn(&Question) -> Option<Option<Finding>>| {
            self.open.retain(|(asked_of, question)| {
                let answered = (*asked_of == provider_id && index < question.index()).then(|| answers(question)).flatten();
                found.extend(answered.flatten().map(|finding| (provider_id, finding)));
                answered.is_none()
            });
        };
        match claimed.entry_type {
            EntryType::Evidence => {
                let Ok(evidence) = Signed::<Evidence>::verify_self_keyed(entry) else { return };
                recall(evidence.identity());
                answer(&|question| match question {
                    Question::Evidence { digest, .. } if *digest == evidence.digest() => Some(None),
                    _ => None,
                });
            }
            EntryType::KeyStatement => {
                let Ok(statement) = Signed::<KeyStatement>::verify_self_keyed(entry) else { return };
                recall(statement.identity());
                answer(&|question| match *question {
                    Question::Statement { index, counter, digest, time } if digest == statement.digest() => {
                        let good = Validity::of(&statement).signed_in_time(time);
                        Some((!good).then_some(Finding::OutsideValidity { index, counter }))
                    }
                    _ => None,
                });
            }
            EntryType::Receipt => {
                let Some(identity) = ledger.identity(&provider_id) else { return };
                let Ok(receipt) = Signed::<Receipt>::verify(entry, identity) else { return };
                answer(&|question| match *question {
                    Question::Receipt { index: second, counter, digest } if counter == receipt.counter => {
                        let fork = Finding::Fork { counter, first: index, second };
                        Some((digest != receipt.digest()).then_some(fork))
                    }
                    _ => None,
                });
            }
            EntryType::Link => {}
        }
    }

    /// Says what is wrong. The ledger then asks nothing any more, except about providers that were found again.
    pub fn finish(self, ledger: &mut Ledger, limits: &Limits, now: UnixTime, mut remark: impl FnMut(ProviderId, Remark)) {
        let unanswered = self.open.iter().filter_map(|(provider_id, question)| Some((*provider_id, question.unanswered()?)));
        for (provider_id, finding) in self.found.into_iter().chain(unanswered) {
            remark(provider_id, Remark::Finding(finding));
        }
        ledger.answered(self.recalled, now, limits, remark);
    }
}

//! Every provider of a log, judged entry by entry.

use std::collections::BTreeMap;

use fanlight_protocol::entry::{
    self, EntryError, EntryType, Evidence, IdentityKey, KeyStatement, LinkAuth, Receipt, SelfKeyed, Signed,
};
use fanlight_protocol::{ProviderId, UnixTime};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Note};
use super::provider::{Provider, Ruling};
use super::search::Question;

/// Receipts kept until their provider's key is known. Forged ones cost an attacker nothing, so more are not kept.
const MAX_EARLY_RECEIPTS: usize = 1024;

/// Bytes of the longest entry that can be a receipt: in its one encoding none has more than 320.
const MAX_RECEIPT_LEN: usize = 512;

/// How much is remembered.
///
/// Nothing is judged wrong for having been forgotten: what then cannot be told becomes a question, which a
/// [`Search`](super::Search) answers from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Providers.
    pub max_providers: usize,
    /// Evidence of one provider.
    pub max_evidence: usize,
    /// Key statements of one provider.
    pub max_statements: usize,
    /// Receipts of one provider, unless the ends of its runs are more.
    pub max_links: usize,
    /// Stretches without a gap of one provider's receipts; at least 1.
    pub max_runs: usize,
    /// Open questions.
    pub max_questions: usize,
}

impl Limits {
    /// Everything, for a log read from start to end at once.
    pub const NONE: Self = Self {
        max_providers: usize::MAX,
        max_evidence: usize::MAX,
        max_statements: usize::MAX,
        max_links: usize::MAX,
        max_runs: usize::MAX,
        max_questions: usize::MAX,
    };

    /// For state that is kept between runs: some 5 KiB of JSON for an ordinary provider, and 300 MiB if there are 10,000
    /// of them that all forked at every receipt that is remembered.
    pub const BOUNDED: Self =
        Self { max_providers: 10_000, max_evidence: 8, max_statements: 32, max_links: 16, max_runs: 16, max_questions: 4_096 };
}

/// What is known of the providers of one log.
///
/// Entries go in as they stand in the log, from leaf 0 and none left out, each already checked against a checkpoint.
/// It can be written and read back between any two of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    census: Census,
    providers: BTreeMap<ProviderId, Provider>,
    // Whether providers were dropped for the limits, so that an unknown one may have enrolled all the same.
    forgot_providers: bool,
    // Receipts from before their provider's key was known, not verified.
    early: Vec<Early>,
    questions: Vec<(ProviderId, Question)>,
}

/// How many entries of each kind were seen. Numbers of what verified, except where it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// All entries: also the index of the next one.
    pub entries: u64,
    /// Entries that are not of a type of ours.
    pub foreign: u64,
    /// Evidence.
    pub evidence: u64,
    /// Key statements.
    pub statements: u64,
    /// Receipts.
    pub receipts: u64,
    /// Entries of our types that do not verify, or are of a type that is never logged.
    pub unverifiable: u64,
    /// Receipts by keys that were not logged before them, and that are not kept to be judged later.
    pub unknown_key: u64,
    /// Entries that were not judged, since more providers or questions would have had to be remembered.
    pub unjudged: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Early {
    index: u64,
    provider_id: ProviderId,
    // Whether only a look back tells if the key was logged before.
    pending: bool,
    #[serde(with = "hex::serde")]
    bytes: Vec<u8>,
}

/// What one entry is. What a repeat says was said before.
#[derive(Debug)]
pub enum Taken {
    /// Evidence, for the first time.
    Evidence(Signed<Evidence>),
    /// Anything that adds nothing: not ours, not verified, or a repeat.
    Nothing,
    /// A receipt, for the first time.
    Receipt(Signed<Receipt>),
    /// A key statement, for the first time.
    Statement(Signed<KeyStatement>),
}

/// What an entry showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// Something is wrong with the provider's history, for good.
    Finding(Finding),
    /// Somebody put an entry into the log in the provider's name.
    Note(Note),
}

impl Ledger {
    /// Before the first entry.
    pub fn new() -> Self {
        Self {
            census: Census::default(),
            providers: BTreeMap::new(),
            forgot_providers: false,
            early: Vec::new(),
            questions: Vec::new(),
        }
    }

    /// Takes the log's next entry at a time, and says what it showed. Entries that are not ours cost a look at their
    /// header.
    pub fn take(&mut self, entry: &[u8], now: UnixTime, limits: &Limits, mut remark: impl FnMut(ProviderId, Remark)) -> Taken {
        let index = self.census.entries;
        self.census.entries += 1;
        let Ok(claimed) = entry::peek(entry) else {
            self.census.foreign += 1;
            return Taken::Nothing;
        };
        let provider_id = claimed.provider_id;
        let mut remark = |said| remark(provider_id, said);
        let taken = match claimed.entry_type {
            EntryType::Evidence => self.take_evidence(index, entry, now, limits, &mut remark),
            EntryType::KeyStatement => self.take_statement(index, entry, now, limits, &mut remark),
            EntryType::Receipt => self.take_receipt(index, entry, provider_id, now, limits, &mut remark),
            EntryType::Link => Signed::<LinkAuth>::verify_self_keyed(entry).map(|_| {
                self.census.unverifiable += 1;
                remark(Remark::Finding(Finding::NeverLogged { index }));
                Taken::Nothing
            }),
        };
        taken.unwrap_or_else(|error| {
            self.census.unverifiable += 1;
            remark(Remark::Note(Note::Unverifiable { index, error }));
            Taken::Nothing
        })
    }

    /// Passes over the log's next entry, which is of nobody who is judged here.
    pub(super) const fn skip(&mut self) {
        self.census.entries += 1;
    }

    /// How many entries there were.
    pub const fn census(&self) -> &Census {
        &self.census
    }

    /// How many providers are remembered.
    pub fn n_providers(&self) -> usize {
        self.providers.len()
    }

    /// Everything that is wrong with the chains as they stand, and that later receipts may still put right. A gap comes
    /// with when the receipt after it was signed.
    pub fn standing(&self) -> impl Iterator<Item = (ProviderId, Finding, Option<UnixTime>)> {
        self.providers.iter().flat_map(|(id, provider)| provider.standing().map(|(finding, at)| (*id, finding, at)))
    }

    /// Receipts whose provider's key was not logged so far, unless that takes a look back to know.
    pub fn early(&self) -> impl Iterator<Item = (ProviderId, Note)> {
        let certain = self.early.iter().filter(|early| !early.pending);
        certain.map(|early| (early.provider_id, Note::UnknownKey { index: early.index }))
    }

    /// Provider and leaf of receipts by keys that may have been logged and forgotten.
    pub(super) fn pending(&self) -> impl Iterator<Item = (ProviderId, u64)> {
        self.early.iter().filter(|early| early.pending).map(|early| (early.provider_id, early.index))
    }

    /// The highest counter of a provider's receipts.
    pub fn newest_counter(&self, provider_id: &ProviderId) -> Option<u64> {
        self.providers.get(provider_id).and_then(Provider::newest_counter)
    }

    pub(super) fn identity(&self, provider_id: &ProviderId) -> Option<&IdentityKey> {
        self.providers.get(provider_id).map(|provider| &provider.identity)
    }

    pub(super) fn questions(&self) -> &[(ProviderId, Question)] {
        &self.questions
    }

    /// No entry with the key of this provider stands before this leaf.
    pub(super) fn first_index(&self, provider_id: &ProviderId) -> u64 {
        self.providers.get(provider_id).map_or(0, |provider| provider.first_index)
    }

    /// Everything was looked for. Providers that were found again come with the leaf where, and their receipts are judged.
    pub(super) fn answered(
        &mut self,
        recalled: Vec<(IdentityKey, u64)>,
        now: UnixTime,
        limits: &Limits,
        mut remark: impl FnMut(ProviderId, Remark),
    ) {
        self.questions.clear();
        for (identity, index) in recalled {
            let provider_id = identity.provider_id();
            if self.admit(&identity, index, now, limits, &mut |said| remark(provider_id, said)) {
                if let Some(provider) = self.providers.get_mut(&provider_id) {
                    provider.first_index = index;
                }
            } else {
                let n_before = self.early.len();
                self.early.retain(|early| early.provider_id != provider_id);
                self.census.unjudged += (n_before - self.early.len()) as u64;
            }
        }
        self.early.iter_mut().for_each(|early| early.pending = false);
    }

    fn take_evidence(
        &mut self,
        index: u64,
        bytes: &[u8],
        now: UnixTime,
        limits: &Limits,
        remark: &mut impl FnMut(Remark),
    ) -> Result<Taken, EntryError> {
        let evidence = Signed::<Evidence>::verify_self_keyed(bytes)?;
        self.census.evidence += 1;
        let Some(provider) = self.known(index, &*evidence, now, limits, remark) else { return Ok(Taken::Nothing) };
        Ok(if provider.take_evidence(index, &evidence, limits) { Taken::Evidence(evidence) } else { Taken::Nothing })
    }

    fn take_statement(
        &mut self,
        index: u64,
        bytes: &[u8],
        now: UnixTime,
        limits: &Limits,
        remark: &mut impl FnMut(Remark),
    ) -> Result<Taken, EntryError> {
        let statement = Signed::<KeyStatement>::verify_self_keyed(bytes)?;
        self.census.statements += 1;
        let mut rulings = Vec::new();
        let Some(provider) = self.known(index, &*statement, now, limits, remark) else { return Ok(Taken::Nothing) };
        let new = provider.take_statement(index, &statement, limits, |ruling| rulings.push(ruling));
        self.rule(statement.signer().provider_id(), rulings, limits, remark);
        Ok(if new { Taken::Statement(statement) } else { Taken::Nothing })
    }

    fn take_receipt(
        &mut self,
        index: u64,
        bytes: &[u8],
        provider_id: ProviderId,
        now: UnixTime,
        limits: &Limits,
        remark: &mut impl FnMut(Remark),
    ) -> Result<Taken, EntryError> {
        let Some(provider) = self.providers.get_mut(&provider_id) else {
            if self.early.len() < MAX_EARLY_RECEIPTS && bytes.len() <= MAX_RECEIPT_LEN {
                self.early.push(Early { index, provider_id, pending: self.forgot_providers, bytes: bytes.to_owned() });
            } else if self.forgot_providers {
                self.census.unjudged += 1;
            } else {
                self.census.unknown_key += 1;
                remark(Remark::Note(Note::UnknownKey { index }));
            }
            return Ok(Taken::Nothing);
        };
        let receipt = Signed::<Receipt>::verify(bytes, &provider.identity)?;
        self.census.receipts += 1;
        provider.last_index = index;
        let mut rulings = Vec::new();
        let new = provider.take_receipt(index, &receipt, now, limits, |ruling| rulings.push(ruling));
        self.rule(provider_id, rulings, limits, remark);
        Ok(if new { Taken::Receipt(receipt) } else { Taken::Nothing })
    }

    /// The provider of a self-keyed entry; `None` when no more can be remembered.
    fn known(
        &mut self,
        index: u64,
        entry: &impl SelfKeyed,
        now: UnixTime,
        limits: &Limits,
        remark: &mut impl FnMut(Remark),
    ) -> Option<&mut Provider> {
        // The entry verified under this key and names its id, so the key is the provider's one and only.
        let identity = entry.identity();
        let provider_id = identity.provider_id();
        if !self.providers.contains_key(&provider_id) && !self.admit(identity, index, now, limits, remark) {
            self.census.unjudged += 1;
            return None;
        }
        let provider = self.providers.get_mut(&provider_id)?;
        provider.last_index = index;
        Some(provider)
    }

    /// Remembers a provider known from the entry at `index`; `false` when there is no room.
    fn admit(
        &mut self,
        identity: &IdentityKey,
        index: u64,
        now: UnixTime,
        limits: &Limits,
        remark: &mut impl FnMut(Remark),
    ) -> bool {
        if self.providers.len() >= limits.max_providers {
            // This one or another.
            self.forgot_providers = true;
            if !self.drop_idle() {
                return false;
            }
        }
        let provider = Provider::new(identity.clone(), index, self.forgot_providers);
        self.providers.insert(identity.provider_id(), provider);
        self.judge_early(identity, now, limits, remark);
        true
    }

    /// Only now is the key known that tells the provider's receipts from those in its name.
    fn judge_early(&mut self, identity: &IdentityKey, now: UnixTime, limits: &Limits, remark: &mut impl FnMut(Remark)) {
        let provider_id = identity.provider_id();
        let mut rulings = Vec::new();
        for early in self.early.extract_if(.., |early| early.provider_id == provider_id) {
            let index = early.index;
            match (Signed::<Receipt>::verify(&early.bytes, identity), self.providers.get_mut(&provider_id)) {
                // Whether a statement was there before is asked for every receipt now.
                (Ok(receipt), Some(provider)) if self.forgot_providers => {
                    self.census.receipts += 1;
                    provider.last_index = provider.last_index.max(index);
                    provider.take_receipt(index, &receipt, now, limits, |ruling| rulings.push(ruling));
                }
                (Ok(_), _) => remark(Remark::Finding(Finding::NotEnrolled { index })),
                (Err(error), _) => {
                    self.census.unverifiable += 1;
                    remark(Remark::Note(Note::Unverifiable { index, error }));
                }
            }
        }
        self.rule(provider_id, rulings, limits, remark);
    }

    /// Drops the provider that never had a receipt and was silent for longest. Keys cost nothing to make, so a crowd of
    /// them must not keep out those that serve.
    fn drop_idle(&mut self) -> bool {
        let idle = self.providers.iter().filter(|(_, provider)| provider.n_receipts == 0);
        let Some(id) = idle.min_by_key(|(_, provider)| provider.last_index).map(|(id, _)| *id) else { return false };
        self.providers.remove(&id).is_some()
    }

    fn rule(&mut self, provider_id: ProviderId, rulings: Vec<Ruling>, limits: &Limits, remark: &mut impl FnMut(Remark)) {
        for ruling in rulings {
            match ruling {
                Ruling::Found(finding) => remark(Remark::Finding(finding)),
                Ruling::Asked(question) if self.questions.len() < limits.max_questions => {
                    self.questions.push((provider_id, question));
                }
                Ruling::Asked(_) => self.census.unjudged += 1,
            }
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

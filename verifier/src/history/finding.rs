//! What can be wrong with a provider's history, and what others put into it.

use std::fmt;

use fanlight_protocol::entry::EntryError;

/// One thing that is wrong, shown by what the provider signed or by what is missing between. Its text names leaves and
/// counters, nothing that a provider wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The statement names evidence that was not logged before it.
    EvidenceNotLogged {
        /// Leaf of the key statement.
        index: u64,
    },
    /// The evidence is worth nothing.
    EvidenceRefused {
        /// Leaf of the evidence.
        index: u64,
    },
    /// Two receipts have one counter: the provider showed different histories.
    Fork {
        /// The counter.
        counter: u64,
        /// Leaf of the one.
        first: u64,
        /// Leaf of the other.
        second: u64,
    },
    /// Receipts are missing before a later one: withheld, or on their way to the log.
    Gap {
        /// First missing counter.
        first: u64,
        /// Last missing counter.
        last: u64,
    },
    /// The provider signed an entry of a type that is never logged.
    NeverLogged {
        /// Its leaf.
        index: u64,
    },
    /// The log has no evidence of this provider.
    NoEvidence,
    /// The receipt was logged before any evidence or key statement.
    NotEnrolled {
        /// Leaf of the receipt.
        index: u64,
    },
    /// The receipt's minute is outside of its statement's time.
    OutsideValidity {
        /// Leaf of the receipt.
        index: u64,
        /// Its counter.
        counter: u64,
    },
    /// The receipt does not name the one before it.
    PreviousMismatch {
        /// Leaf of the receipt.
        index: u64,
        /// Its counter.
        counter: u64,
    },
    /// The receipt is under a statement that this provider did not log before it.
    StatementNotLogged {
        /// Leaf of the receipt.
        index: u64,
        /// Its counter.
        counter: u64,
    },
}

impl Finding {
    /// The name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::EvidenceNotLogged { .. } => "evidence_not_logged",
            Self::EvidenceRefused { .. } => "evidence_refused",
            Self::Fork { .. } => "fork",
            Self::Gap { .. } => "gap",
            Self::NeverLogged { .. } => "never_logged",
            Self::NoEvidence => "no_evidence",
            Self::NotEnrolled { .. } => "not_enrolled",
            Self::OutsideValidity { .. } => "outside_validity",
            Self::PreviousMismatch { .. } => "previous_mismatch",
            Self::StatementNotLogged { .. } => "statement_not_logged",
        }
    }

    /// The leaf that it is about, the later of two; `None` for what is missing. `None` sorts last here.
    pub(super) fn index(&self) -> (bool, u64) {
        let index = match *self {
            Self::EvidenceNotLogged { index }
            | Self::EvidenceRefused { index }
            | Self::NeverLogged { index }
            | Self::NotEnrolled { index }
            | Self::OutsideValidity { index, .. }
            | Self::PreviousMismatch { index, .. }
            | Self::StatementNotLogged { index, .. } => Some(index),
            Self::Fork { second, .. } => Some(second),
            Self::Gap { .. } | Self::NoEvidence => None,
        };
        (index.is_none(), index.unwrap_or_default())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EvidenceNotLogged { index } => {
                write!(f, "key statement at leaf {index} rests on evidence that was not logged before it")
            }
            Self::EvidenceRefused { index } => write!(f, "evidence at leaf {index} is dated in the future"),
            Self::Fork { counter, first, second } => {
                write!(
                    f,
                    "two different receipts number {counter}, at leaves {first} and {second}: the provider forked its history"
                )
            }
            Self::Gap { first, last } if first == last => {
                write!(f, "receipt number {first} is missing: withheld, or not logged yet")
            }
            Self::Gap { first, last } => write!(f, "receipts number {first} to {last} are missing: withheld, or not logged yet"),
            Self::NeverLogged { index } => write!(f, "entry at leaf {index} is of a type that is never logged"),
            Self::NoEvidence => f.write_str("the log has no evidence of this provider"),
            Self::NotEnrolled { index } => {
                write!(f, "receipt at leaf {index} was logged before the provider's evidence and key statements")
            }
            Self::OutsideValidity { index, counter } => {
                write!(f, "receipt number {counter} at leaf {index} is outside of its key statement's validity")
            }
            Self::PreviousMismatch { index, counter } => {
                write!(f, "receipt number {counter} at leaf {index} does not name the receipt before it")
            }
            Self::StatementNotLogged { index, counter } => {
                write!(f, "receipt number {counter} at leaf {index} is under a key statement that was not logged before it")
            }
        }
    }
}

/// An entry that names the provider, and of which nothing shows that the provider signed it. Anybody can have such an
/// entry logged, so it says nothing about the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A receipt in the name of a provider whose key was not logged before it.
    UnknownKey {
        /// Its leaf.
        index: u64,
    },
    /// The provider did not sign it, or not in this form.
    Unverifiable {
        /// Its leaf.
        index: u64,
        /// What is wrong with it.
        error: EntryError,
    },
}

impl Note {
    /// The name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UnknownKey { .. } => "unknown_key",
            Self::Unverifiable { .. } => "unverifiable",
        }
    }

    /// The leaf that it is about.
    pub(super) const fn index(&self) -> u64 {
        match *self {
            Self::UnknownKey { index } | Self::Unverifiable { index, .. } => index,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { index } => {
                write!(f, "receipt at leaf {index} cannot be checked: the provider's key was not logged before it")
            }
            Self::Unverifiable { index, error } => {
                write!(f, "entry at leaf {index} names this provider and does not verify: {error}")
            }
        }
    }
}

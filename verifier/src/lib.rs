//! Appraisal: what the evidence of a provider, its receipts and its history in the log are worth.
//!
//! Everything here is a function of what it is given: evidence, a policy and the time. It does no I/O of its own, reads
//! no clock and fails closed: what is absent, unknown or contradictory is refused, never skipped. What was verified is a
//! type of its own ([`VerifiedProvider`], [`VerifiedReceipt`]) that nothing else can make.
//!
//! **In scope:** grades of evidence (SPEC §7.1, RFC 9334), listings (§9.1), receipts and bundles (§7.3, §9.2), the
//! history of a provider in a log, and what is remembered of all of them by who follows it; witnessing any log (C2SP
//! tlog-witness).
//! **Out of scope:** the log's own integrity (`fanlight-auditlog`: `fsck`, consistency), fetching, sealing.
//!
//! ```
//! use fanlight_auditlog::Policy;
//! use fanlight_protocol::UnixTime;
//! use fanlight_protocol::directory::Listing;
//! use fanlight_verifier::{ListingError, ProviderPolicy, verify_listing};
//!
//! let policy = ProviderPolicy::new(Policy::parse(b"quorum none")?); // Trusts no log, hence nobody.
//! let listing = Listing {
//!     key_statement: vec![],
//!     key_statement_proof: String::new(),
//!     evidence: vec![],
//!     evidence_proof: String::new(),
//! };
//! let refused = verify_listing(&listing, &policy, UnixTime::from_secs(1_800_000_000));
//! assert!(matches!(refused, Err(ListingError::Evidence(_))));
//! # Ok::<(), fanlight_auditlog::policy::PolicyError>(())
//! ```

pub mod appraisal;
pub mod bundle;
pub mod history;
pub mod listing;
pub mod monitor;
pub mod receipt;
pub mod witness;

pub use appraisal::{AppraisalError, AttestationResult, Grade, appraise};
pub use bundle::{BundleCheck, BundleError, VerifiedReceipt, verify_receipt};
pub use history::{Finding, HistoryReport, Note, ProviderHistory};
pub use listing::{ListingError, LogProofError, ProviderPolicy, VerifiedProvider, verify_listing};
pub use receipt::{CheckedReceipt, Exchange, ReceiptError, check_receipt};

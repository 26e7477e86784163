//! The provider's receipt chain (SPEC §7.3): signed in order, durable before anything leaves the machine.

mod chain;
mod journal;

pub use self::chain::{ChainError, ReceiptChain, ReceiptDraft, SignedReceipt};
pub(crate) use self::journal::sync_parent;
pub use self::journal::{Journal, JournalError, RECENT};

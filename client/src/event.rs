//! What a client tells those who watch it. Nothing here holds a prompt or an answer.

use std::sync::Arc;

use fanlight_protocol::{ProviderId, RequestId};

use crate::directory::{ListedProvider, Snapshot};

/// Something happened. Watchers that fall behind miss the oldest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The first sealed frame opened: this provider answers.
    Answering {
        /// Which exchange.
        receipt_id: RequestId,
        /// Who answers.
        provider: Arc<ListedProvider>,
        /// The sealed HTTP status.
        status: u16,
    },
    /// The directory was fetched and every listing judged.
    Directory(Arc<Snapshot>),
    /// The receipt's tlog proof verified under the client's policy, and is stored.
    Logged {
        /// Which exchange.
        receipt_id: RequestId,
        /// Index of the receipt in the log.
        leaf_index: u64,
        /// Size of the tree that the checkpoint signs.
        tree_size: u64,
        /// The log.
        origin: String,
    },
    /// No tlog proof of the receipt could be had by now. It stays stored as not logged.
    NotLogged {
        /// Which exchange.
        receipt_id: RequestId,
    },
    /// The answer is whole and its receipt verified and stored.
    Receipt {
        /// Which exchange.
        receipt_id: RequestId,
        /// Who signed.
        provider_id: ProviderId,
        /// Number of the receipt in the provider's chain.
        counter: u64,
    },
    /// A request was sealed.
    Sealed {
        /// Which exchange.
        receipt_id: RequestId,
        /// To whom, and to nobody else.
        recipients: Vec<ProviderId>,
        /// Sealed bytes, padding included.
        request_len: usize,
        /// 1, or 2 after an outer `unknown_key` or `no_provider`.
        attempt: u8,
    },
}

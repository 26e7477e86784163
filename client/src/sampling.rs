//! Whom a request is sealed to. The client chooses, at random, so that a gateway cannot steer it (SPEC §11).

use std::sync::Arc;

use fanlight_protocol::UnixTime;

use crate::directory::{ListedProvider, Snapshot};

/// Up to `n` of the providers of `model`, each equally likely, in random order.
///
/// Providers whose context is too small for `max_output_tokens` are passed over while there are others.
pub(crate) fn sample(
    snapshot: &Snapshot,
    model: &str,
    max_output_tokens: Option<u32>,
    now: UnixTime,
    n: usize,
    mut random: impl FnMut() -> u64,
) -> Vec<Arc<ListedProvider>> {
    let mut candidates: Vec<_> = snapshot.offering(model, now).map(Arc::clone).collect();
    let wide = |provider: &Arc<ListedProvider>| context_tokens(provider, model) >= max_output_tokens.unwrap_or(0);
    if candidates.iter().any(wide) {
        candidates.retain(wide);
    }
    // The first steps of a Fisher-Yates shuffle. The modulo's bias is below 2^-50 for any directory that fits in memory.
    let n = n.min(candidates.len());
    for i in 0..n {
        let left = (candidates.len() - i) as u64;
        let offset = usize::try_from(random() % left).expect("below the number of candidates");
        candidates.swap(i, i + offset);
    }
    candidates.truncate(n);
    candidates
}

/// Most tokens that every one of these recipients takes, input and output together.
pub(crate) fn least_context_tokens(recipients: &[Arc<ListedProvider>], model: &str) -> u32 {
    recipients.iter().map(|provider| context_tokens(provider, model)).min().unwrap_or(0)
}

fn context_tokens(provider: &ListedProvider, model: &str) -> u32 {
    provider.verified().key_statement().offer(model).map_or(0, |offer| offer.context_tokens)
}

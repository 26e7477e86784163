//! Trying at start-up what a store must be able to do.

use bytes::Bytes;

use crate::store::{Lock, LockToken, Locked, ObjectStore, PutNew, StoreError, Swap};

/// An object that stays, so that any number of sequencers can start at the same time and find the same.
const PROBE_KEY: &str = "private/probe";

/// Swapped at every start.
const SWAP_KEY: &str = "private/probe-swap";

const SWAP_ATTEMPTS: usize = 4;

/// Checks that a store honours its preconditions, without which two writers could fork the log: some object stores
/// accept conditional writes and ignore the condition.
pub(crate) async fn probe(store: &(impl ObjectStore + Lock), locked: &Locked) -> Result<(), ProbeError> {
    let put = |bytes: &'static [u8]| store.put_new(PROBE_KEY, Bytes::from_static(bytes));
    let found = [put(b"a").await?, put(b"b").await?];
    // The last is what remains of a store that ignored the condition once.
    let honoured = matches!(
        found,
        [PutNew::Created | PutNew::ExistsSame, PutNew::ExistsDifferent] | [PutNew::ExistsDifferent, PutNew::ExistsSame]
    );
    if !honoured {
        return Err(ProbeError::PutNewIgnored);
    }
    swap_holds(store).await?;
    // The same value goes in, so a store that wrongly takes it has done no harm.
    let stale = LockToken(Bytes::from_static(b"stale"));
    match store.swap(&stale, locked.bytes.clone()).await {
        Swap::Lost => Ok(()),
        Swap::Swapped(_) => Err(ProbeError::SwapIgnored),
        Swap::Unknown(error) => Err(error.into()),
    }
}

/// Checks that a conditional write goes through whose condition holds.
async fn swap_holds(store: &impl ObjectStore) -> Result<(), ProbeError> {
    for _ in 0..SWAP_ATTEMPTS {
        let before = store.get(SWAP_KEY).await?;
        // Another value each time, so that one that was refused is not mistaken for one that was written.
        let after = Bytes::from_static(if before.as_ref().is_some_and(|value| value == "a") { b"b" } else { b"a" });
        if store.put_over(SWAP_KEY, before.as_ref(), after).await? {
            if before.is_some() {
                return Ok(());
            }
            // That was a creation; the next one is a swap.
            continue;
        }
        if store.get(SWAP_KEY).await? == before {
            return Err(ProbeError::SwapRefused);
        }
    }
    // Others that start at the same time were faster each time: their writes went through.
    Ok(())
}

/// Why a store is not fit to hold a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// A conditional write replaced an object, or did not notice one.
    #[error(
        "this store writes over an object that may only be created (it ignores If-None-Match), so two writers could fork the \
         log; keep it where conditional writes work, such as Amazon S3, Cloudflare R2 or a directory"
    )]
    PutNewIgnored,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A swap with a stale token went through.
    #[error(
        "this store writes over a value that has changed (it ignores If-Match), so two writers could fork the log; keep it \
         where conditional writes work, such as Amazon S3, Cloudflare R2 or a directory"
    )]
    SwapIgnored,
    /// A conditional write was refused though its condition holds.
    #[error(
        "this store refuses to write over a value that has not changed (its If-Match never matches), so no round would ever \
         end; reach it without a proxy or cache in between, or keep the log elsewhere"
    )]
    SwapRefused,
}

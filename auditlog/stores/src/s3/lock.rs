//! The lock: one small object, replaced on condition that its `ETag` is still the one that was read.

use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::Lock;
use fanlight_auditlog::store::{LockToken, Locked, PutNew, StoreError, Swap};
use futures_util::FutureExt as _;

use super::S3Store;
use super::error::{Failure, S3Problem};
use super::objects::Condition;

const LOCK_KEY: &str = "private/lock";

/// Time for one attempt at the lock, which has some hundred bytes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);

/// Swaps that may be answered with a conflict before the lock is read again.
const MAX_CONFLICTS: u32 = 3;

impl Lock for S3Store {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        const OPERATION: &str = "load of the lock";
        match self.fetch(LOCK_KEY).await {
            Ok((bytes, Some(etag))) => Ok(Some(Locked { bytes, token: LockToken(etag.into()) })),
            Ok((_, None)) => Err(StoreError::new(OPERATION, "the server names no ETag; it cannot keep a log")),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(StoreError::new(OPERATION, self.known(LOCK_KEY, failure))),
        }
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        let created = self.create_object(LOCK_KEY, &bytes, LOCK_TIMEOUT).await;
        created.map_err(|error| StoreError::new("creation of the lock", error))
    }

    async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
        const OPERATION: &str = "swap of the lock";
        // An ETag is quoted, and came so from the server.
        let etag = match str::from_utf8(&token.0) {
            Ok(etag) if etag.ends_with('"') => etag.to_owned(),
            _ => format!("\"{}\"", token.0.escape_ascii()),
        };
        for _ in 0..MAX_CONFLICTS {
            return match self.write_once(LOCK_KEY, &bytes, Condition::Current(&etag), LOCK_TIMEOUT).boxed().await {
                Ok(Some(etag)) => Swap::Swapped(LockToken(etag.into())),
                // It is written, but loading it has to say under which token.
                Ok(None) => Swap::Unknown(StoreError::new(OPERATION, "the server names no ETag")),
                Err(Failure::Precondition | Failure::Absent) => Swap::Lost,
                // Nothing was done, so this is no repetition.
                Err(Failure::Conflict(_)) => continue,
                Err(failure) => Swap::Unknown(StoreError::new(OPERATION, self.known(LOCK_KEY, failure))),
            };
        }
        Swap::Unknown(StoreError::new(OPERATION, S3Problem::TimedOut))
    }
}

//! Objects of a bucket.

use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use fanlight_auditlog::bundle::MAX_BUNDLE_LEN;
use fanlight_auditlog::http::read_path;
use fanlight_auditlog::note::MAX_NOTE_LEN;
use fanlight_auditlog::store::{CHECKPOINT_KEY, PRIVATE_PREFIX, PutNew, StoreError};
use fanlight_auditlog::{ObjectStore, TileSource};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::S3Store;
use super::client::Attempts;
use super::error::{Failure, S3Error, S3Problem};

/// Time for one attempt at one object, besides that for its bytes.
const OBJECT_TIMEOUT: Duration = Duration::from_mins(1);

/// Bytes a second on the slowest line that carries a log: a staged round that does not get through in time comes back
/// larger.
const SLOWEST_LINE: u64 = 1 << 20;

/// Bytes of the longest tile: 256 hashes of 32 bytes.
const MAX_TILE_LEN: usize = 256 * 32;

/// Bytes of the longest private object, a staged round: far more than a pool and its tiles.
const MAX_PRIVATE_LEN: usize = 1 << 30;

/// Deletions that may come between the attempt to create an object and the look at the one that is there.
const MAX_DELETIONS: u32 = 8;

/// On what condition an object is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition<'a> {
    /// None.
    Always,
    /// There is none yet.
    New,
    /// The current one has this `ETag`.
    Current(&'a str),
}

impl S3Store {
    fn error(&self, key: &str, problem: S3Problem) -> S3Error {
        S3Error::new(&self.location, key, problem)
    }

    pub(super) fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.location.prefix())
    }

    /// An object, and its `ETag`.
    pub(super) async fn fetch(&self, key: &str) -> Result<(Bytes, Option<String>), Failure> {
        let mut attempts = Attempts::new();
        loop {
            match self.fetch_once(key).boxed().await {
                Err(failure) => attempts.after(failure).await?,
                fetched => return fetched,
            }
        }
    }

    async fn fetch_once(&self, key: &str) -> Result<(Bytes, Option<String>), Failure> {
        let timed_out = |_| Failure::Transient(self.error(key, S3Problem::TimedOut));
        let request = self.client.s3().get_object().bucket(self.location.bucket()).key(self.full_key(key));
        let answer = timeout(OBJECT_TIMEOUT, request.send()).await.map_err(timed_out)?;
        let answer = answer.map_err(|error| Failure::of(&self.location, key, error))?;
        let len = answer.content_length().and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX);
        timeout(time_for(len.min(max_len(key))), self.read(key, answer)).await.map_err(timed_out)?
    }

    async fn read(&self, key: &str, answer: GetObjectOutput) -> Result<(Bytes, Option<String>), Failure> {
        let max = max_len(key);
        let too_long = || Failure::Final(self.error(key, S3Problem::TooLong { max }));
        let announced = answer.content_length().and_then(|len| usize::try_from(len).ok());
        if announced.is_some_and(|len| len > max) {
            return Err(too_long());
        }
        let mut bytes = BytesMut::with_capacity(announced.unwrap_or_default());
        let mut body = answer.body;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| Failure::Transient(self.error(key, S3Problem::Broken)))?;
            if bytes.len() + chunk.len() > max {
                return Err(too_long());
            }
            bytes.extend_from_slice(&chunk);
        }
        if announced.is_some_and(|len| len != bytes.len()) {
            return Err(Failure::Transient(self.error(key, S3Problem::Broken)));
        }
        Ok((bytes.freeze(), answer.e_tag))
    }

    /// Writes an object on a condition that makes it safe to try more than once.
    async fn write(&self, key: &str, bytes: &Bytes, condition: Condition<'_>, limit: Duration) -> Result<(), Failure> {
        let mut attempts = Attempts::new();
        loop {
            match self.write_once(key, bytes, condition, limit).boxed().await {
                Err(failure) => attempts.after(failure).await?,
                Ok(_) => return Ok(()),
            }
        }
    }

    /// One attempt at writing an object; the answer is its `ETag`.
    pub(super) async fn write_once(
        &self,
        key: &str,
        bytes: &Bytes,
        condition: Condition<'_>,
        limit: Duration,
    ) -> Result<Option<String>, Failure> {
        let max = max_len(key);
        if bytes.len() > max {
            // Nobody would read it back.
            return Err(Failure::Final(self.error(key, S3Problem::TooLong { max })));
        }
        let (content_type, cache_control) = headers(key);
        let mut request = self.client.s3().put_object().bucket(self.location.bucket()).key(self.full_key(key));
        request = request.content_type(content_type).cache_control(cache_control).body(ByteStream::from(bytes.clone()));
        request = match condition {
            Condition::Always => request,
            Condition::New => request.if_none_match("*"),
            Condition::Current(etag) => request.if_match(etag),
        };
        match timeout(limit, request.send()).await {
            Ok(Ok(answer)) => Ok(answer.e_tag),
            Ok(Err(error)) => Err(Failure::of(&self.location, key, error)),
            Err(_) => Err(Failure::Transient(self.error(key, S3Problem::TimedOut))),
        }
    }

    /// Creates an object, or compares the one that is there. That a lost answer makes us find our own is no matter.
    pub(super) async fn create_object(&self, key: &str, bytes: &Bytes, limit: Duration) -> Result<PutNew, S3Error> {
        for _ in 0..MAX_DELETIONS {
            match self.write(key, bytes, Condition::New, limit).await {
                Ok(()) => return Ok(PutNew::Created),
                Err(Failure::Precondition) => {}
                Err(failure) => return Err(self.known(key, failure)),
            }
            match self.fetch(key).await {
                Ok((existing, _)) if existing == *bytes => return Ok(PutNew::ExistsSame),
                Ok(_) => return Ok(PutNew::ExistsDifferent),
                // Deleted in between.
                Err(Failure::Absent) => {}
                Err(failure) => match self.known(key, failure) {
                    // Longer than such an object can be, it is another one as well.
                    error if matches!(error.problem(), S3Problem::TooLong { .. }) => return Ok(PutNew::ExistsDifferent),
                    error => return Err(error),
                },
            }
        }
        Err(self.error(key, S3Problem::Broken))
    }

    /// The error of a failure that the caller has no other use for.
    pub(super) fn known(&self, key: &str, failure: Failure) -> S3Error {
        match failure {
            Failure::Conflict(error) | Failure::Transient(error) | Failure::Final(error) if self.client.is_anonymous() => {
                error.unsigned()
            }
            Failure::Conflict(error) | Failure::Transient(error) | Failure::Final(error) => error,
            // Without a bucket, some servers name no code.
            Failure::Absent => self.error(key, S3Problem::NoSuchBucket),
            // Nobody asked for a condition.
            Failure::Precondition => self.error(key, S3Problem::Broken),
        }
    }

    async fn delete_once(&self, key: &str) -> Result<(), Failure> {
        let request = self.client.s3().delete_object().bucket(self.location.bucket()).key(self.full_key(key));
        match timeout(OBJECT_TIMEOUT, request.send()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => match Failure::of(&self.location, key, error) {
                Failure::Absent => Ok(()),
                failure => Err(failure),
            },
            Err(_) => Err(Failure::Transient(self.error(key, S3Problem::TimedOut))),
        }
    }

    /// The keys of one page, and where the next one begins.
    async fn list_page(&self, prefix: &str, after: Option<&str>) -> Result<(Vec<String>, Option<String>), Failure> {
        let mut attempts = Attempts::new();
        loop {
            match self.list_page_once(prefix, after).boxed().await {
                Err(failure) => attempts.after(failure).await?,
                page => return page,
            }
        }
    }

    async fn list_page_once(&self, prefix: &str, after: Option<&str>) -> Result<(Vec<String>, Option<String>), Failure> {
        let request = self.client.s3().list_objects_v2().bucket(self.location.bucket()).prefix(self.full_key(prefix));
        let request = request.set_continuation_token(after.map(str::to_owned));
        let timed_out = |_| Failure::Transient(self.error(prefix, S3Problem::TimedOut));
        let answer = timeout(OBJECT_TIMEOUT, request.send()).await.map_err(timed_out)?;
        let answer = answer.map_err(|error| Failure::of(&self.location, prefix, error))?;
        let ours = answer.contents().iter().filter_map(|object| object.key()?.strip_prefix(self.location.prefix()));
        let keys = ours.filter(|key| key.starts_with(prefix)).map(str::to_owned).collect();
        let more = answer.is_truncated().unwrap_or(false);
        Ok((keys, answer.next_continuation_token.filter(|_| more)))
    }
}

impl TileSource for S3Store {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.fetch(key).await {
            Ok((bytes, _)) => Ok(Some(bytes)),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(StoreError::new("get", self.known(key, failure))),
        }
    }
}

impl ObjectStore for S3Store {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.create_object(key, &bytes, time_for(bytes.len())).await.map_err(|error| StoreError::new("put_new", error))
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let put = self.write(key, &bytes, Condition::Always, time_for(bytes.len())).await;
        put.map_err(|failure| StoreError::new("put", self.known(key, failure)))
    }

    async fn put_over(&self, key: &str, previous: Option<&Bytes>, bytes: Bytes) -> Result<bool, StoreError> {
        let failed = |failure| StoreError::new("put_over", self.known(key, failure));
        let (mut attempts, mut attempted) = (Attempts::new(), false);
        loop {
            let (current, etag) = match self.fetch(key).await {
                Ok((bytes, etag)) => (Some(bytes), etag),
                Err(Failure::Absent) => (None, None),
                Err(failure) => return Err(failed(failure)),
            };
            if attempted && current.as_ref() == Some(&bytes) {
                // Ours, of which we were not told.
                return Ok(true);
            }
            if current.as_ref() != previous {
                return Ok(false);
            }
            let condition = match &etag {
                Some(etag) => Condition::Current(etag),
                None if current.is_none() => Condition::New,
                None => return Err(StoreError::new("put_over", "the server names no ETag; it cannot keep a log")),
            };
            match self.write_once(key, &bytes, condition, time_for(bytes.len())).boxed().await {
                Ok(_) => return Ok(true),
                // Whatever stands there now decides; but some refuse a condition that holds, again and again.
                Err(Failure::Precondition) => {
                    let refused = Failure::Conflict(self.error(key, S3Problem::EtagRefused));
                    attempts.after(refused).await.map_err(failed)?;
                }
                Err(Failure::Absent) => {
                    let refused = Failure::Conflict(self.error(key, S3Problem::NoSuchBucket));
                    attempts.after(refused).await.map_err(failed)?;
                }
                Err(failure) => attempts.after(failure).await.map_err(failed)?,
            }
            attempted = true;
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let mut attempts = Attempts::new();
        loop {
            let Err(failure) = self.delete_once(key).boxed().await else { return Ok(()) };
            if let Err(failure) = attempts.after(failure).await {
                return Err(StoreError::new("delete", self.known(key, failure)));
            }
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = self.list_page(prefix, after.as_deref()).await;
            let (page, more) = page.map_err(|failure| StoreError::new("list", self.known(prefix, failure)))?;
            keys.extend(page);
            let Some(more) = more else { break };
            after = Some(more);
        }
        // S3 lists in this order anyhow; others may not.
        keys.sort_unstable();
        Ok(keys)
    }
}

/// Time for one attempt at an object of `len` bytes.
fn time_for(len: usize) -> Duration {
    OBJECT_TIMEOUT + Duration::from_secs(len as u64 / SLOWEST_LINE)
}

/// `Content-Type` and `Cache-Control`.
fn headers(key: &str) -> (&'static str, &'static str) {
    read_path(key).map_or(("application/octet-stream", "no-store"), |public| (public.content_type, public.cache_control))
}

fn max_len(key: &str) -> usize {
    match key {
        CHECKPOINT_KEY => MAX_NOTE_LEN,
        key if key.starts_with(PRIVATE_PREFIX) => MAX_PRIVATE_LEN,
        key if key.starts_with("tile/entries/") => MAX_BUNDLE_LEN,
        _ => MAX_TILE_LEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_object_gets_through_a_slow_line() {
        let seconds = MAX_PRIVATE_LEN as u64 / SLOWEST_LINE;
        assert!(time_for(MAX_PRIVATE_LEN).as_secs() >= seconds);
        assert_eq!(time_for(0), OBJECT_TIMEOUT);
    }
}

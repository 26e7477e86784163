//! The contract of a store, as checks that any store can be put to where it runs.
//!
//! Nothing here panics or needs a runtime, so that a store inside a single-threaded host is tried there. Each check says
//! which promise was broken.

use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};

use crate::bundle::MAX_BUNDLE_LEN;
use crate::store::{CHECKPOINT_KEY, Lock, LockToken, ObjectStore, PutNew, StoreError, Swap};

/// Writers in each race.
const RACERS: u8 = 50;

/// Partial tiles that take turns.
const TURNS: u8 = 20;

/// Objects of one listing: more than the thousand that a page of an object store has.
const LISTED: usize = 1100;

/// Objects written at the same time to be listed.
const CONCURRENT_WRITES: usize = 16;

/// What [`check_contract`] also tries, where it costs more than moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Nothing: some 600 requests.
    #[default]
    Quick,
    /// A listing of more than a page, and the longest bundle.
    Thorough,
}

/// Tries the contract of a store on an empty one, and leaves objects behind.
///
/// An `Ok` does not show that a store is durable, or right under load.
pub async fn check_contract(store: &(impl ObjectStore + Lock), effort: Effort) -> Result<(), ContractViolation> {
    creation(store).await?;
    replacement(store).await?;
    deletion(store).await?;
    listing(store).await?;
    lock(store).await?;
    races(store).await?;
    match effort {
        Effort::Quick => Ok(()),
        Effort::Thorough => {
            long_listing(store).await?;
            long_object(store).await
        }
    }
}

async fn creation(store: &impl ObjectStore) -> Result<(), ContractViolation> {
    let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    let key = "tile/0/000";
    holds("an object that was never written is absent", store.get(key).await?.is_none())?;
    holds("a first put_new creates", store.put_new(key, a.clone()).await? == PutNew::Created)?;
    holds("what is created is read at once", store.get(key).await?.as_ref() == Some(&a))?;
    holds("put_new of the same bytes finds them", store.put_new(key, a.clone()).await? == PutNew::ExistsSame)?;
    holds("put_new of other bytes finds a difference", store.put_new(key, b).await? == PutNew::ExistsDifferent)?;
    holds("put_new never replaces", store.get(key).await?.as_ref() == Some(&a))?;
    let partial = "tile/0/000.p/1";
    holds("a partial tile lies beside the full one", store.put_new(partial, Bytes::new()).await? == PutNew::Created)?;
    holds("an empty object is no absent one", store.get(partial).await?.as_ref() == Some(&Bytes::new()))?;
    holds("an empty object is found the same", store.put_new(partial, Bytes::new()).await? == PutNew::ExistsSame)?;
    holds("nothing lies below an object", store.get("tile/0/000/1").await?.is_none())?;
    holds("what a key starts with is no object", store.get("tile/0").await?.is_none())
}

async fn replacement(store: &impl ObjectStore) -> Result<(), ContractViolation> {
    let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    holds("put_over of what is not there does nothing", !store.put_over(CHECKPOINT_KEY, Some(&a), b.clone()).await?)?;
    holds("put_over of nothing creates", store.put_over(CHECKPOINT_KEY, None, a.clone()).await?)?;
    holds("put_over of nothing finds something", !store.put_over(CHECKPOINT_KEY, None, b.clone()).await?)?;
    holds("put_over of other bytes does nothing", !store.put_over(CHECKPOINT_KEY, Some(&b), b.clone()).await?)?;
    holds("what put_over leaves alone stays", store.get(CHECKPOINT_KEY).await?.as_ref() == Some(&a))?;
    holds("put_over of what is there replaces it", store.put_over(CHECKPOINT_KEY, Some(&a), b.clone()).await?)?;
    holds("what put_over writes is read at once", store.get(CHECKPOINT_KEY).await?.as_ref() == Some(&b))?;
    for round in 0..3u8 {
        let bytes = Bytes::from(vec![round; 100 * usize::from(3 - round)]);
        store.put(CHECKPOINT_KEY, bytes.clone()).await?;
        holds("put replaces the whole object, and it is read at once", store.get(CHECKPOINT_KEY).await? == Some(bytes))?;
    }
    Ok(())
}

async fn deletion(store: &impl ObjectStore) -> Result<(), ContractViolation> {
    let key = "private/x/deleted";
    store.delete(key).await?;
    store.put(key, Bytes::from_static(b"1")).await?;
    store.delete(key).await?;
    holds("a deleted object is absent", store.get(key).await?.is_none())?;
    store.delete(key).await?;
    holds("a deleted key is free", store.put_new(key, Bytes::from_static(b"2")).await? == PutNew::Created)?;
    store.delete(key).await?;
    // A store may drop what holds partial tiles with the last of them, while another one comes.
    for width in 1..=TURNS {
        let (old, new) = (format!("private/002.p/{width}"), format!("private/002.p/{}", width + 1));
        store.put_new(&old, Bytes::from_static(b"x")).await?;
        let (deleted, put) = future::join(store.delete(&old), store.put_new(&new, Bytes::from_static(b"x"))).await;
        deleted?;
        holds("a deletion keeps nothing from being created beside it", put? == PutNew::Created)?;
        holds("a deletion takes nothing beside it away", store.get(&new).await?.is_some())?;
        store.delete(&new).await?;
    }
    Ok(())
}

async fn listing(store: &impl ObjectStore) -> Result<(), ContractViolation> {
    holds("nothing is listed where nothing is", store.list("private/x/").await?.is_empty())?;
    // A dot and a hyphen sort before the slash, a digit after it; `private/xy/` shares letters with the prefix only.
    for key in ["private/x/b", "private/x/a.1", "private/x/a/2", "private/x/a-3", "private/xy/a"] {
        store.put(key, Bytes::from_static(b"x")).await?;
    }
    let listed = store.list("private/x/").await?;
    let expected = ["private/x/a-3", "private/x/a.1", "private/x/a/2", "private/x/b"];
    holds("all keys below a prefix are listed, at every depth, in order, and no others", listed == expected)?;
    store.delete("private/x/b").await?;
    holds("a deleted key is not listed", store.list("private/x/").await? == expected[..3])?;
    holds("the prefix may be deep", store.list("private/x/a/").await? == expected[2..3])
}

async fn lock(store: &impl Lock) -> Result<(), ContractViolation> {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    holds("there is no lock before it is created", store.load().await?.is_none())?;
    let swap = store.swap(&LockToken(bytes("none")), bytes("0")).await;
    holds("a lock that is not there is not swapped", matches!(swap, Swap::Lost))?;
    holds("a failed swap creates nothing", store.load().await?.is_none())?;
    holds("a first creation creates", store.create(bytes("1")).await? == PutNew::Created)?;
    holds("a second one with the same bytes finds them", store.create(bytes("1")).await? == PutNew::ExistsSame)?;
    holds("one with other bytes finds a difference", store.create(bytes("2")).await? == PutNew::ExistsDifferent)?;
    let first = loaded(store).await?;
    holds("the lock has the bytes that created it", first.bytes == "1")?;
    let Swap::Swapped(second) = store.swap(&first.token, bytes("2")).await else {
        return Err(ContractViolation::Broken { promise: "a fresh token swaps" });
    };
    holds("a used token is lost", matches!(store.swap(&first.token, bytes("3")).await, Swap::Lost))?;
    let current = loaded(store).await?;
    holds("the lock has the bytes that were swapped in", current.bytes == "2")?;
    holds("a load names the token that the swap named", current.token == second)?;
    let third = store.swap(&second, bytes("3")).await;
    holds("the token of a swap swaps", matches!(third, Swap::Swapped(_)))
}

async fn races(store: &(impl ObjectStore + Lock)) -> Result<(), ContractViolation> {
    let racer = |n: u8| Bytes::from(vec![n; 64]);
    let puts = future::join_all((0..RACERS).map(|n| store.put_new("tile/0/001", racer(n)))).await;
    let mut winners = Vec::new();
    for (n, put) in (0..RACERS).zip(puts) {
        match put? {
            PutNew::Created => winners.push(n),
            PutNew::ExistsDifferent => {}
            PutNew::ExistsSame => return Err(ContractViolation::Broken { promise: "no racer finds its own bytes" }),
        }
    }
    holds("of put_new at the same time one creates", winners.len() == 1)?;
    holds("the object is the winner's", store.get("tile/0/001").await? == winners.first().map(|n| racer(*n)))?;

    let key = "private/x/raced";
    for previous in [None, Some(Bytes::from_static(b"previous"))] {
        if let Some(previous) = &previous {
            store.put(key, previous.clone()).await?;
        }
        let puts = future::join_all((0..RACERS).map(|n| store.put_over(key, previous.as_ref(), racer(n)))).await;
        let mut winners = Vec::new();
        for (n, put) in (0..RACERS).zip(puts) {
            if put? {
                winners.push(n);
            }
        }
        holds("of put_over at the same time one writes", winners.len() == 1)?;
        holds("what it wrote stays", store.get(key).await? == winners.first().map(|n| racer(*n)))?;
    }

    let current = loaded(store).await?.token;
    let swaps = future::join_all((0..RACERS).map(|n| store.swap(&current, racer(n)))).await;
    let mut winners = Vec::new();
    for (n, swap) in (0..RACERS).zip(swaps) {
        match swap {
            Swap::Swapped(token) => winners.push((racer(n), token)),
            Swap::Lost => {}
            Swap::Unknown(error) => return Err(error.into()),
        }
    }
    holds("of swaps at the same time one goes through", winners.len() == 1)?;
    let current = loaded(store).await?;
    holds("the lock is the winner's", winners.contains(&(current.bytes, current.token)))
}

async fn long_listing(store: &impl ObjectStore) -> Result<(), ContractViolation> {
    let keys: Vec<_> = (0..LISTED).map(|n| format!("private/many/{n:04}")).collect();
    let puts = stream::iter(&keys).map(|key| store.put(key, Bytes::from_static(b"x"))).buffer_unordered(CONCURRENT_WRITES);
    for put in puts.collect::<Vec<_>>().await {
        put?;
    }
    holds("a long listing is whole and in order", store.list("private/many/").await? == keys)
}

async fn long_object(store: &impl ObjectStore) -> Result<(), ContractViolation> {
    let key = "tile/entries/000";
    let bytes: Bytes = (0..MAX_BUNDLE_LEN).map(|n| n.to_le_bytes()[n % 3]).collect();
    holds("the longest bundle is created", store.put_new(key, bytes.clone()).await? == PutNew::Created)?;
    holds("the longest bundle is found the same", store.put_new(key, bytes.clone()).await? == PutNew::ExistsSame)?;
    holds("the longest bundle is read whole", store.get(key).await? == Some(bytes))
}

async fn loaded(store: &impl Lock) -> Result<super::Locked, ContractViolation> {
    store.load().await?.ok_or(ContractViolation::Broken { promise: "a lock that was created is there" })
}

fn holds(promise: &'static str, held: bool) -> Result<(), ContractViolation> {
    if held { Ok(()) } else { Err(ContractViolation::Broken { promise }) }
}

/// Why a store is not fit to hold a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContractViolation {
    /// It did something else than a store must.
    #[error("a store broke its promise: {promise}")]
    Broken {
        /// What a store must do.
        promise: &'static str,
    },
    /// It did not do what it was asked.
    #[error("the store failed")]
    Failed(#[from] StoreError),
}

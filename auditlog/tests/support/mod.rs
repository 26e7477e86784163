//! A store in memory that enforces the contract and fails on command, and a log on top of it.
#![expect(dead_code, reason = "each test binary uses a part")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(unreachable_pub, reason = "shared by test binaries through `mod support`")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::store::{LockToken, Locked, PutNew, StoreError, Swap};
use fanlight_auditlog::{
    AppendError, Appended, Config, Lock, Log, ObjectStore, Policy, Sequencer, Signer, TileSource, VerifierKey, create,
};

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It goes through.
    None,
    /// It fails and has no effect.
    NotDone,
    /// It fails and has its effect all the same.
    Done,
    /// It fails without effect, and so does every operation after it.
    Dead,
    /// It fails with its effect, and every operation after it fails without.
    DoneThenDead,
}

type Hook = Box<dyn FnMut(&str) -> Fault + Send>;

#[derive(Default)]
struct Contents {
    objects: BTreeMap<String, Bytes>,
    lock: Option<(Bytes, u64)>,
    hook: Option<Hook>,
    dead: bool,
}

/// Objects in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryStore {
    contents: Arc<Mutex<Contents>>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.contents.lock().expect("no test panics with the lock").objects.keys()).finish()
    }
}

impl MemoryStore {
    /// Consults `hook` at every write; its argument is the key, or `lock`.
    pub fn on_write(&self, hook: impl FnMut(&str) -> Fault + Send + 'static) {
        self.contents.lock().expect("no test panics with the lock").hook = Some(Box::new(hook));
    }

    /// The store after a restart: same contents, no faults.
    pub fn restarted(&self) -> Self {
        let contents = self.contents.lock().expect("no test panics with the lock");
        let (objects, lock) = (contents.objects.clone(), contents.lock.clone());
        Self { contents: Arc::new(Mutex::new(Contents { objects, lock, ..Contents::default() })) }
    }

    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.contents.lock().expect("no test panics with the lock").objects.clone()
    }

    pub fn edit(&self, edit: impl FnOnce(&mut BTreeMap<String, Bytes>)) {
        edit(&mut self.contents.lock().expect("no test panics with the lock").objects);
    }

    /// Returns once a fault has killed the store.
    pub async fn died(&self) {
        while !self.contents.lock().expect("no test panics with the lock").dead {
            tokio::task::yield_now().await;
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Contents) -> T) -> Result<T, StoreError> {
        let contents = self.contents.lock().expect("no test panics with the lock");
        if contents.dead { Err(failure()) } else { Ok(read(&contents)) }
    }

    fn write<T>(&self, key: &str, write: impl FnOnce(&mut Contents) -> T) -> Result<T, StoreError> {
        let mut contents = self.contents.lock().expect("no test panics with the lock");
        if contents.dead {
            return Err(failure());
        }
        let fault = contents.hook.as_mut().map_or(Fault::None, |hook| hook(key));
        contents.dead = matches!(fault, Fault::Dead | Fault::DoneThenDead);
        match fault {
            Fault::None => Ok(write(&mut contents)),
            Fault::NotDone | Fault::Dead => Err(failure()),
            Fault::Done | Fault::DoneThenDead => {
                write(&mut contents);
                Err(failure())
            }
        }
    }
}

fn failure() -> StoreError {
    StoreError::new("write", io::Error::other("fault injected"))
}

impl TileSource for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        // Lets others run, as a real store does.
        tokio::task::yield_now().await;
        self.read(|contents| contents.objects.get(key).cloned())
    }
}

impl ObjectStore for MemoryStore {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        tokio::task::yield_now().await;
        self.write(key, |contents| match contents.objects.get(key) {
            Some(existing) if *existing == bytes => PutNew::ExistsSame,
            Some(_) => PutNew::ExistsDifferent,
            None => {
                contents.objects.insert(key.to_owned(), bytes);
                PutNew::Created
            }
        })
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        assert!(!key.starts_with("tile/"), "{key} may be written once only");
        self.write(key, |contents| {
            contents.objects.insert(key.to_owned(), bytes);
        })
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        assert!(key.starts_with("private/"), "nothing public is ever deleted, but {key}");
        self.write(key, |contents| {
            contents.objects.remove(key);
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.read(|contents| contents.objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
    }
}

impl Lock for MemoryStore {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        tokio::task::yield_now().await;
        self.read(|contents| {
            let (bytes, version) = contents.lock.clone()?;
            Some(Locked { bytes, token: token(version) })
        })
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.write("lock", |contents| match &contents.lock {
            Some((existing, _)) if *existing == bytes => PutNew::ExistsSame,
            Some(_) => PutNew::ExistsDifferent,
            None => {
                contents.lock = Some((bytes, 1));
                PutNew::Created
            }
        })
    }

    async fn swap(&self, current: &LockToken, bytes: Bytes) -> Swap {
        tokio::task::yield_now().await;
        let swapped = self.write("lock", |contents| match &mut contents.lock {
            Some((value, version)) if token(*version) == *current => {
                (*value, *version) = (bytes, *version + 1);
                Some(token(*version))
            }
            _ => None,
        });
        match swapped {
            Ok(Some(token)) => Swap::Swapped(token),
            Ok(None) => Swap::Lost,
            Err(error) => Swap::Unknown(error),
        }
    }
}

fn token(version: u64) -> LockToken {
    LockToken(Bytes::copy_from_slice(&version.to_be_bytes()))
}

/// The contract of a store, tried on an empty one.
pub async fn check_contract<S: ObjectStore + Lock>(store: &S) {
    let bytes = Bytes::from_static;

    assert_eq!(store.get("tile/0/000").await.unwrap(), None);
    assert_eq!(store.put_new("tile/0/000", bytes(b"a")).await.unwrap(), PutNew::Created);
    assert_eq!(store.put_new("tile/0/000", bytes(b"a")).await.unwrap(), PutNew::ExistsSame);
    assert_eq!(store.put_new("tile/0/000", bytes(b"b")).await.unwrap(), PutNew::ExistsDifferent);
    assert_eq!(store.get("tile/0/000").await.unwrap(), Some(bytes(b"a")));
    // A partial tile lies beside the full one, not below it.
    assert_eq!(store.put_new("tile/0/000.p/1", bytes(b"")).await.unwrap(), PutNew::Created);
    assert_eq!(store.get("tile/0/000.p/1").await.unwrap(), Some(bytes(b"")));
    assert_eq!(store.get("tile/0/000/1").await.unwrap(), None);

    store.put("private/x/b", bytes(b"1")).await.unwrap();
    store.put("private/x/b", bytes(b"22")).await.unwrap();
    store.put("private/x/a", bytes(b"3")).await.unwrap();
    assert_eq!(store.get("private/x/b").await.unwrap(), Some(bytes(b"22")));
    assert_eq!(store.list("private/x/").await.unwrap(), ["private/x/a", "private/x/b"]);
    assert_eq!(store.list("private/y/").await.unwrap(), [""; 0]);
    store.delete("private/x/b").await.unwrap();
    store.delete("private/x/b").await.unwrap();
    assert_eq!(store.list("private/x/").await.unwrap(), ["private/x/a"]);

    assert!(store.load().await.unwrap().is_none());
    let swap = store.swap(&LockToken(bytes(b"none")), bytes(b"0")).await;
    assert!(matches!(swap, Swap::Lost), "nothing to swap yet: {swap:?}");
    assert_eq!(Lock::create(store, bytes(b"1")).await.unwrap(), PutNew::Created);
    assert_eq!(Lock::create(store, bytes(b"1")).await.unwrap(), PutNew::ExistsSame);
    assert_eq!(Lock::create(store, bytes(b"2")).await.unwrap(), PutNew::ExistsDifferent);
    let first = store.load().await.unwrap().unwrap();
    assert_eq!(first.bytes, bytes(b"1"));
    let Swap::Swapped(second) = store.swap(&first.token, bytes(b"2")).await else { panic!("a fresh token swaps") };
    assert!(matches!(store.swap(&first.token, bytes(b"3")).await, Swap::Lost));
    let loaded = store.load().await.unwrap().unwrap();
    assert_eq!((loaded.bytes, &loaded.token), (bytes(b"2"), &second));
    let Swap::Swapped(_) = store.swap(&second, bytes(b"3")).await else { panic!("the swap's token swaps") };

    // Of writers at the same time exactly one wins.
    let current = store.load().await.unwrap().unwrap().token;
    let swaps = futures_util::future::join_all((0..8u8).map(|n| store.swap(&current, vec![n].into()))).await;
    assert_eq!(swaps.iter().filter(|swap| matches!(swap, Swap::Swapped(_))).count(), 1);
    let puts = (0..8u8).map(|n| store.put_new("tile/0/001", vec![n].into()));
    let puts = futures_util::future::join_all(puts).await;
    assert_eq!(puts.iter().filter(|put| matches!(put, Ok(PutNew::Created))).count(), 1);
}

pub const ORIGIN: &str = "log.example/test";

pub fn signer() -> Signer {
    Signer::new(ORIGIN, &[42; 32]).unwrap()
}

pub fn log_key() -> VerifierKey {
    signer().verifier_key()
}

pub fn config() -> Config {
    Config { round_period: Duration::ZERO, ..Config::default() }
}

/// Every proof of every entry that was appended must hold.
pub fn check(entry: &[u8], appended: &Appended) {
    let verified = appended.tlog_proof.verify(entry, &Policy::for_log(log_key())).unwrap();
    assert_eq!(verified.index(), appended.index);
}

/// A created and opened log with its sequencer running.
pub struct Running<S> {
    pub log: Log<S>,
    pub sequencer: tokio::task::JoinHandle<Result<(), fanlight_auditlog::sequencer::SequencerError>>,
}

impl Running<MemoryStore> {
    pub async fn create(store: &MemoryStore) -> Self {
        create(store, &signer()).await.expect("an empty store");
        Self::open(store).await
    }

    pub async fn open(store: &MemoryStore) -> Self {
        let (log, sequencer) = Log::open(store.clone(), signer(), config()).await.unwrap();
        Self::run(log, sequencer)
    }

    fn run(log: Log<MemoryStore>, sequencer: Sequencer<MemoryStore>) -> Self {
        Self { log, sequencer: tokio::spawn(sequencer.run(|_| tokio::task::yield_now())) }
    }

    pub async fn close(self) {
        self.log.close().await;
        self.sequencer.await.unwrap().unwrap();
    }

    /// Appends all entries at once; each result stands where its entry does.
    pub async fn append_all(&self, entries: &[Bytes]) -> Vec<Result<Appended, AppendError>> {
        futures_util::future::join_all(entries.iter().map(|entry| self.log.append(entry.clone()))).await
    }
}

pub fn entries(prefix: &str, n: usize) -> Vec<Bytes> {
    (0..n).map(|i| Bytes::from(format!("{prefix} {i}"))).collect()
}

//! A store in memory that enforces the contract and fails on command.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::store::{CHECKPOINT_KEY, LockToken, Locked, PutNew, StoreError, Swap};
use fanlight_auditlog::tile::{TileContent, TilePath};
use fanlight_auditlog::{Hash, LeafIndex, Lock, ObjectStore, TileSource};
use tokio::sync::watch;

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It goes through.
    None,
    /// It fails and has no effect.
    NotDone,
    /// It fails and has its effect all the same.
    Done,
    /// It fails, and has its effect after this many more writes.
    Late(u32),
    /// It fails without effect, and so does every operation after it.
    Dead,
    /// Another writer comes first and leaves the lock with the same value under another token.
    Overtaken,
    /// It fails with its effect, and every operation after it fails without.
    DoneThenDead,
}

type Hook = Box<dyn FnMut(&str) -> Fault + Send>;
type Write = Box<dyn FnOnce(&mut Stored) + Send>;
type Latency = Box<dyn FnMut() -> Duration + Send>;

/// What survives the process.
#[derive(Clone, Default)]
struct Stored {
    objects: BTreeMap<String, Bytes>,
    lock: Option<(Bytes, u64)>,
}

#[derive(Default)]
struct Contents {
    stored: Stored,
    late: Vec<(u32, Write)>,
    hook: Option<Hook>,
    latency: Option<Latency>,
    n_writes: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default)]
struct Index {
    positions: HashMap<Hash, u64>,
    indexed: u64,
    // What it says instead, however often it is built anew.
    lies: HashMap<Hash, u64>,
}

/// Objects in memory. Clones share them.
#[derive(Clone)]
pub struct MemoryStore {
    contents: Arc<Mutex<Contents>>,
    index: Arc<Mutex<Index>>,
    dead: watch::Sender<bool>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with(Stored::default(), Index::default())
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.contents().stored.objects.keys()).finish()
    }
}

impl MemoryStore {
    fn with(stored: Stored, index: Index) -> Self {
        let contents = Contents { stored, ..Contents::default() };
        Self { contents: Arc::new(Mutex::new(contents)), index: Arc::new(Mutex::new(index)), dead: watch::Sender::new(false) }
    }

    /// Consults `hook` at every write; its argument is the key, or `lock`, or `index`.
    pub fn on_write(&self, hook: impl FnMut(&str) -> Fault + Send + 'static) {
        self.contents().hook = Some(Box::new(hook));
    }

    /// Lets every operation take as long as `latency` says.
    pub fn slow_down(&self, latency: impl FnMut() -> Duration + Send + 'static) {
        self.contents().latency = Some(Box::new(latency));
    }

    /// The store after a restart: same contents, no faults. What was on its way arrives never.
    pub fn restarted(&self) -> Self {
        Self::with(self.contents().stored.clone(), self.index().clone())
    }

    /// The store as another machine sees it, with an index of its own.
    pub fn rival(&self) -> Self {
        Self { contents: Arc::clone(&self.contents), index: Arc::default(), dead: self.dead.clone() }
    }

    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.contents().stored.objects.clone()
    }

    pub fn edit(&self, edit: impl FnOnce(&mut BTreeMap<String, Bytes>)) {
        edit(&mut self.contents().stored.objects);
    }

    pub fn edit_lock(&self, edit: impl FnOnce(&mut Bytes)) {
        edit(&mut self.contents().stored.lock.as_mut().expect("a created log").0);
    }

    /// Moves what the index says about each leaf, and how many it covers.
    pub fn edit_index(&self, edit: impl FnOnce(&mut HashMap<Hash, u64>, &mut u64)) {
        let mut index = self.index();
        let Index { positions, indexed, .. } = &mut *index;
        edit(positions, indexed);
    }

    /// From here on the index says this of a leaf, even when it has just been built; `None` ends that.
    pub fn lie_about(&self, leaf: Hash, position: Option<u64>) {
        let mut index = self.index();
        index.lies.remove(&leaf);
        index.lies.extend(position.map(|position| (leaf, position)));
    }

    pub fn indexed_leaves(&self) -> u64 {
        self.index().indexed
    }

    /// Writes by kind since the start: the key up to its first digit, `lock` or `index`; `delete` and `list` as such.
    pub fn n_writes(&self) -> BTreeMap<String, u64> {
        self.contents().n_writes.clone()
    }

    /// Returns once a fault has killed the store.
    pub async fn died(&self) {
        self.dead.subscribe().wait_for(|dead| *dead).await.expect("the store outlives the test");
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("no test panics with the lock")
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no test panics with the lock")
    }

    /// Lets others run, as a real store does.
    async fn wait(&self) {
        let latency = self.contents().latency.as_mut().map(|latency| latency());
        match latency {
            Some(latency) => tokio::time::sleep(latency).await,
            None => tokio::task::yield_now().await,
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Stored) -> T) -> Result<T, StoreError> {
        if *self.dead.borrow() { Err(failure()) } else { Ok(read(&self.contents().stored)) }
    }

    async fn write<T>(&self, key: &str, write: impl FnOnce(&mut Stored) -> T + Send + 'static) -> Result<T, StoreError> {
        self.wait().await;
        if *self.dead.borrow() {
            return Err(failure());
        }
        let mut contents = self.contents();
        let fault = contents.hook.as_mut().map_or(Fault::None, |hook| hook(key));
        let kind = key.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
        *contents.n_writes.entry(kind.to_owned()).or_default() += 1;
        for (countdown, _) in &mut contents.late {
            *countdown -= 1;
        }
        for (_, arrives) in contents.late.extract_if(.., |(countdown, _)| *countdown == 0).collect::<Vec<_>>() {
            arrives(&mut contents.stored);
        }
        if matches!(fault, Fault::Dead | Fault::DoneThenDead) {
            self.dead.send_replace(true);
        }
        match fault {
            Fault::None => Ok(write(&mut contents.stored)),
            Fault::Overtaken => {
                contents.stored.lock.iter_mut().for_each(|(_, version)| *version += 1);
                Ok(write(&mut contents.stored))
            }
            Fault::NotDone | Fault::Dead => Err(failure()),
            Fault::Done | Fault::DoneThenDead => {
                write(&mut contents.stored);
                Err(failure())
            }
            Fault::Late(countdown) => {
                contents.late.push((countdown, Box::new(|stored| drop(write(stored)))));
                Err(failure())
            }
        }
    }

    /// A write of the index, which never comes late.
    async fn write_index<T>(&self, write: impl FnOnce(&mut Index) -> T) -> Result<T, StoreError> {
        match self.write("index", |_| ()).await {
            Ok(()) => Ok(write(&mut self.index())),
            Err(error) => Err(error),
        }
    }
}

fn failure() -> StoreError {
    StoreError::new("write", io::Error::from(io::ErrorKind::StorageFull))
}

impl Stored {
    fn put(&mut self, key: &str, bytes: Bytes) {
        assert!(!key.starts_with("tile/"), "{key} may be written once only");
        if key == CHECKPOINT_KEY {
            assert!(size_of(&bytes) >= self.published_size(), "the published checkpoint went back");
        }
        self.objects.insert(key.to_owned(), bytes);
    }

    fn put_new(&mut self, key: &str, bytes: Bytes) -> PutNew {
        match self.objects.get(key) {
            Some(existing) if *existing == bytes => PutNew::ExistsSame,
            Some(_) => PutNew::ExistsDifferent,
            None => {
                self.objects.insert(key.to_owned(), bytes);
                PutNew::Created
            }
        }
    }

    fn published_size(&self) -> u64 {
        self.objects.get(CHECKPOINT_KEY).map_or(0, size_of)
    }

    fn delete(&mut self, key: &str) {
        if !key.starts_with("private/") {
            let path = TilePath::parse(key).expect("nothing public but tiles is ever deleted");
            let level = if let TileContent::Hashes(level) = path.content() { level } else { 0 };
            let n_full_tiles = self.published_size() / 256u64.pow(u32::from(level) + 1);
            let is_full = path.is_partial() && path.index() < n_full_tiles;
            assert!(is_full, "{key} is needed by the published checkpoint");
            assert!(self.objects.contains_key(&path.to_full().to_string()), "{key} has no full tile instead");
        }
        self.objects.remove(key);
    }
}

/// The tree size in a checkpoint; 0 for what a test made of one.
fn size_of(note: &Bytes) -> u64 {
    std::str::from_utf8(note).ok().and_then(|note| note.lines().nth(1)?.parse().ok()).unwrap_or(0)
}

impl TileSource for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.wait().await;
        self.read(|stored| stored.objects.get(key).cloned())
    }
}

impl ObjectStore for MemoryStore {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        let owned = key.to_owned();
        self.write(key, move |stored| stored.put_new(&owned, bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let owned = key.to_owned();
        self.write(key, move |stored| stored.put(&owned, bytes)).await
    }

    async fn put_over(&self, key: &str, previous: Option<&Bytes>, bytes: Bytes) -> Result<bool, StoreError> {
        let (owned, previous) = (key.to_owned(), previous.cloned());
        self.write(key, move |stored| {
            let is_there = stored.objects.get(&owned) == previous.as_ref();
            if is_there {
                stored.put(&owned, bytes);
            }
            is_there
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let owned = key.to_owned();
        self.write(&format!("delete {key}"), move |stored| stored.delete(&owned)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.wait().await;
        self.read(|stored| stored.objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
    }
}

impl Lock for MemoryStore {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        self.wait().await;
        self.read(|stored| {
            let (bytes, version) = stored.lock.clone()?;
            Some(Locked { bytes, token: token(version) })
        })
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.write("lock", |stored| match &stored.lock {
            Some((existing, _)) if *existing == bytes => PutNew::ExistsSame,
            Some(_) => PutNew::ExistsDifferent,
            None => {
                stored.lock = Some((bytes, 1));
                PutNew::Created
            }
        })
        .await
    }

    async fn swap(&self, current: &LockToken, bytes: Bytes) -> Swap {
        let current = current.clone();
        let swapped = self.write("lock", move |stored| match &mut stored.lock {
            Some((value, version)) if token(*version) == current => {
                (*value, *version) = (bytes, *version + 1);
                Some(token(*version))
            }
            _ => None,
        });
        match swapped.await {
            Ok(Some(token)) => Swap::Swapped(token),
            Ok(None) => Swap::Lost,
            Err(error) => Swap::Unknown(error),
        }
    }
}

impl LeafIndex for MemoryStore {
    async fn indexed(&self) -> Result<u64, StoreError> {
        self.wait().await;
        self.read(|_| self.index().indexed)
    }

    async fn positions(&self, leaves: Vec<Hash>) -> Result<Vec<Option<u64>>, StoreError> {
        self.wait().await;
        self.read(|_| {
            let index = self.index();
            leaves.iter().map(|leaf| index.lies.get(leaf).or_else(|| index.positions.get(leaf)).copied()).collect()
        })
    }

    async fn extend(&self, first: u64, leaves: Vec<Hash>) -> Result<(), StoreError> {
        self.write_index(|index| {
            assert_eq!(first, index.indexed, "the index is extended where it ends");
            for leaf in leaves {
                index.positions.entry(leaf).or_insert(index.indexed);
                index.indexed += 1;
            }
        })
        .await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.write_index(|index| *index = Index { lies: std::mem::take(&mut index.lies), ..Index::default() }).await
    }
}

fn token(version: u64) -> LockToken {
    LockToken(Bytes::copy_from_slice(&version.to_be_bytes()))
}

//! One contract, every store.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use fanlight_auditlog::store::contract::{Effort, check_contract};
use fanlight_auditlog::store::dir::OpenDirError;
use fanlight_auditlog::store::disk_index::DiskIndex;
use fanlight_auditlog::store::key_file::{KeyFileError, create_key_file, read_key_file};
use fanlight_auditlog::store::{PutNew, Swap};
use fanlight_auditlog::{DirStore, Hash, LeafIndex as _, Lock as _, ObjectStore as _, TileSource as _, leaf_hash};
use support::MemoryStore;

#[tokio::test]
async fn memory_store_keeps_the_contract() {
    check_contract(&MemoryStore::default(), Effort::Thorough).await.unwrap();
}

#[tokio::test]
async fn directory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check_contract(&DirStore::open_writer(dir.path()).unwrap(), Effort::Thorough).await.unwrap();
}

#[tokio::test]
async fn directory_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::open_writer(dir.path()).unwrap();
    store.put_new("tile/entries/x001/000.p/7", "bytes".into()).await.unwrap();
    drop(store);
    let store = DirStore::open_writer(dir.path()).unwrap();
    assert_eq!(store.get("tile/entries/x001/000.p/7").await.unwrap(), Some("bytes".into()));
    assert_eq!(store.list("tile/").await.unwrap(), ["tile/entries/x001/000.p/7"]);
    assert!(dir.path().join("private/tmp").read_dir().unwrap().next().is_none(), "no temporary file is left");
}

#[tokio::test]
async fn directories_of_partial_tiles_go_with_the_last_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::open_writer(dir.path()).unwrap();
    let keys = ["tile/0/x001/000.p/1", "tile/0/x001/000.p/2"];
    for key in keys {
        store.put_new(key, "bytes".into()).await.unwrap();
    }
    let partials = dir.path().join("tile/0/x001/000.p");
    store.delete(keys[0]).await.unwrap();
    assert_eq!(store.get(keys[1]).await.unwrap(), Some("bytes".into()));
    store.delete(keys[1]).await.unwrap();
    assert!(!partials.exists());
    // Others stay, such as the one of staged rounds, which is used again at once.
    store.put("private/staging/1", "bytes".into()).await.unwrap();
    store.delete("private/staging/1").await.unwrap();
    assert!(dir.path().join("private/staging").exists() && partials.parent().unwrap().exists());
    assert_eq!(store.put_new(keys[0], "again".into()).await.unwrap(), PutNew::Created, "a directory that went comes again");
    assert_eq!(store.get(keys[0]).await.unwrap(), Some("again".into()));
}

#[tokio::test]
async fn failed_writes_leave_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::open_writer(dir.path()).unwrap();
    store.put("file", "x".into()).await.unwrap();
    // Below a file nothing can be created: neither the object nor the directory it would be in.
    for key in ["file/object", "file/directory/object"] {
        assert!(store.put(key, "y".into()).await.is_err(), "{key}");
        assert!(store.put_new(key, "y".into()).await.is_err(), "{key}");
    }
    assert!(dir.path().join("private/tmp").read_dir().unwrap().next().is_none(), "no temporary file is left");
}

#[tokio::test]
async fn directory_has_one_writer_and_any_number_of_readers() {
    let dir = tempfile::tempdir().unwrap();
    let writer = DirStore::open_writer(dir.path()).unwrap();
    let OpenDirError::Locked { path } = DirStore::open_writer(dir.path()).unwrap_err() else {
        panic!("the second writer is refused because of the first");
    };
    assert_eq!(path, dir.path().join("private/writer"));
    writer.put("checkpoint", "x".into()).await.unwrap();

    let reader = DirStore::open_reader(dir.path());
    assert_eq!(reader.get("checkpoint").await.unwrap(), Some("x".into()));
    assert!(reader.put("checkpoint", "y".into()).await.is_err());
    assert!(reader.put_new("tile/0/000", "y".into()).await.is_err());
    assert!(reader.delete("checkpoint").await.is_err());

    drop(writer);
    DirStore::open_writer(dir.path()).unwrap();
}

#[tokio::test]
async fn directory_never_leaves_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    let store = DirStore::open_writer(&root).unwrap();
    for key in ["../outside", "a/../../outside", "/outside", "a//b", "", "a/./b", "a\\b", "a\0b"] {
        assert!(store.get(key).await.is_err(), "{key}");
        assert!(store.put(key, "x".into()).await.is_err(), "{key}");
    }
    assert!(!dir.path().join("outside").exists());
}

#[cfg(unix)]
#[test]
fn private_directory_is_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let _store = DirStore::open_writer(dir.path()).unwrap();
    let mode = dir.path().join("private").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[cfg(unix)]
#[test]
fn key_file_is_private_and_keeps_its_origin() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    assert!(matches!(read_key_file(&path), Err(KeyFileError::Io { .. })));
    let created = create_key_file(&path, "log.example/a", &[1; 32]).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = create_key_file(&path, "log.example/a", &[2; 32]).unwrap();
    assert_eq!(again.verifier_key().to_string(), created.verifier_key().to_string(), "a key is never replaced");
    assert!(matches!(create_key_file(&path, "log.example/b", &[1; 32]), Err(KeyFileError::OtherOrigin { .. })));
    std::fs::write(&path, "PRIVATE+KEY+nonsense").unwrap();
    assert!(matches!(read_key_file(&path), Err(KeyFileError::Malformed { .. })));
}

#[test]
fn a_key_file_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prod.key");
    for beside in ["prod.new", "prod.key.new"] {
        std::fs::write(dir.path().join(beside), "another key").unwrap();
    }
    let Err(KeyFileError::InTheWay { path: found }) = create_key_file(&path, "log.example/a", &[1; 32]) else {
        panic!("what stands where the key is written first may be needed");
    };
    assert_eq!(found, dir.path().join("prod.key.new"));
    assert_eq!(std::fs::read_to_string(&found).unwrap(), "another key");
    assert!(!path.exists());
    std::fs::remove_file(found).unwrap();
    create_key_file(&path, "log.example/a", &[1; 32]).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("prod.new")).unwrap(), "another key");
    let mut left: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["prod.key", "prod.new"]);
}

/// A disk of 4 MiB, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory to mount on");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir.path()).output();
        match mount {
            Ok(mount) if mount.status.success() => Some(Self(dir)),
            _ => {
                eprintln!("skipped: no small disk can be mounted here, which takes root");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space that is left.
    fn fill(&self) -> PathBuf {
        let filler = self.path().join("filler");
        let mut file = std::fs::File::create(&filler).expect("an empty file");
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let root = disk.path().join("log");
    let store = DirStore::open_writer(&root).unwrap();
    store.put("checkpoint", "old".into()).await.unwrap();
    store.create("first".into()).await.unwrap();
    let locked = store.load().await.unwrap().unwrap();

    let filler = disk.fill();
    let big = bytes::Bytes::from(vec![7; 100_000]);
    for _ in 0..3 {
        store.put_new("tile/entries/000", big.clone()).await.unwrap_err();
        store.put("checkpoint", big.clone()).await.unwrap_err();
        assert!(matches!(store.swap(&locked.token, big.clone()).await, Swap::Unknown(_)));
    }
    assert_eq!(store.get("tile/entries/000").await.unwrap(), None, "nothing half written is in place");
    assert_eq!(store.get("checkpoint").await.unwrap(), Some("old".into()));
    assert!(root.join("private/tmp").read_dir().unwrap().next().is_none(), "no temporary file is left");

    std::fs::remove_file(filler).unwrap();
    let locked = store.load().await.unwrap().unwrap();
    assert_eq!(locked.bytes, "first");
    assert_eq!(store.put_new("tile/entries/000", big.clone()).await.unwrap(), PutNew::Created);
    assert_eq!(store.get("tile/entries/000").await.unwrap(), Some(big));
}

#[tokio::test]
async fn a_full_disk_leaves_the_index_as_it_was() {
    let Some(disk) = SmallDisk::mount() else { return };
    let leaves = |range: std::ops::Range<u64>| range.map(|n| leaf_hash(&n.to_be_bytes())).collect::<Vec<Hash>>();
    let index = DiskIndex::open(disk.path().join("index")).unwrap();
    index.extend(0, leaves(0..1000)).await.unwrap();
    let filler = disk.fill();
    for _ in 0..3 {
        index.extend(1000, leaves(1000..20_000)).await.unwrap_err();
        assert_eq!(index.indexed().await.unwrap(), 1000);
    }
    let found = index.positions(leaves(0..1001)).await.unwrap();
    assert!((0..1000).zip(&found).all(|(n, at)| *at == Some(n)) && found[1000].is_none());

    std::fs::remove_file(filler).unwrap();
    index.extend(1000, leaves(1000..20_000)).await.unwrap();
    assert!((0..).zip(index.positions(leaves(0..20_000)).await.unwrap()).all(|(n, at)| at == Some(n)));
}

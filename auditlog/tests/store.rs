//! One contract, every store.

mod support;

use fanlight_auditlog::store::dir::OpenDirError;
use fanlight_auditlog::{DirStore, ObjectStore as _, TileSource as _};
use support::{MemoryStore, check_contract};

#[tokio::test]
async fn memory_store_keeps_the_contract() {
    check_contract(&MemoryStore::default()).await;
}

#[tokio::test]
async fn directory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check_contract(&DirStore::open_writer(dir.path()).unwrap()).await;
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

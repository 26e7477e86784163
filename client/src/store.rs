//! Receipts on disk: one bundle per file, replaced atomically, readable by their owner alone.
//!
//! ```text
//! STATE/policy                    the policy in use; `fanlight-verify receipt` finds it at ../policy
//! STATE/receipts/<receipt_id>.json
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fanlight_protocol::RequestId;
use fanlight_protocol::bundle::{MAX_BUNDLE_LEN, ReceiptBundle};

/// The receipts of one state directory. Calls block on the disk; several processes may share a directory.
#[derive(Debug)]
pub struct ReceiptStore {
    receipts: PathBuf,
    // Tells apart temporary files of one process.
    next_temporary: AtomicU64,
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file is not a receipt bundle, or is not the one its name says.
    #[error("stored receipt {0} is damaged")]
    Damaged(RequestId),
    /// The disk said no.
    #[error("state directory cannot be used")]
    Io(#[from] io::Error),
}

impl ReceiptStore {
    /// The store of a state directory, to read from; nothing is touched yet.
    pub fn at(state: &Path) -> Self {
        Self { receipts: state.join("receipts"), next_temporary: AtomicU64::new(0) }
    }

    /// Opens or makes the state directory, and writes down the policy that receipts in it were checked under.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory cannot be made or written.
    pub fn open(state: &Path, policy: &[u8]) -> Result<Self, StoreError> {
        let store = Self::at(state);
        create_private_dir(&store.receipts)?;
        // Written even when it is the same: a directory that cannot be written is found now, not after an answer.
        store.write(&state.join("policy"), policy)?;
        Ok(store)
    }

    /// Writes a bundle, replacing an earlier one of the same id. It is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save(&self, bundle: &ReceiptBundle) -> Result<(), StoreError> {
        let json = serde_json::to_vec(bundle).map_err(io::Error::from)?;
        self.write(&self.path(bundle.receipt_id), &json)?;
        Ok(())
    }

    /// Reads a bundle; `None` when there is none of that id.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn load(&self, id: RequestId) -> Result<Option<ReceiptBundle>, StoreError> {
        let file = match File::open(self.path(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut json = Vec::new();
        file.take(MAX_BUNDLE_LEN as u64 + 1).read_to_end(&mut json)?;
        if json.len() > MAX_BUNDLE_LEN {
            return Err(StoreError::Damaged(id));
        }
        let bundle: ReceiptBundle = serde_json::from_slice(&json).map_err(|_| StoreError::Damaged(id))?;
        if bundle.receipt_id == id { Ok(Some(bundle)) } else { Err(StoreError::Damaged(id)) }
    }

    /// The ids of all stored receipts, newest file first; none where there is no store.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn ids(&self) -> Result<Vec<RequestId>, StoreError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.receipts) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|id| id.parse().ok());
            if let Some(id) = id {
                found.push((entry.metadata()?.modified()?, id));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// Where the bundle of `id` is, or would be.
    pub fn path(&self, id: RequestId) -> PathBuf {
        self.receipts.join(format!("{id}.json"))
    }

    /// Temporary file, fsync, rename, fsync of the directory: a crash leaves the old bytes or the new ones.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let n = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{n}.tmp", std::process::id()));
        let written = create_private(&temporary)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // Best effort; the error that matters is the first.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

#[cfg(unix)]
fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(test)]
mod tests {
    use fanlight_protocol::bundle::BundleFormat;

    use super::*;

    fn bundle(id: u8) -> ReceiptBundle {
        ReceiptBundle {
            format: BundleFormat::V1,
            receipt_id: RequestId([id; 16]),
            receipt: vec![1],
            details: vec![2],
            blind: vec![3; 32],
            key_statement: vec![4],
            key_statement_proof: "p".to_owned(),
            evidence: vec![5],
            evidence_proof: "q".to_owned(),
            logged: false,
            tlog_proof: None,
        }
    }

    #[test]
    fn bundles_read_back_and_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = ReceiptStore::open(dir.path(), b"policy").unwrap();
        assert_eq!(store.load(RequestId([1; 16])).unwrap(), None);
        store.save(&bundle(1)).unwrap();
        let logged = ReceiptBundle { logged: true, tlog_proof: Some("proof".to_owned()), ..bundle(1) };
        store.save(&logged).unwrap();
        store.save(&bundle(2)).unwrap();
        assert_eq!(store.load(RequestId([1; 16])).unwrap(), Some(logged));
        let mut ids = store.ids().unwrap();
        ids.sort_unstable();
        assert_eq!(ids, [RequestId([1; 16]), RequestId([2; 16])]);
        // No temporary file stays behind, and the policy lies where the verifier looks.
        assert_eq!(fs::read_dir(dir.path().join("receipts")).unwrap().count(), 2);
        assert_eq!(fs::read(dir.path().join("policy")).unwrap(), b"policy");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_receipts() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = ReceiptStore::open(&dir.path().join("state"), b"").unwrap();
        store.save(&bundle(1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.path(RequestId([1; 16]))), 0o600);
        assert_eq!(mode(&dir.path().join("state")), 0o700);
    }

    #[test]
    fn damage_is_reported_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = ReceiptStore::open(dir.path(), b"").unwrap();
        let id = RequestId([7; 16]);
        fs::write(store.path(id), b"{").unwrap();
        assert!(matches!(store.load(id), Err(StoreError::Damaged(damaged)) if damaged == id));
        // A bundle under another's name would answer for the wrong exchange.
        fs::write(store.path(id), serde_json::to_vec(&bundle(1)).unwrap()).unwrap();
        assert!(matches!(store.load(id), Err(StoreError::Damaged(_))));
        fs::write(store.path(id), vec![b' '; MAX_BUNDLE_LEN + 1]).unwrap();
        assert!(matches!(store.load(id), Err(StoreError::Damaged(_))));
        fs::write(dir.path().join("receipts/notes.txt"), b"mine").unwrap();
        assert_eq!(store.ids().unwrap(), [id]);
    }
}

//! The private keys of a witness: one file, one key on a line.
//!
//! They lie beside what the witness remembers, so that neither is lost without the other: a key that signs without its
//! memory signs forks.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fanlight_auditlog::CosignerKey;
use zeroize::Zeroizing;

/// Bytes of the longest file: a few keys under a name of 255 bytes, 64 bytes of base64 each.
const MAX_LEN: u64 = 4096;

/// Where the keys of the witness in `data` lie.
pub(super) fn path(data: &Path) -> PathBuf {
    data.join("private/witness-keys")
}

pub(super) fn exist(data: &Path) -> bool {
    path(data).exists()
}

pub(super) fn read(data: &Path) -> anyhow::Result<Vec<CosignerKey>> {
    let path = path(data);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("no witness in {0}; `fanlight-verify witness init --data {0} --name NAME` makes a new one", data.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_LEN).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    let keys: Result<Vec<_>, _> = text.lines().map(CosignerKey::parse_private_key).collect();
    let keys = keys.with_context(|| format!("{} holds something else than keys of a witness", path.display()))?;
    if keys.is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(keys)
}

/// Writes the keys under a temporary name and links them into place: no crash leaves half a file, and nothing is
/// ever replaced.
pub(super) fn write(data: &Path, keys: &[CosignerKey]) -> anyhow::Result<()> {
    let path = path(data);
    let tmp = path.with_extension("new");
    let write = || {
        match fs::remove_file(&tmp) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&tmp)?;
        for key in keys {
            writeln!(file, "{}", *key.write_private_key())?;
        }
        file.sync_all()?;
        fs::hard_link(&tmp, &path)?;
        fs::remove_file(&tmp)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

//! Evidence of a failed check: one JSON file that a third party can check without the log, and without us.
//!
//! ```text
//! {"format": "fanlight.evidence.v1", "finding", "error", "time", "log", "origin", "log_keys": [vkey],
//!  "checkpoints": [{"role", "note"}], "consistency_proof": {"old_size", "old_root", "hashes": [base64]},
//!  "objects": [{"path", "problem", "expected", "got", "bytes", "length"}], "recipe"}
//! ```
//! Two checkpoints that the log signed are the whole proof of a fork or a rollback: each note is kept byte for byte.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanlight_auditlog::{Hash, Policy, leaf_hash};
use fanlight_protocol::UnixTime;
use serde_json::{Value, json};

use crate::text;

/// Bytes of an object that are kept; the longest entry fits.
const MAX_OBJECT_LEN: usize = 64 * 1024;

/// Objects that are kept.
const MAX_OBJECTS: usize = 100;

/// What a check found, with all that it takes to check it again.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    finding: &'static str,
    log: String,
    origin: Option<String>,
    tree_size: u64,
    log_keys: Vec<String>,
    checkpoints: Vec<Value>,
    consistency_proof: Option<Value>,
    objects: Vec<Value>,
}

impl Evidence {
    /// `finding` is a constant like `fork`; `log` is where it was found, as typed.
    pub(crate) fn new(finding: &'static str, log: &str) -> Self {
        Self {
            finding,
            log: log.to_owned(),
            origin: None,
            tree_size: 0,
            log_keys: Vec::new(),
            checkpoints: Vec::new(),
            consistency_proof: None,
            objects: Vec::new(),
        }
    }

    /// The log's name and the size that the file is named after.
    pub(crate) fn of_log(mut self, origin: &str, tree_size: u64) -> Self {
        (self.origin, self.tree_size) = (Some(origin.to_owned()), tree_size);
        self
    }

    /// The log keys with which the notes are checked.
    pub(crate) fn keys(mut self, policy: &Policy) -> Self {
        self.log_keys = policy.log_keys().map(ToString::to_string).collect();
        self
    }

    /// A checkpoint, verbatim; `role` says which, like `seen before` or `published now`.
    pub(crate) fn checkpoint(mut self, role: &str, note: &[u8]) -> Self {
        // What is no text cannot have been signed; it is kept all the same.
        let note = match std::str::from_utf8(note) {
            Ok(note) => json!({ "role": role, "note": note }),
            Err(_) => json!({ "role": role, "bytes": STANDARD.encode(cut(note)), "length": note.len() }),
        };
        self.checkpoints.push(note);
        self
    }

    /// The proof from the tree of `old_size` entries with `old_root` to the newest checkpoint. A log that signed
    /// another root for that size forked, whatever it shows from here on.
    pub(crate) fn consistency_proof(mut self, old_size: u64, old_root: Hash, proof: &[Hash]) -> Self {
        let hashes: Vec<String> = proof.iter().map(ToString::to_string).collect();
        self.consistency_proof = Some(json!({ "old_size": old_size, "old_root": old_root.to_string(), "hashes": hashes }));
        self
    }

    /// An object that is not what it should be: its path, the problem, the hashes, its first bytes as they came.
    pub(crate) fn object(mut self, path: &str, problem: &str, hashes: Option<(Hash, Hash)>, bytes: Option<&[u8]>) -> Self {
        if self.objects.len() < MAX_OBJECTS {
            let (expected, got) = hashes.map(|(expected, got)| (expected.to_string(), got.to_string())).unzip();
            self.objects.push(json!({
                "path": path, "problem": problem, "expected": expected, "got": got,
                "bytes": bytes.map(|bytes| STANDARD.encode(cut(bytes))), "length": bytes.map(<[u8]>::len),
            }));
        }
        self
    }

    /// Writes the file and returns its path: `path` itself, or a name of its own if that is a directory.
    ///
    /// The name is of the log, the size and a digest of the finding: the same evidence is written once only, and no
    /// other evidence is ever replaced.
    pub(crate) fn write(&self, path: &Path, error: &str, now: UnixTime) -> io::Result<PathBuf> {
        let mut value = json!({
            "format": "fanlight.evidence.v1", "finding": self.finding, "error": error, "log": self.log,
            "origin": self.origin, "tree_size": self.tree_size, "log_keys": self.log_keys,
            "checkpoints": self.checkpoints, "consistency_proof": self.consistency_proof,
            "objects": self.objects, "recipe": recipe(self.finding),
        });
        let digest = leaf_hash(value.to_string().as_bytes()).to_hex();
        let (digest, _) = digest.split_at(8);
        value["time"] = text::time(now).into();
        let path = if path.is_dir() {
            let origin = self.origin.as_deref().map_or_else(|| "unknown".to_owned(), sanitised);
            let name = format!("fanlight-evidence-{origin}-{}-{digest}.json", self.tree_size);
            // `./name` reads no better than `name`.
            if path == Path::new(".") { name.into() } else { path.join(name) }
        } else {
            path.to_owned()
        };
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                writeln!(file, "{value:#}")?;
                file.sync_all()?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.to_string_lossy().contains(digest) => {}
            Err(error) => return Err(error),
        }
        Ok(path)
    }
}

/// How somebody else checks the file.
fn recipe(finding: &str) -> &'static str {
    match finding {
        "fork" => {
            "Both checkpoints' notes verify under the log's key. With equal sizes and different roots they prove the \
             fork by themselves. Otherwise the consistency proof (RFC 9162, section 2.1.4.2) leads from old_size and \
             old_root to the larger checkpoint, and the log signed another root than old_root for old_size."
        }
        "rollback" => {
            "Both checkpoints' notes verify under the log's key, and the one published later has the smaller size: the \
             log took entries back, or shows different people different logs."
        }
        _ => {
            "The checkpoint's note verifies under the log's key. Each object, fetched by its path below the log's \
             prefix, gives the hash under `got` in place of the one under `expected` (RFC 6962 hashes, C2SP tlog-tiles)."
        }
    }
}

fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_OBJECT_LEN).unwrap_or(bytes)
}

/// An origin as part of a file name.
fn sanitised(origin: &str) -> String {
    const MAX_LEN: usize = 64;
    origin.chars().take(MAX_LEN).map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn the_same_evidence_is_one_file_and_nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = || Evidence::new("fork", "http://x").of_log("log.example/../a b", 7).checkpoint("now", b"note\n");
        let path = evidence().write(dir.path(), "it forked", NOW).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("fanlight-evidence-log.example-..-a-b-7-"), "{name}");
        assert_eq!(path.extension().unwrap(), "json");
        let later = UnixTime::from_secs(1_800_000_001);
        assert_eq!(evidence().write(dir.path(), "it forked", later).unwrap(), path);
        assert_ne!(evidence().checkpoint("before", b"other\n").write(dir.path(), "it forked", NOW).unwrap(), path);
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((&value["time"], &value["checkpoints"][0]["note"]), (&"2027-01-15T08:00:00Z".into(), &"note\n".into()));
        let file = dir.path().join("mine.json");
        std::fs::write(&file, "before").unwrap();
        assert_eq!(evidence().write(&file, "it forked", NOW).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn objects_are_bounded() {
        let bytes = vec![7; MAX_OBJECT_LEN + 1];
        let mut evidence = Evidence::new("damage", "d");
        for _ in 0..=MAX_OBJECTS {
            evidence = evidence.object("tile/0/000", "longer", None, Some(&bytes));
        }
        assert_eq!(evidence.objects.len(), MAX_OBJECTS);
        assert_eq!(evidence.objects[0]["length"], MAX_OBJECT_LEN + 1);
        assert_eq!(evidence.objects[0]["bytes"].as_str().unwrap().len(), STANDARD.encode(&bytes[1..]).len());
    }
}

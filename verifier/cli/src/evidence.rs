//! Evidence of a failed check: one JSON file that a third party can check without the log, and without us.
//!
//! ```text
//! {"format": "fanlight.evidence.v1", "finding", "error", "time", "log", "origin", "log_keys": [vkey],
//!  "checkpoints": [{"role", "note"}], "consistency_proof": {"old_size", "old_root", "hashes": [base64]},
//!  "objects": [{"path", "problem", "expected", "got", "bytes", "length"}], "recipe"}
//! ```
//! Two checkpoints that the log signed prove a fork, with the consistency proof where their sizes differ; so each note is
//! kept byte for byte. A `rollback` is an observation, which they do not prove.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanlight_auditlog::{Hash, Policy, leaf_hash};
use fanlight_protocol::UnixTime;
use serde_json::{Value, json};

use crate::durable::{self, Readers};
use crate::text;

/// Bytes of an object that are kept; the longest entry fits.
const MAX_OBJECT_LEN: usize = 64 * 1024;

/// Objects that are kept.
const MAX_OBJECTS: usize = 100;

/// Digits of the digest in a file's name: as many as usual, and all of them where another file has that name.
const DIGEST_LENS: [usize; 2] = [8, 64];

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

    /// The proof from the tree of `old_size` entries with `old_root` to the larger checkpoint. A log that signed another
    /// root for that size forked, whatever it shows from here on.
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
    /// The name is of the log, the size and a digest of the finding. The same evidence is written once only, and no
    /// other file is ever replaced. What is there counts as the same only if it is whole.
    pub(crate) fn write(&self, path: &Path, error: &str, now: UnixTime) -> io::Result<PathBuf> {
        let (names, value) = self.named(error, now);
        if !path.is_dir() {
            write_once(path, &value)?;
            return Ok(path.to_owned());
        }
        let mut taken = ErrorKind::AlreadyExists.into();
        for name in names {
            // `./name` reads no better than `name`.
            let path = if path == Path::new(".") { name.into() } else { path.join(name) };
            match write_once(&path, &value) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = error,
                Err(error) => return Err(error),
            }
        }
        Err(taken)
    }

    /// What was found, as in [`Self::new`].
    pub(crate) fn finding(&self) -> &'static str {
        self.finding
    }

    /// Whether this evidence lies in a directory already, whenever it was found.
    pub(crate) fn is_in(&self, directory: &Path, error: &str, now: UnixTime) -> bool {
        let (names, value) = self.named(error, now);
        let len = format!("{value:#}\n").len();
        names.iter().any(|name| is_same(&directory.join(name), &value, len).unwrap_or(false))
    }

    /// The content of the file and, best first, the names it may have in a directory.
    fn named(&self, error: &str, now: UnixTime) -> (Vec<String>, Value) {
        let mut value = json!({
            "format": "fanlight.evidence.v1", "finding": self.finding, "error": error, "log": self.log,
            "origin": self.origin, "tree_size": self.tree_size, "log_keys": self.log_keys,
            "checkpoints": self.checkpoints, "consistency_proof": self.consistency_proof,
            "objects": self.objects, "recipe": recipe(self.finding),
        });
        let digest = leaf_hash(value.to_string().as_bytes()).to_hex();
        value["time"] = text::time(now).into();
        let origin = self.origin.as_deref().map_or_else(|| "unknown".to_owned(), sanitised);
        let digests = DIGEST_LENS.iter().filter_map(|len| digest.get(..*len));
        let names = digests.map(|digest| format!("fanlight-evidence-{origin}-{}-{digest}.json", self.tree_size));
        (names.collect(), value)
    }
}

/// Writes evidence unless it is there, whenever it was found. Fails with [`ErrorKind::AlreadyExists`] if something else is.
fn write_once(path: &Path, value: &Value) -> io::Result<()> {
    let text = format!("{value:#}\n");
    match durable::create(path, text.as_bytes(), Readers::Any) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_same(path, value, text.len())? => {
            durable::sync_directory_of(path)
        }
        done => done,
    }
}

/// Whether a file holds this evidence, but for its time. Times are of one length, and so is the file.
fn is_same(path: &Path, value: &Value, len: usize) -> io::Result<bool> {
    let mut bytes = Vec::with_capacity(len);
    File::open(path)?.take(len as u64 + 1).read_to_end(&mut bytes)?;
    let Ok(mut there) = serde_json::from_slice::<Value>(&bytes) else { return Ok(false) };
    if let Some(time) = there.get_mut("time") {
        time.clone_from(&value["time"]);
    }
    Ok(there == *value)
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
            "Both checkpoints' notes verify under the log's key, and the one that was seen later has the smaller size. That \
             proves nothing against the log: a cache or a copy can be old, and whoever serves this log can replay one of its \
             own checkpoints. Ask the log itself: one that goes on showing fewer entries than it signed took them back, or \
             shows different people different logs. Keep the larger checkpoint, to hold it against whatever comes."
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
        assert_eq!(std::fs::read(&file).unwrap(), b"before");
    }

    #[test]
    fn a_torn_file_is_no_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = || Evidence::new("fork", "log").of_log("log.example", 7).checkpoint("now", b"note\n");
        let path = evidence().write(dir.path(), "it forked", NOW).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 1, whole.len() / 2, whole.len() - 3] {
            std::fs::write(&path, &whole[..len]).unwrap();
            let other = evidence().write(dir.path(), "it forked", NOW).unwrap();
            assert_ne!(other, path);
            assert_eq!(std::fs::read(&other).unwrap(), whole, "{len} bytes");
            assert_eq!(std::fs::read(&path).unwrap(), whole[..len], "nothing is replaced");
            std::fs::remove_file(other).unwrap();
        }
        // Other evidence under the same name.
        std::fs::write(&path, String::from_utf8(whole).unwrap().replace("note", "nota")).unwrap();
        assert_ne!(evidence().write(dir.path(), "it forked", NOW).unwrap(), path);
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

//! Files from the command line, and where the policy comes from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use fanlight_auditlog::policy::MAX_POLICY_LEN;
use fanlight_auditlog::{Policy, VerifierKey};

/// Names the policy file where the command line does not.
const POLICY_VAR: &str = "FANLIGHT_POLICY";

/// What makes a checkpoint trustworthy: one log key, or a policy.
#[derive(Args, Debug)]
pub(crate) struct LogKeyArgs {
    /// The log's verifier key, as `fanlight-log init` prints it
    #[arg(long, value_name = "VKEY", conflicts_with = "policy")]
    log_key: Option<VerifierKey>,
    /// File that says which logs and witnesses you trust (C2SP tlog-policy), in place of a key; else `$FANLIGHT_POLICY`
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl LogKeyArgs {
    /// The policy that the command line or the environment names, or the one that trusts the key and asks for no witness.
    pub(crate) fn policy(&self) -> anyhow::Result<Policy> {
        match (&self.log_key, named(self.policy.as_deref())) {
            (Some(log_key), _) => Ok(Policy::for_log(log_key.clone())),
            (None, Some(path)) => read(&path),
            (None, None) => bail!("no key to check the log with: give --log-key VKEY, --policy FILE or set {POLICY_VAR}"),
        }
    }
}

/// Reads a file of at most `max_len` bytes.
pub(crate) fn read_bounded(path: &Path, max_len: usize) -> anyhow::Result<Vec<u8>> {
    let what = || format!("{} was not read", path.display());
    let mut bytes = Vec::new();
    let limit = u64::try_from(max_len).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).with_context(what)?.take(limit).read_to_end(&mut bytes).with_context(what)?;
    if bytes.len() > max_len {
        bail!("{} is longer than {max_len} bytes", path.display());
    }
    Ok(bytes)
}

/// Reads a policy file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Policy> {
    let text = read_bounded(path, MAX_POLICY_LEN)?;
    Policy::parse(&text).with_context(|| format!("{} is not a tlog-policy", path.display()))
}

/// The policy file that the command line or the environment names.
pub(crate) fn named(option: Option<&Path>) -> Option<PathBuf> {
    option.map(Path::to_owned).or_else(|| std::env::var_os(POLICY_VAR).filter(|name| !name.is_empty()).map(PathBuf::from))
}

/// The policy for a bundle: named, or beside it where a client keeps `policy` and `receipts/`.
pub(crate) fn for_bundle(option: Option<&Path>, bundle: &Path) -> anyhow::Result<Policy> {
    if let Some(path) = named(option) {
        return read(&path);
    }
    let directory = bundle.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let path = directory.join("../policy");
    if !path.exists() {
        bail!(
            "no policy: give --policy FILE or set {POLICY_VAR} (looked for {}). It says which log and witnesses you \
             trust; a bundle cannot say that about itself, since whoever forges one would name a log of their own",
            path.display()
        );
    }
    read(&path)
}

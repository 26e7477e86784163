//! The command line, exactly as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use fanlight_auditlog::VerifierKey;
use fanlight_protocol::ProviderId;

/// Check a Fanlight log, and what providers signed, without trusting whoever serves it.
///
/// Exit status: 0 good, 1 checked and bad, 2 could not check.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Print the result as one JSON object
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that a log only grew since an older checkpoint
    Consistency(ConsistencyArgs),
    /// Recompute every tile of a log from its entries
    Fsck(FsckArgs),
    /// Check offline that an entry is in a log
    Proof(ProofArgs),
    /// Check everything that a log says of one provider
    Provider(ProviderArgs),
    /// Check offline what a receipt bundle proves
    Receipt(ReceiptArgs),
}

impl Command {
    /// The name on the command line.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Consistency(_) => "consistency",
            Self::Fsck(_) => "fsck",
            Self::Proof(_) => "proof",
            Self::Provider(_) => "provider",
            Self::Receipt(_) => "receipt",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct ConsistencyArgs {
    /// File with a checkpoint that was seen before
    pub(crate) old_checkpoint: PathBuf,
    /// Directory of the log, or its http(s) URL prefix
    #[arg(value_name = "STORE-OR-URL")]
    pub(crate) log: String,
    /// The log's verifier key, as `fanlight-log init` prints it
    #[arg(long, value_name = "VKEY")]
    pub(crate) log_key: VerifierKey,
}

#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// Directory of the log, or its http(s) URL prefix
    #[arg(value_name = "STORE-OR-URL")]
    pub(crate) log: String,
    /// The log's verifier key, as `fanlight-log init` prints it
    #[arg(long, value_name = "VKEY")]
    pub(crate) log_key: VerifierKey,
}

#[derive(Args, Debug)]
pub(crate) struct ProofArgs {
    /// File with the tlog proof
    pub(crate) file: PathBuf,
    /// File with the entry, byte for byte as it was logged
    #[arg(long, value_name = "FILE")]
    pub(crate) entry: PathBuf,
    /// File that says which logs and witnesses you trust (C2SP tlog-policy)
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ProviderArgs {
    /// Provider id, 64 hexadecimal digits
    #[arg(value_name = "ID")]
    pub(crate) provider_id: ProviderId,
    /// Directory of the log, or its http(s) URL prefix
    #[arg(long, value_name = "STORE-OR-URL")]
    pub(crate) log: String,
    /// File that says which logs and witnesses you trust; `$FANLIGHT_POLICY` if neither this nor --log-key is given
    #[arg(long, value_name = "FILE", conflicts_with = "log_key")]
    pub(crate) policy: Option<PathBuf>,
    /// The log's verifier key, in place of a policy
    #[arg(long, value_name = "VKEY")]
    pub(crate) log_key: Option<VerifierKey>,
}

#[derive(Args, Debug)]
pub(crate) struct ReceiptArgs {
    /// Receipt bundle, JSON
    pub(crate) file: PathBuf,
    /// File that says which logs and witnesses you trust; else `$FANLIGHT_POLICY`, else `../policy` beside FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

//! The command line, exactly as typed. Each command's arguments stand beside it in [`commands`](crate::commands).

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::consistency::ConsistencyArgs;
use crate::commands::fsck::FsckArgs;
use crate::commands::mirror::MirrorArgs;
use crate::commands::monitor::MonitorArgs;
use crate::commands::proof::ProofArgs;
use crate::commands::provider::ProviderArgs;
use crate::commands::receipt::ReceiptArgs;
use crate::commands::witness::WitnessArgs;

/// Check a Fanlight log, and what providers signed, without trusting whoever serves it.
///
/// Exit status: 0 good, 1 checked and bad, 2 could not check.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Print the result as one JSON object
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where to write the evidence of a failed check: a directory, or a new file
    #[arg(long, global = true, value_name = "PATH", default_value = ".")]
    pub(crate) evidence: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that a log only grew since an older checkpoint
    Consistency(ConsistencyArgs),
    /// Recompute every tile of a log from its entries
    Fsck(FsckArgs),
    /// Copy a log to another store, every byte checked before it is written
    Mirror(MirrorArgs),
    // Its help stands at its arguments.
    Monitor(Box<MonitorArgs>),
    /// Check offline that an entry is in a log
    Proof(ProofArgs),
    /// Check everything that a log says of one provider
    Provider(ProviderArgs),
    /// Check offline what a receipt bundle proves
    Receipt(ReceiptArgs),
    /// Cosign the checkpoints of logs, for others to rely on (C2SP tlog-witness)
    Witness(WitnessArgs),
}

impl Command {
    /// The name on the command line.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Consistency(_) => "consistency",
            Self::Fsck(_) => "fsck",
            Self::Mirror(_) => "mirror",
            Self::Monitor(_) => "monitor",
            Self::Proof(_) => "proof",
            Self::Provider(_) => "provider",
            Self::Receipt(_) => "receipt",
            Self::Witness(_) => "witness",
        }
    }
}

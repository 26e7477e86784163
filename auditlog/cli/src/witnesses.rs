//! The witnesses that a log's operator chose.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::ValueEnum;
use fanlight_auditlog::witness::{HttpPost, Mode, Settings, Witnesses};
use fanlight_auditlog::{Policy, TokioTimer, VerifierKey};

/// The witnesses of a log, asked over HTTP.
pub(crate) type LogWitnesses = Witnesses<HttpPost, TokioTimer>;

/// Who cosigns.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "what is written on the command line")]
pub(crate) struct WitnessArgs {
    /// Policy (C2SP tlog-policy) whose witnesses cosign each checkpoint before it is published. Each witness line needs the
    /// URL that checkpoints are sent to. Give every writer of a log the same one.
    #[arg(long, value_name = "FILE")]
    witness_policy: Option<PathBuf>,
    /// What happens when the policy's quorum does not cosign: publish nothing until it does, or publish all the same and
    /// count that in the metrics.
    #[arg(long, value_name = "MODE", value_enum, default_value_t = WitnessMode::Required, requires = "witness_policy")]
    witness_mode: WitnessMode,
    /// Longest time to wait for the witnesses of a checkpoint; once more for those that did not answer lately, where it
    /// cannot do without them.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, requires = "witness_policy")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=30_000))]
    witness_timeout: u64,
    /// Time after which a log that does not grow has its cosignatures renewed.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "witness_policy")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    witness_refresh: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WitnessMode {
    Required,
    FailOpen,
}

impl WitnessArgs {
    /// The witnesses of the policy, if there is one, for the log of this key.
    pub(crate) fn open(&self, log_key: &VerifierKey) -> anyhow::Result<Option<LogWitnesses>> {
        let Some(path) = &self.witness_policy else { return Ok(None) };
        let policy = fs::read(path).with_context(|| format!("cannot read the policy {}", path.display()))?;
        let policy = Policy::parse(&policy).with_context(|| format!("cannot use the policy {}", path.display()))?;
        let mode = match self.witness_mode {
            WitnessMode::Required => Mode::Required,
            WitnessMode::FailOpen => Mode::FailOpen,
        };
        let settings = Settings {
            mode,
            timeout: Duration::from_millis(self.witness_timeout),
            refresh_period: Duration::from_secs(self.witness_refresh),
            ..Settings::default()
        };
        let post = HttpPost::new().context("cannot set up HTTP")?;
        let witnesses = Witnesses::new(policy, log_key, settings, post, TokioTimer::new(), unix_seconds);
        Ok(Some(witnesses.with_context(|| format!("cannot use the policy {}", path.display()))?))
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

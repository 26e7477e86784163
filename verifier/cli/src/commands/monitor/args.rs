//! The command line of `monitor`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use fanlight_verifier::monitor::AlertName;

use crate::policy::LogKeyArgs;
use crate::source::StoreArgs;

const LONG_HELP: &str = "\
Follow a log: check that it only grows, that every entry is what the checkpoint says, and that every provider keeps to its \
chain of receipts. Reads what is new since the last run, so it is cheap to run from cron.

The state directory holds the latest checkpoint seen, and is what makes a rewritten log visible: keep it, and keep it where \
the log's operator cannot write. Evidence goes into its `evidence` directory, by what was found, not where --evidence says: of a \
fork both signed checkpoints, and the proof that they contradict each other. Of forks all is kept, of everything else 256 files.

Works on any C2SP tlog-tiles log: entries that are not Fanlight's are hashed and counted, and nothing else is asked of them.

Exit status: 0 nothing is wrong, 1 an alert is open, 2 the log could not be read, or not everything could be checked. What \
is found is told even if it could not be saved. With --interval a look that fails is told, and the next one follows.

An older checkpoint than the one seen last is no alert by itself, since a cache may hold it or anybody replay it: the larger \
tree is then checked to go on from it, and the log has --max-merge-delay to show as much again. It is a fork where the trees \
contradict each other, and a rollback where the log no longer has what it takes to tell.

Age: a checkpoint carries no time, and a log that nobody writes to signs nothing new, so a log that does not grow is not \
stale. What a server says of its files is the word of whoever is watched. Only the cosignatures of witnesses say when a \
checkpoint was still the latest; --max-age holds the quorum to that. Without witnesses in the policy age is not known, and \
the output says so.

From cron, every five minutes, for the textfile collector of Prometheus' node_exporter:

  */5 * * * *  fanlight-verify monitor https://log.example/log --policy /etc/fanlight/policy \\
      --state /var/lib/fanlight-monitor --max-age 1h --textfile /var/lib/node_exporter/fanlight.prom >/dev/null

Alert rules for Prometheus:

  - alert: FanlightLogMisbehaved
    expr: sum by (log, alert) (fanlight_monitor_alerts{severity=\"critical\"}) > 0
  - alert: FanlightLogNeedsALook
    expr: sum by (log, alert) (fanlight_monitor_alerts{severity=\"warning\"}) > 0
    for: 15m
  - alert: FanlightMonitorIsBlind
    expr: time() - fanlight_monitor_last_success_timestamp_seconds > 3600 or absent(fanlight_monitor_up)

An alert that says what is so (a condition) closes when it is no longer so. One that says what was signed (an incident) stays \
until `--acknowledge ID`.";

/// Follow a log, and raise alerts
#[derive(Args, Debug)]
#[command(long_about = LONG_HELP, after_long_help = alert_table())]
pub(crate) struct MonitorArgs {
    /// Store of the log, a directory or `s3://bucket/prefix`, or its http(s) URL prefix
    #[arg(value_name = "STORE-OR-URL")]
    pub(crate) log: String,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
    #[command(flatten)]
    pub(crate) trust: LogKeyArgs,
    /// Directory that remembers what was seen, made if there is none
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Look once, which is the default
    #[arg(long, conflicts_with = "interval")]
    pub(crate) once: bool,
    /// Look again and again, this long apart, until interrupted; the exit status is that of the last look
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) interval: Option<Duration>,
    /// Oldest quorum of cosignatures that is no alert
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) max_age: Option<Duration>,
    /// How old the receipt after a gap must be before the gap is an alert: concurrent receipts are logged in any order
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "15m")]
    pub(crate) gap_grace: Duration,
    /// How long the log may take to show what it acknowledged or signed
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    pub(crate) max_merge_delay: Duration,
    /// What the log must hold: a receipt bundle (`.json`), a tlog proof (`.tlog-proof`, its entry beside it without that
    /// ending, if at hand), an entry that was handed in (`.entry`), or a directory of these; what is of another log that the
    /// policy names is passed over; again for more
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) expect: Vec<PathBuf>,
    /// Another view of the same log, a mirror or what another place sees of it; again for more
    #[arg(long, value_name = "STORE-OR-URL")]
    pub(crate) also: Vec<String>,
    /// Monitoring prefix of a witness (C2SP tlog-witness), to compare what it cosigned; again for more
    #[arg(long, value_name = "URL")]
    pub(crate) witness_url: Vec<String>,
    /// Write metrics for Prometheus' textfile collector
    #[arg(long, value_name = "FILE")]
    pub(crate) textfile: Option<PathBuf>,
    /// Close an incident, or silence a condition until it closes; again for more
    #[arg(long, value_name = "ID")]
    pub(crate) acknowledge: Vec<String>,
    /// Alerts that are listed but do not count, by name; again for more
    #[arg(long, value_name = "NAME", value_parser = alert_name)]
    pub(crate) ignore: Vec<AlertName>,
}

/// `90s`, `15m`, `24h`, `7d`.
fn duration(text: &str) -> Result<Duration, DurationError> {
    let unit = text.chars().next_back().ok_or(DurationError)?;
    let secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(DurationError),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = u64::from_str(number).ok().filter(|_| digits).ok_or(DurationError)?;
    number.checked_mul(secs).map(Duration::from_secs).ok_or(DurationError)
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("expected a whole number with a unit, like 90s, 15m, 24h or 7d")]
struct DurationError;

fn alert_name(text: &str) -> Result<AlertName, UnknownAlert> {
    AlertName::ALL.iter().copied().find(|name| name.as_str() == text).ok_or(UnknownAlert)
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no alert has this name; --help lists them")]
struct UnknownAlert;

fn alert_table() -> String {
    let mut table = "Alerts:\n".to_owned();
    for name in AlertName::ALL {
        let line = format!("  {:<29} {:<8} {}", name.as_str(), name.severity().as_str(), name.meaning());
        crate::text::push_line(&mut table, line);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, secs) in [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(secs), "{text}");
        }
        for bad in ["", "s", "90", "+9s", "-1s", "1.5h", "1w", " 1s", "99999999999999999999s", "9999999999999999d", "1µ"] {
            duration(bad).unwrap_err();
        }
    }

    #[test]
    fn alert_names_are_those_of_json() {
        for name in AlertName::ALL {
            assert_eq!(alert_name(name.as_str()).unwrap(), *name);
        }
        alert_name("").unwrap_err();
    }
}

//! Alerts: what is wrong with a log or a provider, since when, and whether it still is.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use fanlight_protocol::UnixTime;
use serde::{Deserialize, Serialize};

/// Alerts about providers and promises that are open at the same time, of each severity. More are counted, not kept: by
/// then the first thousand say enough. Alerts about the log itself are always kept, being no more than its views.
pub const MAX_OPEN: usize = 1_024;

/// Closed alerts that are remembered for who looks later.
pub const MAX_CLOSED: usize = 64;

/// Details kept of one alert.
pub(super) const MAX_DETAILS: usize = 8;

/// Evidence files named by one alert.
const MAX_EVIDENCE: usize = 8;

macro_rules! alert_names {
    ($($(#[$doc:meta])* $name:ident $text:literal $severity:ident $kind:ident $meaning:literal,)*) => {
        /// What an alert is about. The names are stable: rules outside depend on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum AlertName {
            $(#[doc = $meaning] $(#[$doc])* $name,)*
        }

        impl AlertName {
            /// Every name, in the order in which people should read them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in JSON, on the command line and in metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// Whether it closes by itself.
            pub const fn kind(self) -> AlertKind {
                match self { $(Self::$name => AlertKind::$kind,)* }
            }

            /// What it says, in plain words.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

alert_names! {
    SplitView "split_view" Critical Incident
        "the log signed two trees of which neither goes on from the other",
    Rollback "rollback" Critical Condition
        "the log shows fewer entries than it did before, and cannot show that it still has those",
    PromiseBroken "promise_broken" Critical Condition
        "an entry that somebody was promised is not in the log after the longest delay",
    CheckpointWithheld "checkpoint_withheld" Critical Condition
        "a checkpoint of a larger tree than the log shows is known, for longer than the longest delay",
    BadSignature "bad_signature" Critical Condition
        "the checkpoint is not one that the log and its witnesses signed",
    Damaged "damaged" Critical Condition
        "tiles or entries are missing, or are not what the checkpoint says",
    QuorumLost "quorum_lost" Warning Condition
        "fewer witnesses cosigned the checkpoint than the policy asks for",
    Stale "stale" Warning Condition
        "the witnesses' cosignatures are older than allowed",
    Unreadable "unreadable" Warning Condition
        "the log or another view of it could not be read",
    ClockWrong "clock_wrong" Warning Condition
        "this machine's clock went back, or is behind the clock of a witness",
    StateFull "state_full" Warning Incident
        "more was in the log than is remembered, so that not everything was judged",
    ReceiptFork "receipt_fork" Critical Incident
        "a provider signed two different receipts with one number",
    ReceiptGap "receipt_gap" Warning Condition
        "receipts of a provider are missing before later ones",
    ReceiptPrevious "receipt_previous_mismatch" Critical Condition
        "a receipt does not name the one before it",
    ReceiptNotEnrolled "receipt_not_enrolled" Warning Incident
        "a provider's receipt was logged before its evidence and key statements",
    ReceiptUnknownKey "receipt_unknown_key" Warning Condition
        "a receipt is by a key that was never logged",
    ReceiptOutsideValidity "receipt_outside_validity" Warning Incident
        "a receipt is under a key statement that was not in force, or was retired",
    ReceiptStatementNotLogged "receipt_statement_not_logged" Warning Incident
        "a receipt is under a key statement that was not logged before it",
    EvidenceNotLogged "evidence_not_logged" Warning Incident
        "a key statement rests on evidence that was not logged before it",
    EvidenceRefused "evidence_refused" Warning Incident
        "evidence in the log is worth nothing",
    EntryNeverLogged "entry_never_logged" Warning Incident
        "an entry is of a type that is never logged",
    EntryUnverifiable "entry_unverifiable" Warning Incident
        "an entry names a provider that did not sign it",
}

impl AlertName {
    /// Whether there can be one for each of many providers or promises.
    const fn is_of_many(self, subject: &str) -> bool {
        let of_the_log = matches!(
            self,
            Self::SplitView
                | Self::Rollback
                | Self::CheckpointWithheld
                | Self::BadSignature
                | Self::Damaged
                | Self::QuorumLost
                | Self::Stale
                | Self::Unreadable
                | Self::ClockWrong
        );
        !subject.is_empty() && !of_the_log
    }
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody should look at it today.
    Warning,
    /// The log or a provider broke its word, and there is evidence.
    Critical,
}

impl Severity {
    /// The word in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// When an alert closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertKind {
    /// When a later check finds that it is no longer so.
    Condition,
    /// When somebody acknowledges it: what was signed stays signed.
    Incident,
}

impl fmt::Display for AlertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong, as one check sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What it is about.
    pub name: AlertName,
    /// Whom it is about, if not the log as a whole: a provider id, or what the command line called it.
    pub subject: String,
    /// What exactly, for people. The same as long as nothing changes, so that what is acknowledged stays so.
    pub detail: String,
    /// Names of evidence files.
    pub evidence: Vec<String>,
}

impl Observation {
    /// An observation about the log as a whole, without evidence.
    pub fn of_log(name: AlertName, detail: impl Into<String>) -> Self {
        Self::of(name, "", detail)
    }

    /// An observation about a subject, without evidence.
    pub fn of(name: AlertName, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name, subject: subject.into(), detail: detail.into(), evidence: Vec::new() }
    }

    /// The same with the name of an evidence file.
    #[must_use]
    pub fn with_evidence(mut self, file: impl Into<String>) -> Self {
        self.evidence.push(file.into());
        self
    }
}

/// Everything alike that is wrong with one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What it is about.
    pub name: AlertName,
    /// Whom it is about; empty for the log as a whole.
    pub subject: String,
    /// When it was seen first.
    pub since: UnixTime,
    /// When it was seen last.
    pub last_seen: UnixTime,
    /// How many observations there were: of an incident each is another one, of a condition the same at another time.
    pub count: u64,
    /// The latest observations that differ.
    pub details: VecDeque<String>,
    /// Names of evidence files, the latest last.
    pub evidence: VecDeque<String>,
    /// When somebody said that it is known. It then no longer counts, until there is more of it.
    pub acknowledged: Option<UnixTime>,
    /// When it was found to be no longer so.
    pub closed: Option<UnixTime>,
}

impl Alert {
    /// `name`, or `name/subject`: names the alert on the command line.
    pub fn id(&self) -> String {
        id(self.name, &self.subject)
    }

    /// Whether it counts: nobody acknowledged it.
    pub const fn counts(&self) -> bool {
        self.acknowledged.is_none()
    }

    fn observe(&mut self, observation: Observation, now: UnixTime) {
        let Observation { detail, evidence, .. } = observation;
        self.last_seen = now;
        self.count = self.count.saturating_add(1);
        // There is more of it than what somebody said is known.
        if !self.details.contains(&detail) {
            self.acknowledged = None;
        }
        keep_latest(&mut self.details, detail, MAX_DETAILS);
        for file in evidence {
            keep_latest(&mut self.evidence, file, MAX_EVIDENCE);
        }
    }

    /// Forgets what is no longer so of a condition where else that which is so would not fit: what is known must not
    /// change places with it at every look.
    fn make_room(&mut self, details: &[&str]) {
        let n_new = details.iter().filter(|detail| !self.details.iter().any(|known| known == *detail)).count();
        if self.name.kind() == AlertKind::Condition && self.details.len() + n_new > MAX_DETAILS {
            self.details.retain(|known| details.contains(&known.as_str()));
        }
    }
}

fn id(name: AlertName, subject: &str) -> String {
    if subject.is_empty() { name.to_string() } else { format!("{name}/{subject}") }
}

fn keep_latest(texts: &mut VecDeque<String>, text: String, max: usize) {
    if texts.contains(&text) {
        return;
    }
    if texts.len() == max {
        texts.pop_front();
    }
    texts.push_back(text);
}

/// The alerts of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertBook {
    open: BTreeMap<String, Alert>,
    closed: VecDeque<Alert>,
    // Alerts that were not kept, since `MAX_OPEN` were open.
    dropped: u64,
}

impl AlertBook {
    /// The open ones, acknowledged or not, worst first.
    pub fn open(&self) -> Vec<&Alert> {
        let mut open: Vec<&Alert> = self.open.values().collect();
        open.sort_by_key(|alert| (std::cmp::Reverse(alert.name.severity()), alert.name));
        open
    }

    /// Those that closed, the latest last.
    pub fn closed(&self) -> impl Iterator<Item = &Alert> {
        self.closed.iter()
    }

    /// Whether an alert is open.
    pub fn is_open(&self, name: AlertName, subject: &str) -> bool {
        self.open.contains_key(&id(name, subject))
    }

    /// How many were not kept.
    pub const fn n_dropped(&self) -> u64 {
        self.dropped
    }

    /// Opens the alert, or adds to it.
    pub fn observe(&mut self, observation: Observation, now: UnixTime) {
        let key = id(observation.name, &observation.subject);
        if !self.open.contains_key(&key) && self.is_full_for(&observation) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let alert = self.open.entry(key).or_insert_with(|| Alert {
            name: observation.name,
            subject: observation.subject.clone(),
            since: now,
            last_seen: now,
            count: 0,
            details: VecDeque::new(),
            evidence: VecDeque::new(),
            acknowledged: None,
            closed: None,
        });
        alert.observe(observation, now);
    }

    /// Takes everything that one check saw. Conditions that it looked for and did not see are closed.
    pub fn settle(&mut self, observations: Vec<Observation>, looked_for: impl Fn(&Alert) -> bool, now: UnixTime) {
        let mut seen: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for observation in &observations {
            seen.entry(id(observation.name, &observation.subject)).or_default().push(&observation.detail);
        }
        let over = |key: &String, alert: &mut Alert| {
            alert.name.kind() == AlertKind::Condition && !seen.contains_key(key) && looked_for(alert)
        };
        // These first: they make room.
        let over: Vec<Alert> = self.open.extract_if(.., over).map(|(_, alert)| alert).collect();
        for alert in over {
            self.close(alert, now);
        }
        for (key, details) in &seen {
            if let Some(alert) = self.open.get_mut(key) {
                alert.make_room(details);
            }
        }
        for observation in observations {
            self.observe(observation, now);
        }
    }

    /// Whether there is no room for another alert like this one. Keys and entries cost nothing to make, so a crowd of
    /// those must keep out neither what is known of the log itself nor what is worse.
    fn is_full_for(&self, observation: &Observation) -> bool {
        if self.open.len() < MAX_OPEN || !observation.name.is_of_many(&observation.subject) {
            return false;
        }
        let severity = observation.name.severity();
        let like_it = |alert: &&Alert| alert.name.severity() == severity && alert.name.is_of_many(&alert.subject);
        self.open.values().filter(like_it).count() >= MAX_OPEN
    }

    /// Marks an alert as known; `false` when none with this id is open. An incident closes by it.
    pub fn acknowledge(&mut self, id: &str, now: UnixTime) -> bool {
        let Some(alert) = self.open.get_mut(id) else { return false };
        alert.acknowledged = Some(now);
        if alert.name.kind() == AlertKind::Incident
            && let Some(alert) = self.open.remove(id)
        {
            self.close(alert, now);
        }
        true
    }

    fn close(&mut self, mut alert: Alert, now: UnixTime) {
        alert.closed = Some(now);
        if self.closed.len() == MAX_CLOSED {
            self.closed.pop_front();
        }
        self.closed.push_back(alert);
    }
}

//! How old a checkpoint is, as far as anybody can know.
//!
//! A checkpoint carries no time, and an idle log signs nothing new: that it does not grow says nothing. What a server
//! says of its files is the word of whoever is watched. Only the witnesses' cosignatures carry a time that somebody
//! else vouches for.

use std::cmp::Reverse;

use fanlight_auditlog::note::Note;
use fanlight_auditlog::{Policy, VerifiedCheckpoint, VerifierKey};
use fanlight_protocol::UnixTime;
use fanlight_protocol::time::CLOCK_TOLERANCE_SECS;

/// What cosignatures say of the age of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The latest time by which the quorum had cosigned; of any trusted witness where the policy asks for no quorum.
    /// `None` when there is no such cosignature.
    pub vouched: Option<UnixTime>,
    /// The latest time on any cosignature of a trusted witness.
    pub latest: Option<UnixTime>,
}

impl Freshness {
    /// What the cosignatures of the policy's witnesses say of a checkpoint.
    pub fn of(checkpoint: &VerifiedCheckpoint, policy: &Policy) -> Self {
        let Ok(note) = Note::parse(checkpoint.note().as_bytes()) else { return Self { vouched: None, latest: None } };
        let cosigned = |(key, _)| Some((key, note.verify_cosignature(key).ok().filter(|time| *time > 0)?));
        let mut cosigned: Vec<(&VerifierKey, u64)> = policy.witnesses().filter_map(cosigned).collect();
        cosigned.sort_by_key(|(_, time)| Reverse(*time));
        let latest = cosigned.first().map(|(_, time)| *time);
        let vouched = if policy.has_quorum() {
            // The quorum of time t is the one that is met without any older cosignature.
            let times = cosigned.iter().map(|(_, time)| *time);
            times.into_iter().find(|at_least| {
                let older: Vec<&VerifierKey> = cosigned.iter().filter(|(_, t)| t < at_least).map(|(key, _)| *key).collect();
                let kept = note.signatures().iter().filter(|line| !older.iter().any(|key| line.is_of(key)));
                let lines: Vec<String> = kept.map(ToString::to_string).collect();
                policy.verify_checkpoint(format!("{}\n{}\n", note.text(), lines.join("\n")).as_bytes()).is_ok()
            })
        } else {
            latest
        };
        Self { vouched: vouched.map(UnixTime::from_secs), latest: latest.map(UnixTime::from_secs) }
    }

    /// Whether the time vouched for is more than `max_age_secs` before `now`. A time that lies ahead is not old.
    pub fn is_older_than(&self, max_age_secs: u64, now: UnixTime) -> Option<bool> {
        let vouched = self.vouched?;
        Some(now.as_secs().saturating_sub(vouched.as_secs()) > max_age_secs)
    }

    /// Whether a witness's clock is further ahead of `now` than clocks may be apart.
    pub fn is_ahead_of(&self, now: UnixTime) -> bool {
        self.latest.is_some_and(|latest| latest.as_secs() > now.as_secs().saturating_add(CLOCK_TOLERANCE_SECS))
    }
}

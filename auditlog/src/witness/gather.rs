//! Gathering cosignatures of a log's own checkpoints from the witnesses of a policy (C2SP tlog-witness, tlog-policy).
//!
//! All witnesses are asked at the same time. Once their quorum is there, the others get a moment more; a witness that did
//! not answer is left alone for a while, so that it does not cost every round that moment.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;

use crate::checkpoint::VerifiedCheckpoint;
use crate::note::VerifierKey;
use crate::policy::Policy;
use crate::reader::Reader;
use crate::sequencer::{Cosigner, NotCosigned, Timer, Unwitnessed};
use crate::store::TileSource;
use crate::witness::submit::{Answered, Post, Unsigned, Witness, WitnessReport};

/// What happens to a checkpoint that no quorum cosigned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is published with the cosignatures that there are, and counted. Witnesses then detect a fork, but cannot prevent
    /// that someone sees it.
    FailOpen,
    /// It is not published: appends wait until the quorum is back.
    #[default]
    Required,
}

/// How cosignatures are gathered.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What happens without a quorum.
    pub mode: Mode,
    /// The longest time for all witnesses together, each with up to three requests.
    pub timeout: Duration,
    /// How long the other witnesses have once the quorum is there.
    pub grace: Duration,
    /// How old cosignatures may get on a log that does not grow. Monitors take their time as a sign of life.
    pub refresh_period: Duration,
}

impl Default for Settings {
    /// Required; 1 s; 50 ms; 10 min.
    fn default() -> Self {
        Self {
            mode: Mode::Required,
            timeout: Duration::from_secs(1),
            grace: Duration::from_millis(50),
            refresh_period: Duration::from_mins(10),
        }
    }
}

/// The witnesses of a log. Clones share their state, so that a shell can keep one for its metrics.
pub struct Witnesses<P, T> {
    shared: Arc<Shared<P, T>>,
}

struct Shared<P, T> {
    policy: Policy,
    witnesses: Vec<Witness>,
    settings: Settings,
    post: P,
    timer: T,
    // Seconds since 1970.
    clock: fn() -> u64,
    without_quorum: AtomicU64,
}

impl<P: Post, T: Timer> Witnesses<P, T> {
    /// The witnesses of `policy` for the log of this key. Each must have a URL: its submission prefix. `clock` says the time
    /// in seconds since 1970, against which that of cosignatures is checked roughly.
    pub fn new(
        policy: Policy,
        log_key: &VerifierKey,
        settings: Settings,
        post: P,
        timer: T,
        clock: fn() -> u64,
    ) -> Result<Self, WitnessesError> {
        // The file may be the one of those who rely on the log, which names logs too.
        if policy.log_keys().next().is_some() && !policy.log_keys().any(|key| key == log_key) {
            return Err(WitnessesError::OtherLog);
        }
        let mut witnesses: Vec<Witness> = Vec::new();
        for (key, url) in policy.witnesses() {
            let url = checked_url(key, url)?;
            match witnesses.iter_mut().find(|witness| witness.is_at(url)) {
                Some(witness) => witness.add_key(key.clone()),
                None => witnesses.push(Witness::new(key.clone(), url)),
            }
        }
        if !policy.has_quorum() {
            return Err(WitnessesError::NoQuorum);
        }
        let without_quorum = AtomicU64::new(0);
        Ok(Self { shared: Arc::new(Shared { policy, witnesses, settings, post, timer, clock, without_quorum }) })
    }
}

impl<P, T> Witnesses<P, T> {
    /// What became of the submissions to each witness, in the policy's order. Keys with the same URL are one witness.
    pub fn reports(&self) -> Vec<WitnessReport> {
        self.shared.witnesses.iter().map(Witness::report).collect()
    }

    /// How often [`Mode::FailOpen`] let a checkpoint pass.
    pub fn passed_without_quorum(&self) -> u64 {
        self.shared.without_quorum.load(Ordering::Relaxed)
    }
}

impl<P: Post, T: Timer> Cosigner for Witnesses<P, T> {
    async fn cosign<S: TileSource>(&self, reader: &Reader<S>) -> Result<String, NotCosigned> {
        let Shared { policy, witnesses, settings, timer, without_quorum, .. } = &*self.shared;
        let mut checkpoint = reader.checkpoint().clone();
        let now = timer.now();
        let (resting, ready): (Vec<_>, Vec<_>) = witnesses.iter().partition(|witness| witness.rests(now));
        self.shared.gather(&ready, reader, &mut checkpoint).await;
        if settings.mode == Mode::Required && !policy.quorum_met(&checkpoint) {
            // Nothing goes without them, so they are not spared.
            self.shared.gather(&resting, reader, &mut checkpoint).await;
        }
        match (policy.quorum_met(&checkpoint), settings.mode) {
            (true, _) => {}
            (false, Mode::Required) => return Err(NotCosigned),
            (false, Mode::FailOpen) => {
                without_quorum.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(size = checkpoint.tree_size(), "checkpoint passed without a quorum of witnesses");
            }
        }
        Ok(checkpoint.note().to_owned())
    }

    fn refresh_period(&self) -> Option<Duration> {
        Some(self.shared.settings.refresh_period)
    }
}

/// A log with or without witnesses.
impl<C: Cosigner> Cosigner for Option<C> {
    async fn cosign<S: TileSource>(&self, reader: &Reader<S>) -> Result<String, NotCosigned> {
        match self {
            Some(cosigner) => cosigner.cosign(reader).await,
            None => Unwitnessed.cosign(reader).await,
        }
    }

    fn refresh_period(&self) -> Option<Duration> {
        self.as_ref().and_then(Cosigner::refresh_period)
    }
}

impl<P: Post, T: Timer> Shared<P, T> {
    /// Asks witnesses, and adds what they sign to the checkpoint.
    async fn gather(&self, witnesses: &[&Witness], reader: &Reader<impl TileSource>, checkpoint: &mut VerifiedCheckpoint) {
        let Settings { timeout, grace, .. } = self.settings;
        let (start, time) = (self.timer.now(), (self.clock)());
        // Where only the time of cosignatures is renewed, nobody waits, and the slow ones can have all of it.
        let mut hurries = !self.policy.quorum_met(checkpoint);
        let asking = witnesses.iter().map(|&witness| async move { (witness, witness.ask(&self.post, reader, time).await) });
        let mut asking: FuturesUnordered<_> = asking.collect();
        let mut late: Vec<&Witness> = witnesses.to_vec();
        let mut deadline = pin!(self.timer.sleep(timeout));
        loop {
            let (witness, outcome) = match select(asking.next(), deadline.as_mut()).await {
                Either::Left((Some(answered), _)) => answered,
                Either::Left((None, _)) | Either::Right(_) => break,
            };
            late.retain(|other| !std::ptr::eq(*other, witness));
            self.conclude(witness, outcome, checkpoint);
            if hurries && self.policy.quorum_met(checkpoint) {
                hurries = false;
                let left = timeout.saturating_sub(self.timer.now().saturating_sub(start));
                deadline.set(self.timer.sleep(grace.min(left)));
            }
        }
        for witness in late {
            self.conclude(witness, Err(Unsigned::TimedOut), checkpoint);
        }
    }

    fn conclude(&self, witness: &Witness, outcome: Answered, checkpoint: &mut VerifiedCheckpoint) {
        witness.count(outcome.as_ref().map(|_| ()), self.timer.now());
        match outcome.map(|lines| checkpoint.with_cosignatures(lines)) {
            Ok(Ok(cosigned)) => *checkpoint = cosigned,
            Ok(Err(error)) => tracing::warn!(%error, "cosignature left out"),
            Err(error) => witness.log(&error),
        }
    }
}

impl<P, T> Clone for Witnesses<P, T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P, T> fmt::Debug for Witnesses<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witnesses").field("witnesses", &self.shared.witnesses).finish_non_exhaustive()
    }
}

fn checked_url<'a>(key: &VerifierKey, url: Option<&'a str>) -> Result<&'a str, WitnessesError> {
    let witness = || key.name().to_owned();
    let url = url.ok_or_else(|| WitnessesError::NoUrl { witness: witness() })?;
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() => Ok(url),
        _ => Err(WitnessesError::NotHttp { witness: witness() }),
    }
}

/// Why a policy does not say from whom to gather cosignatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessesError {
    /// The policy's quorum is `none`.
    #[error("the policy asks for no witness; name a group or a witness in its quorum line")]
    NoQuorum,
    /// A witness line ends with the key.
    #[error("witness {witness} has no URL; add where it takes checkpoints to its line in the policy")]
    NoUrl {
        /// The name in its key.
        witness: String,
    },
    /// A URL starts with neither `https://` nor `http://`.
    #[error("the URL of witness {witness} is not one of HTTP")]
    NotHttp {
        /// The name in its key.
        witness: String,
    },
    /// The policy names logs, and not this one.
    #[error("the policy is about other logs; add a line `log` with the key of this one")]
    OtherLog,
}

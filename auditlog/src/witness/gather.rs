//! Gathering cosignatures of a log's own checkpoints from the witnesses of a policy (C2SP tlog-witness, tlog-policy).
//!
//! All witnesses are asked at the same time. Once their quorum is there, the others get a moment more; a witness that did
//! not answer is left alone for a while, so that it does not cost every round that moment.
//!
//! What one attempt gathers is kept for the next one at the same checkpoint, for some witnesses cosign a size only once.
//! It is kept in memory: where an answer is lost, or the process restarts before a quorum is there, witnesses have to
//! cosign the same checkpoint again, as the specification tells them to.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;

use crate::checkpoint::VerifiedCheckpoint;
use crate::note::{Note, SignatureLine, VerifierKey};
use crate::policy::Policy;
use crate::reader::Reader;
use crate::sequencer::{Cosigner, NotCosigned, Refreshed, Timer, Unwitnessed};
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
    // The checkpoint that was cosigned last, with the lines gathered so far. Never held across an await.
    kept: Mutex<Option<VerifiedCheckpoint>>,
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
        let kept = Mutex::new(None);
        Ok(Self { shared: Arc::new(Shared { policy, witnesses, settings, post, timer, clock, without_quorum, kept }) })
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
        let now = timer.now();
        let (resting, ready): (Vec<_>, Vec<_>) = witnesses.iter().partition(|witness| witness.rests(now));
        // Where nothing goes without them, they are not spared.
        let reserve = if settings.mode == Mode::Required { resting } else { Vec::new() };
        let mut gathered = Gathered::of(self.shared.kept_of(reader.checkpoint()));
        self.shared.gather(ready, reserve, true, reader, &mut gathered).await;
        let checkpoint = gathered.checkpoint;
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

    async fn refresh<S: TileSource>(&self, reader: &Reader<S>) -> Result<Refreshed, NotCosigned> {
        let mut gathered = Gathered::of(reader.checkpoint().clone());
        // Nobody waits, and everyone is asked: cosignatures of those who rest get old, too.
        self.shared.gather(self.shared.witnesses.iter().collect(), Vec::new(), false, reader, &mut gathered).await;
        let note = gathered.checkpoint.note().to_owned();
        let is_complete = self.shared.policy.quorum_met(&gathered.fresh(reader.checkpoint()));
        Ok(Refreshed { note, is_complete })
    }

    fn is_complete(&self, checkpoint: &VerifiedCheckpoint) -> bool {
        self.shared.policy.quorum_met(checkpoint)
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

    async fn refresh<S: TileSource>(&self, reader: &Reader<S>) -> Result<Refreshed, NotCosigned> {
        match self {
            Some(cosigner) => cosigner.refresh(reader).await,
            None => Unwitnessed.refresh(reader).await,
        }
    }

    fn is_complete(&self, checkpoint: &VerifiedCheckpoint) -> bool {
        self.as_ref().is_none_or(|cosigner| cosigner.is_complete(checkpoint))
    }

    fn refresh_period(&self) -> Option<Duration> {
        self.as_ref().and_then(Cosigner::refresh_period)
    }
}

/// What an attempt has brought so far.
struct Gathered<'a> {
    /// With all lines that there are.
    checkpoint: VerifiedCheckpoint,
    lines: Vec<SignatureLine>,
    /// Those who have nothing newer to give.
    only_once: Vec<&'a Witness>,
}

impl Gathered<'_> {
    fn of(checkpoint: VerifiedCheckpoint) -> Self {
        Self { checkpoint, lines: Vec::new(), only_once: Vec::new() }
    }

    /// The published checkpoint without the cosignatures that could be newer and are not.
    fn fresh(self, published: &VerifiedCheckpoint) -> VerifiedCheckpoint {
        let old = Note::parse(published.note().as_bytes()).map(|note| note.signatures().to_vec()).unwrap_or_default();
        let still_good = old.into_iter().filter(|line| self.only_once.iter().any(|witness| witness.has_signed(line)));
        published.without_cosignatures().with_cosignatures(still_good.chain(self.lines)).unwrap_or(self.checkpoint)
    }
}

impl<P: Post, T: Timer> Shared<P, T> {
    /// Asks `witnesses`, and adds what they sign. Those in `reserve` are asked when it turns out, or half of the time has
    /// shown, that there is no quorum without them. Whoever `hurries` waits only a moment more once there is one.
    async fn gather<'a>(
        &self,
        witnesses: Vec<&'a Witness>,
        mut reserve: Vec<&'a Witness>,
        mut hurries: bool,
        reader: &Reader<impl TileSource>,
        gathered: &mut Gathered<'a>,
    ) {
        let Settings { timeout, grace, .. } = self.settings;
        let time = (self.clock)();
        let mut end = self.timer.now().saturating_add(timeout);
        let until = |end: Duration| self.timer.sleep(end.saturating_sub(self.timer.now()));
        let ask = |witness: &'a Witness| async move { (witness, witness.ask(&self.post, reader, time).await) };
        let mut asking: FuturesUnordered<_> = witnesses.iter().map(|&witness| ask(witness)).collect();
        let mut late = witnesses;
        let mut alarm = pin!(self.timer.sleep(if reserve.is_empty() { timeout } else { timeout / 2 }));
        loop {
            if hurries && self.policy.quorum_met(&gathered.checkpoint) {
                hurries = false;
                reserve.clear();
                end = end.min(self.timer.now().saturating_add(grace));
                alarm.set(until(end));
            }
            match select(asking.next(), alarm.as_mut()).await {
                Either::Left((Some((witness, outcome)), _)) => {
                    late.retain(|other| !std::ptr::eq(*other, witness));
                    self.conclude(witness, outcome, gathered);
                }
                Either::Left((None, _)) | Either::Right(_) if !reserve.is_empty() => {
                    asking.extend(reserve.iter().map(|&witness| ask(witness)));
                    late.append(&mut reserve);
                    alarm.set(until(end));
                }
                Either::Left((None, _)) | Either::Right(_) => break,
            }
        }
        for witness in late {
            self.conclude(witness, Err(Unsigned::TimedOut), gathered);
        }
    }

    fn conclude<'a>(&self, witness: &'a Witness, outcome: Answered, gathered: &mut Gathered<'a>) {
        witness.count(outcome.as_ref().map(|_| ()), self.timer.now());
        let lines = match outcome {
            Ok(lines) => lines,
            Err(error) => {
                witness.log(&error);
                gathered.only_once.extend(matches!(error, Unsigned::OnlyOnce).then_some(witness));
                return;
            }
        };
        match gathered.checkpoint.with_cosignatures(lines.clone()) {
            Ok(cosigned) => {
                gathered.lines.extend(lines);
                gathered.checkpoint = cosigned.clone();
                *self.kept() = Some(cosigned);
            }
            Err(error) => tracing::warn!(%error, "cosignature left out"),
        }
    }

    /// The checkpoint with what was gathered for it before.
    fn kept_of(&self, checkpoint: &VerifiedCheckpoint) -> VerifiedCheckpoint {
        let kept = self.kept().clone();
        kept.filter(|kept| kept.checkpoint() == checkpoint.checkpoint()).unwrap_or_else(|| checkpoint.clone())
    }
}

impl<P, T> Shared<P, T> {
    fn kept(&self) -> MutexGuard<'_, Option<VerifiedCheckpoint>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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

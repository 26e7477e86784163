//! What a client is told once, at its start.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fanlight_protocol::UnixTime;
use fanlight_protocol::padding::Padding;
use fanlight_protocol::request::MAX_RECIPIENTS;
use fanlight_verifier::Grade;

/// Settings of a [`Client`](crate::Client). Everything but the first three has a default.
#[derive(Clone, Debug)]
pub struct Config {
    /// Base URL of the gateway, `http` or `https`. It is trusted with nothing but delivery.
    pub gateway: String,
    /// Text of the C2SP tlog-policy: which log and which witnesses. This is what the client trusts.
    pub policy: String,
    /// Where receipts are kept; see [`ReceiptStore`](crate::ReceiptStore).
    pub state_dir: PathBuf,
    /// Providers of a lower grade are refused. Default: the lowest, `self-signed`.
    pub minimum_grade: Grade,
    /// Most recipients of one request, 1 to 8. Default: 3. Any one of them can read the request.
    pub max_recipients: usize,
    /// Whether lengths are hidden. Default: [`Padding::Padme`].
    pub padding: Padding,
    /// What time it is. Default: the system's clock.
    pub clock: Clock,
    /// How long to wait for the gateway.
    pub timeouts: Timeouts,
}

impl Config {
    /// Defaults for a gateway, a policy text and a state directory.
    pub fn new(gateway: impl Into<String>, policy: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            gateway: gateway.into(),
            policy: policy.into(),
            state_dir: state_dir.into(),
            minimum_grade: Grade::SelfSigned,
            max_recipients: 3,
            padding: Padding::Padme,
            clock: Clock::system(),
            timeouts: Timeouts::default(),
        }
    }

    /// `max_recipients`, within what a header can carry.
    pub(crate) fn recipients(&self) -> usize {
        self.max_recipients.clamp(1, MAX_RECIPIENTS)
    }
}

/// How long to wait. No limit on a whole answer: a provider that lives says so every 5 s.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the connection stands. Default: 10 s.
    pub connect: Duration,
    /// Until the first byte of an answer. Default: 60 s; the gateway may try several recipients in that time.
    pub first_byte: Duration,
    /// Between two bytes. Default: 30 s, six times the interval of PING frames.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), first_byte: Duration::from_mins(1), silence: Duration::from_secs(30) }
    }
}

/// Tells the time; tests and replays bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixTime + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(|| SystemTime::now().into())
    }

    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What time it is.
    pub fn now(&self) -> UnixTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock(..)")
    }
}

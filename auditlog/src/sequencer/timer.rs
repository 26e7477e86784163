//! The host's clock.

use std::time::Duration;

/// Time as a sequencer needs it: to wait, and to know how long others have waited.
pub trait Timer {
    /// Time since some moment that stays the same while the timer lives. Never goes back.
    fn now(&self) -> Duration;

    /// Returns once `duration` has passed.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
}

/// The clock of tokio, which tests can pause.
#[cfg(feature = "dir")]
#[derive(Clone, Copy, Debug)]
pub struct TokioTimer {
    start: tokio::time::Instant,
}

#[cfg(feature = "dir")]
impl TokioTimer {
    /// A timer that starts now.
    #[expect(clippy::new_without_default, reason = "a default that reads the clock would surprise")]
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

#[cfg(feature = "dir")]
impl Timer for TokioTimer {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(duration)
    }
}

//! Where hashing runs: on threads where the host has them, otherwise where it is asked for.

/// Runs computations, several at the same time if the host can.
pub trait Workers {
    /// How many run at the same time, at least 1.
    fn n_threads(&self) -> usize;

    /// Runs `work`, which does not wait for anything, and returns its result.
    fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> impl Future<Output = R>;
}

/// No threads: everything runs where it is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Workers for Inline {
    fn n_threads(&self) -> usize {
        1
    }

    async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        work()
    }
}

#[cfg(feature = "dir")]
pub use threads::Threads;

#[cfg(feature = "dir")]
mod threads {
    use std::num::NonZeroUsize;
    use std::panic;

    use tokio::sync::Semaphore;

    use super::Workers;

    /// Blocking threads of the tokio runtime.
    #[derive(Debug)]
    pub struct Threads {
        n_threads: usize,
        free: Semaphore,
    }

    impl Threads {
        /// Uses up to `n_threads` at the same time.
        pub fn new(n_threads: NonZeroUsize) -> Self {
            // More would not fit into a semaphore, nor into any machine.
            let n_threads = n_threads.get().min(Semaphore::MAX_PERMITS);
            Self { n_threads, free: Semaphore::new(n_threads) }
        }
    }

    impl Workers for Threads {
        fn n_threads(&self) -> usize {
            self.n_threads
        }

        async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
            let _permit = self.free.acquire().await.expect("the semaphore is never closed");
            match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                // Nothing cancels the work, so it panicked, and so does whoever asked for it.
                Err(error) => panic::resume_unwind(error.into_panic()),
            }
        }
    }
}

//! Who may run, who must wait, who is turned away.

/// What an engine takes on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that decode together. At least 1.
    pub max_running: usize,
    /// Requests that may wait for a slot; one more is [`Busy`](super::SubmitError::Busy).
    pub max_waiting: usize,
    /// Cache tokens for all running requests together. A request reserves its prompt plus the most
    /// it may generate before it starts, so a running one never runs out.
    pub cache_tokens: usize,
}

impl Default for Limits {
    /// 16 running, 64 waiting, 16,384 cache tokens: for the built-in model 32 MiB of cache.
    fn default() -> Self {
        Self { max_running: 16, max_waiting: 64, cache_tokens: 16_384 }
    }
}

/// Where an admitted request starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It holds a slot and its tokens.
    Running,
    /// It stands in the queue.
    Waiting,
}

/// The books of slots and cache tokens. First come, first served: nothing overtakes the queue.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Limits,
    running: usize,
    waiting: usize,
    reserved_tokens: usize,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, running: 0, waiting: 0, reserved_tokens: 0 }
    }

    /// Admits a request that needs `tokens`, or says `None`: busy.
    pub(super) fn enter(&mut self, tokens: usize) -> Option<Place> {
        if self.waiting == 0 && self.fits(tokens) {
            self.take_slot(tokens);
            return Some(Place::Running);
        }
        if self.waiting == self.limits.max_waiting {
            return None;
        }
        self.waiting += 1;
        Some(Place::Waiting)
    }

    /// Moves the head of the queue, which needs `tokens`, to a slot if it fits.
    pub(super) fn promote(&mut self, tokens: usize) -> bool {
        let fits = self.fits(tokens);
        if fits {
            self.waiting -= 1;
            self.take_slot(tokens);
        }
        fits
    }

    /// A waiting request went away.
    pub(super) fn leave_queue(&mut self) {
        self.waiting -= 1;
    }

    /// A running request ended.
    pub(super) fn finish(&mut self, tokens: usize) {
        self.running -= 1;
        self.reserved_tokens -= tokens;
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn reserved_tokens(&self) -> usize {
        self.reserved_tokens
    }

    fn fits(&self, tokens: usize) -> bool {
        self.running < self.limits.max_running && tokens <= self.limits.cache_tokens - self.reserved_tokens
    }

    fn take_slot(&mut self, tokens: usize) {
        self.running += 1;
        self.reserved_tokens += tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(max_running: usize, max_waiting: usize, cache_tokens: usize) -> Admission {
        Admission::new(Limits { max_running, max_waiting, cache_tokens })
    }

    #[test]
    fn slots_then_queue_then_busy() {
        let mut books = books(1, 1, 100);
        assert_eq!(books.enter(10), Some(Place::Running));
        assert_eq!(books.enter(10), Some(Place::Waiting));
        assert_eq!(books.enter(10), None);
        books.finish(10);
        assert!(books.promote(10));
        assert_eq!((books.running(), books.waiting()), (1, 0));
    }

    #[test]
    fn cache_tokens_bound_what_runs() {
        let mut books = books(8, 8, 100);
        assert_eq!(books.enter(60), Some(Place::Running));
        assert_eq!(books.enter(60), Some(Place::Waiting));
        assert!(!books.promote(60));
        books.finish(60);
        assert!(books.promote(60));
        assert_eq!(books.reserved_tokens(), 60);
    }

    #[test]
    fn a_small_request_does_not_overtake_the_queue() {
        let mut books = books(8, 8, 100);
        assert_eq!(books.enter(60), Some(Place::Running));
        assert_eq!(books.enter(60), Some(Place::Waiting));
        assert_eq!(books.enter(1), Some(Place::Waiting));
        books.leave_queue();
        assert_eq!(books.waiting(), 1);
    }
}

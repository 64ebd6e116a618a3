//! How often, and for how long, what fails is tried again.
//!
//! The one count of tries in vain: a store at work has one for each place that it cannot read, a stand-in for a store
//! one for its starts. Each rest is longer than the one before, up to a few seconds. After about a minute of that it
//! is time to go round what the disk does not read, and again after each further one.

/// Tries in vain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tries {
    times: u32,
    /// Before that it is not tried again.
    next: u64,
}

/// Whether what the disk does not read is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Patience {
    /// It may be read yet.
    #[default]
    Some,
    /// It was tried for long enough.
    None,
}

impl Tries {
    /// Counts one more.
    pub(super) fn count(&mut self) -> Patience {
        self.times = self.times.saturating_add(1);
        self.patience()
    }

    /// Whether there were enough.
    pub(super) fn patience(&self) -> Patience {
        let are_over = self.times > 0 && self.times.is_multiple_of(TRIES);
        if are_over { Patience::None } else { Patience::Some }
    }

    /// Lets it rest from now on.
    pub(super) fn rest(&mut self, now: u64) {
        self.next = self.next.max(now + backoff(self.times.saturating_sub(1)));
    }

    /// The same for as long as it ever rests, after something that was no try.
    pub(super) fn rest_long(&mut self, now: u64) {
        self.next = self.next.max(now + BACKOFF_MILLIS_MAX);
    }

    /// When it may be tried again.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether there was none.
    pub(super) fn is_new(&self) -> bool {
        self.times == 0
    }
}

/// How long to wait after so many failures.
pub(super) fn backoff(failures: u32) -> u64 {
    (BACKOFF_MILLIS_MIN << failures.min(6)).min(BACKOFF_MILLIS_MAX)
}

/// So often before what the disk does not read is gone round: for about a minute.
pub(super) const TRIES: u32 = 24;

/// The first wait.
const BACKOFF_MILLIS_MIN: u64 = 50;

/// The longest.
const BACKOFF_MILLIS_MAX: u64 = 3_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_after_a_minute_of_them_there_is_no_patience_once() {
        let (mut tries, mut now) = (Tries::default(), 0);
        let mut over = Vec::new();
        while over.len() < 2 {
            if tries.count() == Patience::None {
                over.push(now);
            }
            tries.rest(now);
            assert!(tries.next() > now && tries.next() <= now + 3_000);
            now = tries.next();
        }
        assert!((45_000..75_000).contains(&over[0]), "{over:?}");
        assert_eq!(over[1] - over[0], u64::from(TRIES) * 3_000, "the rests stay as long as they have become");
        assert_eq!(tries.patience(), Patience::None);
        assert_eq!(tries.count(), Patience::Some, "for another minute");
    }
}

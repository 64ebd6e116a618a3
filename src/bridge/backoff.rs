//! How long to wait before the next attempt: full jitter between nothing and a doubling ceiling. Pure.
//!
//! The random number is an argument. Only a link that has carried something brings the ceiling back to
//! its start, so an upstream that accepts and then hangs up is not hammered.

use std::time::Duration;

/// The waits between attempts.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    last: Duration,
    failures: u32,
}

impl Backoff {
    /// Ceilings from `first`, doubled by each failure, up to `last`.
    pub(super) fn new(first: Duration, last: Duration) -> Backoff {
        Backoff { first, last, failures: 0 }
    }

    /// The wait after one more failure.
    pub(super) fn wait(&mut self, random: u64) -> Duration {
        let ceiling = ceiling(self.first, self.last, self.failures);
        self.failures = self.failures.saturating_add(1);
        jitter(ceiling, random)
    }

    /// Something was carried: the next failure is a first one.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }
}

/// The wait of a message that upstream has refused for now, so many times.
pub(super) fn rest(refusals: u32, random: u64) -> Duration {
    // At least half of the ceiling: a quota does not refill at once.
    let ceiling = ceiling(REST_FIRST, REST_LAST, refusals);
    ceiling / 2 + jitter(ceiling / 2, random)
}

fn ceiling(first: Duration, last: Duration, failures: u32) -> Duration {
    first.checked_mul(2_u32.saturating_pow(failures)).map_or(last, |ceiling| ceiling.min(last))
}

fn jitter(ceiling: Duration, random: u64) -> Duration {
    let millis = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random % (millis.saturating_add(1)))
}

const REST_FIRST: Duration = Duration::from_secs(1);
const REST_LAST: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_last_and_start_again_once_it_worked() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 120 * second);
        // A random number that is a multiple of every ceiling + 1 ms, less one, would be the ceiling;
        // so the ceiling itself is asked for.
        let mut waits = Vec::new();
        for ceiling in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 120_000, 120_000] {
            waits.push(backoff.wait(ceiling));
        }
        let millis: Vec<u128> = waits.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 120_000, 120_000]);
        backoff.worked();
        assert_eq!(backoff.wait(1_001), Duration::ZERO);
        for _ in 0..100 {
            assert!(backoff.wait(u64::MAX) <= 120 * second);
        }
    }

    #[test]
    fn a_refused_message_rests_at_least_half_a_ceiling() {
        for (refusals, least, most) in [(0, 500, 1_000), (3, 4_000, 8_000), (50, 60_000, 120_000)] {
            for random in [0, 1, 499, 500, 12_345, u64::MAX] {
                let rest = rest(refusals, random).as_millis();
                assert!((least..=most).contains(&rest), "{refusals} {random} {rest}");
            }
        }
    }
}

//! How often something may happen: a rate, and how much of it one party has left.
//!
//! A bucket of one second's (or minute's, or hour's) worth that refills evenly, kept as the one moment at
//! which it would be full again. Time is an argument, in milliseconds.

use adapter_api::units::Rate;

/// What one party has used of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// When it is full again, in microseconds.
    full_at: u64,
}

impl Bucket {
    /// Takes one; where nothing is left, the time at which there is one again.
    pub fn take(&mut self, rate: Rate, now: u64) -> Result<(), u64> {
        let (step, whole) = (step(rate), micros(rate));
        let full_at = self.full_at.max(now.saturating_mul(1_000)).saturating_add(step);
        let early = full_at.saturating_sub(whole);
        if early > now.saturating_mul(1_000) {
            return Err(early.div_ceil(1_000));
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Gives one back that was taken and not needed.
    pub fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.saturating_sub(step(rate));
    }

    /// When nothing of it is used any more, in microseconds: the later, the more is.
    pub fn full_at(&self) -> u64 {
        self.full_at
    }

    /// Whether nothing of it is used.
    pub fn is_full(&self, now: u64) -> bool {
        self.full_at <= now.saturating_mul(1_000)
    }
}

/// Microseconds in which one comes back.
fn step(rate: Rate) -> u64 {
    (micros(rate) / u64::from(rate.count.max(1))).max(1)
}

fn micros(rate: Rate) -> u64 {
    u64::try_from(rate.per.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_refills_evenly() {
        let rate = Rate { count: 4, per: Duration::from_secs(1) };
        let mut bucket = Bucket::default();
        let given = (0..10).filter(|_| bucket.take(rate, 5_000).is_ok()).count();
        assert_eq!(given, 4);
        assert_eq!(bucket.take(rate, 5_000), Err(5_250));
        assert_eq!(bucket.take(rate, 5_249), Err(5_250));
        assert_eq!(bucket.take(rate, 5_250), Ok(()));
        assert!(!bucket.is_full(6_249) && bucket.is_full(6_250));
        bucket.give_back(rate);
        assert!(bucket.is_full(6_000));
    }

    #[test]
    fn over_any_time_no_more_than_the_rate_and_one_bucket_is_given() {
        let rate = Rate { count: 7, per: Duration::from_secs(60) };
        let mut bucket = Bucket::default();
        let given = (0..3_600_000).step_by(500).filter(|now| bucket.take(rate, *now).is_ok()).count();
        assert!((420..=427).contains(&given), "{given} in an hour");
    }
}

//! Counts what repeats instead of saying it again.
//!
//! Per place in the code, so many events pass in a span of time; the first one after it says how many did
//! not. Time is an argument.

use std::collections::HashMap;
use std::hash::Hash;

/// Passes events by their place.
#[derive(Debug)]
pub(super) struct Limiter<P> {
    places: HashMap<P, Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    since: u64,
    passed: u32,
    held: u64,
}

/// Whether an event is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is; so many like it were held back before.
    Say { held: u64 },
    /// It is only counted.
    Hold,
}

impl<P: Eq + Hash> Limiter<P> {
    pub(super) fn new() -> Limiter<P> {
        Limiter { places: HashMap::new() }
    }

    /// Judges one event; `now` in milliseconds.
    pub(super) fn judge(&mut self, place: P, now: u64) -> Verdict {
        if self.places.len() >= PLACES_MAX && !self.places.contains_key(&place) {
            // There are fewer places in the code; only a library that makes up targets comes here.
            self.places.clear();
        }
        let count = self.places.entry(place).or_insert(Count { since: now, passed: 0, held: 0 });
        if now.saturating_sub(count.since) >= SPAN_MILLIS || now < count.since {
            let held = count.held;
            *count = Count { since: now, passed: 1, held: 0 };
            return Verdict::Say { held };
        }
        if count.passed < PASSED_MAX {
            count.passed += 1;
            return Verdict::Say { held: 0 };
        }
        count.held += 1;
        Verdict::Hold
    }
}

/// Events of one place that pass in one span.
const PASSED_MAX: u32 = 30;
/// The span.
const SPAN_MILLIS: u64 = 10_000;
/// Places that are remembered; beyond it all counts begin anew.
const PLACES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_count_is_told() {
        let mut limiter = Limiter::new();
        let said = (0..1_000).filter(|_| limiter.judge("a", 5) != Verdict::Hold).count();
        assert_eq!(said, 30);
        assert_eq!(limiter.judge("b", 6), Verdict::Say { held: 0 }, "another place is not touched");
        assert_eq!(limiter.judge("a", 10_005), Verdict::Say { held: 970 });
        assert_eq!(limiter.judge("a", 10_006), Verdict::Say { held: 0 });
    }
}

//! How many records of one kind the log gets, however many there are.
//!
//! So many in a window; the rest is counted, and the count is told with the next one that is written.

/// So many in a window, the rest counted.
#[derive(Debug, Default)]
pub struct Limiter {
    /// When the window began; monotonic milliseconds.
    since: u64,
    written: u32,
    unwritten: u64,
}

impl Limiter {
    /// Whether one more may be written, with the number of those that were not since the last window.
    pub fn admit(&mut self, now: u64) -> Option<u64> {
        if now.saturating_sub(self.since) >= WINDOW {
            self.since = now;
            self.written = 0;
        }
        if self.written >= WINDOW_RECORDS_MAX {
            self.unwritten += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.unwritten))
    }
}

/// Milliseconds.
const WINDOW: u64 = 10_000;

/// Records of one kind in one window; the rest is counted.
const WINDOW_RECORDS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_counted_instead_of_written() {
        let mut limiter = Limiter::default();
        let written = (0..1_000).filter(|_| limiter.admit(5).is_some()).count();
        assert_eq!(written, 20);
        assert_eq!(limiter.admit(WINDOW + 5), Some(980));
        assert_eq!(limiter.admit(WINDOW + 6), Some(0));
    }
}

//! What the broker says of its clients, as records of the log.
//!
//! A crowd that comes and goes must not flood the journal: of each kind only so many are written in ten
//! seconds, the others are counted and the count is written.

use tracing::{info, warn};

use crate::broker::Note;

/// The limits of the kinds.
#[derive(Debug, Default)]
pub(super) struct Notes {
    connected: Limiter,
    refused: Limiter,
    disconnected: Limiter,
}

/// So many in a window, the rest counted.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// When the window began; monotonic milliseconds.
    since: u64,
    written: u32,
    unwritten: u64,
}

impl Notes {
    /// Writes a note, or counts it.
    pub(super) fn write(&mut self, note: &Note, now: u64) {
        let limiter = match note {
            Note::Connected { .. } => &mut self.connected,
            Note::Refused { .. } => &mut self.refused,
            Note::Disconnected { .. } => &mut self.disconnected,
        };
        let Some(missed) = limiter.admit(now) else { return };
        if missed > 0 {
            info!(missed, "more of the next kind were not written");
        }
        match note {
            Note::Connected { client_id, peer } => {
                info!(client_id = %client_id, peer = %peer, "client connected");
            }
            Note::Refused { client_id, peer, reason } => {
                warn!(client_id = %client_id, peer = %peer, reason = ?reason, "client refused");
            }
            Note::Disconnected { client_id, reason } => {
                info!(client_id = %client_id, reason = ?reason, "client disconnected");
            }
        }
    }
}

impl Limiter {
    /// Whether one more may be written, with the number of those that were not since the last window.
    pub(super) fn admit(&mut self, now: u64) -> Option<u64> {
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

//! The time of one bus, counted from its start.
//!
//! The pure files count in it, so that they know no clock; tokio's timers are set by it. It follows
//! tokio's clock, which a test can hold and turn.

use std::time::Duration;

use tokio::time::Instant;

/// The time of one bus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer {
    start: Instant,
}

impl Timer {
    /// Starts counting.
    pub(crate) fn start() -> Timer {
        Timer { start: Instant::now() }
    }

    /// Since the start.
    pub(crate) fn now(self) -> Duration {
        self.start.elapsed()
    }

    /// The moment that is so long after the start.
    pub(crate) fn at(self, since_start: Duration) -> Instant {
        self.start + since_start
    }
}

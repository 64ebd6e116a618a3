//! The one place where adapters read the clock.
//!
//! Deadlines use [`monotonic`]; [`wall`] is for what leaves the house, and says whether it can be believed.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time.
#[allow(clippy::disallowed_methods, reason = "this is the adapters' clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Wall clock: milliseconds since 1970, and whether it is believable (after this program was written).
#[allow(clippy::disallowed_methods, reason = "this is the adapters' clock")]
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Wall { millis, set: millis >= FLOOR_MILLIS }
}

/// A reading of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wall {
    /// Milliseconds since 1970-01-01 UTC.
    pub millis: u64,
    /// False where the clock stands before this program was written, so that it cannot be true.
    pub set: bool,
}

/// 2026-01-01 UTC: no gateway with this program runs before it.
const FLOOR_MILLIS: u64 = 1_767_225_600_000;

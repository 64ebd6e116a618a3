//! The one place where adapters read the clock.
//!
//! Deadlines use [`monotonic`]; [`wall`] is for what leaves the house, and says whether it can be believed.
//! Within the appliance it says what the appliance knows of the clock, which is more than the clock itself does.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time.
#[allow(clippy::disallowed_methods, reason = "this is the adapters' clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// What time it is: as the appliance knows it, else as the machine says.
pub fn wall() -> Wall {
    // The lock is let go first: who is asked may log, and the log asks for the time.
    let source = SOURCE.read().unwrap_or_else(PoisonError::into_inner).clone();
    source.map_or_else(machine, |source| source())
}

/// The machine's wall clock: milliseconds since 1970, and whether it is believable (after this program was
/// written).
#[allow(clippy::disallowed_methods, reason = "this is the adapters' clock")]
pub fn machine() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Wall { millis, set: millis >= FLOOR_MILLIS }
}

/// From now on [`wall`] says what this does.
pub fn follow(source: impl Fn() -> Wall + Send + Sync + 'static) {
    *SOURCE.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(source));
}

/// A reading of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wall {
    /// Milliseconds since 1970-01-01 UTC; a guess where the clock is not set.
    pub millis: u64,
    /// Whether the clock is set, as far as one can know.
    pub set: bool,
}

/// Who knows the time.
type Source = Arc<dyn Fn() -> Wall + Send + Sync>;

static SOURCE: RwLock<Option<Source>> = RwLock::new(None);

/// 2026-01-01 UTC: no gateway with this program runs before it.
pub const FLOOR_MILLIS: u64 = 1_767_225_600_000;

//! The one place where the appliance reads the clock.
//!
//! Everything else is handed a [`Now`], so that a test can turn the time.

use std::time::Instant;

use crate::record::Now;

/// A clock that counts from its making.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    pub fn start() -> Clock {
        Clock { start: adapter_api::clock::monotonic() }
    }

    /// This moment.
    pub fn now(&self) -> Now {
        #[cfg(test)]
        if let Some(now) = TURNED.get() {
            return now;
        }
        let mono = adapter_api::clock::monotonic().duration_since(self.start);
        Now {
            mono: u64::try_from(mono.as_millis()).unwrap_or(u64::MAX),
            wall: adapter_api::clock::wall().millis,
        }
    }
}

#[cfg(test)]
thread_local! {
    /// What every clock of this thread shows, once a test has turned it.
    pub(crate) static TURNED: std::cell::Cell<Option<Now>> = const { std::cell::Cell::new(None) };
}

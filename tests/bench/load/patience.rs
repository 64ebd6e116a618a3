//! How long to wait for a broker from which nothing comes.
//!
//! At first it may be TCP that holds something up, which is helped; later the broker has stalled.

use std::time::Duration;

use super::Outcome;
use super::hub::Hub;
use crate::stand::HANG;

/// Since when nothing has come.
pub(crate) struct Patience {
    seen: u64,
    since: Duration,
    wait: Duration,
    stall: Duration,
}

impl Patience {
    /// From now on.
    pub(crate) fn new(now: Duration, stall: Duration) -> Patience {
        Patience { seen: 0, since: now, wait: FIRST, stall }
    }

    /// How long the next look should wait for something.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// So much has come by now.
    pub(crate) fn look(&mut self, seen: u64, hub: &mut Hub) -> Outcome<()> {
        let now = hub.now();
        if seen > self.seen {
            *self = Patience { seen, since: now, wait: FIRST, ..*self };
            return Ok(());
        }
        hub.acknowledge();
        self.wait = (self.wait * 2).min(LONGEST);
        self.check(now)
    }

    /// An error once it has stalled.
    pub(crate) fn check(&self, now: Duration) -> Outcome<()> {
        match now.saturating_sub(self.since) > self.stall {
            true => Err(format!("nothing comes any more after {}", self.seen)),
            false => Ok(()),
        }
    }
}

const FIRST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(50);
/// A program that was not optimised, on a machine with much to do, may take its time.
pub(crate) const STALL: Duration = if cfg!(debug_assertions) { HANG } else { Duration::from_secs(10) };
/// Of a broker that may do much before it says anything: one that saves all of its queue at each change of it.
pub(crate) const STALL_OF_SAVERS: Duration =
    Duration::from_secs(if cfg!(debug_assertions) { 120 } else { 90 });

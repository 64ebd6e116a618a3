//! Deadlines of connections and sessions, soonest first.
//!
//! An entry is only a reminder to look: who was reminded knows whether it is really time, so a packet costs no
//! change here. Those that nobody waits for any more are cleared out once they are as many as the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ConnectionId;
use super::client::ClientKey;

/// Who is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Connection(ConnectionId),
    /// Of what is held of it for want of room.
    Refused(ConnectionId),
    Client(ClientKey),
    Sys,
    /// The next retained message that runs out of time.
    Retained,
}

/// The reminders.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
    /// Twice what was left after the last clearing out.
    roomy: usize,
}

impl Timers {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn push(&mut self, due: u64, timer: Timer) {
        self.heap.push(Reverse((due, timer)));
    }

    /// Whether there are so many that those that nobody waits for should go.
    pub(super) fn is_crowded(&self) -> bool {
        self.heap.len() > self.roomy.max(TIMERS_MIN)
    }

    /// Forgets the reminders that nobody waits for, and all but one that say the same.
    pub(super) fn retain(&mut self, is_awaited: impl Fn(u64, Timer) -> bool) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain(|Reverse((due, timer))| is_awaited(*due, *timer));
        entries.sort_unstable();
        entries.dedup();
        self.heap = entries.into();
        self.roomy = self.heap.len() * 2;
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// The next reminder that is due.
    pub(super) fn pop(&mut self, now: u64) -> Option<(u64, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

/// Reminders below which none are cleared out.
const TIMERS_MIN: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_of_the_dead_do_not_pile_up() {
        let mut timers = Timers::default();
        let mut most = 0;
        for serial in 0..100_000 {
            timers.push(u64::from(serial), Timer::Client(ClientKey { slot: 0, serial }));
            if timers.is_crowded() {
                timers.retain(|_, timer| matches!(timer, Timer::Client(key) if key.serial + 10 > serial));
            }
            most = most.max(timers.heap.len());
        }
        assert!(most <= TIMERS_MIN + 1, "{most}");
        assert_eq!(timers.pop(u64::MAX).map(|(due, _)| due), timers.next().map(|due| due - 1));
    }
}

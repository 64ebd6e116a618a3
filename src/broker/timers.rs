//! Deadlines of connections and sessions, soonest first.
//!
//! An entry is only a reminder to look: who was reminded knows whether it is really time, so nothing is
//! ever taken out early and a packet costs no change here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ConnectionId;
use super::client::ClientKey;

/// Who is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Connection(ConnectionId),
    Client(ClientKey),
}

/// The reminders.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
}

impl Timers {
    pub(super) fn push(&mut self, due: u64, timer: Timer) {
        self.heap.push(Reverse((due, timer)));
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

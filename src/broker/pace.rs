//! When a commit is to be hastened: once every client that waits for it can do nothing but wait.
//!
//! Per connection a [`Rhythm`] is kept, over all of them only two counts, so that no event looks at more
//! than its own connection. A client looks stuck when its unacknowledged publishes have reached the most
//! that it ever had outstanding and its last read left nothing undecoded.

use crate::record::Ticket;

/// How one connection publishes and waits.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// Publishes and releases that wait for a commit.
    publishes: u32,
    /// Other requests that do.
    others: u32,
    /// The most publishes that ever waited.
    most: u32,
    drained: bool,
    /// False for ports behind which no device waits.
    counts: bool,
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Publish,
    Other,
}

/// The counts over all connections.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waiting: u32,
    stuck: u32,
    /// The newest write that a client waits for, and the newest for which a commit was hastened.
    newest: Ticket,
    hastened: Ticket,
}

impl Rhythm {
    pub(super) fn new(counts: bool) -> Rhythm {
        Rhythm { publishes: 0, others: 0, most: 1, drained: false, counts }
    }

    /// Whether a client is known to wait for a commit.
    pub(super) fn waits(&self) -> bool {
        self.counts && self.publishes + self.others > 0
    }

    fn is_stuck(&self) -> bool {
        self.waits() && self.drained && (self.publishes == 0 || self.publishes >= self.most)
    }
}

impl Pace {
    /// A client begins to wait for a write.
    pub(super) fn begin(&mut self, rhythm: &mut Rhythm, kind: Kind, ticket: Ticket) {
        if rhythm.counts {
            self.newest = self.newest.max(ticket);
        }
        self.change(rhythm, |rhythm| match kind {
            Kind::Publish => {
                rhythm.publishes += 1;
                rhythm.most = rhythm.most.max(rhythm.publishes);
            }
            Kind::Other => rhythm.others += 1,
        });
    }

    /// It has what it waited for.
    pub(super) fn end(&mut self, rhythm: &mut Rhythm, kind: Kind) {
        self.change(rhythm, |rhythm| match kind {
            Kind::Publish => rhythm.publishes = rhythm.publishes.saturating_sub(1),
            Kind::Other => rhythm.others = rhythm.others.saturating_sub(1),
        });
    }

    /// A packet came.
    pub(super) fn heard(&mut self, rhythm: &mut Rhythm) {
        if rhythm.drained {
            self.change(rhythm, |rhythm| rhythm.drained = false);
        }
    }

    /// The last read left nothing undecoded.
    pub(super) fn drained(&mut self, rhythm: &mut Rhythm) {
        self.change(rhythm, |rhythm| rhythm.drained = true);
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, rhythm: &mut Rhythm) {
        self.change(rhythm, |rhythm| rhythm.counts = false);
    }

    /// Whether a commit is to be hastened now; once for what waits at this moment.
    pub(super) fn hasten(&mut self) -> bool {
        let due = self.waiting > 0 && self.stuck == self.waiting && self.newest > self.hastened;
        if due {
            self.hastened = self.newest;
        }
        due
    }

    fn change(&mut self, rhythm: &mut Rhythm, change: impl FnOnce(&mut Rhythm)) {
        self.waiting -= u32::from(rhythm.waits());
        self.stuck -= u32::from(rhythm.is_stuck());
        change(rhythm);
        self.waiting += u32::from(rhythm.waits());
        self.stuck += u32::from(rhythm.is_stuck());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_one_is_stuck_at_once() {
        let (mut pace, mut rhythm) = (Pace::default(), Rhythm::new(true));
        pace.begin(&mut rhythm, Kind::Publish, Ticket(1));
        assert!(!pace.hasten(), "its read may hold more");
        pace.drained(&mut rhythm);
        assert!(pace.hasten());
        assert!(!pace.hasten(), "once is enough");
    }

    #[test]
    fn a_window_of_three_is_stuck_at_three() {
        let (mut pace, mut rhythm) = (Pace::default(), Rhythm::new(true));
        for ticket in 1..=3 {
            pace.begin(&mut rhythm, Kind::Publish, Ticket(ticket));
        }
        pace.drained(&mut rhythm);
        assert!(pace.hasten());
        pace.end(&mut rhythm, Kind::Publish);
        pace.end(&mut rhythm, Kind::Publish);
        pace.begin(&mut rhythm, Kind::Publish, Ticket(4));
        assert!(!pace.hasten(), "it had three outstanding and has two");
        pace.begin(&mut rhythm, Kind::Publish, Ticket(5));
        assert!(pace.hasten());
    }

    #[test]
    fn one_that_is_not_stuck_holds_the_others_back_until_it_leaves() {
        let (mut pace, mut one, mut two) = (Pace::default(), Rhythm::new(true), Rhythm::new(true));
        pace.begin(&mut one, Kind::Publish, Ticket(1));
        pace.drained(&mut one);
        pace.begin(&mut two, Kind::Publish, Ticket(2));
        assert!(!pace.hasten());
        pace.forget(&mut two);
        assert!(pace.hasten());
    }

    #[test]
    fn who_has_no_device_waiting_never_hastens() {
        let (mut pace, mut rhythm) = (Pace::default(), Rhythm::new(false));
        pace.begin(&mut rhythm, Kind::Publish, Ticket(1));
        pace.drained(&mut rhythm);
        assert!(!pace.hasten());
    }
}

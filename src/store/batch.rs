//! The open batch: what the next commit will hold.
//!
//! Orders wait here in the order in which they came, and leave only once a commit has held them: what
//! fails is tried again, nothing is lost. Its size is the broker's to bound (4 MB or 8,192 messages that
//! are not committed) and, for settles, the routes' windows and [`super::handle::ENDS_MAX`].

use std::collections::{BTreeMap, VecDeque};

use super::log::Order;
use super::pace::Waiting;
use super::runs::Runs;
use crate::record::{ReaderId, Write};

/// Orders that are not committed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    orders: VecDeque<Order>,
    waiting: Waiting,
    /// Rows that the orders end: readers no longer want them, though the disk does not know yet.
    ended: BTreeMap<ReaderId, Runs>,
}

impl Batch {
    /// Adds an order at `now`, in milliseconds of the monotonic clock.
    pub(super) fn push(&mut self, order: Order, now: u64) {
        match &order {
            Order::Write(write) if !write.is_lazy() => {
                self.waiting.prompt += 1;
                self.waiting.prompt_since.get_or_insert(now);
                if let Write::Message { message, .. } = write {
                    self.waiting.bytes += message.weight() as u64;
                }
            }
            Order::End { seqs, .. } => self.lazy(seqs.len() as u64, now),
            Order::Write(_) | Order::RouteAdded { .. } | Order::RouteRemoved { .. } => self.lazy(1, now),
            Order::Trim => {
                self.lazy(1, now);
                self.waiting.press = true;
            }
        }
        match &order {
            Order::Write(Write::Settled { reader, seq } | Write::Dropped { reader, seq, .. }) => {
                self.ended.entry(*reader).or_default().insert(seq.0);
            }
            Order::End { reader, seqs, .. } => {
                let ended = self.ended.entry(*reader).or_default();
                seqs.iter().for_each(|seq| ended.insert(seq.0));
            }
            _ => {}
        }
        self.orders.push_back(order);
    }

    fn lazy(&mut self, orders: u64, now: u64) {
        self.waiting.lazy += orders;
        self.waiting.lazy_since.get_or_insert(now);
    }

    /// Asks for a commit as soon as may be of what somebody waits for. One that comes too late, when a commit
    /// has taken all that, must not hasten what comes next.
    pub(super) fn hurry(&mut self) {
        self.waiting.hurry |= self.waiting.prompt > 0;
    }

    /// Asks for a commit of whatever waits, since it makes room.
    pub(super) fn press(&mut self) {
        self.waiting.press |= !self.orders.is_empty();
    }

    /// What waits, counted.
    pub(super) fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// The rows that the batch ends for this reader.
    pub(super) fn ended(&self, reader: ReaderId) -> &Runs {
        static NONE: Runs = Runs::new();
        self.ended.get(&reader).unwrap_or(&NONE)
    }

    /// How many orders.
    pub(super) fn len(&self) -> usize {
        self.orders.len()
    }

    /// The first orders, to be carried out.
    pub(super) fn first(&self, count: usize) -> impl Iterator<Item = &Order> {
        self.orders.iter().take(count)
    }

    /// Takes out the first orders, which a commit holds.
    pub(super) fn remove_first(&mut self, count: usize) -> Done {
        let count = count.min(self.orders.len());
        let mut done = Done::default();
        for order in self.orders.drain(..count) {
            match order {
                Order::Write(_) => done.writes += 1,
                Order::End { reader, seqs, .. } => *done.ends.entry(reader).or_default() += seqs.len(),
                Order::RouteAdded { .. } | Order::RouteRemoved { .. } | Order::Trim => {}
            }
        }
        if self.orders.is_empty() {
            self.waiting = Waiting::default();
            self.ended.clear();
        }
        done
    }
}

/// What a commit holds, counted.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Writes of the broker.
    pub(super) writes: u64,
    /// Rows that have ended otherwise, by reader.
    pub(super) ends: BTreeMap<ReaderId, usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Seq;

    const READER: ReaderId = ReaderId(1);

    #[test]
    fn a_hurry_is_for_what_waits_and_not_for_what_comes_later() {
        let mut batch = Batch::default();
        batch.hurry();
        assert!(!batch.waiting().hurry, "nothing waits");
        batch.push(Order::Write(Write::Settled { reader: READER, seq: Seq(1) }), 0);
        batch.hurry();
        assert!(!batch.waiting().hurry, "nobody waits for it");
        batch.push(Order::Write(Write::Inward { reader: READER, packet_id: 1 }), 0);
        assert!(!batch.waiting().hurry);
        batch.hurry();
        assert!(batch.waiting().hurry);
        batch.remove_first(2);
        assert!(!batch.waiting().hurry);
    }
}

//! The store's turn: what it was asked is served, and what it says is held against the books.
//!
//! A read finds what is committed and not ended, a commit holds the oldest orders, nothing waits too long.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use super::books::{Order, is_same};
use super::world::{Darkness, World, lock, payload_of};
use crate::record::{DropReason, Portion, Rows};
use crate::store::{Ask, GivenUp};

impl World {
    /// The store serves so many of its questions, and commits if that is due.
    pub(super) fn serve(&mut self, most: usize) {
        self.gather();
        for _ in 0..most {
            let Some(ask) = self.process().asks.pop_front() else { break };
            self.serve_one(ask);
        }
        let process = self.process.as_mut().expect("it runs");
        match catch_unwind(AssertUnwindSafe(|| process.store.turn())) {
            Ok(given_up) => given_up.into_iter().for_each(|given_up| self.on_given_up(given_up)),
            Err(thrown) => match thrown.downcast::<Darkness>() {
                Ok(darkness) => return self.die(darkness.0),
                Err(other) => resume_unwind(other),
            },
        }
        let process = self.process.as_mut().expect("it runs");
        let committed = self.books.pending() - process.store.waiting();
        if committed == 0 {
            return self.check_age();
        }
        self.books.commit(committed);
        let lines = process.store.lines();
        self.books.take_over(&lines);
        self.books.compare(&lines);
        self.note(|| format!("{committed} orders are committed"));
        self.check_age();
    }

    /// Nothing waits for a commit longer than it may.
    pub(super) fn check_age(&mut self) {
        let now = self.now.mono;
        let Some(oldest) = self.books.oldest() else { return };
        let process = self.process.as_mut().expect("it runs");
        if process.store.is_in_trouble() {
            process.failed_at = Some(now);
        } else if process.failed_at.is_none() {
            assert!(oldest + 1_000 > now, "an order of {oldest} is not committed at {now}");
        } else {
            process.failed_at = None;
        }
    }

    pub(super) fn serve_one(&mut self, ask: Ask) {
        let now = self.now.mono;
        match ask {
            Ask::Read { reader, after, limit, reply } => {
                let found = Arc::new(Mutex::new(None));
                let seen = found.clone();
                let noted = Box::new(move |rows| *lock(&seen) = Some(rows));
                let given_up = self.process().store.serve(Ask::Read { reader, after, limit, reply: noted });
                let rows: Rows = lock(&found).take().expect("a store that stands answers at once");
                self.check_rows(&rows, after.0, limit, &given_up);
                given_up.into_iter().for_each(|given_up| self.on_given_up(given_up));
                reply(rows);
            }
            Ask::Writes { batch, hurry } => {
                for write in &batch {
                    self.books.enter(Order::Write(write.clone()), now);
                }
                self.process().store.serve(Ask::Writes { batch, hurry });
            }
            Ask::Settle { reader, seqs } => {
                let order = Order::End { reader, seqs: seqs.iter().map(|seq| seq.0).collect(), reason: None };
                self.books.enter(order, now);
                self.process().store.serve(Ask::Settle { reader, seqs });
            }
            Ask::Drop { reader, seqs, reason } => {
                let ended = seqs.iter().map(|seq| seq.0).collect();
                self.books.enter(Order::End { reader, seqs: ended, reason: Some(reason) }, now);
                self.process().store.serve(Ask::Drop { reader, seqs, reason });
            }
            Ask::Status { .. } | Ask::Close => {}
        }
    }

    /// Takes what was asked of the store into its queue, and looks at what the routes say.
    pub(super) fn gather(&mut self) {
        let process = self.process.as_mut().expect("it runs");
        let asks = process.store.asks();
        for ask in &asks {
            let (reader, seqs, reason) = match ask {
                Ask::Settle { reader, seqs } => (*reader, seqs, None),
                Ask::Drop { reader, seqs, reason } => (*reader, seqs, Some(*reason)),
                _ => continue,
            };
            let route = process.routes.iter().position(|route| *route == reader).expect("a route");
            for seq in seqs.iter().filter(|_| reason.is_none()) {
                let payload = payload_of(&self.books.messages[&seq.0]);
                let confirmed = self.cloud.confirmed.contains(&(route, payload.clone()));
                assert!(confirmed, "{payload} is settled and upstream has not acknowledged it");
                self.tally.forwarded += 1;
            }
            let seqs = seqs.iter().map(|seq| seq.0).collect();
            self.books.on_end(&Order::End { reader, seqs, reason });
        }
        process.asks.extend(asks);
    }

    pub(super) fn on_given_up(&mut self, given_up: GivenUp) {
        assert_eq!(given_up.reason, DropReason::Expired, "rows of a sound database are damaged");
        let seqs: Vec<u64> = given_up.seqs.iter().map(|seq| seq.0).collect();
        seqs.iter().for_each(|seq| self.books.check_expired(*seq));
        let order = Order::End { reader: given_up.reader, seqs, reason: Some(given_up.reason) };
        self.books.on_end(&order);
        self.books.enter(order, self.now.mono);
    }

    /// A read has found what is committed and not ended, from its place on, and nothing else.
    pub(super) fn check_rows(&self, rows: &Rows, after: u64, limit: Portion, given_up: &[GivenUp]) {
        let reader = rows.reader;
        let over =
            |seq: u64| given_up.iter().any(|given_up| given_up.seqs.iter().any(|known| known.0 == seq));
        let readable = self.books.readable(reader, after);
        let within: Vec<(u64, u64)> = readable
            .iter()
            .copied()
            .filter(|(seq, _)| *seq <= rows.through.0.max(after) && !over(*seq))
            .collect();
        let found: Vec<(u64, u64)> = rows.rows.iter().map(|row| (row.seq.0, row.number)).collect();
        assert_eq!(found, within, "rows of {reader:?} after {after} up to {:?}", rows.through);
        let but_last: usize = rows.rows.iter().rev().skip(1).map(|row| row.message.weight()).sum();
        let fits = rows.rows.len() <= limit.rows as usize && but_last <= limit.bytes as usize;
        assert!(fits, "{reader:?} is given more than it asked for");
        for row in &rows.rows {
            let ours = &self.books.messages[&row.seq.0];
            assert!(is_same(&row.message, ours), "row {:?} is {:?}, not {ours:?}", row.seq, row.message);
        }
        if let Some(record) = self.books.disk.sessions.get(&reader) {
            let leases = &self.books.disk.readers[&record.reader].leases;
            let left =
                readable.iter().filter(|(seq, _)| *seq > rows.through.0 && !leases.contains_key(seq)).count();
            // What the batch ends is counted still.
            assert!(rows.left >= left as u64, "{reader:?} has {left} left, not {}", rows.left);
        }
    }
}

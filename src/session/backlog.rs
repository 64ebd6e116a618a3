//! Where a kept session stands in the log.
//!
//! Rows up to `taken` are under way (they stand in the session's flight) or done; rows after it wait.
//! `cursor` is where reading goes on: behind `taken` only after a reconnect, until what was under way
//! has been read and sent again. The rows that wait are counted, not held: RAM does not grow with them.

use std::collections::BTreeSet;

use super::Weights;
use crate::record::{ReaderId, Seq, Ticket};

/// The place of one kept session.
#[derive(Debug)]
pub struct Backlog {
    /// Its name in the log.
    pub reader: ReaderId,
    cursor: Seq,
    taken: Seq,
    last: Seq,
    /// The newest row that it had at the start: nobody knows which of those up to it were sent before.
    found: Seq,
    /// The rows after `taken`.
    waiting: Weights,
    /// A limit has taken rows from the log whose numbers are not known here.
    shortened: bool,
    /// The write that took them last: the log is not read before its commit.
    shortened_by: Ticket,
    reading: Reading,
    /// When the store last said how many rows wait, monotonic milliseconds.
    counted: u64,
    /// Rows after `taken` that are done: they were under way since before a restart.
    done_ahead: BTreeSet<Seq>,
}

/// Whether the store is asked for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// No.
    Idle,
    /// Yes.
    Asked,
    /// Yes, for a connection that is gone: the answer is thrown away.
    Stale,
    /// It is asked how many wait, and gives none out.
    Counting,
}

/// What a row that was read is for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It has not been taken before.
    New,
    /// It was taken before: under way or done.
    Taken,
}

impl Backlog {
    /// A new reader that wants nothing written up to `last`.
    pub fn new(reader: ReaderId, last: Seq) -> Backlog {
        Backlog {
            reader,
            cursor: last,
            taken: last,
            last,
            found: Seq(0),
            waiting: Weights::default(),
            shortened: false,
            shortened_by: Ticket(0),
            reading: Reading::Idle,
            counted: 0,
            done_ahead: BTreeSet::new(),
        }
    }

    /// A reader as it was found at the start; `waiting` has its rows, leased ones apart.
    pub fn restored(reader: ReaderId, cursor: Seq, last: Seq, waiting: Weights) -> Backlog {
        Backlog { last, found: last, waiting, ..Backlog::new(reader, cursor) }
    }

    /// Whether every row that it wants has been read on this connection.
    pub fn caught_up(&self) -> bool {
        self.cursor >= self.last
    }

    /// After which row reading goes on.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Rows up to here are under way or done.
    pub fn taken(&self) -> Seq {
        self.taken
    }

    /// Whether a row without a lease may have been sent before a restart: of QoS 1 the store knows only what was
    /// acknowledged.
    pub fn may_be_sent(&self, seq: Seq) -> bool {
        seq <= self.found
    }

    /// Rows that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.rows()
    }

    /// What they weigh.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting.bytes()
    }

    /// How many of the oldest must go until so many rows and bytes are left.
    pub fn over(&self, rows: u64, bytes: u64) -> u64 {
        self.waiting().saturating_sub(rows).max(self.waiting.over(bytes))
    }

    /// Whether so many rows and bytes are nearly reached, so that it matters how many wait in truth.
    pub fn is_nearly(&self, rows: u64, bytes: u64) -> bool {
        self.waiting() >= rows - rows / 8 || self.waiting_bytes() >= bytes - bytes / 8
    }

    /// Whether it is time to know how many wait in truth; a limit acts only after that.
    pub fn is_count_due(&self, now: u64) -> bool {
        now >= self.counted + COUNT_MILLIS
    }

    /// Whether a limit has taken rows whose numbers are not known here.
    pub fn shortened(&self) -> bool {
        self.shortened
    }

    /// Of its rows in RAM, those that a limit has taken from the log: it takes the oldest, so the
    /// newest `waiting` are still wanted.
    pub fn survive(&mut self, mut rows: Vec<Seq>) -> Vec<Seq> {
        let wanted = usize::try_from(self.waiting()).unwrap_or(usize::MAX);
        rows.truncate(rows.len().saturating_sub(wanted));
        self.shortened = false;
        if let Some(last) = rows.last() {
            self.taken = self.taken.max(*last);
        }
        rows
    }

    /// Whether the store is asked.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// A new row is wanted and waits.
    pub fn want(&mut self, seq: Seq, weight: u64) {
        if self.caught_up() {
            self.cursor = Seq(seq.0.saturating_sub(1));
            self.taken = self.cursor;
        }
        self.last = seq;
        self.waiting.add(weight);
    }

    /// A new row is wanted and sent at once; only for who has caught up.
    pub fn pass(&mut self, seq: Seq) {
        self.last = seq;
        self.cursor = seq;
        self.taken = seq;
    }

    /// The row before which reading goes on has been looked at.
    pub fn read(&mut self, seq: Seq) -> Next {
        self.cursor = self.cursor.max(seq);
        if seq <= self.taken || self.done_ahead.remove(&seq) {
            return Next::Taken;
        }
        self.taken = seq;
        self.done_ahead = self.done_ahead.split_off(&seq);
        self.waiting.take(1);
        Next::New
    }

    /// A row that stands in the flight though it may be after `taken`: under way since before a restart.
    /// What lies before it has been read.
    pub fn skip(&mut self, seq: Seq) {
        self.cursor = self.cursor.max(seq);
        self.taken = self.taken.max(seq);
    }

    /// A row that was under way since before a restart waits at its place after all; false where reading
    /// has passed it.
    pub fn regain(&mut self, seq: Seq) -> bool {
        let waits = seq > self.cursor;
        if waits {
            self.waiting.recount(self.waiting.rows() + 1);
            if self.reading == Reading::Counting {
                // The answer need not know.
                self.reading = Reading::Stale;
            }
        }
        waits
    }

    /// A row is done. An answer of the store that is under way may still have it.
    pub fn finish(&mut self, seq: Seq) {
        if seq > self.taken {
            self.done_ahead.insert(seq);
        }
    }

    /// Nothing that it wants is left up to `through`.
    pub fn advance(&mut self, through: Seq) {
        self.cursor = self.cursor.max(through.min(self.last));
        // What it has not taken by then has ended otherwise, and is the oldest of nobody's rows.
        self.taken = self.taken.max(self.cursor);
        if self.caught_up() {
            self.waiting.clear();
            self.shortened = false;
            self.done_ahead.clear();
        }
    }

    /// So many rows wait in truth: the store has ended some by itself.
    pub fn recount(&mut self, waiting: u64, now: u64) {
        self.waiting.recount(waiting);
        self.counted = now;
    }

    /// So many rows wait in truth, and all before this one have ended that were not taken.
    pub fn learn(&mut self, oldest: Seq, waiting: u64, now: u64) {
        self.taken = self.taken.max(Seq(oldest.0.saturating_sub(1)).min(self.last));
        self.recount(waiting, now);
    }

    /// Whether a row is done that may be read yet.
    pub fn is_done(&self, seq: Seq) -> bool {
        self.done_ahead.contains(&seq)
    }

    /// A limit takes the oldest waiting row.
    pub fn lose(&mut self, oldest: Seq) {
        self.taken = self.taken.max(oldest);
        self.waiting.take(1);
    }

    /// A limit takes so many of the oldest waiting rows, wherever they are in the log, by this write.
    pub fn shorten(&mut self, count: u64, ticket: Ticket) {
        self.waiting.take(count);
        self.shortened = true;
        self.shortened_by = ticket;
    }

    /// The write that must be committed before the log is read.
    pub fn shortened_by(&self) -> Ticket {
        self.shortened_by
    }

    /// The store is asked for rows.
    pub fn ask(&mut self) {
        self.reading = Reading::Asked;
    }

    /// The store is asked how many rows wait.
    pub fn count(&mut self) {
        self.reading = Reading::Counting;
    }

    /// The store has answered; what was asked before.
    pub fn answered(&mut self) -> Reading {
        std::mem::replace(&mut self.reading, Reading::Idle)
    }

    /// The connection is gone: reading starts again at what was under way.
    pub fn rewind(&mut self, oldest_unanswered: Option<Seq>) {
        let before = oldest_unanswered.map_or(self.taken, |seq| Seq(seq.0.saturating_sub(1)));
        self.cursor = before.min(self.taken);
        if self.reading == Reading::Asked {
            self.reading = Reading::Stale;
        }
    }
}

/// So long an answer is gone by: of a queue that stays full each message would ask again.
const COUNT_MILLIS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_the_store_has_ended_is_not_the_oldest_that_waits() {
        let mut backlog = Backlog::new(ReaderId(1), Seq(0));
        for seq in 1..=4 {
            backlog.want(Seq(seq), 10);
        }
        assert_eq!(backlog.read(Seq(1)), Next::New);
        // Row 2 had expired: nothing is left up to it.
        backlog.advance(Seq(2));
        backlog.recount(2, 0);
        assert_eq!((backlog.taken(), backlog.cursor()), (Seq(2), Seq(2)), "a limit would take it again");
        assert_eq!(backlog.read(Seq(3)), Next::New);
        assert_eq!(backlog.waiting(), 1);
        backlog.advance(Seq(9));
        assert!(backlog.caught_up() && backlog.waiting() == 0 && backlog.taken() == Seq(4));
    }
}

//! Where a route stands in the log: what was read ahead, and what to read next. Pure.
//!
//! Holds no more than a page of rows, whatever the backlog. A new connection begins again at the oldest
//! row that is not settled, so nothing here needs to survive one.

use std::collections::VecDeque;

use crate::record::{Row, Rows, Seq};

/// One route's place in the log.
#[derive(Debug)]
pub(super) struct Intake {
    rows: VecDeque<Row>,
    /// Everything up to here was read on this connection.
    after: Seq,
    /// What was asked and not yet answered.
    asked: Option<Asked>,
    /// The newest commit that a read has come to the end of; nothing more is there until the next.
    drained: Option<Seq>,
    /// A read of this connection has come to the end of the log as it was then.
    ended: bool,
    /// Bytes of an average row of the last page, so that a page of large messages is a short one.
    weight: usize,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    limit: u32,
    committed: Seq,
}

impl Intake {
    /// At the oldest unsettled row.
    pub(super) fn new() -> Intake {
        let rows = VecDeque::new();
        Intake { rows, after: Seq(0), asked: None, drained: None, ended: false, weight: WEIGHT_FIRST }
    }

    /// What to read now, if anything: after which row, and how many. `committed` is the newest commit.
    pub(super) fn ask(&mut self, committed: Seq) -> Option<(Seq, u32)> {
        let limit = (PAGE_BYTES / self.weight.max(1)).clamp(1, PAGE_ROWS_MAX);
        let enough = self.rows.len() * 2 > limit;
        let drained = self.drained.is_some_and(|drained| committed <= drained);
        if self.asked.is_some() || enough || drained {
            return None;
        }
        let limit = u32::try_from(limit).unwrap_or(1);
        self.asked = Some(Asked { limit, committed });
        Some((self.after, limit))
    }

    /// The answer.
    pub(super) fn fill(&mut self, rows: Rows) {
        let Some(asked) = self.asked.take() else { return };
        let full = rows.rows.len() >= usize::try_from(asked.limit).unwrap_or(usize::MAX);
        let advanced = rows.through > self.after && rows.through < asked.committed;
        self.ended |= rows.through >= rows.newest;
        self.drained = (!full && !advanced).then_some(asked.committed);
        self.after = rows.rows.last().map_or(self.after, |row| row.seq).max(rows.through).max(self.after);
        if !rows.rows.is_empty() {
            let weight: usize = rows.rows.iter().map(|row| row.message.weight()).sum();
            self.weight = weight / rows.rows.len();
        }
        self.rows.extend(rows.rows);
    }

    /// Bytes of the next row.
    pub(super) fn next_weight(&self) -> Option<usize> {
        self.rows.front().map(|row| row.message.weight())
    }

    /// Whether all that waited before this connection was taken, if there was any. What was committed
    /// since, for whomever, is not asked after: there may be more of it at any time.
    pub(super) fn is_caught_up(&self) -> bool {
        self.ended && self.rows.is_empty()
    }

    /// The next row.
    pub(super) fn pop(&mut self) -> Option<Row> {
        self.rows.pop_front()
    }
}

/// Bytes that a page should have.
const PAGE_BYTES: usize = 256 * 1024;
/// Rows that a page has at most.
const PAGE_ROWS_MAX: usize = 256;
/// What a row is taken to weigh before one was seen: a first page of 16 rows.
const WEIGHT_FIRST: usize = PAGE_BYTES / 16;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bridge::tests::reading;
    use crate::codec::QoS;
    use crate::record::{Identifiers, ReaderId, Want};

    const READER: ReaderId = ReaderId(1);

    fn row(seq: u64, payload: usize) -> Row {
        let message = reading("t", vec![0; payload]);
        let want = Want {
            reader: READER,
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: Identifiers::default(),
        };
        Row { seq: Seq(seq), number: seq, message: Arc::new(message), want }
    }

    fn rows(seqs: impl IntoIterator<Item = u64>, payload: usize, through: u64) -> Rows {
        let rows = seqs.into_iter().map(|seq| row(seq, payload)).collect();
        Rows { reader: READER, rows, through: Seq(through), newest: Seq(through), left: 0 }
    }

    #[test]
    fn it_reads_on_while_pages_are_full_and_then_waits_for_a_commit() {
        let mut intake = Intake::new();
        // Asked once whatever the store has announced, since a backlog may be older than the start.
        assert_eq!(intake.ask(Seq(0)), Some((Seq(0), 16)));
        assert_eq!(intake.ask(Seq(9)), None, "one question at a time");
        intake.fill(rows(1..=16, 100, 16));
        while intake.pop().is_some() {}
        assert_eq!(intake.ask(Seq(0)), Some((Seq(16), 256)), "the page was full");
        intake.fill(rows([], 0, 16));
        assert_eq!(intake.ask(Seq(0)), None, "all was read");
        assert_eq!(intake.ask(Seq(17)), Some((Seq(16), 256)), "a commit came");
        intake.fill(rows([17], 100, 17));
        assert_eq!(intake.pop().map(|row| row.seq), Some(Seq(17)));
        assert_eq!(intake.ask(Seq(17)), None);
    }

    #[test]
    fn a_store_that_answers_in_parts_is_asked_again_but_never_without_progress() {
        let mut intake = Intake::new();
        assert_eq!(intake.ask(Seq(100)), Some((Seq(0), 16)));
        intake.fill(rows([], 0, 50));
        assert_eq!(intake.ask(Seq(100)), Some((Seq(50), 16)), "up to 50 there was nothing");
        intake.fill(rows([], 0, 50));
        assert_eq!(intake.ask(Seq(100)), None, "no progress: no question");
        assert_eq!(intake.ask(Seq(101)), Some((Seq(50), 16)));
    }

    #[test]
    fn it_has_caught_up_when_a_read_came_to_the_end_and_all_rows_are_taken() {
        let mut intake = Intake::new();
        assert!(!intake.is_caught_up(), "nothing was asked");
        assert!(intake.ask(Seq(20)).is_some());
        intake.fill(Rows { newest: Seq(20), ..rows(1..=16, 100, 16) });
        while intake.pop().is_some() {}
        assert!(!intake.is_caught_up(), "the read ended before the log");
        assert!(intake.ask(Seq(20)).is_some());
        intake.fill(rows([20], 100, 20));
        assert!(!intake.is_caught_up(), "there is a row");
        assert!(intake.pop().is_some() && intake.is_caught_up());
        assert!(intake.ask(Seq(21)).is_some() && intake.is_caught_up(), "a later commit changes nothing");
    }

    #[test]
    fn a_page_of_large_messages_is_short() {
        let mut intake = Intake::new();
        assert_eq!(intake.ask(Seq(9)), Some((Seq(0), 16)));
        intake.fill(rows([1], 250_000, 1));
        assert!(intake.pop().is_some());
        assert_eq!(intake.ask(Seq(10)), Some((Seq(1), 1)));
    }
}

//! The store's thread: takes what is asked, commits when it is due, answers.
//!
//! While one commit syncs, what is asked queues up and makes the next. Nothing is acknowledged but by
//! [`Worker::committed`], which only a commit that succeeded reaches.

use super::batch::Batch;
use super::commit::{Database, Gate, Recovery};
use super::handle::{Ask, Inbox, ReaderStatus, StoreStatus};
use super::log::Order;
use super::pace::{DAY_MILLIS, Due, Spent, due};
use super::read::{Names, Question};
use super::reader::{Fate, Kind};
use super::room::Pages;
use super::schema::Fault;
use super::{Checked, successor, written};
use crate::record::{DropReason, HEARTBEAT, Now, ReaderId, Rows, Seq, Ticket};

/// Everything that the thread owns.
pub(super) struct Worker {
    pub(super) inbox: Inbox,
    pub(super) clock: Box<dyn Fn() -> Now + Send>,
    pub(super) on_commit: Box<dyn Fn(Ticket) + Send>,
    pub(super) config: Checked,
    pub(super) database: Database,
    pub(super) names: Names,
    pub(super) batch: Batch,
    pub(super) gate: Option<Gate>,
    pub(super) recovery: Recovery,
    pub(super) meter: Meter,
    /// Reads that came while the database could not answer; one a reader at most.
    pub(super) held: Vec<Ask>,
    /// The time is not written alone before, monotonic.
    pub(super) beat_after: u64,
    /// The broker's writes that are committed.
    pub(super) ticket: u64,
    pub(super) commits: u64,
}

/// Bytes written, in all and today.
#[derive(Debug, Default)]
pub(super) struct Meter {
    total: u64,
    day_began: u64,
    day_began_total: u64,
}

/// Whether the thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// It does.
    On,
    /// It was told to close.
    End,
}

impl Worker {
    /// Serves until it is told to close.
    pub(super) fn run(mut self) {
        loop {
            let asks = self.inbox.take(Some(self.wait()));
            if self.turn(asks) == Course::End {
                self.close();
                return;
            }
        }
    }

    /// Serves what was asked, and commits if that is due.
    pub(super) fn turn(&mut self, asks: Vec<Ask>) -> Course {
        let mut course = Course::On;
        for ask in asks {
            if self.serve(ask) == Course::End {
                course = Course::End;
            }
        }
        if course == Course::On {
            self.commit_if_due();
        }
        course
    }

    /// How long there is nothing to do unless something is asked.
    fn wait(&self) -> std::time::Duration {
        let now = (self.clock)().mono;
        let until = match (self.recovery.retry_at, self.due(now)) {
            (Some(at), _) => at,
            (None, Due::Now) => now,
            (None, Due::At(at)) => at,
            (None, Due::Never) => self.beat_at(),
        };
        std::time::Duration::from_millis(until.saturating_sub(now))
    }

    fn due(&self, now: u64) -> Due {
        due(&self.config, &self.batch.waiting(), self.meter.spent(now), now)
    }

    fn serve(&mut self, ask: Ask) -> Course {
        let now = (self.clock)().mono;
        match ask {
            Ask::Writes { batch, hurry } => {
                for write in batch {
                    self.batch.push(Order::Write(write), now);
                }
                if hurry {
                    self.batch.hurry();
                }
            }
            Ask::Settle { reader, seqs } => {
                self.batch.push(Order::End { reader, seqs, fate: Fate::Delivered }, now);
            }
            Ask::Drop { reader, seqs, reason } => {
                self.batch.push(Order::End { reader, seqs, fate: Fate::Dropped(reason) }, now);
            }
            Ask::Read { reader, after, limit, reply } => self.read(reader, after, limit, reply),
            Ask::Status { reply } => reply(self.status()),
            Ask::Close => return Course::End,
        }
        Course::On
    }

    fn commit_if_due(&mut self) {
        let now = (self.clock)().mono;
        self.meter.turn(now);
        if let Some(at) = self.recovery.retry_at {
            if at > now {
                return;
            }
            self.try_again();
            self.commit();
        } else if self.due(now) == Due::Now {
            self.commit();
        } else if self.beat_at() <= now {
            self.beat();
        }
    }

    /// Commits the batch, in parts if the disk is tight.
    fn commit(&mut self) {
        while self.batch.len() > 0 && self.recovery.retry_at.is_none() {
            let count = self.batch.len().min(self.recovery.limit);
            let stamp = self.database.log.ledger.stamp + 1;
            let now = (self.clock)();
            let result = self.database.transact(&self.config, self.gate.as_mut(), |log, connection| {
                log.ledger.times.keep(&now);
                self.batch.first(count).try_for_each(|order| log.apply(connection, order))
            });
            self.meter.read();
            match result {
                Ok(()) => self.committed(count),
                Err(fault) => self.recover(fault, count, stamp),
            }
        }
        self.meter.read();
    }

    /// Writes the time alone, where nothing else has been written for long: after a start it goes on from there.
    fn beat(&mut self) {
        let now = (self.clock)();
        self.beat_after = now.mono + BEAT_RETRY_MILLIS;
        let result = self.database.transact(&self.config, self.gate.as_mut(), |log, _| {
            log.ledger.times.keep(&now);
            Ok(())
        });
        self.meter.read();
        if let Err(fault) = result {
            self.recover_beat(fault);
        }
    }

    /// When the time is to be written; at once where it has jumped, since a start would not know that.
    fn beat_at(&self) -> u64 {
        let young = HEARTBEAT.saturating_sub(self.time_since_commit());
        ((self.clock)().mono + young).max(self.beat_after)
    }

    /// Milliseconds of the house's time that no start would know of; a store without a past has nothing that could
    /// age.
    fn time_since_commit(&self) -> u64 {
        let kept = self.database.log.ledger.times.time;
        if kept == 0 { 0 } else { (self.clock)().house.saturating_sub(kept) }
    }

    /// A commit holds the first orders: whoever waits for them is told.
    pub(super) fn committed(&mut self, count: usize) {
        self.commits += 1;
        self.ticket += self.batch.remove_first(count);
        (self.on_commit)(Ticket(self.ticket));
        self.inbox.announce(Seq(self.database.log.ledger.last_seq));
        if self.recovery.succeeded() {
            tracing::info!("the store commits again");
        }
        if let Err(fault) = self.database.tend(&self.config, (self.clock)().mono) {
            self.recover_idle(fault);
        }
        self.answer_held();
    }

    pub(super) fn answer_held(&mut self) {
        for ask in std::mem::take(&mut self.held) {
            self.serve(ask);
        }
    }

    fn read(&mut self, reader: ReaderId, after: Seq, limit: u32, reply: Box<dyn FnOnce(Rows) + Send>) {
        let now = (self.clock)();
        let batch = &self.batch;
        let question = Question { reader, after, limit, now, ended: &|seq| batch.ends(reader, seq) };
        let answer = match self.database.read(&mut self.names, &question) {
            Ok(answer) => answer,
            Err(fault) => {
                self.held.push(Ask::Read { reader, after, limit, reply });
                self.recover_idle(fault);
                return;
            }
        };
        for (seqs, reason) in [(answer.expired, DropReason::Expired), (answer.damaged, DropReason::Damaged)] {
            if !seqs.is_empty() {
                if reason == DropReason::Damaged {
                    tracing::error!(reader = reader.0, rows = seqs.len(), "rows of the store are damaged");
                }
                self.batch.push(Order::End { reader, seqs, fate: Fate::Dropped(reason) }, now.mono);
            }
        }
        reply(answer.rows);
    }

    fn status(&mut self) -> StoreStatus {
        let mut status = StoreStatus {
            max_size: self.config.max_size,
            commits: self.commits,
            written: self.meter.total,
            trouble: self.recovery.trouble.clone(),
            ..StoreStatus::default()
        };
        match self.fill(&mut status) {
            Ok(()) => {}
            Err(fault) => {
                status.trouble.get_or_insert_with(|| fault.to_string());
                self.recover_idle(fault);
            }
        }
        status
    }

    fn fill(&mut self, status: &mut StoreStatus) -> Result<(), Fault> {
        let Some(connection) = &self.database.connection else { return Ok(()) };
        let apart = successor::size(&self.database.files, &self.database.apart);
        status.size = Pages::of(connection)?.in_use() + self.database.files.wal_size() + apart;
        let ids: Vec<ReaderId> = self.database.log.readers.keys().copied().collect();
        for id in ids {
            let queued = self.database.log.queued(connection, id)?;
            let Some(reader) = self.database.log.readers.get(&id) else { continue };
            let counters = &reader.state.counters;
            status.readers.insert(
                id,
                ReaderStatus {
                    name: reader.name.clone(),
                    route: reader.kind == Kind::Route,
                    received: counters.received,
                    delivered: counters.delivered,
                    queued,
                    expired: counters.expired,
                    dropped: counters.dropped.clone(),
                },
            );
        }
        Ok(())
    }

    /// Commits what is there, as far as the disk lets it, and leaves the files in good order.
    pub(super) fn close(mut self) {
        self.recovery.retry_at = None;
        for _ in 0..CLOSE_ATTEMPTS {
            if self.batch.len() == 0 {
                break;
            }
            self.recovery.retry_at = None;
            self.commit();
        }
        if self.batch.len() > 0 {
            tracing::error!(orders = self.batch.len(), "the store ends before it could commit everything");
        } else if self.recovery.trouble.is_none() && self.time_since_commit() >= BEAT_AT_CLOSE_MILLIS {
            self.beat();
        }
        self.database.close();
    }
}

impl Meter {
    /// A meter whose first day begins now.
    pub(super) fn begun(now: u64) -> Meter {
        Meter { day_began: now, ..Meter::default() }
    }

    /// Reads the kernel's count.
    fn read(&mut self) {
        if let Some(total) = written::by_this_thread() {
            self.total = total;
        }
    }

    /// Bytes of the running day. A day begins with the process and every 24 hours after.
    fn spent(&self, now: u64) -> Spent {
        let elapsed = now.saturating_sub(self.day_began);
        Spent { bytes: self.total.saturating_sub(self.day_began_total), elapsed: elapsed.min(DAY_MILLIS) }
    }

    /// Begins another day if one has passed.
    fn turn(&mut self, now: u64) {
        while now.saturating_sub(self.day_began) >= DAY_MILLIS {
            self.day_began += DAY_MILLIS;
            self.day_began_total = self.total;
        }
    }
}

/// How soon the time is written again that could not be.
const BEAT_RETRY_MILLIS: u64 = 60_000;

/// At a close it is written where it is older than this.
const BEAT_AT_CLOSE_MILLIS: u64 = 1_000;

/// So often a last commit is tried when the store closes.
const CLOSE_ATTEMPTS: u32 = 12;

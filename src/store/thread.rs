//! The store's thread: takes what is asked, commits when it is due, answers.
//!
//! While one commit syncs, what is asked queues up and makes the next. Nothing is acknowledged but by
//! [`Worker::committed`], which only a commit that succeeded reaches.

use super::batch::Batch;
use super::commit::{Database, Gate, Recovery};
use super::handle::{Ask, Inbox, StoreStatus};
use super::log::Order;
use super::pace::{DAY_MILLIS, Due, Last, Spent, due};
use super::read::{Names, Question};
use super::reader::{Fate, Kind};
use super::room::{Room, missed_floor};
use super::schema::Fault;
use super::segment::Pen;
use super::tend::SHRINK_MILLIS;
use super::unread::{ELSEWHERE, NEEDLESS};
use super::written::Written;
use super::{Checked, aside};
use crate::record::{
    DropReason, Full, HEARTBEAT, Now, Portion, ReaderId, ReaderStatus, Rows, Seq, Ticket, Write,
};

/// Everything that the thread owns.
pub(super) struct Worker {
    pub(super) inbox: Inbox,
    pub(super) clock: Box<dyn Fn() -> Now + Send>,
    pub(super) on_commit: Box<dyn Fn(Ticket) + Send>,
    pub(super) on_full: Box<dyn Fn(Full) + Send>,
    /// What was told last.
    pub(super) full: Full,
    /// When rows that ran out of time were last looked for without any other need of a commit.
    pub(super) trimmed_at: u64,
    pub(super) config: Checked,
    pub(super) database: Database,
    pub(super) names: Names,
    pub(super) batch: Batch,
    pub(super) gate: Option<Gate>,
    pub(super) recovery: Recovery,
    pub(super) meter: Meter,
    pub(super) last: Last,
    /// Reads that could not be answered; one a reader at most.
    pub(super) held: Vec<Held>,
    /// The time is not written alone before, monotonic.
    pub(super) beat_after: u64,
    /// The broker's writes that are committed.
    pub(super) ticket: u64,
    pub(super) commits: u64,
}

/// A read that could not be answered.
pub(super) struct Held {
    reader: ReaderId,
    ask: Ask,
    /// The segment that the disk could not read; `None` where it waits for the database, or for a commit.
    segment: Option<u32>,
}

/// Bytes written, in all and today.
#[derive(Debug, Default)]
pub(super) struct Meter {
    written: Written,
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
        self.look_for_room();
        if self.database.log.bounded().any(|(_, reader)| reader.bounds.max_age.is_some()) {
            // Some may have run out of time while nobody was here to see it.
            self.trim(self.meter.day_began);
        }
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
        let now = (self.clock)();
        let until = |at: u64| std::time::Duration::from_millis(at.saturating_sub(now.mono));
        let due = match (self.recovery.retry_at, self.due(now.mono)) {
            (Some(at), _) => return until(at),
            (None, Due::Now) => now.mono,
            (None, Due::At(at)) => at,
            (None, Due::Never) => self.beat_at(),
        };
        let aged = self.database.log.next_aged(&now).map(|at| now.mono + at.saturating_sub(now.house));
        let aged = aged.map(|aged| aged.max(self.next_trim()));
        // Others may give the disk back without a word.
        let look = (!self.full.is_nobody()).then_some(now.mono + LOOK_MILLIS);
        let later = [aged, look, self.held_until(), self.tend_at()];
        until(later.into_iter().flatten().fold(due, u64::min))
    }

    fn due(&self, now: u64) -> Due {
        due(&self.config, &self.batch.waiting(), self.meter.spent(now), self.last, now)
    }

    fn serve(&mut self, ask: Ask) -> Course {
        let now = (self.clock)().mono;
        match ask {
            Ask::Writes { mut batch, hurry } => {
                let ends = |write: &Write| {
                    use Write::{SessionLapsed, SessionRemoved, Settled};
                    matches!(write, Settled { .. } | SessionRemoved { .. } | SessionLapsed { .. })
                };
                let presses = batch.iter().any(ends);
                for write in batch.drain(..) {
                    self.batch.push(Order::Write(write), now);
                }
                self.inbox.give_back(batch);
                if presses {
                    self.press();
                }
                if hurry {
                    self.batch.hurry();
                }
            }
            Ask::Settle { reader, seqs } => {
                self.batch.push(Order::End { reader, seqs, fate: Fate::Delivered }, now);
                self.press();
            }
            Ask::Drop { reader, seqs, reason } => {
                self.batch.push(Order::End { reader, seqs, fate: Fate::Dropped(reason) }, now);
                self.press();
            }
            Ask::Read { reader, after, limit, reply } => {
                // Who asks again, as a new connection does, waits for no other answer.
                self.held.retain(|held| held.reader != reader);
                self.read(reader, after, limit, reply);
            }
            Ask::Status { reply } => reply(self.status()),
            Ask::Close => return Course::End,
        }
        Course::On
    }

    /// Before it, no commit is made for rows that ran out of time alone: each would be a write to flash.
    fn next_trim(&self) -> u64 {
        if self.database.log.is_behind { 0 } else { self.trimmed_at.saturating_add(TRIM_MILLIS) }
    }

    fn trim(&mut self, now: u64) {
        self.trimmed_at = now;
        self.database.log.is_behind = false;
        self.batch.push(Order::Trim, now);
    }

    /// What makes room is not kept waiting where there is none.
    fn press(&mut self) {
        if !self.full.is_nobody() {
            self.batch.press();
        }
    }

    /// While something is full: whether it still is, without a commit that would say so.
    fn look_for_room(&mut self) {
        let Database { connection: Some(connection), log, files, apart, .. } = &mut self.database else {
            return;
        };
        // What is wrong with the database the next commit meets too.
        if log.look_for_room(connection, files, apart, &self.config).is_ok() {
            self.tell_full();
        }
    }

    /// The disk has no room, whatever the figures say: who refuses is told so until a commit has taken place.
    pub(super) fn say_full(&mut self) {
        self.database.log.room = Room::None;
        self.tell_full();
    }

    fn tell_full(&mut self) {
        let full = self.database.log.full();
        if full == self.full {
            return;
        }
        if full.is_nobody() {
            tracing::info!("the store takes everything again");
        } else if self.full.is_nobody() {
            tracing::warn!(
                store = full.store,
                routes = full.routes.len(),
                "full: more is refused or dropped"
            );
        }
        self.full = full.clone();
        (self.on_full)(full);
    }

    fn commit_if_due(&mut self) {
        let at = (self.clock)();
        let now = at.mono;
        self.meter.turn(now);
        let aged = self.database.log.next_aged(&at).is_some_and(|due| due <= at.house);
        if aged && now >= self.next_trim() && self.recovery.retry_at.is_none() {
            self.trim(now);
        }
        if !self.full.is_nobody() && self.batch.len() == 0 {
            self.look_for_room();
        }
        if self.held_until().is_some_and(|at| at <= now) {
            self.answer_held();
        }
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
        } else if self.tend_at().is_some_and(|at| at <= now) {
            self.tend();
        }
    }

    /// When the file is looked after although nothing is committed.
    fn tend_at(&self) -> Option<u64> {
        self.database.is_to_be_tended().then(|| self.database.shrunk_at.saturating_add(SHRINK_MILLIS))
    }

    /// Looks after the file. Returns the place that the disk did not read for that.
    fn tend(&mut self) -> Option<u32> {
        let fault = self.database.tend(&self.config, (self.clock)().mono).err()?;
        let place = fault.unread();
        // What stands in the way of every drop no commit may ever meet.
        match fault.is_damage() || place == Some(NEEDLESS) {
            true => self.recover_left(fault),
            false => self.recover_idle(fault),
        }
        place
    }

    /// Commits the batch, in parts if the disk is tight.
    fn commit(&mut self) {
        while self.batch.len() > 0 && self.recovery.retry_at.is_none() {
            let count = self.batch.len().min(self.recovery.limit);
            let stamp = self.database.log.ledger.stamp + 1;
            self.database.now = (self.clock)();
            let now = self.database.now;
            let prompt = self.batch.waiting().prompt;
            let result = self.database.transact(&self.config, self.gate.as_mut(), |log, connection| {
                log.ledger.times.keep(&now);
                let mut pen = Pen::new(connection);
                self.batch.first(count).try_for_each(|order| log.apply(&mut pen, order))
            });
            match result {
                Ok(()) => {
                    let ended = (self.clock)().mono;
                    self.last = Last { prompt, ended, took: ended.saturating_sub(now.mono) };
                    self.committed(count);
                }
                Err(fault) => self.recover(fault, count, stamp),
            }
        }
        self.meter.read();
    }

    /// Writes the time alone, where nothing else has been written for long: after a start it goes on from there.
    fn beat(&mut self) {
        let now = (self.clock)();
        self.database.now = now;
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
        let done = self.batch.remove_first(count);
        self.ticket += done.writes;
        // First, so that who goes on with the commit meets what is so by now.
        self.tell_full();
        (self.on_commit)(Ticket(self.ticket));
        self.inbox.wrote(&done.ends);
        if self.recovery.succeeded() {
            tracing::info!("the store commits again");
        }
        self.inbox.go_on(Seq(self.database.log.ledger.last_seq));
        if self.tend() != Some(ELSEWHERE) {
            // All was read that a commit needs.
            self.database.unread.forget(ELSEWHERE);
        }
        self.answer_held();
    }

    /// Answers the reads that could not be answered, but for those whose segment is put off.
    pub(super) fn answer_held(&mut self) {
        let now = (self.clock)().mono;
        for held in std::mem::take(&mut self.held) {
            if held.segment.is_some_and(|id| self.put_off_until(id) > now) {
                self.held.push(held);
                continue;
            }
            let before = self.held.len();
            self.serve(held.ask);
            if let Some(id) = held.segment
                && self.held.len() == before
            {
                self.database.unread.forget(id);
            }
        }
    }

    /// When the first of them may be asked again that wait for a segment.
    fn held_until(&self) -> Option<u64> {
        self.database.connection.as_ref()?;
        self.held.iter().filter_map(|held| held.segment).map(|id| self.put_off_until(id)).min()
    }

    fn put_off_until(&self, segment: u32) -> u64 {
        self.database.unread.until(segment)
    }

    fn read(&mut self, reader: ReaderId, after: Seq, limit: Portion, reply: Box<dyn FnOnce(Rows) + Send>) {
        // It is opened again at its time.
        let is_closed = self.database.connection.is_none() && self.recovery.retry_at.is_some();
        // Each read may end a page of rows that nobody can have: while nothing commits there would be no end of them.
        if is_closed || self.inbox.has_no_room_for_ends(reader) {
            let ask = Ask::Read { reader, after, limit, reply };
            self.held.push(Held { reader, ask, segment: None });
            return;
        }
        let now = (self.clock)();
        let question = Question { reader, after, limit, now, ended: self.batch.ended(reader) };
        let answer = match self.database.read(&mut self.names, &question) {
            Ok(answer) => answer,
            Err(fault) => {
                let segment = if let Fault::Unreadable(id) = fault { Some(id) } else { None };
                self.held.push(Held { reader, ask: Ask::Read { reader, after, limit, reply }, segment });
                match segment {
                    Some(id) => self.wait_for(id),
                    None => self.recover_idle(fault),
                }
                return;
            }
        };
        for (seqs, reason) in [(answer.expired, DropReason::Expired), (answer.damaged, DropReason::Damaged)] {
            if !seqs.is_empty() {
                if reason == DropReason::Damaged {
                    tracing::error!(reader = reader.0, rows = seqs.len(), "rows of the store are damaged");
                }
                self.inbox.ended(reader, seqs.len());
                self.batch.push(Order::End { reader, seqs, fate: Fate::Dropped(reason) }, now.mono);
            }
        }
        reply(answer.rows);
    }

    fn status(&mut self) -> StoreStatus {
        let (put_aside, put_aside_as) = aside::sum(&self.database.files);
        let mut status = StoreStatus {
            max_size: self.config.max_size,
            commits: self.commits,
            written: self.meter.total,
            put_aside,
            put_aside_as,
            trouble: self.recovery.trouble.clone(),
            full: self.full.clone(),
            ..StoreStatus::default()
        };
        if self.held.iter().any(|held| held.segment.is_some()) {
            status.trouble.get_or_insert_with(|| Fault::Unreadable(0).to_string());
        }
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
        let Database { files, log, apart, .. } = &self.database;
        // What lies apart is not given up for it.
        let taken = files.database_size() + files.wal_size();
        status.warning = missed_floor(&self.config, taken, files.free_disk());
        let Some(connection) = &self.database.connection else { return Ok(()) };
        status.size = log.taken(connection, files, apart)?;
        let ids: Vec<ReaderId> = self.database.log.readers.keys().copied().collect();
        for id in ids {
            let queued = self.database.log.queued(connection, id)?;
            let Some(reader) = self.database.log.readers.get(&id) else { continue };
            let line = reader.state.counters.line(&reader.name, reader.kind == Kind::Route, queued);
            status.readers.insert(id, ReaderStatus { full: reader.takes_nothing(), ..line });
        }
        let gone = self.database.log.gone.iter();
        status.gone = gone.map(|(id, gone)| (*id, gone.counters.line(&gone.name, true, 0))).collect();
        status.past = self.database.log.ledger.past.line("", false, 0);
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
        if let Some(total) = self.written.by_this_thread() {
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

/// How often rows that ran out of time are ended where nothing else is committed.
const TRIM_MILLIS: u64 = 10_000;

/// How often it is looked whether what was full still is.
const LOOK_MILLIS: u64 = 1_000;
/// How soon the time is written again that could not be.
const BEAT_RETRY_MILLIS: u64 = 60_000;

/// At a close it is written where it is older than this.
const BEAT_AT_CLOSE_MILLIS: u64 = 1_000;

/// So often a last commit is tried when the store closes.
const CLOSE_ATTEMPTS: u32 = 12;

#[cfg(test)]
mod stepped;
#[cfg(test)]
pub(crate) use stepped::{GivenUp, Scale, Stepped};

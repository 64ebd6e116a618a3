//! One transaction, and the way back from one that failed.
//!
//! A failed transaction leaves nothing: it is rolled back, the log in memory is thrown away and loaded
//! again, and the batch is tried again. Where the disk is full, room is made: the WAL is moved into the
//! database, the reserve is given up, the oldest segments go, the batch is committed in smaller parts.
//! After a failed sync the file is never written again: another database takes its place. What the failed
//! commit held may then be there or not; the ledger's stamp tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::Checked;
use super::aside;
use super::index::Index;
use super::log::{Doubt, Log};
use super::numbers::Given;
use super::open;
use super::patience::{Patience, backoff};
use super::read::{Answer, Names, Question};
use super::reserve::Reserve;
use super::room::{Files, PAGE, Pages, Room, Sizes};
use super::salvage::{self, Legible, Odds};
use super::schema::Fault;
use super::successor::{self, Apart};
use super::tend::{Dropped, Pause, Spare};
use super::thread::Worker;
use super::unread::{NEEDLESS, Unread};
use crate::record::{Now, Seq};

/// Called before and after each sync of a commit, on the store's thread: lets a test hold it or fail it.
pub type Gate = Box<dyn FnMut(Stage) -> std::io::Result<()> + Send>;

/// Where a commit stands when the [`Gate`] is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Everything is written but for the commit itself.
    BeforeSync,
    /// The commit is on disk; failing it now is a sync that failed too late to be undone.
    AfterSync,
}

/// The connection and what is known of its contents.
pub(super) struct Database {
    pub(super) files: Files,
    pub(super) sizes: Sizes,
    /// `None` between a failure and the next attempt to open it.
    pub(super) connection: Option<Connection>,
    pub(super) log: Log,
    /// What its commits have given.
    pub(super) given: Given,
    pub(super) reserve: Reserve,
    /// When the database was made, wall clock in milliseconds.
    pub(super) epoch: u64,
    /// Segments that have failed.
    pub(super) suspects: BTreeMap<u32, Doubt>,
    /// Segments that the disk could not read.
    pub(super) unread: Unread,
    /// When the file was last shrunk a little.
    pub(super) shrunk_at: u64,
    /// Whether it is to be shrunk.
    pub(super) spare: Spare,
    /// The time of the running transaction.
    pub(super) now: Now,
    /// The configuration, for a log that is loaded anew.
    pub(super) rules: Arc<Checked>,
    /// Whether the file may be written.
    pub(super) sync: Sync,
    /// What is done about a log of which a salvage may find more.
    pub(super) odds: Odds,
    /// Older files that are read.
    pub(super) apart: Vec<Apart>,
}

/// Whether what the database's file reads is what a loss of power would leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Every sync has succeeded.
    Trusted,
    /// One has failed: the file must not be written again, and another has to take its place.
    Failed,
}

/// Where the store stands after failed commits.
#[derive(Debug)]
pub(super) struct Recovery {
    /// Commits that have failed in a row.
    pub(super) failures: u32,
    /// The last of them, as many as failed for want of room: only these say how much has to go.
    full: u32,
    /// Tables that were left behind when one failed last.
    left: usize,
    /// At most so many orders in one commit.
    pub(super) limit: usize,
    /// When to try again.
    pub(super) retry_at: Option<u64>,
    /// Why it does not commit.
    pub(super) trouble: Option<String>,
    /// A commit that failed and may be on disk all the same: its stamp, and how many orders it held.
    unsure: Option<(u64, usize)>,
    /// For the sake of tables that nobody needs nothing is salvaged before its end.
    pub(super) pause: Pause,
}

impl Default for Recovery {
    fn default() -> Recovery {
        Recovery {
            failures: 0,
            full: 0,
            left: 0,
            limit: usize::MAX,
            retry_at: None,
            trouble: None,
            unsure: None,
            pause: Pause::default(),
        }
    }
}

impl Recovery {
    /// A commit took place. Returns whether there was trouble before.
    pub(super) fn succeeded(&mut self) -> bool {
        (self.failures, self.full) = (0, 0);
        self.limit = self.limit.saturating_mul(2);
        self.trouble.take().is_some()
    }

    /// Waits before the next attempt, longer each time.
    fn back_off(&mut self, now: u64, reason: String) {
        if self.trouble.is_none() {
            tracing::error!(reason, "the store cannot commit; it keeps what it has and tries again");
        }
        self.trouble = Some(reason);
        self.retry_at = Some(now + backoff(self.failures));
    }
}

impl Database {
    /// Carries out `work` and what follows from it, and commits.
    pub(super) fn transact(
        &mut self,
        config: &Checked,
        gate: Option<&mut Gate>,
        work: impl FnOnce(&mut Log, &Connection) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let result = self.transact_unwatched(config, gate, work);
        if result.is_ok() {
            self.given.follow(&mut self.log);
            self.spare = Spare::Perhaps;
        }
        self.watch(result)
    }

    fn transact_unwatched(
        &mut self,
        config: &Checked,
        mut gate: Option<&mut Gate>,
        work: impl FnOnce(&mut Log, &Connection) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(connection) = &self.connection else { return Err(Fault::Closed) };
        let (log, apart) = (&mut self.log, &self.apart);
        let (files, reserve, epoch, now) = (&self.files, &self.reserve, self.epoch, &self.now);
        log.rest(self.unread.resting(now.mono));
        let run = || -> Result<(), Fault> {
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            if log.room == Room::Unknown {
                log.look_for_room(connection, files, apart, config)?;
            }
            log.begin();
            work(log, connection)?;
            log.trim(connection, now)?;
            log.sweep(connection)?;
            log.make_room(connection, files, apart, config)?;
            log.ledger.epoch = epoch;
            log.write_state(connection)?;
            // What lies in the WAL alone must fit the disk when it is moved, whatever others take of it.
            let owed = (Pages::of(connection)?.all * PAGE).saturating_sub(files.database_size());
            let beyond = owed.saturating_sub(reserve.size());
            if beyond > 0 && beyond > files.free_disk().unwrap_or(u64::MAX) / 2 {
                return Err(Fault::Tight);
            }
            if let Some(gate) = &mut gate {
                gate(Stage::BeforeSync).map_err(Fault::Gate)?;
            }
            connection.prepare_cached("COMMIT")?.execute([])?;
            if let Some(gate) = &mut gate {
                gate(Stage::AfterSync).map_err(Fault::Gate)?;
            }
            Ok(())
        };
        run()
    }

    /// Lets go of the file where a sync has failed: from here on nothing may write it, not even a rollback.
    pub(super) fn watch<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        if result.as_ref().is_err_and(Fault::is_unsynced) {
            self.sync = Sync::Failed;
            self.connection = None;
        }
        result
    }

    /// Undoes what a failed transaction left on the connection.
    fn roll_back(&mut self) -> Result<(), Fault> {
        let Some(connection) = &self.connection else { return Err(Fault::Closed) };
        let back = || -> Result<Log, Fault> {
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            self.load(connection)
        };
        match back() {
            Ok(log) => {
                self.take(log);
                Ok(())
            }
            Err(fault) => {
                // Memory may run ahead of the disk now: nothing may be read or written before a new start.
                self.connection = None;
                Err(fault)
            }
        }
    }

    /// Drops the connection and opens another: to a new database, if a sync of this one has failed or it
    /// turns out to be damaged.
    pub(super) fn reopen(&mut self, patience: Patience, now: &Now) -> Result<(), Fault> {
        let opened = match self.reopen_sound(patience) {
            Err(fault @ Fault::AtOdds(_)) => {
                self.replace_damaged(patience, now.wall, &fault, Legible::AsFarAsItGoes)
            }
            Err(fault) if fault.is_damage() => self.replace_damaged(patience, now.wall, &fault, Legible::Not),
            other => other,
        };
        match opened {
            Err(fault) if self.is_hopeless(&fault, now.mono) => self.go_round(&fault, now),
            other => other,
        }
    }

    fn reopen_sound(&mut self, patience: Patience) -> Result<(), Fault> {
        self.connection = None;
        if self.sync == Sync::Failed {
            successor::set_apart(&self.files)?;
            // What was left behind goes with that file.
            self.log.forget_tables();
            // By its name it is known from now on.
            self.sync = Sync::Trusted;
        }
        let files = self.files.with(patience);
        let opened = open::connect_in_need(&files, &self.sizes, &mut self.reserve);
        let connection = self.watch(opened.map_err(Fault::from))?;
        // First: where the log is not read, it is known from this in which file that lies.
        self.apart = successor::attached(&connection, &self.files)?;
        let log = self.load(&connection)?;
        self.take(log);
        self.connection = Some(connection);
        Ok(())
    }

    /// Reads the log anew. Rows may be there that only a salvage finds.
    fn load(&self, connection: &Connection) -> Result<Log, Fault> {
        let log = Log::load(connection, self.sizes, &self.rules, &self.suspects)?;
        match salvage::is_due(&log, &self.files, connection, &self.suspects) {
            Some(why) if self.odds == Odds::Salvage => Err(why),
            _ => Ok(log),
        }
    }

    /// Goes on with a new database that has what can be read of this one. Its numbers go on, too, so that
    /// the epoch stays. Where it fails with a log that could be read, that is gone on with the next time.
    pub(super) fn replace_damaged(
        &mut self,
        patience: Patience,
        wall: u64,
        why: &Fault,
        legible: Legible,
    ) -> Result<(), Fault> {
        self.connection = None;
        self.odds = if legible == Legible::AsFarAsItGoes { Odds::Bear } else { self.odds };
        let files = self.files.with(patience);
        let salvaged = open::salvage_aside(&files, &self.sizes, wall, why, legible);
        let connected = salvaged.map(|_| open::connect_salvaged(&files, &self.sizes));
        // Both may have given it up.
        self.reserve = Reserve::within(&self.files);
        let connection = self.watch(connected?)?;
        self.apart = successor::attached(&connection, &self.files)?;
        let log = Log::load(&connection, self.sizes, &self.rules, &BTreeMap::new())?;
        // Of segments that are no more.
        self.log.index = Index::default();
        self.log.forget_tables();
        self.take(log);
        self.suspects.clear();
        self.unread.clear();
        self.connection = Some(connection);
        Ok(())
    }

    /// Goes on with a log that was loaded anew.
    fn take(&mut self, log: Log) {
        if !log.is_at_odds && log.lost.is_empty() {
            self.odds = Odds::Salvage;
        }
        self.log.renew(log);
        self.given.raise(&mut self.log);
    }

    /// Goes back to what is on disk.
    pub(super) fn go_back(&mut self, now: &Now) -> Result<(), Fault> {
        if self.connection.is_none() { self.reopen(Patience::Some, now) } else { self.roll_back() }
    }

    /// Whether a damaged segment can be salvaged that was not given up before.
    fn can_salvage(&self, id: u32) -> bool {
        let connection = self.connection.as_ref();
        !self.suspects.contains_key(&id)
            && connection.is_some_and(|connection| salvage::can_salvage(&self.files, connection, id))
    }

    /// Moves the WAL into the database, giving up the reserve if there is no other room.
    pub(super) fn checkpoint(&mut self) -> Result<(), Fault> {
        let Some(connection) = &self.connection else { return Err(Fault::Closed) };
        let done = match checkpoint(connection) {
            Err(fault) if fault.is_full() && self.reserve.release() => checkpoint(connection),
            other => other,
        };
        self.watch(done)
    }

    /// Drops some segments for the disk's sake, in a transaction of its own, and lets go of the files apart of which
    /// nothing is wanted any more. Says whether there were any.
    fn drop_oldest(&mut self, config: &Checked, count: u32) -> Result<bool, Fault> {
        if self.log.left_behind().next().is_some() {
            match self.drop_left(self.now.mono) {
                Ok(Dropped::Some) => return Ok(true),
                Ok(Dropped::None) => {}
                // It does not come to that: of those that go now a page each stays beside them.
                Err(fault) if fault.unread().is_some() || fault.is_damage() => {
                    self.unread.put_off_and_rest(NEEDLESS, self.now.mono);
                }
                Err(fault) => return Err(fault),
            }
        }
        let mut dropped = false;
        let apart = self.apart.clone();
        let drop = |log: &mut Log, connection: &Connection| {
            for _ in 0..count {
                dropped |= log.drop_for_disk(connection, &apart)?;
                if !apart.iter().all(|apart| log.has_any_of(apart)) {
                    // A whole file: more than a few segments.
                    break;
                }
            }
            Ok(())
        };
        self.transact(config, None, drop)?;
        self.release()?;
        self.checkpoint()?;
        Ok(dropped)
    }

    /// Reads a reader's rows.
    pub(super) fn read(&mut self, names: &mut Names, question: &Question<'_>) -> Result<Answer, Fault> {
        let Some(connection) = &self.connection else { return Err(Fault::Closed) };
        self.log.read(connection, names, question)
    }

    /// Moves the WAL into the database and lets go of both.
    pub(super) fn close(mut self) {
        let all = self.checkpoint().and_then(|()| {
            let Some(connection) = &self.connection else { return Err(Fault::Closed) };
            Ok(connection.query_row("PRAGMA main.wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
        });
        let all = self.watch(all);
        if self.sync == Sync::Failed {
            let _ = successor::set_apart(&self.files);
        }
        if let Err(fault) = all {
            tracing::warn!(reason = %fault, "the store's WAL is left as it is; the next start reads it");
        }
    }
}

impl Worker {
    /// After a failed commit of the first `count` orders, which would have had this stamp.
    pub(super) fn recover(&mut self, fault: Fault, count: usize, stamp: u64) {
        self.recovery.failures += 1;
        self.recovery.full = if fault.is_full() { self.recovery.full + 1 } else { 0 };
        let result = if fault.is_full() {
            let result = match self.make_way(&fault, count) {
                // There is no room to be made in what is damaged or not read, and nothing has gone for it.
                Err(second) if second.is_damage() || second.is_of_segment() => {
                    self.recovery.full = self.recovery.full.saturating_sub(1);
                    self.start_over(&second)
                }
                other => other,
            };
            if result.is_err() {
                self.say_full();
            }
            result
        } else {
            // An earlier one that is not resolved held the first orders, and this one came no further.
            self.recovery.unsure.get_or_insert((stamp, count));
            self.start_over(&fault).map(|()| self.resolve())
        };
        let immediate = if fault.is_full() { ROOM_ATTEMPTS } else { OTHER_ATTEMPTS };
        match result {
            Ok(()) if self.recovery.failures <= immediate => {}
            Ok(()) => self.back_off(&fault),
            Err(second) => self.back_off(if second.is_full() { &fault } else { &second }),
        }
    }

    /// The log was read anew: a failed commit whose stamp it carries took place.
    fn resolve(&mut self) {
        if let Some((stamp, count)) = self.recovery.unsure.take()
            && self.database.log.ledger.stamp == stamp
        {
            self.committed(count);
        }
    }

    /// After a failure outside of a commit of the batch.
    pub(super) fn recover_idle(&mut self, fault: Fault) {
        if fault.is_full() && self.database.connection.is_some() {
            // The next commit meets it too, and makes room.
            return;
        }
        self.recovery.failures += 1;
        let result = self.start_over(&fault).map(|()| self.resolve());
        // Of one that was full only what it had closed was to be opened.
        if result.is_ok() && (fault.is_of_segment() || fault.is_full()) {
            self.answer_held();
            return;
        }
        self.back_off(result.as_ref().err().unwrap_or(&fault));
    }

    /// After a read that met a segment which the disk does not read: its readers wait, and nobody else.
    pub(super) fn wait_for(&mut self, id: u32) {
        let fault = Fault::Unreadable(id);
        if self.database.is_hopeless(&fault, (self.clock)().mono) {
            self.recover_idle(fault);
        }
        self.database.unread.rest((self.clock)().mono);
    }

    /// After a failure to write the time alone.
    pub(super) fn recover_beat(&mut self, fault: Fault) {
        if !fault.is_full() {
            return self.recover_idle(fault);
        }
        // Nobody waits for it, so nothing makes room for it.
        if let Err(second) = self.database.roll_back() {
            self.recovery.failures += 1;
            self.back_off(&second);
        }
    }

    fn back_off(&mut self, fault: &Fault) {
        let files = &self.database.files;
        // What SQLite says of it is the same as of a broken disk.
        let reason = match files.disk.is_read_only(&files.dir) {
            true => "the file system is mounted read-only".into(),
            false => fault.to_string(),
        };
        self.recovery.back_off((self.clock)().mono, reason);
        self.inbox.halt();
    }

    /// The wait after a failure is over.
    pub(super) fn try_again(&mut self) {
        self.recovery.retry_at = None;
        if self.database.connection.is_none() {
            let reopened = self.database.reopen(Patience::Some, &(self.clock)());
            // Only now: the next try is no later than that for having taken the disk long.
            self.database.unread.rest((self.clock)().mono);
            if let Err(fault) = reopened {
                self.recovery.failures += 1;
                self.back_off(&fault);
                return;
            }
        }
        self.resolve();
        self.answer_held();
        if self.batch.len() == 0 && self.recovery.retry_at.is_none() && self.recovery.succeeded() {
            tracing::info!("the store works again");
            self.inbox.go_on(Seq(self.database.log.ledger.last_seq));
        }
    }

    /// The disk is full: makes what room there is to make.
    fn make_way(&mut self, fault: &Fault, count: usize) -> Result<(), Fault> {
        self.database.roll_back()?;
        let mut moved = self.database.checkpoint();
        while moved.as_ref().is_err_and(Fault::is_full) && aside::remove_oldest(&self.database.files) {
            moved = self.database.checkpoint();
        }
        moved?;
        let smaller = (count > 1).then_some(count / 2);
        // Where it is the WAL that has no room, what is dropped gives it none before the file shrinks.
        let may_fit = !matches!(fault, Fault::Tight) || self.database.reserve.size() > 0;
        match (self.recovery.full, smaller) {
            (1, _) => return Ok(()),
            (_, Some(smaller)) if may_fit => {
                // What failed before was larger, and says nothing of how much has to go.
                (self.recovery.full, self.recovery.limit) = (1, smaller);
                return Ok(());
            }
            _ => {}
        }
        if aside::remove_oldest(&self.database.files) {
            return Ok(());
        }
        let segments = 1 << self.recovery.full.saturating_sub(2).min(10);
        let mut left = self.database.log.left.len();
        let mut dropped = self.database.drop_oldest(&self.config, segments);
        if dropped.as_ref().is_err_and(Fault::is_full) && self.database.reserve.release() {
            // Even that needs a little room in the WAL.
            self.database.roll_back()?;
            dropped = self.database.drop_oldest(&self.config, segments);
        }
        while dropped.as_ref().is_err_and(Fault::is_damage) && self.database.log.left.len() > left {
            // Each time one table more is left behind.
            left = self.database.log.left.len();
            self.database.roll_back()?;
            dropped = self.database.drop_oldest(&self.config, segments);
        }
        if segments > 1 && dropped.as_ref().is_err_and(Fault::is_full) {
            // More of them than the WAL has room for.
            self.database.roll_back()?;
            dropped = self.database.drop_oldest(&self.config, 1);
        }
        let dropped = match dropped {
            Ok(dropped) => dropped,
            Err(second) => {
                self.database.roll_back()?;
                return Err(second);
            }
        };
        match smaller {
            _ if dropped => Ok(()),
            Some(smaller) => {
                self.recovery.limit = smaller;
                Ok(())
            }
            None => Err(Fault::Tight),
        }
    }

    /// Goes back to what is on disk.
    fn start_over(&mut self, fault: &Fault) -> Result<(), Fault> {
        self.names = Names::default();
        let now = (self.clock)();
        let left = self.database.log.left.len();
        if std::mem::replace(&mut self.recovery.left, left) < left {
            // Each time one table more is left behind, and the next try meets another place.
            self.recovery.failures = 1;
        }
        let result = match fault {
            _ if self.database.is_hopeless(fault, now.mono) => self.database.go_round(fault, &now),
            Fault::Segment(id) | Fault::Page(id)
                if self.recovery.failures <= OTHER_ATTEMPTS && self.database.can_salvage(*id) =>
            {
                // Should even that fail, the next start over gives it up.
                self.database.suspects.insert(*id, fault.doubt());
                self.database.replace_damaged(Patience::Some, now.wall, fault, Legible::AsFarAsItGoes)
            }
            Fault::Segment(id) | Fault::Page(id) => {
                self.database.suspects.insert(*id, fault.doubt());
                self.database.roll_back()
            }
            Fault::AtOdds(_) => self.database.go_back(&now),
            // What stands in the way of every commit is in no segment.
            _ if fault.is_damage_at_start() && self.recovery.failures > OTHER_ATTEMPTS => {
                self.database.replace_damaged(Patience::Some, now.wall, fault, Legible::Not)
            }
            _ => self.database.go_back(&now),
        };
        // Only now: between two tries commits are made, however long the way back takes.
        self.database.unread.rest((self.clock)().mono);
        result
    }
}

/// Moves the WAL into the database.
pub(super) fn checkpoint(connection: &Connection) -> Result<(), Fault> {
    connection.prepare_cached("PRAGMA main.wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))?;
    Ok(())
}

/// So often room is made without a wait: each time there is more of it.
const ROOM_ATTEMPTS: u32 = 12;

/// So often the database is opened again without a wait.
const OTHER_ATTEMPTS: u32 = 3;

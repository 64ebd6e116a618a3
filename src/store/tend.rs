//! What is done for the file beside the commits.
//!
//! After a commit, and now and then while there is something to do: the WAL is moved on, the reserve kept, the file
//! shrunk a little, and tables dropped that no commit could drop. Nobody waits for it, and nothing of it is needed
//! for what was told.

use rusqlite::Connection;

use super::Checked;
use super::commit::Database;
use super::pace::DAY_MILLIS;
use super::patience::Patience;
use super::read::Names;
use super::room::{PAGE, Pages};
use super::salvage::Legible;
use super::schema::{Fault, unsigned};
use super::segment;
use super::successor;
use super::thread::Worker;
use super::unread::NEEDLESS;

/// Whether the file has pages that it does not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// It has, or nobody has looked since the last commit.
    Perhaps,
    /// It has not.
    No,
}

/// Whether tables that were left behind are dropped now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Some are.
    Some,
    /// None is.
    None,
}

/// When something may be salvaged again of which nobody needs anything.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until: u64,
    /// Salvages that were refused for want of room, since one was not.
    refusals: u32,
}

impl Pause {
    /// One has failed.
    fn begin(&mut self, fault: &Fault, now: u64) {
        // It has written as much as there was room for, and so does the next, unless there is more.
        self.refusals = if fault.is_full() { self.refusals.saturating_add(1) } else { 0 };
        let longer = SALVAGE_MILLIS << self.refusals.saturating_sub(1).min(8);
        self.until = now + longer.min(DAY_MILLIS);
    }
}

impl Database {
    /// After a commit, and now and then while there is something to do: moves the WAL on, keeps the reserve,
    /// shrinks the file a little, drops what was left behind. Nobody waits for it.
    pub(super) fn tend(&mut self, config: &Checked, now: u64) -> Result<(), Fault> {
        let Some(connection) = &self.connection else { return Err(Fault::Closed) };
        let is_turn = now.saturating_sub(self.shrunk_at) >= SHRINK_MILLIS;
        if is_turn {
            // Whatever comes of it: the next is a while away.
            self.shrunk_at = now;
        }
        if frames(connection)? >= self.sizes.checkpoint_frames {
            self.checkpoint()?;
        }
        self.release()?;
        if is_turn {
            self.reserve.keep(self.sizes.reserve, self.files.free_disk());
            self.look_at_unlisted(now);
            let dropped = self.drop_left(now);
            if dropped.as_ref().is_err_and(Fault::is_unsynced) {
                // There is no file any more that could be shrunk.
                return dropped.map(drop);
            }
            // Whatever came of that: neither stands in the other's way. A sync may have failed in the second.
            self.shrink(config, now).and(dropped)?;
        }
        Ok(())
    }

    /// Lets go of files apart of which nothing is wanted any more, as was committed.
    pub(super) fn release(&mut self) -> Result<(), Fault> {
        let Some(connection) = &self.connection else { return Err(Fault::Closed) };
        let segments = &self.log.segments;
        Ok(successor::release(connection, &self.files, &mut self.apart, |id| segments.contains_key(&id))?)
    }

    /// Whether there is something to do although nothing is committed.
    pub(super) fn is_to_be_tended(&self) -> bool {
        let is_new = || self.log.next_unlisted(0).is_some();
        self.spare == Spare::Perhaps || self.log.left_behind().next().is_some() || is_new()
    }

    /// Looks at one table that no header names: one of which nobody wants a row is dropped with what was left behind.
    fn look_at_unlisted(&mut self, now: u64) {
        let Some(connection) = &self.connection else { return };
        let Some(id) = self.log.next_unlisted(now).filter(|_| self.unread.until(NEEDLESS) <= now) else {
            return;
        };
        if self.log.is_over(connection, id) {
            self.log.unlisted.remove(&id);
            self.log.left.insert(id, 0);
        } else {
            self.log.unlisted.insert(id, now.saturating_add(LOOK_AGAIN_MILLIS));
        }
    }

    /// Drops some tables that were left behind, each by itself, while the disk reads all that it takes.
    pub(super) fn drop_left(&mut self, now: u64) -> Result<Dropped, Fault> {
        let mut dropped = Dropped::None;
        for _ in 0..LEFT_TABLES_MAX {
            // One that has failed comes last: it stands in no other's way.
            let next = self.log.left_behind().min_by_key(|(id, bytes)| (*bytes, *id));
            let Some((id, bytes)) = next.filter(|_| self.unread.until(NEEDLESS) <= now) else {
                break;
            };
            let Some(connection) = &self.connection else { return Err(Fault::Closed) };
            let done = segment::drop_table(connection, id);
            match self.watch(done) {
                Ok(()) => {
                    (dropped, self.spare) = (Dropped::Some, Spare::Perhaps);
                    self.log.left.remove(&id);
                }
                // Without a word it would stay, and so would each that goes from now on.
                Err(fault) if fault.unread().is_some() || fault.is_damage() => {
                    self.log.left.insert(id, bytes.max(1));
                    return Err(needless(fault));
                }
                Err(fault) if fault.is_unsynced() => return Err(fault),
                // Whoever needs its room has more to try.
                Err(fault) if fault.is_full() && dropped == Dropped::None => return Err(fault),
                // Nobody needs its room now: whoever does meets the same.
                Err(_) => break,
            }
        }
        Ok(dropped)
    }

    /// Shrinks the file a little, and lets the disk know where that is worth it.
    fn shrink(&mut self, config: &Checked, now: u64) -> Result<(), Fault> {
        if self.unread.until(NEEDLESS) <= now {
            let shrunk = self.give_pages_up(config);
            self.spare = match self.watch(shrunk) {
                // It takes a little room itself.
                Err(fault) if fault.is_full() => Spare::No,
                shrunk => shrunk.map_err(needless)?,
            };
        }
        // Only that makes the file smaller.
        let worth = if self.spare == Spare::No { PAGE } else { SHRINK_WORTH };
        if self.given_up()? >= worth {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Bytes by which the file has been shrunk while the disk does not know yet.
    fn given_up(&self) -> Result<u64, Fault> {
        let Some(connection) = &self.connection else { return Err(Fault::Closed) };
        Ok(self.files.database_size().saturating_sub(Pages::of(connection)?.all * PAGE))
    }

    /// Gives a few unused pages back to the disk, where many are unused. Says whether there may be more.
    fn give_pages_up(&mut self, config: &Checked) -> Result<Spare, Fault> {
        let Some(connection) = &self.connection else { return Err(Fault::Closed) };
        let pages = Pages::of(connection)?;
        let spare = (pages.all / 4).max(self.sizes.segment_bytes * 2 / PAGE);
        let short = self.files.free_disk().is_some_and(|free| free < config.min_free_disk);
        if pages.free <= spare && (!short || pages.free <= self.sizes.segment_bytes / PAGE) {
            return Ok(Spare::No);
        }
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({SHRINK_PAGES})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(Spare::Perhaps)
    }
}

impl Worker {
    /// After damage, or what the disk does not read, that was met where a table was to go which nobody needs: it is
    /// gone round where there is room for another file, and else is tried on.
    pub(super) fn recover_left(&mut self, fault: Fault) {
        let now = (self.clock)();
        let is_damage = fault.is_damage();
        let is_over = is_damage || self.database.is_hopeless(&fault, now.mono);
        if !is_over || !self.database.files.has_room_for_another() || now.mono < self.recovery.pause.until {
            return self.database.unread.put_off_and_rest(NEEDLESS, now.mono);
        }
        self.names = Names::default();
        let gone_round = match is_damage {
            true => self.database.replace_damaged(Patience::Some, now.wall, &fault, Legible::AsFarAsItGoes),
            false => self.database.go_round(&fault, &now),
        };
        self.database.unread.rest((self.clock)().mono);
        match gone_round {
            Ok(()) => self.recovery.pause = Pause::default(),
            Err(second) => {
                // It writes all of the store.
                self.recovery.pause.begin(&second, now.mono);
                self.recover_idle(second);
            }
        }
    }
}

/// What the disk does not read is met by nobody who needs it.
fn needless(fault: Fault) -> Fault {
    if fault.unread().is_some() { Fault::Unreadable(NEEDLESS) } else { fault }
}

/// Frames in the WAL.
fn frames(connection: &Connection) -> Result<u64, Fault> {
    let frames =
        connection.prepare_cached("PRAGMA main.wal_checkpoint(NOOP)")?.query_row([], |row| row.get(1))?;
    Ok(unsigned(frames))
}

/// How often the file is shrunk by a little, and the reserve looked after.
pub(super) const SHRINK_MILLIS: u64 = 1_000;

/// How soon after one that failed a salvage is tried again of which nobody needs anything; twice as long after each
/// further one that is refused for want of room, up to a day.
const SALVAGE_MILLIS: u64 = 3_600_000;

/// How soon a table that no header names is looked at again, where somebody may want a row of it.
const LOOK_AGAIN_MILLIS: u64 = 3_600_000;

/// So many tables that were left behind are dropped at once, each with a sync of its own.
const LEFT_TABLES_MAX: u32 = 8;

/// By so many pages.
const SHRINK_PAGES: u32 = 64;

/// So many bytes are worth a checkpoint of their own while there is more to come.
const SHRINK_WORTH: u64 = 1 << 20;

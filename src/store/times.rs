//! The house's time as the ledger keeps it, and what it means for rows, sessions and retained messages.
//!
//! Stamps stand in the file as they were taken and are never rewritten: what was learned of them later is
//! kept beside them, and mended as they are read. So a clock that is set costs one commit, however
//! many rows wait.

use rusqlite::Connection;

use super::kept;
use super::log::Log;
use super::pack::{Unpack, put_number};
use super::schema::Fault;
use super::segment;
use crate::record::{HEARTBEAT, Kept, Known, Mend, Message, Now, Restored};

/// Appends what is kept of the time.
pub(super) fn pack(kept: &Kept, out: &mut Vec<u8>) {
    for number in [kept.time, kept.origin, kept.boot, kept.since_boot, kept.began, u64::from(kept.set)] {
        put_number(out, number);
    }
    let known = kept.known.unwrap_or(Known { time: 0, wall: 0 });
    put_number(out, known.time);
    put_number(out, known.wall);
    put_number(out, kept.mends.len() as u64);
    for Mend { from, exact, to, gap, shift } in &kept.mends {
        for number in [*from, *exact, *to, *gap, shift.cast_unsigned()] {
            put_number(out, number);
        }
    }
}

/// What was packed; nothing was before version 4.
pub(super) fn unpack(unpack: &mut Unpack<'_>) -> Option<Kept> {
    if unpack.is_empty() {
        return Some(Kept::default());
    }
    let mut kept = Kept {
        time: unpack.number()?,
        origin: unpack.number()?,
        boot: unpack.number()?,
        since_boot: unpack.number()?,
        began: unpack.number()?,
        set: unpack.number()? != 0,
        ..Kept::default()
    };
    let known = Known { time: unpack.number()?, wall: unpack.number()? };
    kept.known = (known.time > 0).then_some(known);
    for _ in 0..unpack.number()? {
        kept.mends.push(Mend {
            from: unpack.number()?,
            exact: unpack.number()?,
            to: unpack.number()?,
            gap: unpack.number()?,
            shift: unpack.number()?.cast_signed(),
        });
    }
    Some(kept)
}

impl Log {
    /// What the last commit kept of the time; from the newest stamp where it kept none.
    pub(super) fn kept_time(&self, connection: &Connection) -> Result<Kept, Fault> {
        if self.ledger.times.time > 0 {
            return Ok(self.ledger.times.clone());
        }
        let mut newest = self.ledger.epoch;
        let mut see = |stamp: u64| newest = newest.max(if stamp < STAMP_MAX { stamp } else { 0 });
        kept::sessions(connection)?.iter().filter_map(|record| record.ended).for_each(&mut see);
        kept::retained(connection)?.iter().for_each(|message| see(message.received));
        if self.segments.contains_key(&self.ledger.last_segment) {
            segment::scan(connection, self.ledger.last_segment, |_, row| see(row.map_or(0, |row| row.wall)))?;
        }
        Ok(Kept::of_stamp(newest))
    }

    /// A row's stamp as it would have been taken, had been known what is by now.
    pub(super) fn stamped(&self, stamp: u64, now: &Now) -> u64 {
        self.ledger.times.mended(stamp, now).0
    }

    /// A message whose stamp says what is known by now.
    pub(super) fn mend(&self, message: &mut Message, now: &Now) {
        let (received, mend) = self.ledger.times.mended(message.received, now);
        if let Some(payload) = message.mended(&mend) {
            message.payload = payload;
        }
        message.received = received;
    }

    /// The same for all that a start hands out, and until when the process before was alive at most.
    pub(super) fn mend_restored(&self, restored: &mut Restored, now: &Now) {
        for session in &mut restored.sessions {
            let ended = &mut session.record.ended;
            *ended = ended.map(|ended| self.stamped(ended, now));
        }
        for message in &mut restored.retained {
            self.mend(std::sync::Arc::make_mut(message), now);
        }
        // Before version 4 an idle store kept no time, so nobody knows.
        if self.ledger.times.began > 0 {
            restored.alive = self.ledger.times.time + HEARTBEAT;
        }
    }
}

/// The year 2200: no clock that stands beyond is believed.
const STAMP_MAX: u64 = 7_258_118_400_000;

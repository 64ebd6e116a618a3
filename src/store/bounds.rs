//! What a reader may have waiting, held in the transaction that would go beyond it.
//!
//! A route has bounds in messages, bytes and age, and may want only the latest message of each topic; what
//! goes is counted where it goes. A reader that keeps what it has is asked before it gets more. Bytes are
//! known about: no row is read for them (`tally.rs`). What is remembered of topics is bounded and found again from the
//! rows when it is first needed.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;

use super::log::Log;
use super::read::Names;
use super::reader::{Fate, Kind, Reader};
use super::room::Room;
use super::schema::Fault;
use super::segment::{self, Found};
use super::tally::Tally;
use crate::record::{Bounds, DropReason, Full, Keep, Message, Now, Policy, ReaderId, Seq};

/// Whether a reader gets a message of which it is an audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// A row of it will be the reader's.
    Yes,
    /// It is not there any more, or has no room.
    No,
}

impl Log {
    /// Counts a message as received, and finds out whether the reader has room for it.
    pub(super) fn admit(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        message: &Message,
    ) -> Result<Admitted, Fault> {
        // A session may have been removed between the routing and now: it has no say any more.
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(Admitted::No) };
        reader.state.counters.receive(1);
        let bounds = reader.bounds;
        // What takes the place of another needs no more room than that.
        if bounds.keep == Keep::Latest && self.supersede(connection, id, message)? {
            return Ok(Admitted::Yes);
        }
        if bounds.when_full != Policy::DropNewest {
            return Ok(Admitted::Yes);
        }
        let lack = self.lack(id, message);
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(Admitted::No) };
        // One that is too large for an empty queue has not found it full.
        let is_own = lack == Some(DropReason::QueueFull) && reader.waiting.rows > 0;
        reader.turned_away = is_own.then_some(reader.waiting);
        let Some(reason) = lack else { return Ok(Admitted::Yes) };
        self.change(id, |reader| reader.state.counters.count(Fate::Dropped(reason), 1));
        Ok(Admitted::No)
    }

    /// Why there is no room for one more message of the reader.
    fn lack(&self, id: ReaderId, message: &Message) -> Option<DropReason> {
        let bounds = self.readers.get(&id)?.bounds;
        if self.room == Room::None {
            return Some(DropReason::StoreFull);
        }
        if bounds.max_messages.is_none() && bounds.max_bytes.is_none() {
            return None;
        }
        let Tally { rows, bytes } = self.readers.get(&id)?.waiting;
        let many = bounds.max_messages.is_some_and(|most| rows >= most);
        let much = bounds.max_bytes.is_some_and(|most| bytes.saturating_add(message.weight() as u64) > most);
        (many || much).then_some(DropReason::QueueFull)
    }

    /// Holds every reader to its bounds: the end of a transaction.
    pub(super) fn trim(&mut self, connection: &Connection, now: &Now) -> Result<(), Fault> {
        let ids: Vec<ReaderId> = self.bounded.iter().copied().collect();
        self.is_behind = false;
        for id in ids {
            if !self.is_at_rest(id) {
                self.drop_aged(connection, id, now)?;
                self.drop_surplus(connection, id)?;
            }
            self.note_full(id);
        }
        Ok(())
    }

    /// Whether the disk does not read some of its rows for now. It is held to its bounds once that does, or once
    /// what cannot be read is given up.
    pub(super) fn is_at_rest(&self, id: ReaderId) -> bool {
        let spans = self.readers.get(&id).into_iter().flat_map(|reader| reader.spans.values());
        !self.resting.is_empty() && spans.into_iter().any(|span| self.resting.contains(&span.segment))
    }

    /// Whether no transaction may read rows of a segment: SQLite undoes one that meets what the disk does not read,
    /// and writes nothing more in one that has met damage.
    pub(super) fn is_spared(&self, segment: u32) -> bool {
        self.resting.contains(&segment) || self.spoilt.contains(&segment)
    }

    /// Ends rows that are older than the reader wants them. At most so many in one transaction: the next one
    /// is due at once.
    fn drop_aged(&mut self, connection: &Connection, id: ReaderId, now: &Now) -> Result<(), Fault> {
        let Some(most) = self.readers.get(&id).and_then(|reader| reader.bounds.max_age) else {
            return Ok(());
        };
        for _ in 0..AGED_MAX {
            let Some((seq, received)) = self.oldest_of(connection, id)? else { return Ok(()) };
            let fate = match received {
                Some(stamp) if now.age(self.stamped(stamp, now)) < most => return Ok(()),
                Some(_) => Fate::Dropped(DropReason::Expired),
                None => Fate::Dropped(DropReason::Damaged),
            };
            self.end(connection, id, seq, fate)?;
        }
        self.is_behind |= self.oldest_of(connection, id)?.is_some();
        Ok(())
    }

    /// The oldest row of a reader, and when it was received unless that cannot be read.
    fn oldest_of(
        &mut self,
        connection: &Connection,
        id: ReaderId,
    ) -> Result<Option<(u64, Option<u64>)>, Fault> {
        let next = self.next_wanted(connection, id, 0)?;
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(None) };
        let Some(seq) = next else {
            reader.oldest = None;
            return Ok(None);
        };
        if let Some((known, received)) = reader.oldest.filter(|(known, _)| *known == seq) {
            return Ok(Some((known, Some(received))));
        }
        let mut told_by = seq;
        let received = loop {
            let Some(key) = self.find_span(connection, id, told_by)? else { return Ok(None) };
            let span = self.readers.get(&id).and_then(|reader| reader.spans.get(&key));
            let Some(span) = span.copied() else { return Ok(None) };
            let is_spoilt = self.spoilt.contains(&span.segment);
            if !is_spoilt {
                match segment::with_row(connection, span.segment, told_by, |row| Some(row.wall))? {
                    Found::Row(stamp) => break Some(stamp),
                    Found::Damaged if told_by == seq => break None,
                    Found::Damaged => {}
                }
            }
            // It is as old as the first behind these at least. Where there is none, whoever reads it finds that out.
            let behind = if is_spoilt { span.last } else { told_by };
            let Some(next) = self.next_wanted(connection, id, behind)? else {
                self.readers.entry(id).and_modify(|reader| reader.oldest = None);
                return Ok(None);
            };
            told_by = next;
        };
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.oldest = received.map(|received| (seq, received));
        }
        Ok(Some((seq, received)))
    }

    /// Drops the oldest rows of a reader that has too many, where that is its policy. What was handed out does
    /// not count: it arrives whatever is decided here, and so it is neither dropped.
    fn drop_surplus(&mut self, connection: &Connection, id: ReaderId) -> Result<(), Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(()) };
        let bounds = reader.bounds;
        if bounds.when_full != Policy::DropOldest {
            return Ok(());
        }
        loop {
            let Some(Tally { rows, bytes }) = self.readers.get(&id).map(Reader::waits_behind) else {
                return Ok(());
            };
            let many = bounds.max_messages.map_or(0, |most| rows.saturating_sub(most));
            let over = bounds.max_bytes.map_or(0, |most| bytes.saturating_sub(most));
            // The mean of all: where the oldest are small, it is looked at again.
            let count = many.max(over.div_ceil((bytes / rows.max(1)).max(1))).min(rows);
            if count == 0 {
                return Ok(());
            }
            self.drop_oldest(connection, id, Seq(0), count)?;
            if self.readers.get(&id).is_none_or(|reader| reader.waits_behind().rows == rows) {
                return Ok(());
            }
        }
    }

    /// Notes whether a reader that refuses has reached its bounds. One that has is full until an eighth of
    /// them is free again.
    pub(super) fn note_full(&mut self, id: ReaderId) {
        if self.readers.get(&id).is_none_or(|reader| reader.bounds.when_full != Policy::Refuse) {
            return;
        }
        let Some(reader) = self.readers.get_mut(&id) else { return };
        let (Tally { rows, bytes }, bounds) = (reader.waiting, reader.bounds);
        let was = reader.is_full;
        let reached = |now: u64, most: Option<u64>| {
            let edge = |most: u64| if was { (most - most / 8).saturating_sub(1) } else { most - 1 };
            most.is_some_and(|most| now > edge(most.max(1)))
        };
        reader.is_full = reached(rows, bounds.max_messages) || reached(bytes, bounds.max_bytes);
    }

    /// Readers whose bounds are not a session's.
    pub(super) fn bounded(&self) -> impl Iterator<Item = (ReaderId, &Reader)> {
        self.bounded.iter().filter_map(|id| Some((*id, self.readers.get(id)?)))
    }

    /// Who takes nothing more for now.
    pub(super) fn full(&self) -> Full {
        Full {
            store: self.room == Room::None,
            routes: self.bounded().filter(|(_, reader)| reader.is_full).map(|(id, _)| id).collect(),
        }
    }

    /// When the next row is too old for its reader, in the house's time; at once where some are already.
    pub(super) fn next_aged(&self, now: &Now) -> Option<u64> {
        let due = |reader: &Reader| {
            let stamp = now.span.mend.stamp(self.stamped(reader.oldest?.1, now));
            Some(stamp.saturating_add(reader.bounds.max_age?))
        };
        self.bounded().filter_map(|(_, reader)| due(reader)).min()
    }

    /// Ends the row that the message takes the place of. False where there is none.
    fn supersede(&mut self, connection: &Connection, id: ReaderId, message: &Message) -> Result<bool, Fault> {
        if self.readers.get(&id).is_some_and(|reader| reader.latest.is_none()) {
            self.find_latest(connection, id)?;
        }
        let latest = self.readers.get(&id).and_then(|reader| reader.latest.as_ref());
        let Some(seq) = latest.and_then(|latest| latest.get(&*message.topic)).copied() else {
            return Ok(false);
        };
        self.end(connection, id, seq, Fate::Dropped(DropReason::Superseded))
    }

    /// Notes the newest row of a topic.
    pub(super) fn note_latest(&mut self, id: ReaderId, seq: u64, message: &Message) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        let Reader { latest: Some(latest), state, .. } = reader else { return };
        if latest.len() >= LATEST_TOPICS_MAX && !latest.contains_key(&*message.topic) {
            latest.retain(|_, seq| !state.is_settled(*seq));
        }
        if latest.len() < LATEST_TOPICS_MAX || latest.contains_key(&*message.topic) {
            latest.insert((*message.topic).into(), seq);
        }
    }

    /// These segments are left out for now. Where one is so no more, the newest rows may be others than were found.
    pub(super) fn rest(&mut self, resting: BTreeSet<u32>) {
        if self.resting.difference(&resting).next().is_some() {
            self.readers.values_mut().for_each(|reader| reader.latest = None);
        }
        self.resting = resting;
    }

    /// Finds the newest row of each topic among those that wait, and ends the older ones that it meets.
    fn find_latest(&mut self, connection: &Connection, id: ReaderId) -> Result<(), Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(()) };
        let segments = reader.spans.values().rev().map(|span| span.segment);
        let segments: Vec<u32> = segments.filter(|id| !self.is_spared(*id)).collect();
        let (mut names, mut latest, mut read) = (Names::default(), HashMap::new(), 0);
        'rows: for segment in segments {
            for seq in self.wanted_rows(connection, id, segment)?.into_iter().rev() {
                read += 1;
                if read > LATEST_ROWS_MAX || latest.len() >= LATEST_TOPICS_MAX {
                    break 'rows;
                }
                // What cannot be read is found, and counted, by who reads it.
                let Some(row) = self.row(connection, &mut names, id, seq)? else { continue };
                let topic: Box<str> = (*row.message.topic).into();
                let known = latest.get(&topic).copied().unwrap_or(0);
                if known > 0 {
                    self.end(connection, id, known.min(seq), Fate::Dropped(DropReason::Superseded))?;
                }
                latest.insert(topic, known.max(seq));
            }
        }
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.latest = Some(latest);
        }
        Ok(())
    }
}

impl Reader {
    /// Whether its own bounds have what comes refused or dropped: it goes by `is_full`, or else by what became of
    /// the last that came, since a message may be too large for the room that is left.
    pub(super) fn takes_nothing(&self) -> bool {
        let Bounds { max_messages, max_bytes, when_full, .. } = self.bounds;
        let Tally { rows, bytes } = self.waiting;
        let reached = |now: u64, most: Option<u64>| most.is_some_and(|most| now >= most);
        match when_full {
            Policy::DropOldest => false,
            Policy::Refuse => self.is_full,
            Policy::DropNewest => {
                reached(rows, max_messages)
                    || reached(bytes, max_bytes)
                    || self.turned_away.is_some_and(|then| rows >= then.rows && bytes >= then.bytes)
            }
        }
    }

    /// Whether what it was handed has to be known, since its oldest rows may go.
    fn is_trimmed(&self) -> bool {
        let Bounds { max_messages, max_bytes, when_full, .. } = self.bounds;
        self.kind == Kind::Route
            && when_full == Policy::DropOldest
            && (max_messages.is_some() || max_bytes.is_some())
    }

    /// What it wants and was not yet handed.
    fn waits_behind(&self) -> Tally {
        let mut waits = self.waiting;
        let over = |most: Option<u64>, now: u64| most.is_some_and(|most| now > most);
        if over(self.bounds.max_messages, waits.rows) || over(self.bounds.max_bytes, waits.bytes) {
            waits.take(Tally { rows: self.handed.len() as u64, bytes: self.handed.values().sum() });
        }
        waits
    }

    /// It is about to be given rows after this one: what it had of them before it does not have any more.
    pub(super) fn begin_handing(&mut self, after: u64) {
        drop(self.handed.split_off(&after.saturating_add(1)));
    }

    /// It was given a row of this weight.
    pub(super) fn hand(&mut self, seq: u64, weight: u64) {
        if self.is_trimmed() {
            self.handed.insert(seq, weight);
        }
    }
}

/// Rows that run out of time in one transaction.
const AGED_MAX: u32 = 1_000;

/// Topics of one route of which the newest row is known: of further ones all rows wait. Each may leave a
/// gap in what is settled, and all gaps are written with each commit.
const LATEST_TOPICS_MAX: usize = 4_096;

/// Rows that are read at most to find them after a start.
const LATEST_ROWS_MAX: u32 = 16_384;

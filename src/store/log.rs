//! The log in memory, and what each write does to it and to the database.
//!
//! Everything here happens inside one transaction on the store's thread. If it fails, this whole value
//! is thrown away and loaded again, so that memory never runs ahead of the disk. What is kept per
//! segment and reader is a number; which rows are whose is read from the segment's index when needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use bytestring::ByteString;
use foldhash::quality::FixedState;
use rusqlite::Connection;

use super::Checked;
use super::audience::{Audience, pack_qos};
use super::bounds::Admitted;
use super::index::Index;
use super::kept;
use super::pack::put_number;
use super::reader::{Counters, Fate, Held, Kind, Reader};
use super::room::{Room, Sizes};
use super::schema::{Fault, LEDGER, Ledger, put_state, remove_state};
use super::segment::{Named, Pen, RawRow};
use super::tally::{Tally, Wanted};
use crate::record::{DropReason, LeaseState, Message, ReaderId, Seq, SessionRecord, Want, Write};

/// One thing that a transaction does.
#[derive(Debug)]
pub(super) enum Order {
    /// From the broker.
    Write(Write),
    /// From a route, or from a read that met a row that nobody can have.
    End {
        /// Whose.
        reader: ReaderId,
        /// Which rows.
        seqs: Vec<Seq>,
        /// What became of them.
        fate: Fate,
    },
    /// A route that the configuration names; it numbers on where it stopped if it was there before.
    RouteAdded {
        /// Its reader.
        reader: ReaderId,
        /// Its name.
        name: String,
    },
    /// A route that the configuration no longer names.
    RouteRemoved {
        /// Its reader.
        reader: ReaderId,
    },
    /// Bounds are to be held although nothing else happens.
    Trim,
}

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    /// Every reader.
    pub(super) readers: BTreeMap<ReaderId, Reader>,
    /// Those whose bounds are not a session's, so that a commit need not ask thousands of sessions for theirs.
    pub(super) bounded: BTreeSet<ReaderId>,
    /// Routes that the configuration names no more, and the last that was counted of them.
    pub(super) gone: BTreeMap<ReaderId, Gone>,
    /// Every segment; the last one is open.
    pub(super) segments: BTreeMap<u32, Segment>,
    /// Topics and audiences of the open segment.
    pub(super) names: Dictionary,
    /// Which rows are whose.
    pub(super) index: Index,
    /// What the store keeps of itself.
    pub(super) ledger: Ledger,
    /// When a segment ends, and the like.
    pub(super) sizes: Sizes,
    /// Readers whose state is to be written.
    pub(super) dirty: BTreeSet<ReaderId>,
    /// Routes that have given a number in this transaction.
    pub(super) numbered: BTreeSet<ReaderId>,
    /// Rows that were handed out, and what they weigh, that ended in this transaction, save those of a route that
    /// is purged.
    pub(super) released: Vec<(ReaderId, u64, u64)>,
    /// Closed segments that may have become droppable.
    pub(super) touched: BTreeSet<u32>,
    /// Segments that cannot be read: with the next commit they are none any more, and their tables unlisted.
    pub(super) lost: BTreeSet<u32>,
    /// Tables that stay behind, and what their rows take: those without a header go one by one, in no commit.
    pub(super) left: BTreeMap<u32, u64>,
    /// Tables that no header names and of which nobody knows whether a row is wanted, each with when that is looked at.
    pub(super) unlisted: BTreeMap<u32, u64>,
    /// Segments of which rows are lost one by one.
    pub(super) spoilt: BTreeSet<u32>,
    /// Segments that the disk does not read for now: no transaction may, since SQLite undoes one that does.
    pub(super) resting: BTreeSet<u32>,
    /// Whether there may be rows that SQLite does not find, and a salvage does: where nothing else is damaged, and what
    /// readers had received does not add up; where a page or a header stands in the place of another; or where neither a
    /// header nor an index says whose rows are.
    pub(super) is_at_odds: bool,
    /// The last retained message of each topic in this transaction; `None`: it has none any more.
    pub(super) retained: BTreeMap<ByteString, Option<Arc<Message>>>,
    /// What readers may have waiting.
    pub(super) rules: Arc<Checked>,
    /// What there is for readers that keep what they have.
    pub(super) room: Room,
    /// Whether more rows have run out of time than one transaction ends.
    pub(super) is_behind: bool,
}

/// What stays of a route that the configuration names no more. Nothing of it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gone {
    /// The route's name.
    pub(super) name: String,
    /// All that became of its messages.
    pub(super) counters: Counters,
}

/// What is given up of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// All of it: it is damaged, or the disk does not read it.
    Segment,
    /// What lies below a damaged page, round which there is no room to salvage: such rows are lost one by one.
    Page,
}

/// A segment, counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    /// Rows.
    pub(super) rows: u64,
    /// Bytes of rows, about.
    pub(super) bytes: u64,
    /// The highest order number.
    pub(super) last: u64,
    /// What each reader still wants.
    pub(super) wanted: Wanted,
}

/// Where the open segment has its topics and audiences. Bounded with the segment: it ends at its limit of
/// rows and bytes, and these count.
#[derive(Debug)]
pub(super) struct Dictionary {
    /// Topic to the row that carries it.
    pub(super) topics: HashMap<Box<[u8]>, u64, FixedState>,
    /// Packed audience to the row that carries it.
    pub(super) audiences: HashMap<Box<[u8]>, u64, FixedState>,
    /// The audience that was found last, and its row. None is of no bytes.
    last: (Vec<u8>, u64),
}

impl Default for Dictionary {
    fn default() -> Dictionary {
        // Which topics fall into one place nobody outside is to know.
        let hash = FixedState::with_seed(RandomState::new().hash_one(0));
        Dictionary {
            topics: HashMap::with_hasher(hash.clone()),
            audiences: HashMap::with_hasher(hash),
            last: (Vec::new(), 0),
        }
    }
}

impl Dictionary {
    /// The row that carries a packed audience, which nearly always is that of the row before.
    fn audience(&mut self, packed: &[u8]) -> Option<u64> {
        let (last, seq) = &mut self.last;
        if last != packed {
            *seq = *self.audiences.get(packed)?;
            last.clear();
            last.extend_from_slice(packed);
        }
        Some(*seq)
    }
}

/// A row before it has a place.
pub(super) struct NewRow<'a> {
    pub(super) seq: u64,
    pub(super) topic: &'a [u8],
    pub(super) audience: &'a [u8],
    pub(super) flags: u8,
    pub(super) wall: u64,
    pub(super) expiry: Option<u32>,
    pub(super) numbers: &'a [u8],
    pub(super) properties: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl Log {
    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.ledger.wrote_from = self.ledger.last_segment;
        self.released.clear();
    }

    /// Carries out one order.
    pub(super) fn apply(&mut self, pen: &mut Pen<'_>, order: &Order) -> Result<(), Fault> {
        match order {
            Order::Write(write) => self.write(pen, write),
            Order::End { reader, seqs, fate } => self.end_all(pen, *reader, seqs, *fate),
            Order::RouteAdded { reader, name } => self.add_route(pen, *reader, name),
            Order::RouteRemoved { reader } => self.remove_route(pen, *reader),
            Order::Trim => Ok(()),
        }
    }

    fn write(&mut self, pen: &mut Pen<'_>, write: &Write) -> Result<(), Fault> {
        match write {
            Write::Message { seq, message, audience, retained, inward } => {
                if let Some((reader, packet_id)) = inward {
                    self.change(*reader, |reader| reader.take_inward(*packet_id));
                }
                if *retained {
                    // [MQTT5-3.3.1-6]
                    let kept = (!message.payload.is_empty()).then(|| message.clone());
                    self.retained.insert(message.topic.clone(), kept);
                }
                self.message(pen, *seq, message, audience)?;
            }
            Write::Unretained { topic } => drop(self.retained.insert(topic.clone(), None)),
            Write::Inward { reader, packet_id } => {
                self.change(*reader, |reader| reader.take_inward(*packet_id));
            }
            Write::InwardReleased { reader, packet_id } => {
                self.change(*reader, |reader| reader.release_inward(*packet_id));
            }
            Write::Session(record) => {
                kept::put_session(pen, record)?;
                let (name, cursor) = (record.client_id.to_string(), self.ledger.last_seq);
                self.ledger.last_reader = self.ledger.last_reader.max(record.reader.0);
                let bounds = self.rules.bounds_of_sessions();
                let made = || Reader { bounds, ..Reader::new(Kind::Session, name.clone(), cursor) };
                self.readers.entry(record.reader).or_insert_with(made).name.clone_from(&name);
                self.dirty.insert(record.reader);
            }
            Write::SessionEnded { reader, ended } => {
                if let Some(record) = kept::session(pen, *reader)? {
                    kept::put_session(pen, &SessionRecord { ended: Some(*ended), ..record })?;
                }
            }
            Write::SessionRemoved { reader } | Write::SessionLapsed { reader } => {
                self.purge(*reader);
                if let Some(gone) = self.readers.remove(reader) {
                    self.ledger.past.add(&gone.state.counters);
                }
                self.dirty.remove(reader);
                kept::remove_session(pen, *reader)?;
                remove_state(pen, reader.0)?;
            }
            Write::Leased { reader, seq, packet_id, holder } => {
                let held = Held { packet_id: *packet_id, state: LeaseState::Begun, holder: *holder };
                self.change(*reader, |reader| {
                    reader.state.leases.insert(seq.0, held);
                });
                // PUBLISH leaves all the same where the row has just gone, or has found no room.
                self.settle_if_lost(pen, *reader, seq.0)?;
            }
            Write::LeaseSent { reader, seq } => self.advance_lease(*reader, *seq, LeaseState::Sent),
            Write::LeaseReceived { reader, seq } => self.advance_lease(*reader, *seq, LeaseState::Received),
            Write::Unleased { reader, seq } => self.end_lease(*reader, seq.0),
            Write::Settled { reader, seq } => drop(self.end(pen, *reader, seq.0, Fate::Delivered)?),
            Write::Dropped { reader, seq, reason } => {
                self.end(pen, *reader, seq.0, Fate::Dropped(*reason))?;
            }
            Write::DropOldest { reader, after, count } => self.drop_oldest(pen, *reader, *after, *count)?,
            Write::Shed { reader, reason, count } => self.change(*reader, |reader| {
                reader.state.counters.receive(*count);
                reader.state.counters.count(Fate::Dropped(*reason), *count);
            }),
        }
        Ok(())
    }

    /// Gives a message its row, if one of its audience is (still) there.
    fn message(
        &mut self,
        pen: &mut Pen<'_>,
        seq: Seq,
        message: &Message,
        audience: &[Want],
    ) -> Result<(), Fault> {
        if seq.0 <= self.ledger.last_seq {
            return Err(Fault::Sequence(seq.0));
        }
        self.ledger.last_seq = seq.0;
        let mut scratch = std::mem::take(&mut pen.scratch);
        scratch.clear();
        for want in audience {
            if self.admit(pen, want.reader, message)? == Admitted::No {
                continue;
            }
            let Some(reader) = self.readers.get_mut(&want.reader) else { continue };
            let numbered = reader.kind == Kind::Route;
            if numbered {
                reader.state.numbered += 1;
                put_number(&mut scratch.numbers, reader.state.numbered);
                self.numbered.insert(want.reader);
            }
            let before = scratch.members.last().copied();
            Audience::pack(before, want, numbered, &mut scratch.audience);
            scratch.members.push(want.reader);
        }
        if scratch.members.is_empty() {
            pen.scratch = scratch;
            return Ok(());
        }
        self.insert(
            pen,
            &NewRow {
                seq: seq.0,
                topic: message.topic.as_bytes(),
                audience: &scratch.audience,
                flags: message_flags(message),
                wall: message.received,
                expiry: message.expiry,
                numbers: &scratch.numbers,
                properties: message.properties.as_bytes(),
                payload: &message.payload,
            },
        )?;
        for reader in &scratch.members {
            self.note_row(*reader, seq.0, message.weight() as u64);
            self.note_latest(*reader, seq.0, message);
        }
        pen.scratch = scratch;
        Ok(())
    }

    /// Writes a row into the open segment, after closing a full one.
    pub(super) fn insert(&mut self, pen: &mut Pen<'_>, row: &NewRow<'_>) -> Result<(), Fault> {
        self.ensure_open(pen)?;
        let id = self.ledger.last_segment;
        let topic = self.names.topics.get(row.topic).copied();
        let audience = self.names.audience(row.audience);
        let raw = RawRow {
            seq: row.seq,
            topic: topic.map_or(Named::Here(row.topic), Named::At),
            audience: audience.map_or(Named::Here(row.audience), Named::At),
            flags: row.flags,
            wall: row.wall,
            expiry: row.expiry,
            numbers: row.numbers,
            properties: row.properties,
            payload: row.payload,
        };
        pen.put(id, &raw)?;
        if topic.is_none() {
            self.names.topics.insert(row.topic.into(), row.seq);
        }
        if audience.is_none() {
            self.names.audiences.insert(row.audience.into(), row.seq);
        }
        let weight = raw.weight();
        if let Some(segment) = segment_of(&mut self.segments, id) {
            segment.rows += 1;
            segment.bytes += weight;
            segment.last = segment.last.max(row.seq);
        }
        self.use_room(weight);
        Ok(())
    }

    /// Notes that a row of the open segment is a reader's, and what it weighs in its bounds.
    pub(super) fn note_row(&mut self, id: ReaderId, seq: u64, bytes: u64) {
        let segment = self.ledger.last_segment;
        self.index.open.entry(id).or_default().insert(seq);
        let Some(reader) = self.readers.get_mut(&id) else { return };
        reader.extend_open(segment, seq);
        if let Some(segment) = segment_of(&mut self.segments, segment) {
            reader.waiting.add(segment.wanted.add(id, Tally { rows: 1, bytes }));
        }
        self.dirty.insert(id);
    }

    /// A reader wants more of a segment.
    pub(super) fn want(&mut self, segment: u32, id: ReaderId, more: Tally) {
        let Some(segment) = segment_of(&mut self.segments, segment) else { return };
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.waiting.add(segment.wanted.add(id, more));
        }
    }

    /// A reader wants so many rows less of a segment. Says whether it wants any more.
    pub(super) fn unwant(&mut self, segment: u32, id: ReaderId, rows: u64) -> bool {
        let Some(segment) = self.segments.get_mut(&segment) else { return false };
        let taken = segment.wanted.take(id, rows);
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.waiting.take(taken);
        }
        segment.wanted.contains(id)
    }

    /// Notes how far a QoS 2 exchange is, if it is still there.
    fn advance_lease(&mut self, reader: ReaderId, seq: Seq, state: LeaseState) {
        self.change(reader, |reader| {
            if let Some(held) = reader.state.leases.get_mut(&seq.0) {
                held.state = held.state.max(state);
            }
        });
    }

    /// A QoS 2 exchange is over, whatever became of its row.
    pub(super) fn end_lease(&mut self, reader: ReaderId, seq: u64) {
        if let Some(known) = self.readers.get_mut(&reader)
            && known.state.leases.remove(&seq).is_some()
        {
            self.dirty.insert(reader);
        }
    }

    /// A reader is there, with its bounds.
    pub(super) fn put_reader(&mut self, id: ReaderId, reader: Reader) {
        if reader.bounds != self.rules.bounds_of_sessions() {
            self.bounded.insert(id);
        }
        self.readers.insert(id, reader);
    }

    fn add_route(&mut self, connection: &Connection, id: ReaderId, name: &str) -> Result<(), Fault> {
        kept::put_route(connection, id, name, kept::Standing::Active)?;
        let mut reader = kept::reader(connection, id, Kind::Route, name.into())?
            .unwrap_or_else(|| Reader::new(Kind::Route, name.into(), 0));
        // What came while it was not there is not its own.
        reader.state.cursor = reader.state.cursor.max(self.ledger.last_seq);
        let bounds = self.rules.bounds_of(name);
        self.ledger.last_reader = self.ledger.last_reader.max(id.0);
        self.gone.remove(&id);
        self.put_reader(id, Reader { bounds, ..reader });
        self.dirty.insert(id);
        Ok(())
    }

    fn remove_route(&mut self, connection: &Connection, id: ReaderId) -> Result<(), Fault> {
        self.purge(id);
        let Some(reader) = self.readers.remove(&id) else { return Ok(()) };
        self.bounded.remove(&id);
        self.dirty.remove(&id);
        kept::put_route(connection, id, &reader.name, kept::Standing::Removed)?;
        let mut blob = Vec::new();
        reader.state.pack(&mut blob);
        put_state(connection, id.0, blob)?;
        self.gone.insert(id, Gone { name: reader.name, counters: reader.state.counters });
        Ok(())
    }

    /// Changes a reader that is there, and has it written.
    pub(super) fn change(&mut self, id: ReaderId, change: impl FnOnce(&mut Reader)) {
        if let Some(reader) = self.readers.get_mut(&id) {
            change(reader);
            self.dirty.insert(id);
        }
    }

    /// Writes what the orders have changed: the end of the transaction.
    pub(super) fn write_state(&mut self, connection: &Connection) -> Result<(), Fault> {
        for (topic, message) in std::mem::take(&mut self.retained) {
            match message {
                Some(message) => kept::put_retained(connection, &message)?,
                None => kept::remove_retained(connection, &topic)?,
            }
        }
        for id in std::mem::take(&mut self.dirty) {
            let Some(reader) = self.readers.get(&id) else { continue };
            let mut blob = Vec::new();
            reader.state.pack(&mut blob);
            put_state(connection, id.0, blob)?;
        }
        #[cfg(test)]
        self.assert_tallies();
        self.ledger.stamp += 1;
        self.ledger.copied_on = 0;
        put_state(connection, LEDGER, self.ledger.pack())?;
        Ok(())
    }

    /// What is kept of what waits is the sum of what waits where.
    #[cfg(test)]
    fn assert_tallies(&self) {
        for (id, reader) in self.readers.iter().take(16) {
            let mut sum = Tally::default();
            for span in reader.spans.values() {
                sum.add(self.segments.get(&span.segment).map_or(Tally::default(), |one| one.wanted.of(*id)));
            }
            assert_eq!(reader.waiting, sum, "{}", reader.name);
        }
    }

    /// Drops everything that a reader still wants, counted as purged.
    fn purge(&mut self, id: ReaderId) {
        let newest = self.ledger.last_seq;
        let Some(reader) = self.readers.get_mut(&id) else { return };
        let mut rows = 0;
        for span in std::mem::take(&mut reader.spans).into_values() {
            if let Some(segment) = self.segments.get_mut(&span.segment) {
                rows += segment.wanted.take(id, u64::MAX).rows;
            }
            self.touched.insert(span.segment);
        }
        reader.waiting = Tally::default();
        reader.handed.clear();
        reader.open_span = None;
        reader.state.counters.count(Fate::Dropped(DropReason::Purged), rows);
        reader.state.cursor = reader.state.cursor.max(newest);
        reader.state.ahead = super::runs::Runs::default();
        reader.state.leases.clear();
        reader.latest = None;
        self.index.open.remove(&id);
        self.dirty.insert(id);
    }
}

/// A segment; nearly always the newest, which is found at once.
fn segment_of(segments: &mut BTreeMap<u32, Segment>, id: u32) -> Option<&mut Segment> {
    if segments.last_key_value().is_some_and(|(newest, _)| *newest == id) {
        return segments.values_mut().next_back();
    }
    segments.get_mut(&id)
}

/// QoS and retain of the publisher, and whether it is a reading without a clock, as a row keeps them.
pub(super) fn message_flags(message: &Message) -> u8 {
    let unclocked = if message.unclocked { UNCLOCKED } else { 0 };
    pack_qos(message.qos) | unclocked | if message.retain { RETAIN } else { 0 }
}

/// The bit of RETAIN in a row's flags.
pub(super) const RETAIN: u8 = 4;

/// The bit of a reading that was taken before the clock was set.
pub(super) const UNCLOCKED: u8 = 8;

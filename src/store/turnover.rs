//! How segments begin, end and go.
//!
//! One segment is open and takes rows until it is full; then its index is written and another begins.
//! A closed one goes when nobody wants a row of it, or when so few are wanted that copying them on costs
//! less than keeping it: a slow reader cannot pin the disk. All inside the transaction that made it so.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::audience::Audience;
use super::found::{FoundRow, Group};
use super::log::{Dictionary, Log, NewRow, Segment};
use super::pack::{Unpack, put_number};
use super::reader::Fate;
use super::schema::Fault;
use super::segment::{self, Found, Header, Named, Pen};
use super::successor;
use super::unread::NEEDLESS;
use crate::record::{DropReason, Message, ReaderId};

/// A row read whole, to be written again elsewhere.
struct OldRow {
    topic: Vec<u8>,
    audience: Audience,
    numbers: Vec<u64>,
    flags: u8,
    wall: u64,
    expiry: Option<u32>,
    properties: Vec<u8>,
    payload: Vec<u8>,
}

impl Log {
    /// Sees to it that the open segment can take a row.
    pub(super) fn ensure_open(&mut self, connection: &Connection) -> Result<(), Fault> {
        let newest = self.segments.last_key_value();
        let Some((_, open)) = newest.filter(|(id, _)| **id == self.ledger.last_segment) else {
            return self.begin_segment(connection);
        };
        if open.rows < self.sizes.segment_rows && open.bytes < self.sizes.segment_bytes {
            return Ok(());
        }
        self.close_segment(connection)?;
        self.begin_segment(connection)
    }

    /// Closes the open segment: its index and its header are written once.
    pub(super) fn close_segment(&mut self, connection: &Connection) -> Result<(), Fault> {
        let id = self.ledger.last_segment;
        let Some(segment) = self.segments.get(&id) else { return Ok(()) };
        // The one before had time to be read to its end; what is left of it now may be copied on.
        self.touched.extend(self.segments.range(..id).next_back().map(|(before, _)| *before));
        self.touched.insert(id);
        let kept = self.index.close(connection, 0, |reader| segment.wanted.contains(reader))?;
        let mut header =
            Header { rows: segment.rows, bytes: segment.bytes, last: segment.last, ..Header::default() };
        for (reader, rows) in kept {
            if header.enter(reader, &rows) {
                // What is settled by now weighed as much as what is not, on the average.
                header.weights.insert(reader, segment.wanted.of(reader).grown(rows.count()).bytes);
            }
        }
        segment::put_header(connection, id, &header)?;
        for reader in header.readers.keys() {
            if let Some(reader) = self.readers.get_mut(reader) {
                reader.open_span = None;
            }
        }
        self.names = Dictionary::default();
        Ok(())
    }

    /// Begins a segment.
    pub(super) fn begin_segment(&mut self, connection: &Connection) -> Result<(), Fault> {
        // The number of one that is given up, or has lost its header, may still have a table.
        let is_taken = |id: &u32| {
            self.segments.contains_key(id) || self.lost.contains(id) || self.unlisted.contains_key(id)
        };
        // The last of all is no segment's.
        let mut next = self.ledger.last_segment.saturating_add(1)..NEEDLESS;
        let free = next.find(|id| !is_taken(id));
        let id = free.ok_or_else(|| Fault::Unusable("the numbers of segments are used up".into()))?;
        self.ledger.last_segment = id;
        segment::create(connection, id)?;
        self.segments.insert(id, Segment::default());
        self.index.open_id = id;
        Ok(())
    }

    /// Drops segments that nobody needs, copying on the last few rows of those that hardly anybody needs.
    pub(super) fn sweep(&mut self, connection: &Connection) -> Result<(), Fault> {
        for id in std::mem::take(&mut self.lost) {
            segment::drop_header(connection, id)?;
            // A salvage may find rows of it yet, however often one was refused.
            if segment::has_table(connection, "main", id)? {
                self.unlisted.insert(id, 0);
            }
        }
        while let Some(id) = self.touched.pop_first() {
            if id == self.ledger.last_segment {
                continue;
            }
            let Some(segment) = self.segments.get(&id) else { continue };
            if segment.wanted.is_empty() {
                self.drop_segment(connection, id)?;
                continue;
            }
            if self.is_spared(id) {
                continue;
            }
            // The newest closed one is left alone: its readers are most likely in the middle of it.
            let newest_closed = self.segments.range(..self.ledger.last_segment).next_back();
            let is_newest = newest_closed.is_some_and(|(newest, _)| *newest == id);
            // Few for their segment, too: large rows make short segments, and copying those whole would
            // never end.
            let few = self.sizes.copy_below.min(segment.rows / COPY_SHARE + 1);
            if !is_newest && segment.wanted.are_few(few) {
                self.copy_on(connection, id, few)?;
            }
        }
        Ok(())
    }

    /// Copies on what is wanted of the segment that gives most room for it, if that is two thirds of it at most:
    /// who wants little must not lose that because the others' rows beside it have gone. False where none does.
    pub(super) fn compact(&mut self, connection: &Connection) -> Result<bool, Fault> {
        let share = |segment: &Segment| {
            let live = segment.wanted.all();
            let bytes = live.bytes.saturating_sub(live.rows * WEIGHT_BEYOND_ROW);
            let most = (bytes * 1_000 / segment.bytes.max(1)).max(live.rows * 1_000 / segment.rows.max(1));
            (most <= COMPACT_PER_MILLE).then_some(most)
        };
        let closed = self.segments.range(..self.ledger.last_segment);
        let closed = closed.filter(|(id, _)| !self.is_spared(**id));
        let shares = closed.filter_map(|(id, segment)| Some((share(segment)?, *id, segment.rows)));
        let Some((_, id, rows)) = shares.min() else { return Ok(false) };
        self.copy_on(connection, id, rows + 1)?;
        Ok(true)
    }

    /// Drops a segment.
    pub(super) fn drop_segment(&mut self, connection: &Connection, id: u32) -> Result<(), Fault> {
        let bytes = self.segments.get(&id).map_or(0, |segment| segment.bytes);
        self.drop_table(connection, id, bytes)?;
        self.segments.remove(&id);
        Ok(())
    }

    /// Drops a segment's table and header. Where the disk does not read what that takes, or it is damaged, the table
    /// stays behind for now, unreachable; and so does each that goes while others are left, of a page alone: the last
    /// page of the file, which SQLite moves into the gap, may be what is not read, and then each drop would be undone
    /// with its transaction.
    fn drop_table(&mut self, connection: &Connection, id: u32, bytes: u64) -> Result<(), Fault> {
        let is_left = self.is_spared(id) || !self.left.is_empty();
        // One that lies in a file apart goes with that.
        let is_here = is_left && segment::has_table(connection, "main", id)?;
        let has_failed = self.left.get(&id).is_some_and(|bytes| *bytes > 0);
        let is_emptied = is_here && !self.is_spared(id) && !has_failed;
        let emptied = if is_emptied { segment::empty_table(connection, id) } else { Ok(()) };
        let dropped = emptied.and_then(|()| match is_left {
            true => segment::drop_header(connection, id),
            false => segment::drop_table(connection, id),
        });
        match &dropped {
            // One that has failed has failed for good, should this transaction be undone.
            Ok(()) if is_here => drop(self.left.insert(id, if is_emptied { 0 } else { bytes.max(1) })),
            Err(fault) if fault.unread().is_some() || fault.is_damage() => {
                self.left.insert(id, bytes.max(1));
            }
            _ => {}
        }
        dropped
    }

    /// Tables that are without a header by now, each with its rows' bytes where that is known.
    pub(super) fn left_behind(&self) -> impl Iterator<Item = (u32, u64)> {
        let left = self.left.iter().map(|(id, bytes)| (*id, *bytes));
        left.filter(|(id, _)| !self.segments.contains_key(id) && !self.lost.contains(id))
    }

    /// Notes the tables that an earlier run has left behind, by their names alone.
    pub(super) fn find_unlisted(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let tables = successor::tables(connection, "main")?.into_iter();
        let tables = tables.filter(|id| !self.segments.contains_key(id) && !self.lost.contains(id));
        self.unlisted = tables.map(|id| (id, 0)).collect();
        Ok(())
    }

    /// The first table to be looked at by now that no header names.
    pub(super) fn next_unlisted(&self, now: u64) -> Option<u32> {
        let due = self.unlisted.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id);
        due.into_iter().find(|id| !self.segments.contains_key(id) && !self.lost.contains(id))
    }

    /// The database is another.
    pub(super) fn forget_tables(&mut self) {
        self.left.clear();
        self.unlisted.clear();
    }

    /// Whether nobody wants a row of a table any more that no header names, as far as it can be read. One of which
    /// somebody does has lost its header in another way, and is kept for a salvage.
    pub(super) fn is_over(&self, connection: &Connection, id: u32) -> bool {
        let mut group = Group::default();
        if group.scan(connection, id).is_err() {
            return false;
        }
        let is_wanted = |(seq, row): (&u64, &FoundRow)| {
            let audience = group.named(&row.audience, |row| &row.audience).and_then(Audience::unpack);
            audience.is_none_or(|audience| {
                audience.members.iter().any(|member| {
                    self.readers.get(&member.want.reader).is_some_and(|reader| !reader.state.is_settled(*seq))
                })
            })
        };
        !group.rows.iter().any(is_wanted)
    }

    /// Copies what is still wanted of a segment into the open one and drops it, if that is little.
    fn copy_on(&mut self, connection: &Connection, id: u32, few: u64) -> Result<(), Fault> {
        let Some(segment) = self.segments.get(&id) else { return Ok(()) };
        let readers: Vec<ReaderId> = segment.wanted.readers().collect();
        let mut wanted: BTreeMap<u64, Vec<ReaderId>> = BTreeMap::new();
        for reader in readers.iter().copied() {
            for seq in self.wanted_rows(connection, reader, id)? {
                wanted.entry(seq).or_default().push(reader);
            }
            if wanted.len() as u64 >= few {
                return Ok(());
            }
        }
        // From here on the readers' rows are no longer in this segment.
        for reader in readers {
            let spans = self.readers.get(&reader).map(|reader| &reader.spans).into_iter().flatten();
            let key = spans.filter(|(_, span)| span.segment == id).map(|(key, _)| *key).next();
            self.unwant(id, reader, u64::MAX);
            if let (Some(reader), Some(key)) = (self.readers.get_mut(&reader), key) {
                reader.remove_span(key);
            }
        }
        let (mut pen, mut damaged) = (Pen::new(connection), Vec::new());
        for (seq, readers) in wanted {
            let row = self.old_row(connection, id, seq);
            match row? {
                Some(row) => self.insert_old(&mut pen, seq, &row, &readers)?,
                None => damaged.extend(readers.into_iter().map(|reader| (seq, reader))),
            }
        }
        self.write_off(connection, &damaged)?;
        self.drop_segment(connection, id)
    }

    /// Rows that a reader still wants of a segment.
    pub(super) fn wanted_rows(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        segment: u32,
    ) -> Result<Vec<u64>, Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(Vec::new()) };
        let rows = self.index.rows(connection, segment, id)?;
        let mut found = Vec::new();
        let mut after = reader.state.cursor;
        while let Some(next) = rows.next_after(after) {
            after = match reader.state.ahead.run_of(next) {
                Some((_, last)) => last,
                None => {
                    found.push(next);
                    next
                }
            };
        }
        Ok(found)
    }

    /// Counts rows that cannot be read as damaged for their readers, which have them in no span any more. The others are
    /// to be in theirs by now: the cursor of a reader without a span goes over all that it has settled ahead.
    fn write_off(&mut self, connection: &Connection, rows: &[(u64, ReaderId)]) -> Result<(), Fault> {
        if !rows.is_empty() && !self.segments.contains_key(&self.ledger.last_segment) {
            // Their spans are to be in one that is there.
            self.begin_segment(connection)?;
        }
        rows.iter().for_each(|(seq, id)| self.note_row(*id, *seq, 0));
        for (seq, id) in rows {
            self.end(connection, *id, *seq, Fate::Dropped(DropReason::Damaged))?;
        }
        Ok(())
    }

    fn insert_old(
        &mut self,
        pen: &mut Pen<'_>,
        seq: u64,
        row: &OldRow,
        readers: &[ReaderId],
    ) -> Result<(), Fault> {
        let (mut audience, mut numbers, mut before) = (Vec::new(), Vec::new(), None);
        let mut row_numbers = row.numbers.iter();
        for member in row.audience.members.iter() {
            let number = if member.numbered { row_numbers.next() } else { None };
            if readers.binary_search(&member.want.reader).is_ok() {
                Audience::pack(before, &member.want, member.numbered, &mut audience);
                before = Some(member.want.reader);
                if let Some(number) = number {
                    put_number(&mut numbers, *number);
                }
            }
        }
        self.insert(
            pen,
            &NewRow {
                seq,
                topic: &row.topic,
                audience: &audience,
                flags: row.flags,
                wall: row.wall,
                expiry: row.expiry,
                numbers: &numbers,
                properties: &row.properties,
                payload: &row.payload,
            },
        )?;
        let bytes = row.topic.len() + row.properties.len() + row.payload.len();
        for reader in readers {
            self.note_row(*reader, seq, Message::weight_of(bytes) as u64);
        }
        Ok(())
    }

    /// A row with its names; `None` where it is damaged.
    fn old_row(&mut self, connection: &Connection, id: u32, seq: u64) -> Result<Option<OldRow>, Fault> {
        let found = segment::with_row(connection, id, seq, |row| {
            let mut unpack = Unpack::new(row.numbers);
            let mut numbers = Vec::new();
            while !unpack.is_empty() {
                numbers.push(unpack.number()?);
            }
            let own = |named| match named {
                Named::Here(bytes) => Ok(<[u8]>::to_vec(bytes)),
                Named::At(seq) => Err(seq),
            };
            let row_without_names = OldRow {
                topic: Vec::new(),
                audience: Audience::default(),
                numbers,
                flags: row.flags,
                wall: row.wall,
                expiry: row.expiry,
                properties: row.properties.to_vec(),
                payload: row.payload.to_vec(),
            };
            Some((row_without_names, own(row.topic), own(row.audience)))
        })?;
        let Found::Row((mut row, topic, audience)) = found else { return Ok(None) };
        let Some(topic) = named(connection, id, topic, |row| row.topic)? else { return Ok(None) };
        let Some(audience) = named(connection, id, audience, |row| row.audience)? else { return Ok(None) };
        let Some(audience) = Audience::unpack(&audience) else { return Ok(None) };
        (row.topic, row.audience) = (topic, audience);
        Ok(Some(row))
    }
}

/// The bytes behind a name: its own, or those in the row that it names.
pub(super) fn named(
    connection: &Connection,
    id: u32,
    name: Result<Vec<u8>, u64>,
    column: impl for<'a> Fn(&segment::RawRow<'a>) -> Named<'a>,
) -> Result<Option<Vec<u8>>, Fault> {
    let at = match name {
        Ok(bytes) => return Ok(Some(bytes)),
        Err(at) => at,
    };
    let found = segment::with_row(connection, id, at, |row| match column(row) {
        Named::Here(bytes) => Some(bytes.to_vec()),
        Named::At(_) => None,
    })?;
    Ok(match found {
        Found::Row(bytes) => Some(bytes),
        Found::Damaged => None,
    })
}

/// What at most may be wanted of a segment that is copied on to make room, of a thousand: so at most twice as
/// much is written as is gained.
const COMPACT_PER_MILLE: u64 = 667;

/// A message weighs more in a limit than its row takes, by this much.
const WEIGHT_BEYOND_ROW: u64 = 64;

/// At most this share of a segment's rows is copied on.
const COPY_SHARE: u64 = 8;

//! One table of the log: its rows, their checksums, and the index that a closed one carries.
//!
//! `log_N` holds rows by order number. The first row of a topic or an audience carries it, later ones
//! name that row, so that texts and sets are kept once and go with the segment. Under `-reader` a closed
//! segment keeps which rows are that reader's. The header in `segments` says who wants how many, so that
//! a start reads no rows. Rows are never changed, and go only with their table.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Deref, RangeInclusive};

use bytes::BufMut;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, params};

use super::pack::{Unpack, put_number, seal, unseal};
use super::runs::Runs;
use super::schema::{Fault, SEGMENT, is_damage, is_missing, is_unreadable, signed, unsigned};
use super::tally::Tally;
use super::unread::ELSEWHERE;
use crate::record::{Message, ReaderId};

/// A text or a set: here, or in the row of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named<'a> {
    /// Here.
    Here(&'a [u8]),
    /// In another row of the segment.
    At(u64),
}

/// A row as it stands in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawRow<'a> {
    /// Order number.
    pub(super) seq: u64,
    /// Topic name.
    pub(super) topic: Named<'a>,
    /// Packed audience.
    pub(super) audience: Named<'a>,
    /// QoS and retain of the publisher, and whether it is a reading without a clock.
    pub(super) flags: u8,
    /// When it was received: a stamp of the house's time, in milliseconds.
    pub(super) wall: u64,
    /// Message Expiry Interval in seconds.
    pub(super) expiry: Option<u32>,
    /// Packed numbers of the numbered members.
    pub(super) numbers: &'a [u8],
    /// Properties.
    pub(super) properties: &'a [u8],
    /// Payload.
    pub(super) payload: &'a [u8],
}

/// What a look for a row found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// A sound row.
    Row(T),
    /// None, or one whose checksum does not hold.
    Damaged,
}

/// Header of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Header {
    /// Rows.
    pub(super) rows: u64,
    /// Bytes of rows.
    pub(super) bytes: u64,
    /// The highest order number.
    pub(super) last: u64,
    /// Of each reader that wanted some when it was closed: how many are its, the first and the last.
    pub(super) readers: BTreeMap<ReaderId, (u64, u64, u64)>,
    /// What these rows weigh in its bounds. Nothing where that is not known: before version 4 it was not kept.
    pub(super) weights: BTreeMap<ReaderId, u64>,
}

impl Header {
    /// Notes the rows of a reader, if it has any.
    pub(super) fn enter(&mut self, reader: ReaderId, rows: &Runs) -> bool {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return false };
        self.readers.insert(reader, (rows.count(), first, last));
        true
    }

    /// From the first order number that somebody wanted to the highest; `None` where nobody wanted any.
    pub(super) fn span(&self) -> Option<RangeInclusive<u64>> {
        let first = self.readers.values().map(|(_, first, _)| *first).min()?;
        (first <= self.last).then_some(first..=self.last)
    }

    /// What one reader had in it when it was closed: what that weighs is as the header says, or as much as the
    /// same number of all its rows.
    pub(super) fn tally(&self, reader: ReaderId) -> Tally {
        let rows = self.readers.get(&reader).map_or(0, |(rows, _, _)| *rows);
        let all = Tally { rows: self.rows, bytes: self.bytes };
        self.weights.get(&reader).map_or(all.share(rows), |bytes| Tally { rows, bytes: *bytes })
    }
}

/// Makes a segment's table.
pub(super) fn create(connection: &Connection, id: u32) -> Result<(), Fault> {
    connection.execute_batch(&table(id))?;
    put_header(connection, id, &Header::default())
}

/// The table of a segment, in SQL. As short as may be: SQLite keeps this text of each table, reads all of
/// them at a start, and looks through all of them whenever one is dropped. Values are kept as they are given.
pub(super) fn table(id: u32) -> String {
    let [columns, _] = SEGMENT;
    format!("CREATE TABLE main.log_{id}{columns}")
}

/// Whether a segment's table is in the database of that name.
pub(super) fn has_table(connection: &Connection, schema: &str, id: u32) -> rusqlite::Result<bool> {
    let sql = format!("SELECT 1 FROM {schema}.sqlite_schema WHERE name = 'log_{id}'");
    Ok(connection.query_row(&sql, [], |_| Ok(())).optional()?.is_some())
}

/// Drops a segment's table and header; one that was set apart goes with its file.
pub(super) fn drop_table(connection: &Connection, id: u32) -> Result<(), Fault> {
    let dropped = connection.execute_batch(&format!("DROP TABLE IF EXISTS main.log_{id}"));
    // It may be another's page, which SQLite moves into the gap.
    dropped.map_err(|error| fault(ELSEWHERE, error))?;
    drop_header(connection, id)
}

/// Gives back all of a segment's table but its first page: no page of another has to be moved for that.
pub(super) fn empty_table(connection: &Connection, id: u32) -> Result<(), Fault> {
    let emptied = connection.execute_batch(&format!("DELETE FROM main.log_{id}"));
    emptied.map_err(|error| fault(ELSEWHERE, error))
}

/// Drops a segment's header: it is no more, whatever becomes of its table.
pub(super) fn drop_header(connection: &Connection, id: u32) -> Result<(), Fault> {
    connection.prepare_cached("DELETE FROM segments WHERE id = ?")?.execute([id])?;
    Ok(())
}

/// Takes what a segment's header says away: every load finds that out from the rows, and what is missing of them.
pub(super) fn blank_header(connection: &Connection, id: u32) -> Result<(), Fault> {
    connection.prepare_cached("REPLACE INTO segments VALUES (?, x'')")?.execute([id])?;
    Ok(())
}

/// Writes a segment's header.
pub(super) fn put_header(connection: &Connection, id: u32, header: &Header) -> Result<(), Fault> {
    let mut blob = Vec::new();
    put_number(&mut blob, header.rows);
    put_number(&mut blob, header.bytes);
    put_number(&mut blob, header.last);
    for (reader, (count, first, last)) in &header.readers {
        put_number(&mut blob, u64::from(reader.0));
        put_number(&mut blob, *count);
        put_number(&mut blob, *first);
        put_number(&mut blob, last - first);
    }
    if !header.weights.is_empty() {
        put_number(&mut blob, NO_READER);
        for reader in header.readers.keys() {
            put_number(&mut blob, header.weights.get(reader).copied().unwrap_or(0));
        }
    }
    seal(&mut blob, u64::from(id));
    connection.prepare_cached("REPLACE INTO segments VALUES (?, ?)")?.execute(params![id, blob])?;
    Ok(())
}

/// All segments, each with its header if that is sound. A damaged list may have one twice, in any order, and numbers
/// beyond all that are given: SQLite reads a page as it lies.
pub(super) fn headers(connection: &Connection) -> rusqlite::Result<BTreeMap<u32, Option<Header>>> {
    let mut statement = connection.prepare("SELECT id, data FROM segments ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut headers = BTreeMap::new();
    while let Some(row) = rows.next()? {
        // A page of another table, in the place of one of this.
        let Ok(id) = u32::try_from(row.get::<_, i64>(0)?) else { continue };
        let blob = row.get_ref(1)?.as_blob().unwrap_or_default();
        let header = unseal(blob, u64::from(id)).and_then(unpack_header);
        let known: &mut Option<Header> = headers.entry(id).or_default();
        *known = known.take().or(header);
    }
    Ok(headers)
}

pub(super) fn unpack_header(body: &[u8]) -> Option<Header> {
    let mut unpack = Unpack::new(body);
    let mut header = Header {
        rows: unpack.number()?,
        bytes: unpack.number()?,
        last: unpack.number()?,
        ..Header::default()
    };
    while !unpack.is_empty() {
        let reader = unpack.number32()?;
        if u64::from(reader) == NO_READER {
            for reader in header.readers.keys() {
                header.weights.insert(*reader, unpack.number()?);
            }
            break;
        }
        let reader = ReaderId(reader);
        let count = unpack.number()?;
        let first = unpack.number()?;
        header.readers.insert(reader, (count, first, first.checked_add(unpack.number()?)?));
    }
    unpack.is_empty().then_some(header)
}

/// Writes rows, and keeps what it says to SQLite for the next one.
pub(super) struct Pen<'c> {
    connection: &'c Connection,
    insert: Option<Insertion<'c>>,
    /// For the next message.
    pub(super) scratch: Scratch,
}

/// How rows are put into the segment that was written last, and what would be put there again.
struct Insertion<'c> {
    id: u32,
    statement: CachedStatement<'c>,
    topic: Option<u64>,
    wall: Option<u64>,
    /// No numbers are bound.
    without_numbers: bool,
    usual: Option<Usual>,
}

/// What of a row is nearly always as in the one before: it has no properties, and this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usual {
    audience: u64,
    flags: u8,
    expiry: Option<u32>,
}

/// What is put together for a row.
#[derive(Default)]
pub(super) struct Scratch {
    /// Those that get it.
    pub(super) members: Vec<ReaderId>,
    /// The same, packed.
    pub(super) audience: Vec<u8>,
    /// Packed numbers of the numbered members.
    pub(super) numbers: Vec<u8>,
}

impl Scratch {
    /// Forgets the last row.
    pub(super) fn clear(&mut self) {
        self.members.clear();
        self.audience.clear();
        self.numbers.clear();
    }
}

impl<'c> Pen<'c> {
    pub(super) fn new(connection: &'c Connection) -> Pen<'c> {
        Pen { connection, insert: None, scratch: Scratch::default() }
    }

    /// Inserts a row.
    pub(super) fn put(&mut self, id: u32, row: &RawRow<'_>) -> Result<(), Fault> {
        let mut insert = match self.insert.take() {
            Some(insert) if insert.id == id => insert,
            _ => Insertion::new(self.connection, id)?,
        };
        insert.bind(row)?;
        insert.statement.raw_execute()?;
        // Only now: of one that has failed nobody knows what is bound.
        self.insert = Some(insert);
        Ok(())
    }
}

impl<'c> Insertion<'c> {
    fn new(connection: &'c Connection, id: u32) -> rusqlite::Result<Insertion<'c>> {
        let sql = format!("INSERT INTO main.log_{id} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        let statement = connection.prepare_cached(&sql)?;
        Ok(Insertion { id, statement, topic: None, wall: None, without_numbers: false, usual: None })
    }

    /// Gives SQLite what is not as in the row before.
    fn bind(&mut self, row: &RawRow<'_>) -> rusqlite::Result<()> {
        let insert = &mut self.statement;
        insert.raw_bind_parameter(1, signed(row.seq))?;
        let topic = if let Named::At(seq) = row.topic { Some(seq) } else { None };
        if topic.is_none() || self.topic != topic {
            insert.raw_bind_parameter(2, row.topic.value(ValueRef::Text))?;
            self.topic = topic;
        }
        if self.wall != Some(row.wall) {
            insert.raw_bind_parameter(5, signed(row.wall))?;
            self.wall = Some(row.wall);
        }
        if !(self.without_numbers && row.numbers.is_empty()) {
            insert.raw_bind_parameter(7, some(row.numbers))?;
            self.without_numbers = row.numbers.is_empty();
        }
        insert.raw_bind_parameter(9, some(row.payload))?;
        insert.raw_bind_parameter(10, row.checksum())?;
        let usual = Usual::of(row);
        if usual.is_none() || self.usual != usual {
            insert.raw_bind_parameter(3, row.audience.value(ValueRef::Blob))?;
            insert.raw_bind_parameter(4, row.flags)?;
            insert.raw_bind_parameter(6, row.expiry)?;
            insert.raw_bind_parameter(8, some(row.properties))?;
            self.usual = usual;
        }
        Ok(())
    }
}

/// Bytes as a column has them; none is NULL.
fn some(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

impl<'a> Named<'a> {
    /// As a column has it; what is here is of this kind.
    fn value(self, here: fn(&'a [u8]) -> ValueRef<'a>) -> AsIs<'a> {
        AsIs(match self {
            Named::Here(bytes) => here(bytes),
            Named::At(seq) => ValueRef::Integer(signed(seq)),
        })
    }
}

impl Usual {
    /// `None` where it is not so.
    fn of(row: &RawRow<'_>) -> Option<Usual> {
        let Named::At(audience) = row.audience else { return None };
        row.properties.is_empty().then_some(Usual { audience, flags: row.flags, expiry: row.expiry })
    }
}

impl Deref for Pen<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// Looks a row up and hands it on if its checksum holds.
pub(super) fn with_row<T>(
    connection: &Connection,
    id: u32,
    seq: u64,
    take: impl FnOnce(&RawRow<'_>) -> Option<T>,
) -> Result<Found<T>, Fault> {
    let sql = format!("SELECT * FROM log_{id} WHERE seq = ?");
    let look = || -> rusqlite::Result<Found<T>> {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([signed(seq)])?;
        let Some(row) = rows.next()? else { return Ok(Found::Damaged) };
        Ok(RawRow::sound(row).and_then(|row| take(&row)).map_or(Found::Damaged, Found::Row))
    };
    match look() {
        Err(error) if is_damage(&error) => Err(Fault::Page(id)),
        // The table is not as it was made: asking again would not help.
        Err(error) if is_missing(&error) => Err(Fault::Segment(id)),
        other => other.map_err(|error| fault(id, error)),
    }
}

/// Walks the rows of an unbroken run of numbers for as long as all is well and `take` goes on: it ends without a
/// word before one that is not there, is not sound or lies below a damaged page. [`with_row`] says what is wrong with that.
pub(super) fn walk(
    connection: &Connection,
    id: u32,
    (first, last): (u64, u64),
    mut take: impl FnMut(&RawRow<'_>) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let sql = format!("SELECT * FROM log_{id} WHERE seq BETWEEN ? AND ?");
    let mut walk = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([signed(first), signed(last)])?;
        for seq in first..=last {
            let Some(row) = rows.next()? else { return Ok(()) };
            match RawRow::sound(row).filter(|row| row.seq == seq) {
                Some(row) if take(&row).is_continue() => {}
                _ => return Ok(()),
            }
        }
        Ok(())
    };
    match walk() {
        // Once is enough: the disk may take long to say so.
        Err(error) if is_unreadable(&error) => Err(Fault::Unreadable(id)),
        _ => Ok(()),
    }
}

/// Walks all rows of a segment, `None` for each whose checksum does not hold. Their numbers rise, unless a page above
/// them is damaged: SQLite does not ask for that.
pub(super) fn scan(
    connection: &Connection,
    id: u32,
    mut take: impl FnMut(u64, Option<&RawRow<'_>>),
) -> Result<(), Fault> {
    let mut walk = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare(&format!("SELECT * FROM log_{id} WHERE seq > 0"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            take(unsigned(row.get(0)?), RawRow::sound(row).as_ref());
        }
        Ok(())
    };
    walk().map_err(|error| {
        if is_damage(&error) || is_missing(&error) { Fault::Segment(id) } else { fault(id, error) }
    })
}

/// Writes which rows of the segment are a reader's.
pub(super) fn put_index(
    connection: &Connection,
    id: u32,
    reader: ReaderId,
    rows: &Runs,
) -> Result<(), Fault> {
    let mut blob = Vec::new();
    rows.pack(&mut blob);
    seal(&mut blob, index_key(id, reader));
    let sql = format!("REPLACE INTO main.log_{id}(seq, payload) VALUES (?, ?)");
    connection.prepare_cached(&sql)?.execute(params![-i64::from(reader.0), blob])?;
    Ok(())
}

/// Which rows a sealed index says are a reader's; `None` where it is not sound, or of another segment.
pub(super) fn unpack_index(id: u32, reader: ReaderId, blob: &[u8]) -> Option<Runs> {
    Runs::unpack(&mut Unpack::new(unseal(blob, index_key(id, reader))?))
}

/// Which rows of the segment are a reader's.
pub(super) fn index(connection: &Connection, id: u32, reader: ReaderId) -> Result<Runs, Fault> {
    let sql = format!("SELECT payload FROM log_{id} WHERE seq = ?");
    let look = || -> rusqlite::Result<Option<Vec<u8>>> {
        let mut statement = connection.prepare_cached(&sql)?;
        let blob = |row: &rusqlite::Row<'_>| Ok(row.get_ref(0)?.as_blob().unwrap_or_default().to_vec());
        statement.query_row([-i64::from(reader.0)], blob).optional()
    };
    let blob = match look() {
        Err(error) if is_damage(&error) || is_missing(&error) => return Err(Fault::Segment(id)),
        other => other.map_err(|error| fault(id, error))?,
    };
    blob.and_then(|blob| unpack_index(id, reader, &blob)).ok_or(Fault::Segment(id))
}

fn index_key(id: u32, reader: ReaderId) -> u64 {
    u64::from(id) << 32 | u64::from(reader.0)
}

/// What went wrong with this segment.
fn fault(id: u32, error: rusqlite::Error) -> Fault {
    if is_unreadable(&error) { Fault::Unreadable(id) } else { error.into() }
}

impl<'a> RawRow<'a> {
    /// The row, if it has the right form and its checksum holds.
    pub(super) fn sound(row: &'a rusqlite::Row<'_>) -> Option<RawRow<'a>> {
        RawRow::of(|index| row.get_ref(index).ok())
    }

    /// The row of these columns, if they have the right form and its checksum holds.
    pub(super) fn of(at: impl Fn(usize) -> Option<ValueRef<'a>>) -> Option<RawRow<'a>> {
        let named = |value| match value {
            ValueRef::Integer(seq) => Some(Named::At(unsigned(seq))),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Named::Here(bytes)),
            ValueRef::Null | ValueRef::Real(_) => None,
        };
        let bytes = |value| match value {
            ValueRef::Null => Some(&[][..]),
            ValueRef::Blob(bytes) => Some(bytes),
            _ => None,
        };
        let found = RawRow {
            seq: unsigned(at(0)?.as_i64().ok()?),
            topic: named(at(1)?)?,
            audience: named(at(2)?)?,
            flags: u8::try_from(at(3)?.as_i64().ok()?).ok()?,
            wall: unsigned(at(4)?.as_i64().ok()?),
            expiry: match at(5)? {
                ValueRef::Null => None,
                value => Some(u32::try_from(value.as_i64().ok()?).ok()?),
            },
            numbers: bytes(at(6)?)?,
            properties: bytes(at(7)?)?,
            payload: bytes(at(8)?)?,
        };
        (at(9)?.as_i64().ok()? == found.checksum()).then_some(found)
    }

    /// CRC-32C over the order number and every column; signed, because SQLite keeps that in four bytes.
    fn checksum(&self) -> i64 {
        let mut sum = Sum::default();
        let mut head = sum.room.0.as_mut_slice();
        put_number(&mut head, self.seq);
        for named in [self.topic, self.audience] {
            match named {
                Named::At(seq) => {
                    head.put_u8(0);
                    put_number(&mut head, seq);
                }
                Named::Here(bytes) => {
                    head.put_u8(1);
                    put_number(&mut head, bytes.len() as u64);
                }
            }
        }
        head.put_u8(self.flags);
        put_number(&mut head, self.wall);
        put_number(&mut head, self.expiry.map_or(0, |expiry| u64::from(expiry) + 1));
        put_number(&mut head, self.numbers.len() as u64);
        put_number(&mut head, self.properties.len() as u64);
        sum.filled = SUM_BYTES - head.len();
        for named in [self.topic, self.audience] {
            if let Named::Here(bytes) = named {
                sum.add(bytes);
            }
        }
        [self.numbers, self.properties, self.payload].iter().for_each(|bytes| sum.add(bytes));
        i64::from(i32::from_ne_bytes(sum.end().to_ne_bytes()))
    }

    /// What it weighs in the bounds of its readers, if its topic has so many bytes.
    pub(super) fn message_weight(&self, topic: usize) -> u64 {
        Message::weight_of(topic + self.properties.len() + self.payload.len()) as u64
    }

    /// About what it takes in the table.
    pub(super) fn weight(&self) -> u64 {
        let named = |named| if let Named::Here(bytes) = named { <[u8]>::len(bytes) } else { 4 };
        let bytes = named(self.topic) + named(self.audience) + self.numbers.len() + self.properties.len();
        (bytes + self.payload.len() + ROW_OVERHEAD) as u64
    }
}

/// A CRC-32C of what is added. What is short is put together first: for few bytes it is the call that costs.
#[derive(Default)]
struct Sum {
    crc: u32,
    room: Room,
    filled: usize,
}

/// Of eight bytes at a time the checksum is taken at once.
#[repr(align(8))]
struct Room([u8; SUM_BYTES]);

impl Default for Room {
    fn default() -> Room {
        Room([0; SUM_BYTES])
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        if let Some(room) = self.room.0.get_mut(self.filled..end) {
            room.copy_from_slice(bytes);
            self.filled = end;
            return;
        }
        self.crc = crc32c::crc32c_append(self.end(), bytes);
        self.filled = 0;
    }

    fn end(&self) -> u32 {
        crc32c::crc32c_append(self.crc, self.room.0.get(..self.filled).unwrap_or_default())
    }
}

/// A borrowed value as a parameter.
pub(super) struct AsIs<'a>(pub(super) ValueRef<'a>);

impl ToSql for AsIs<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(rusqlite::types::ToSqlOutput::Borrowed(self.0))
    }
}

/// Nobody's number, which ends the list of readers in a header: what their rows weigh follows.
const NO_READER: u64 = 0;

/// So many bytes are put together at most; more than a row's checksum begins with, which is seven numbers, of ten bytes
/// at most, and three bytes.
const SUM_BYTES: usize = 192;

/// Record header, order number, time and checksum.
const ROW_OVERHEAD: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_what_is_its_own_whatever_the_row_before_had() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&super::super::schema::tables()).unwrap();
        [1, 2].iter().for_each(|id| create(&connection, *id).unwrap());
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |most: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % most
        };
        let few = [&b""[..], b"x", b"\x07y"];
        let mut row = RawRow {
            seq: 0,
            topic: Named::At(1),
            audience: Named::At(1),
            flags: 0,
            wall: 0,
            expiry: None,
            numbers: b"",
            properties: b"",
            payload: b"",
        };
        let (mut pen, mut put) = (Pen::new(&connection), Vec::new());
        for seq in 1..=3_000 {
            row.seq = seq;
            for _ in 0..below(3) {
                match below(8) {
                    0 => row.topic = [Named::At(1), Named::At(2), Named::Here(b"t/a")][below(3)],
                    1 => row.audience = [Named::At(1), Named::At(2), Named::Here(b"\x01\x01")][below(3)],
                    2 => row.flags = [1, 5][below(2)],
                    3 => row.wall = [7, 1_800_000_000_000][below(2)],
                    4 => row.expiry = [None, Some(0), Some(60)][below(3)],
                    5 => row.numbers = few[below(3)],
                    6 => row.properties = few[below(3)],
                    _ => row.payload = few[below(3)],
                }
            }
            let id = if below(50) == 0 { 2 } else { 1 };
            if below(100) == 0 {
                assert!(pen.put(9, &row).is_err(), "there is no such segment");
            }
            pen.put(id, &row).unwrap();
            if below(100) == 0 {
                assert!(pen.put(id, &RawRow { topic: Named::At(3), ..row }).is_err(), "it is there");
            }
            put.push((id, row));
        }
        for (id, row) in put {
            let found = with_row(&connection, id, row.seq, |found| Some(*found == row)).unwrap();
            assert_eq!(found, Found::Row(true), "{row:?}");
        }
    }

    #[test]
    fn a_checksum_is_that_of_its_parts_one_after_the_other() {
        let bytes: Vec<u8> = (0..3_000_u32).map(|at| (at * at / 7 % 251) as u8).collect();
        let sizes = [0, 1, 7, 64, 118, 119, 120, 191, 192, 193, 700];
        for first in sizes {
            for second in sizes {
                for third in sizes {
                    let (mut sum, mut rest, mut crc) = (Sum::default(), bytes.as_slice(), 0);
                    for size in [first, second, third, 3] {
                        let (part, behind) = rest.split_at(size);
                        sum.add(part);
                        crc = crc32c::crc32c_append(crc, part);
                        rest = behind;
                    }
                    assert_eq!(sum.end(), crc, "{first}, {second}, {third}");
                }
            }
        }
    }

    #[test]
    fn the_longest_row_has_room_for_what_its_checksum_begins_with() {
        let row = RawRow {
            seq: u64::MAX,
            topic: Named::At(u64::MAX),
            audience: Named::At(u64::MAX),
            flags: u8::MAX,
            wall: u64::MAX,
            expiry: Some(u32::MAX),
            numbers: b"",
            properties: b"",
            payload: b"",
        };
        assert_ne!(row.checksum(), RawRow { flags: 0, ..row }.checksum());
    }

    #[test]
    fn a_header_is_read_as_it_was_written_with_weights_and_without() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&super::super::schema::tables()).unwrap();
        let readers = BTreeMap::from([(ReaderId(1), (3, 1, 9)), (ReaderId(7), (1, 4, 4))]);
        let old = Header { rows: 5, bytes: 600, last: 9, readers, weights: BTreeMap::new() };
        let weights = BTreeMap::from([(ReaderId(1), 0), (ReaderId(7), 1 << 40)]);
        let new = Header { weights, ..old.clone() };
        for (id, header) in [(1, &old), (2, &new), (3, &Header::default())] {
            put_header(&connection, id, header).unwrap();
        }
        let expected = BTreeMap::from([(1, Some(old)), (2, Some(new)), (3, Some(Header::default()))]);
        assert_eq!(headers(&connection).unwrap(), expected);
    }
}

//! What a damaged database still holds, taken from its pages without SQLite.
//!
//! Only what its checksum vouches for. Of what is kept twice the newer copy counts; what stands in a page
//! whose newest version is lost is taken where there is nothing better, but for retained messages, which
//! would be out of date. Rows of the log are found tree by tree, and name only rows of their own tree.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::audience::Audience;
use super::btree;
use super::image::Image;
use super::kept::{self, topic_key};
use super::pack::unseal;
use super::reader::State;
use super::runs::Runs;
use super::schema::{Fault, LEDGER, Ledger, ROOTS};
use super::segment::{self, Header, Named, RawRow};
use super::trees::Trees;
use crate::record::ReaderId;

/// What is there beside the log.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// State of readers and, under 0, the ledger.
    pub(super) states: BTreeMap<u32, Vec<u8>>,
    /// Sessions by reader.
    pub(super) sessions: BTreeMap<u32, Vec<u8>>,
    /// Routes by reader.
    pub(super) routes: BTreeMap<u32, Vec<u8>>,
    /// Headers of segments.
    pub(super) headers: BTreeMap<u32, Header>,
    /// Sealed retained messages by topic.
    pub(super) retained: BTreeMap<String, Vec<u8>>,
}

/// Rows that were one segment.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// By order number.
    pub(super) rows: BTreeMap<u64, FoundRow>,
    /// Indexes, each with its reader.
    indexes: Vec<(ReaderId, Vec<u8>)>,
}

/// A row whose checksum holds.
#[derive(Debug)]
pub(super) struct FoundRow {
    pub(super) topic: Result<Vec<u8>, u64>,
    pub(super) audience: Result<Vec<u8>, u64>,
    pub(super) flags: u8,
    pub(super) wall: u64,
    pub(super) expiry: Option<u32>,
    pub(super) numbers: Vec<u8>,
    pub(super) properties: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl FoundRow {
    fn of(row: &RawRow<'_>) -> FoundRow {
        let own = |named| match named {
            Named::Here(bytes) => Ok(<[u8]>::to_vec(bytes)),
            Named::At(seq) => Err(seq),
        };
        FoundRow {
            topic: own(row.topic),
            audience: own(row.audience),
            flags: row.flags,
            wall: row.wall,
            expiry: row.expiry,
            numbers: row.numbers.to_vec(),
            properties: row.properties.to_vec(),
            payload: row.payload.to_vec(),
        }
    }

    /// It as it stood in its table.
    pub(super) fn raw(&self, seq: u64) -> RawRow<'_> {
        RawRow {
            seq,
            topic: as_it_stood(&self.topic),
            audience: as_it_stood(&self.audience),
            flags: self.flags,
            wall: self.wall,
            expiry: self.expiry,
            numbers: &self.numbers,
            properties: &self.properties,
            payload: &self.payload,
        }
    }
}

impl Found {
    /// Finds everything but the log.
    pub(super) fn within(image: &Image, trees: &Trees) -> Found {
        let mut found = Found::default();
        let [state, mirror, sessions, routes, segments, retained] = ROOTS;
        for root in [state, mirror] {
            sealed(image, trees, root, |key, body, _| {
                if kept::original(key).is_none() {
                    found.take_state(key, body);
                }
            });
        }
        for old in [true, false] {
            let mut take = |to: kept::Original, key: u64, body: &[u8], stale: bool| {
                let Ok(reader) = u32::try_from(key) else { return };
                let into = match to {
                    kept::Original::Session => &mut found.sessions,
                    kept::Original::Route => &mut found.routes,
                };
                if old == stale {
                    into.insert(reader, body.to_vec());
                }
            };
            sealed(image, trees, mirror, |key, body, stale| {
                if let Some((to, reader)) = kept::original(key) {
                    take(to, u64::from(reader.0), body, stale);
                }
            });
            sealed(image, trees, sessions, |key, body, stale| {
                take(kept::Original::Session, key, body, stale);
            });
            sealed(image, trees, routes, |key, body, stale| take(kept::Original::Route, key, body, stale));
        }
        sealed(image, trees, segments, |key, body, _| {
            if let (Ok(id), Some(header)) = (u32::try_from(key), segment::unpack_header(body)) {
                found.headers.insert(id, header);
            }
        });
        found.take_retained(image, trees.of_root(retained));
        found
    }

    fn take_state(&mut self, key: u64, body: &[u8]) {
        let Ok(reader) = u32::try_from(key) else { return };
        let known = self.states.get(&reader).and_then(|known| progress(reader, known));
        if let Some(progress) = progress(reader, body)
            && known.is_none_or(|known| known < progress)
        {
            self.states.insert(reader, body.to_vec());
        }
    }

    fn take_retained(&mut self, image: &Image, pages: &[u32]) {
        for number in pages.iter().filter(|number| !image.is_stale(**number)) {
            records(image, *number, |_, columns| {
                let [ValueRef::Text(topic), ValueRef::Blob(blob)] = columns else { return };
                let Ok(topic) = std::str::from_utf8(topic) else { return };
                if unseal(blob, topic_key(topic)).is_some() {
                    self.retained.insert(topic.into(), blob.to_vec());
                }
            });
        }
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
            && self.sessions.is_empty()
            && self.routes.is_empty()
            && self.retained.is_empty()
    }
}

impl Group {
    /// The highest row id of a tree.
    pub(super) fn newest(image: &Image, pages: &[u32]) -> i64 {
        let highest = |number: &u32| {
            let page = image.page(*number)?;
            let kind = btree::kind(*number, &page)?;
            btree::cells(*number, &page, kind).map(|cell| cell.id).max()
        };
        pages.iter().rev().find_map(highest).unwrap_or(0)
    }

    /// Reads the rows of a tree.
    pub(super) fn of(image: &Image, pages: &[u32]) -> Group {
        let mut group = Group::default();
        for number in pages {
            records(image, *number, |id, columns| group.take(id, columns));
        }
        group
    }

    /// Takes the rows of a segment that SQLite can read, without its indexes: as many as it comes to. Where it reads a
    /// page in the place of another, that is not all.
    pub(super) fn scan(&mut self, connection: &Connection, id: u32) -> Result<(), Fault> {
        let (mut last, mut rises) = (0, true);
        segment::scan(connection, id, |seq, row| {
            let Some(row) = row else { return };
            (rises, last) = (rises && seq > last, seq);
            self.rows.insert(seq, FoundRow::of(row));
        })?;
        if rises { Ok(()) } else { Err(Fault::Segment(id)) }
    }

    fn take(&mut self, id: i64, columns: &[ValueRef<'_>]) {
        let (Some(ValueRef::Null), 10) = (columns.first(), columns.len()) else { return };
        if id < 0 {
            let reader = u32::try_from(id.unsigned_abs()).ok();
            if let (Some(reader), Some(ValueRef::Blob(blob))) = (reader, columns.get(8)) {
                self.indexes.push((ReaderId(reader), blob.to_vec()));
            }
            return;
        }
        let column = |at| if at == 0 { Some(ValueRef::Integer(id)) } else { columns.get(at).copied() };
        let Some(row) = RawRow::of(column) else { return };
        // What is loose comes behind the segment's own tree.
        self.rows.entry(row.seq).or_insert_with(|| FoundRow::of(&row));
    }

    /// The bytes behind a name of a row; `None` where the row that has them is lost.
    pub(super) fn named<'a>(
        &'a self,
        name: &'a Result<Vec<u8>, u64>,
        column: impl Fn(&FoundRow) -> &Result<Vec<u8>, u64>,
    ) -> Option<&'a [u8]> {
        match name {
            Ok(bytes) => Some(bytes),
            Err(at) => column(self.rows.get(at)?).as_deref().ok(),
        }
    }

    /// Which rows are a reader's, as its index says; `None` where that is lost.
    pub(super) fn index(&self, id: u32, reader: ReaderId) -> Option<Runs> {
        let own = self.indexes.iter().filter(|(of, _)| *of == reader);
        own.into_iter().find_map(|(_, blob)| segment::unpack_index(id, reader, blob))
    }

    /// Readers with an index, sound or not.
    pub(super) fn readers(&self) -> impl Iterator<Item = ReaderId> {
        self.indexes.iter().map(|(reader, _)| *reader)
    }

    /// Which rows are whose, as they say themselves.
    pub(super) fn owners(&self) -> BTreeMap<ReaderId, Runs> {
        let mut owners: BTreeMap<ReaderId, Runs> = BTreeMap::new();
        for (seq, row) in &self.rows {
            let packed = self.named(&row.audience, |row| &row.audience);
            let Some(audience) = packed.and_then(Audience::unpack) else { continue };
            for member in audience.members.iter() {
                owners.entry(member.want.reader).or_default().insert(*seq);
            }
        }
        owners
    }

    /// Whether it is the segment of this number, as far as that can be seen.
    pub(super) fn is_of(&self, id: u32, header: Option<&Header>) -> bool {
        let last = self.rows.last_key_value().map_or(0, |(seq, _)| *seq);
        header.is_some_and(|header| last > 0 && header.last == last)
            || self.indexes.iter().any(|(reader, _)| self.index(id, *reader).is_some())
    }
}

fn as_it_stood(name: &Result<Vec<u8>, u64>) -> Named<'_> {
    match name {
        Ok(bytes) => Named::Here(bytes),
        Err(at) => Named::At(*at),
    }
}

/// Hands out what is sealed in a table of sealed blobs, and whether its page is out of date.
fn sealed(image: &Image, trees: &Trees, root: u32, mut take: impl FnMut(u64, &[u8], bool)) {
    for number in trees.of_root(root) {
        let stale = image.is_stale(*number);
        records(image, *number, |id, columns| {
            let [ValueRef::Null, ValueRef::Blob(blob)] = columns else { return };
            let Ok(key) = u64::try_from(id) else { return };
            if let Some(body) = unseal(blob, key) {
                take(key, body, stale);
            }
        });
    }
}

/// Hands out the records of a page, each with its row id.
fn records(image: &Image, number: u32, mut take: impl FnMut(i64, &[ValueRef<'_>])) {
    let Some(page) = image.page(number) else { return };
    let Some(kind) = btree::kind(number, &page) else { return };
    for cell in btree::cells(number, &page, kind) {
        if let Some(record) = image.record(&cell)
            && let Some(columns) = btree::columns(&record)
        {
            take(cell.id, &columns);
        }
    }
}

/// How far a reader had come, or the ledger: the further, the newer. `None` for what is neither.
fn progress(key: u32, body: &[u8]) -> Option<[u64; 4]> {
    if key == LEDGER {
        return Some([Ledger::unpack(body)?.stamp, 0, 0, 0]);
    }
    let State { cursor, numbered, counters, .. } = State::unpack(body)?;
    Some([counters.received, counters.ended(), cursor, numbered])
}

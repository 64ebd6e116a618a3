//! What can still be read of a damaged database, in a new one.
//!
//! What there is is found by `found.rs`, page by page, whatever SQLite makes of the file. Which rows are
//! whose is found anew from the rows, so that what is missing is known to be missing, and counted as
//! damaged. The new database is built beside the damaged one and synced, before that one is put aside. The damaged
//! one may have been set apart, where its successor cannot be made with SQLite.
//! Where the disk has no room for all, the newest messages go first, and the others are left in the
//! damaged file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::audience::Audience;
use super::found::{Found, Group};
use super::image::Image;
use super::kept::{self, Original};
use super::log::{Doubt, Log};
use super::open::with_suffix;
use super::patience::Patience;
use super::reader::State;
use super::reserve::Reserve;
use super::room::{Files, PAGE, Pages, Sizes};
use super::runs::Runs;
use super::schema::{self, Fault, LEDGER, Ledger};
use super::segment::{self, Header, Named, Pen, RawRow};
use super::trees::Trees;
use super::{Config, aside, rescue, successor};
use crate::record::ReaderId;

/// What can be done with a damaged database as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Legible {
    /// Nothing: what is not salvaged is left in it.
    #[default]
    Not,
    /// The log was read, or all of it but a segment: it is gone on with where not all of it can be salvaged.
    AsFarAsItGoes,
}

/// What is done about a log of which a salvage may find more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Odds {
    /// It is salvaged.
    Salvage,
    /// That has failed: what is missing is counted.
    Bear,
}

/// Why a log that was read is to be salvaged all the same, if it is; segments that are known to be given up are none
/// to do that for. Before anybody has read past them, rows that SQLite does not find are had from the pages.
pub(super) fn is_due(
    log: &Log,
    files: &Files,
    connection: &Connection,
    known: &BTreeMap<u32, Doubt>,
) -> Option<Fault> {
    if log.is_at_odds && files.has_room_for_another() {
        return Some(Fault::AtOdds(AT_ODDS.into()));
    }
    let mut lost = log.lost.iter().filter(|id| !known.contains_key(id));
    let id = lost.find(|id| can_salvage(files, connection, **id))?;
    Some(Fault::AtOdds(Fault::Segment(*id).to_string()))
}

/// Whether rows of a damaged segment that are sound can be had, by salvaging everything: where its table is in
/// the database itself, and the disk has room for another.
pub(super) fn can_salvage(files: &Files, connection: &Connection, id: u32) -> bool {
    files.has_room_for_another() && segment::has_table(connection, "main", id).unwrap_or(false)
}

/// Builds a database of what is readable, and syncs it. Its name is no database's yet.
pub(super) fn build(files: &Files, sizes: &Sizes, wall: u64, legible: Legible) -> Result<PathBuf, Fault> {
    let Some(source) = source(files) else { return Err(Fault::Unusable("there is no file of it".into())) };
    let path = path(files, &source);
    successor::discard(files, &path);
    if files.free_disk().is_some_and(|free| free / 2 < files.disk.size(&source).unwrap_or(0)) {
        Reserve::within(files).release();
    }
    // Some of what is free is left for what comes in.
    let room = files.free_disk().map_or(u64::MAX, |free| free / 4 * 3);
    let mut built = copy(files, sizes, wall, &source, room, legible);
    for less in [room / 2, 0] {
        // What there was no room for would be lost with one that is not legible.
        if legible == Legible::Not && built.as_ref().is_err_and(Fault::is_full) {
            successor::discard(files, &path);
            built = copy(files, sizes, wall, &source, less, legible);
        }
    }
    if built.is_err() {
        successor::discard(files, &path);
    }
    built.map(|()| path)
}

/// Sees to it that what was salvaged has its name, whenever that was interrupted.
pub(super) fn ensure(files: &Files) -> io::Result<()> {
    let sources = [files.database.clone()].into_iter().chain(successor::paths(files));
    for source in sources.filter(|source| files.disk.size(source).is_some()) {
        // The damaged one is still there: perhaps this was never finished.
        successor::discard(files, &path(files, &source));
    }
    let mut names = files.disk.names(&files.dir).into_iter();
    let Some(path) = names.rfind(|path| is_salvaged(files, path)) else { return Ok(()) };
    // Never beside the WAL of the damaged one, which would be taken for its own.
    if files.disk.size(&files.wal).is_some() {
        files.disk.rename(&files.wal, &with_suffix(&aside::next(files), "-wal"))?;
        files.disk.sync_names(&files.dir)?;
    }
    files.disk.rename(&path, &files.database)?;
    files.disk.sync_names(&files.dir)
}

/// The file that the store is in: the database, or else the newest that was set apart, which has no successor.
pub(super) fn source(files: &Files) -> Option<PathBuf> {
    let database = files.disk.size(&files.database).map(|_| files.database.clone());
    database.or_else(|| successor::paths(files).pop())
}

/// Where what was salvaged of a database waits for its name. It is whole as soon as that database has gone.
fn path(files: &Files, source: &Path) -> PathBuf {
    match successor::number(source) {
        Some(number) => with_suffix(&files.database, &format!("{SALVAGED}-{number:06}")),
        None => with_suffix(&files.database, SALVAGED),
    }
}

fn is_salvaged(files: &Files, path: &Path) -> bool {
    let name = path.to_string_lossy();
    let prefix = with_suffix(&files.database, SALVAGED);
    let rest = name.strip_prefix(&*prefix.to_string_lossy());
    rest.is_some_and(|rest| rest.chars().all(|letter| letter == '-' || letter.is_ascii_digit()))
}

fn copy(
    files: &Files,
    sizes: &Sizes,
    wall: u64,
    source: &Path,
    room: u64,
    legible: Legible,
) -> Result<(), Fault> {
    let path = &path(files, source);
    let image = Image::open(files, source)?;
    let trees = Trees::of(&image);
    let found = Found::within(&image, &trees);
    // Every page was read by now: what is not to be gone on with is not written first.
    wait_for_unread(files, legible, &image)?;
    let target = successor::begin_new(files, path)?;
    let mut older = successor::paths(files);
    older.retain(|path| path != source);
    let mut left = Vec::new();
    successor::attach(&target, files, &older, |path| {
        left.push(path.to_owned());
        Ok(())
    })?;
    target.execute_batch("BEGIN IMMEDIATE")?;
    target.execute_batch(&schema::tables())?;
    put_found(&target, &found)?;
    sync(&target, files)?;
    let apart = successor::attached(&target, files)?;
    let elsewhere = apart.into_iter().flat_map(|apart| apart.segments).collect();
    // There is no room for these where there is none for the newest.
    let left = if room > 0 { left } else { Vec::new() };
    let missing = if left.is_empty() { BTreeMap::new() } else { found.headers.clone() };
    // Each segment has a page at least, there or in the log.
    let size = |path: &Path| files.disk.size(path).unwrap_or(0);
    let strays = left.iter().map(|path| (size(path) + size(&with_suffix(path, "-wal"))) / PAGE).sum();
    let mut rows = Salvaged { room, legible, elsewhere, missing, strays, ..Salvaged::of(&found) };
    rows.copy(&image, &trees, &found, &target, files)?;
    if found.is_empty() && rows.taken.first().is_none() {
        return Err(match image.has_failed() {
            true => schema::unread().into(),
            false => Fault::Unusable("nothing of it can be read".into()),
        });
    }
    wait_for_unread(files, legible, &image)?;
    let missing = std::mem::take(&mut rows.missing).into_iter();
    let missing = missing.filter(|(id, _)| !rows.elsewhere.contains(id));
    let mut missing: BTreeMap<_, _> = missing.map(|(id, header)| (id, Some(header))).collect();
    let ids: Vec<u32> = missing.keys().copied().collect();
    for path in &left {
        rows.leave(rescue::copy_on(&target, files, path, &mut missing, room)?)?;
    }
    rows.note_copied(&target, &ids)?;
    for path in &left {
        rows.put_strays(&target, files, path)?;
    }
    // What is too much for a reader goes with the first commit to the new one.
    let rules = Arc::new(Config::default().check().expect("the defaults are valid"));
    let mut log = Log::load(&target, *sizes, &rules, &BTreeMap::new())?;
    log.reconcile(&target)?;
    // Numbers may come again that the damaged one had given, and a clock may stand where it stood.
    log.ledger.epoch = wall.max(log.ledger.epoch.saturating_add(1));
    // No commit of the log's own: whoever asks what took place finds the damaged one's last.
    log.ledger.stamp = log.ledger.stamp.saturating_sub(1);
    target.execute_batch("BEGIN IMMEDIATE")?;
    log.write_state(&target)?;
    target.execute_batch("COMMIT")?;
    successor::finish_new(files, path, target)?;
    let (count, left) = (rows.taken.count(), rows.left);
    tracing::warn!(rows = count, "what can be read of the damaged store is in the new one");
    if left > 0 {
        tracing::error!(rows = left, "NO ROOM ON THE DISK: messages stay in the damaged store's file");
    }
    Ok(())
}

/// Fails where the disk does not read all of a log that could be read: who needs that waits for it, and it may be read yet.
fn wait_for_unread(files: &Files, legible: Legible, image: &Image) -> Result<(), Fault> {
    let waits = legible == Legible::AsFarAsItGoes && files.patience == Patience::Some;
    if waits && image.has_failed() { Err(schema::unread().into()) } else { Ok(()) }
}

/// Brings what is written so far to the disk: one sync of all would take it too long to tell it from one that
/// hangs. Nobody takes the file for whole before the damaged one has gone.
fn sync(target: &Connection, files: &Files) -> Result<(), Fault> {
    target.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
    files.progress.step();
    Ok(())
}

/// Writes what is there beside the log.
fn put_found(target: &Connection, found: &Found) -> Result<(), Fault> {
    for (reader, body) in &found.states {
        schema::put_state(target, *reader, body.clone())?;
    }
    for (original, rows) in [(Original::Session, &found.sessions), (Original::Route, &found.routes)] {
        for (reader, body) in rows {
            kept::put_twice(target, original, ReaderId(*reader), body)?;
        }
    }
    for (topic, blob) in &found.retained {
        target.prepare_cached("REPLACE INTO retained VALUES (?, ?)")?.execute((topic, blob))?;
    }
    Ok(())
}

/// The rows of the log, on their way.
#[derive(Default)]
struct Salvaged {
    /// What can be done with them where they are.
    legible: Legible,
    /// Bytes that the new database may take.
    room: u64,
    /// Segments in files that were set apart.
    elsewhere: BTreeSet<u32>,
    /// Those of which some rows are in the database, too, and some may be there alone.
    in_part: BTreeSet<u32>,
    /// Segments that may be in files whose rows are copied on.
    missing: BTreeMap<u32, Header>,
    /// At most so many other segments are in those.
    strays: u64,
    /// The next number that is free; they go down.
    next: u32,
    /// Readers that are there, with their state where that is.
    readers: BTreeMap<ReaderId, Option<State>>,
    /// Order numbers that have their row.
    taken: Runs,
    /// Those whose row stays in a file apart.
    apart: Runs,
    /// Rows for which there was no room.
    left: u64,
}

impl Salvaged {
    fn of(found: &Found) -> Salvaged {
        let state = |reader: &u32| found.states.get(reader).and_then(|body| State::unpack(body));
        let readers = found.sessions.keys().chain(found.routes.keys());
        let readers = readers.map(|reader| (ReaderId(*reader), state(reader))).collect();
        Salvaged { readers, ..Salvaged::default() }
    }

    /// There is no room for so many rows: an error, at the first, where they are had where they are.
    fn leave(&mut self, rows: u64) -> Result<(), Fault> {
        self.left += rows;
        if self.legible == Legible::AsFarAsItGoes && self.left > 0 { Err(Fault::Tight) } else { Ok(()) }
    }

    /// Copies every segment that is there, the newest first, each under a new number, and ends the transaction.
    fn copy(
        &mut self,
        image: &Image,
        trees: &Trees,
        found: &Found,
        target: &Connection,
        files: &Files,
    ) -> Result<(), Fault> {
        let mut logs: Vec<&Vec<u32>> = trees.logs().collect();
        logs.sort_by_cached_key(|pages| Group::newest(image, pages));
        let ledger = found.states.get(&LEDGER).and_then(|body| Ledger::unpack(body));
        let known = found.headers.keys().chain(&self.elsewhere).max().copied().unwrap_or(0);
        let mut id = ledger.map_or(known, |ledger| ledger.last_segment.max(known));
        // Each that is copied gets one that none had: another of its number would be hidden behind it.
        let copies = logs.len() as u64 + self.elsewhere.len() as u64 + self.strays;
        id = id.saturating_add(u32::try_from(copies).unwrap_or(0));
        let mut synced = Pages::of(target)?.all;
        while let Some(pages) = logs.pop() {
            let group = Group::of(image, pages);
            self.leave_out(&group, found);
            self.missing.retain(|missing, header| !group.is_of(*missing, Some(header)));
            self.put(target, id, &group)?;
            let pages = Pages::of(target)?.all;
            if pages - synced >= SYNC_PAGES {
                sync(target, files)?;
                synced = pages;
            }
            id = id.saturating_sub(1);
        }
        target.execute_batch("COMMIT")?;
        self.keep_apart(found, target, files, id)
    }

    /// A segment that is in the database is read from there, and from a file apart what is missing of it.
    fn leave_out(&mut self, group: &Group, found: &Found) {
        let rows = group.rows.len() as u64;
        let in_part = &mut self.in_part;
        self.elsewhere.retain(|elsewhere| {
            let header = found.headers.get(elsewhere);
            let is_here = group.is_of(*elsewhere, header);
            if is_here && header.is_none_or(|header| header.rows > rows) {
                in_part.insert(*elsewhere);
            }
            !is_here
        });
    }

    /// Goes on with the segments in files apart; the next number that is free is this one. They are read beside all
    /// transactions: in one that has met damage SQLite writes nothing more.
    fn keep_apart(
        &mut self,
        found: &Found,
        target: &Connection,
        files: &Files,
        id: u32,
    ) -> Result<(), Fault> {
        // The one that is open has a header that says nothing, and was copied to the database.
        let header =
            |id: &u32| found.headers.get(id).filter(|header| header.rows > 0).map(|header| (*id, header));
        let mut listed: Vec<(u32, &Header)> = self.elsewhere.iter().filter_map(header).collect();
        let mut unlisted: BTreeSet<u32> = std::mem::take(&mut self.in_part);
        unlisted.extend(self.elsewhere.iter().filter(|id| header(id).is_none()));
        if !unlisted.is_empty() || self.strays > 0 {
            for (elsewhere, header) in std::mem::take(&mut listed) {
                match self.note(target, elsewhere, header)? {
                    Indexed::Soundly => listed.push((elsewhere, header)),
                    Indexed::Not => drop(unlisted.insert(elsewhere)),
                }
                files.progress.step();
            }
        }
        target.execute_batch("BEGIN IMMEDIATE")?;
        listed.iter().try_for_each(|(elsewhere, header)| segment::put_header(target, *elsewhere, header))?;
        target.execute_batch("COMMIT")?;
        let mut id = id;
        for elsewhere in unlisted.into_iter().rev() {
            id = self.put_unlisted(target, elsewhere, id)?;
            files.progress.step();
        }
        self.next = id;
        Ok(())
    }

    /// Notes the rows of segments that may have been copied under their own numbers.
    fn note_copied(&mut self, target: &Connection, ids: &[u32]) -> Result<(), Fault> {
        for id in ids {
            if segment::has_table(target, "main", *id)? {
                segment::scan(target, *id, |seq, _| self.apart.insert(seq))?;
            }
        }
        Ok(())
    }

    /// Copies what is wanted of a file that cannot be attached and has no place yet: its segments have no header where
    /// the list of them is lost.
    fn put_strays(&mut self, target: &Connection, files: &Files, path: &Path) -> Result<(), Fault> {
        let image = Image::open(files, path)?;
        let trees = Trees::of(&image);
        let mut logs: Vec<&Vec<u32>> = trees.logs().collect();
        logs.sort_by_cached_key(|pages| Group::newest(&image, pages));
        while let Some(pages) = logs.pop() {
            target.execute_batch("BEGIN IMMEDIATE")?;
            self.put(target, self.next, &Group::of(&image, pages))?;
            target.execute_batch("COMMIT")?;
            self.next = self.next.saturating_sub(1);
            files.progress.step();
        }
        Ok(())
    }

    /// A segment in a file apart that no header names: it was dropped, or the list of segments is lost. What is still
    /// wanted of a dropped one was copied on before, so that its rows tell. Returns the next number that is free.
    fn put_unlisted(&mut self, target: &Connection, elsewhere: u32, id: u32) -> Result<u32, Fault> {
        let mut group = Group::default();
        let is_whole = match group.scan(target, elsewhere) {
            Err(Fault::Segment(_)) => false,
            scanned => scanned.map(|()| true)?,
        };
        let owners = group.owners().into_iter();
        let waiting: Vec<ReaderId> =
            owners.filter(|(reader, rows)| self.waits_for(*reader, rows)).map(|(reader, _)| reader).collect();
        if is_whole
            && !group.rows.keys().any(|seq| self.has(*seq))
            && are_indexed(target, elsewhere, &waiting)?
        {
            if !waiting.is_empty() {
                // A transaction of its own.
                segment::blank_header(target, elsewhere)?;
                group.rows.keys().for_each(|seq| self.apart.insert(*seq));
            }
            return Ok(id);
        }
        target.execute_batch("BEGIN IMMEDIATE")?;
        self.put(target, id, &group)?;
        target.execute_batch("COMMIT")?;
        Ok(id.saturating_sub(1))
    }

    /// Notes the rows of a segment that stays in a file apart, where it says whose they are.
    fn note(&mut self, target: &Connection, id: u32, header: &Header) -> Result<Indexed, Fault> {
        let mut all = Vec::new();
        for reader in header.readers.keys() {
            match segment::index(target, id, *reader) {
                Err(Fault::Segment(_)) => return Ok(Indexed::Not),
                // Another salvage may read it.
                Err(Fault::Unreadable(_)) => {}
                rows => all.push(rows?),
            }
        }
        all.iter().flat_map(Runs::iter).for_each(|(first, last)| self.apart.insert_range(first, last));
        Ok(Indexed::Soundly)
    }

    /// Whether a row has its place.
    fn has(&self, seq: u64) -> bool {
        self.taken.contains(seq) || self.apart.contains(seq)
    }

    /// Writes a segment with the rows of a group that somebody wants, its index and its header.
    fn put(&mut self, target: &Connection, id: u32, group: &Group) -> Result<(), Fault> {
        let mut segment = NewSegment { id, ..NewSegment::default() };
        // Its first page, and pages that are not full.
        let used = Pages::of(target)?.all * PAGE;
        let mut room = self.room.saturating_sub(used).saturating_sub(2 * PAGE);
        for (seq, row) in &group.rows {
            let topic = group.named(&row.topic, |row| &row.topic);
            let packed = group.named(&row.audience, |row| &row.audience);
            let (Some(topic), Some(packed)) = (topic, packed) else { continue };
            let Some(audience) = Audience::unpack(packed) else { continue };
            if self.has(*seq) || !self.is_wanted(&audience, *seq) {
                continue;
            }
            let bytes = topic.len() + packed.len() + row.properties.len() + row.payload.len();
            let Some(rest) = room.checked_sub(taken_by(bytes as u64)) else {
                self.leave(1)?;
                continue;
            };
            room = rest;
            let raw = RawRow {
                seq: *seq,
                topic: name(&mut segment.topics, topic, *seq),
                audience: name(&mut segment.audiences, packed, *seq),
                flags: row.flags,
                wall: row.wall,
                expiry: row.expiry,
                numbers: &row.numbers,
                properties: &row.properties,
                payload: &row.payload,
            };
            segment.put(target, &raw, &audience)?;
            self.taken.insert(*seq);
        }
        segment.finish(target)
    }

    fn is_wanted(&self, audience: &Audience, seq: u64) -> bool {
        audience.members.iter().any(|member| self.wants(member.want.reader, seq))
    }

    fn wants(&self, reader: ReaderId, seq: u64) -> bool {
        let state = self.readers.get(&reader);
        state.is_some_and(|state| state.as_ref().is_none_or(|state| !state.is_settled(seq)))
    }

    /// Whether a reader wants one of these rows.
    fn waits_for(&self, reader: ReaderId, rows: &Runs) -> bool {
        rows.iter().any(|(first, last)| (first..=last).any(|seq| self.wants(reader, seq)))
    }
}

/// Whether a segment says whose its rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Indexed {
    /// As far as the disk reads it.
    Soundly,
    /// What it says is damaged.
    Not,
}

/// Whether it says whose its rows are; one that was open when it was set apart does not.
fn are_indexed(target: &Connection, id: u32, readers: &[ReaderId]) -> Result<bool, Fault> {
    for reader in readers {
        match segment::index(target, id, *reader) {
            Err(Fault::Segment(_)) => return Ok(false),
            read => drop(read?),
        }
    }
    Ok(true)
}

/// A segment that is written.
#[derive(Default)]
struct NewSegment {
    id: u32,
    header: Header,
    /// Topics and audiences that have their row.
    topics: HashMap<Vec<u8>, u64>,
    audiences: HashMap<Vec<u8>, u64>,
    index: BTreeMap<ReaderId, Runs>,
}

impl NewSegment {
    fn put(&mut self, target: &Connection, row: &RawRow<'_>, audience: &Audience) -> Result<(), Fault> {
        if self.header.rows == 0 {
            target.execute_batch(&segment::table(self.id))?;
        }
        Pen::new(target).put(self.id, row)?;
        self.header.rows += 1;
        self.header.bytes += row.weight();
        self.header.last = self.header.last.max(row.seq);
        for member in audience.members.iter() {
            self.index.entry(member.want.reader).or_default().insert(row.seq);
        }
        Ok(())
    }

    fn finish(mut self, target: &Connection) -> Result<(), Fault> {
        if self.header.rows == 0 {
            return Ok(());
        }
        for (reader, rows) in &self.index {
            segment::put_index(target, self.id, *reader, rows)?;
            self.header.enter(*reader, rows);
        }
        segment::put_header(target, self.id, &self.header)
    }
}

/// What a row has for a text or a set: the first one carries it.
fn name<'a>(names: &mut HashMap<Vec<u8>, u64>, bytes: &'a [u8], seq: u64) -> Named<'a> {
    if let Some(at) = names.get(bytes) {
        return Named::At(*at);
    }
    names.insert(bytes.to_vec(), seq);
    Named::Here(bytes)
}

/// About what a row of so many bytes takes, its place in an index included.
pub(super) fn taken_by(bytes: u64) -> u64 {
    let whole = if bytes > PAGE - 100 { bytes.div_ceil(PAGE) * PAGE } else { bytes + bytes / 8 };
    whole + ROW_BYTES
}

/// Why a log is salvaged that is at odds with itself.
const AT_ODDS: &str = "the parts of the log contradict each other";

/// What a row takes beside its bytes.
const ROW_BYTES: u64 = 48;

/// So many new pages are synced at once: 4 MB.
const SYNC_PAGES: u64 = 1_024;

/// Behind the name of the database: what was salvaged.
const SALVAGED: &str = ".salvaged";

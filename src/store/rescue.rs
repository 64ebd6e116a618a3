//! What can be read of a file apart that is damaged, or that the disk does not read whole, copied on.
//!
//! Segment by segment under its own number, each in a transaction of its own, so that whenever that ends it is read
//! either where it was or where it is now. It is read page by page, as in a salvage, and checked row by row. A row that
//! an index names and that is not there counts as damaged once its reader comes to it, as everywhere. Where the index
//! is lost it is made anew from the rows, and the header taken away: whoever loads the log counts what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

use super::commit::checkpoint;
use super::found::Group;
use super::image::Image;
use super::room::{Files, PAGE, Pages};
use super::salvage;
use super::schema::{self, Fault, LEDGER, Ledger};
use super::segment::{self, Header, Pen};
use super::trees::Trees;
use crate::record::ReaderId;

/// Copies what is there of the wanted segments, which are then wanted no more, the newest first, and of those only what
/// lets the database take no more than so many bytes. Returns how many rows that leaves where they are.
pub(super) fn copy_on(
    connection: &Connection,
    files: &Files,
    path: &Path,
    wanted: &mut BTreeMap<u32, Option<Header>>,
    room: u64,
) -> Result<u64, Fault> {
    let image = Image::open(files, path)?;
    let trees = Trees::of(&image);
    let (mut rows, mut left) = (0, 0_u64);
    for (id, home) in homes(&image, &trees, wanted).into_iter().rev() {
        let group = Group::of(&image, &home.pages);
        let header = wanted.remove(&id).flatten();
        if (Pages::of(connection)?.all * PAGE).saturating_add(taken_by(&group)) > room {
            left += group.rows.len() as u64;
            continue;
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let put = put(connection, id, header.as_ref(), &group)
            .and_then(|()| note(connection, id))
            .and_then(|()| Ok(connection.execute_batch("COMMIT")?))
            .and_then(|()| checkpoint(connection));
        if put.as_ref().is_err_and(Fault::is_full) && !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        put?;
        rows += group.rows.len();
        files.progress.step();
    }
    tracing::warn!(path = %path.display(), rows, "what can be read of the segments that are wanted is copied on");
    if left > 0 {
        tracing::error!(path = %path.display(), rows = left, "NO ROOM ON THE DISK: messages stay in what was set apart");
    }
    Ok(left)
}

/// The pages of each wanted segment that is there. Where the page above them is lost, and the map of pages too, each of
/// them is a tree of its own: those that do not say whose they are belong where rows are missing.
fn homes(image: &Image, trees: &Trees, wanted: &BTreeMap<u32, Option<Header>>) -> BTreeMap<u32, Home> {
    let mut homes: BTreeMap<u32, Home> = BTreeMap::new();
    let mut loose = Vec::new();
    for pages in trees.logs() {
        let group = Group::of(image, pages);
        let rows = group.rows.len() as u64;
        let home = wanted.iter().find(|(id, header)| group.is_of(**id, header.as_ref()));
        if let Some((id, header)) = home {
            let all = header.as_ref().map_or(0, |header| header.rows);
            homes.entry(*id).or_insert(Home { pages: Vec::new(), missing: all }).take(pages, rows);
        } else if let Some((last, _)) = group.rows.last_key_value()
            && group.readers().next().is_none()
        {
            loose.push((*last, rows, pages));
        }
    }
    for (last, rows, pages) in loose {
        let fits = |(id, home): (&u32, &Home)| {
            let span = wanted.get(id)?.as_ref()?.span()?;
            (span.contains(&last) && home.missing >= rows).then_some((span, *id))
        };
        // Rows that were copied on into a segment are far older than its others.
        let home = homes.iter().filter_map(fits).min_by_key(|(span, _)| span.end() - span.start());
        if let Some((_, id)) = home {
            homes.entry(id).and_modify(|home| home.take(pages, rows));
        }
    }
    homes
}

/// Where a segment lies.
struct Home {
    pages: Vec<u32>,
    /// Rows that are not in these.
    missing: u64,
}

impl Home {
    fn take(&mut self, pages: &[u32], rows: u64) {
        self.pages.extend(pages);
        self.missing = self.missing.saturating_sub(rows);
    }
}

/// Notes which segment this transaction is for: where its sync fails, it must be copied once more.
fn note(connection: &Connection, id: u32) -> Result<(), Fault> {
    let ledger = schema::state(connection, LEDGER)?.and_then(|blob| Ledger::unpack(&blob));
    let Some(ledger) = ledger else { return Ok(()) };
    Ok(schema::put_state(connection, LEDGER, Ledger { copied_on: id, ..ledger }.pack())?)
}

/// About what a segment of these rows takes.
fn taken_by(group: &Group) -> u64 {
    let rows = group.rows.iter().map(|(seq, row)| salvage::taken_by(row.raw(*seq).weight()));
    // Its first page, and pages that are not full.
    rows.sum::<u64>() + 2 * PAGE
}

/// Writes a segment as it was, but for what is not there.
fn put(connection: &Connection, id: u32, header: Option<&Header>, group: &Group) -> Result<(), Fault> {
    connection.execute_batch(&segment::table(id))?;
    let mut pen = Pen::new(connection);
    for (seq, row) in &group.rows {
        pen.put(id, &row.raw(*seq))?;
    }
    let owners = group.owners();
    let readers: BTreeSet<ReaderId> = match header {
        Some(header) => header.readers.keys().copied().collect(),
        None => owners.keys().copied().chain(group.readers()).collect(),
    };
    let mut header = header;
    for reader in readers {
        let rows = group.index(id, reader).unwrap_or_else(|| {
            header = None;
            owners.get(&reader).cloned().unwrap_or_default()
        });
        segment::put_index(connection, id, reader, &rows)?;
    }
    match header {
        Some(header) => segment::put_header(connection, id, header),
        None => segment::blank_header(connection, id),
    }
}

//! What the store may take of the disk, and what goes when it takes too much.
//!
//! `max_size` counts the pages in use, the WAL, and the segments that lie in files apart. `min_free_disk` lowers
//! what the database may take while the disk is short; what lies apart gives the disk nothing back before its file goes.
//! Over it, the oldest segment goes (where the disk is short, of the database first), for every reader that lets its
//! oldest go, in the transaction that made it too much, counted as `store_full`. A reader whose policy is another
//! keeps its rows: what it would get next is turned away, here or by the broker, some way before `max_size` is
//! reached. Segments and the WAL shrink with `max_size`, so that a small store gives way in small steps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapter_api::units;
use rusqlite::Connection;

use super::Checked;
use super::aside;
use super::disk::{Disk, SystemDisk};
use super::log::{Log, Segment};
use super::patience::Patience;
use super::progress::Progress;
use super::reader::{Fate, Reader};
use super::schema::{Fault, unsigned};
use super::successor::{self, Apart};
use crate::record::{DropReason, Policy, ReaderId};

/// Sizes that follow from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// A segment ends at so many rows.
    pub(super) segment_rows: u64,
    /// Or at so many bytes.
    pub(super) segment_bytes: u64,
    /// Fewer wanted rows than this are copied on.
    pub(super) copy_below: u64,
    /// Frames in the WAL that are worth a checkpoint.
    pub(super) checkpoint_frames: u64,
    /// Bytes of disk that are held back, to get out of a full disk.
    pub(super) reserve: u64,
}

impl Sizes {
    /// The sizes that go with this configuration.
    pub(super) fn of(config: &Checked) -> Sizes {
        Sizes {
            segment_rows: 4_096,
            segment_bytes: (config.max_size / 16).min(4_000_000),
            copy_below: 64,
            checkpoint_frames: (config.max_size / 8 / PAGE).clamp(16, 1_000),
            reserve: (config.max_size / 8).min(8_000_000),
        }
    }
}

impl Sizes {
    /// Below what is allowed by this much, the store is full for who does not let its oldest go: what is
    /// under way to it then still fits.
    pub(super) fn headroom(&self) -> u64 {
        self.segment_bytes * 2
    }
}

/// How much room there is for readers that keep what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Room {
    /// Nobody has looked since the start.
    #[default]
    Unknown,
    /// So many bytes.
    Left(u64),
    /// None, and none until a segment has gone.
    None,
}

/// The database's files.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The disk that has them.
    pub(super) disk: Arc<dyn Disk>,
    /// The data directory.
    pub(super) dir: PathBuf,
    /// The database.
    pub(super) database: PathBuf,
    /// Its write-ahead log.
    pub(super) wal: PathBuf,
    /// Told while long work on them goes on.
    pub(super) progress: Progress,
    /// With what was set apart and the disk does not read.
    pub(super) patience: Patience,
}

impl Files {
    /// The files in a data directory of the system's disk.
    pub(super) fn within(dir: &Path) -> Files {
        Files::on(Arc::new(SystemDisk), dir)
    }

    /// The files in a data directory of this disk.
    pub(super) fn on(disk: Arc<dyn Disk>, dir: &Path) -> Files {
        Files {
            disk,
            dir: dir.into(),
            database: dir.join("tidegate.db"),
            wal: dir.join("tidegate.db-wal"),
            progress: Progress::default(),
            patience: Patience::Some,
        }
    }

    /// The same, for work of which this is told.
    pub(super) fn telling(self, progress: Progress) -> Files {
        Files { progress, ..self }
    }

    /// The same, for who has so much patience.
    pub(super) fn with(&self, patience: Patience) -> Files {
        Files { patience, ..self.clone() }
    }

    /// Bytes that the WAL takes.
    pub(super) fn wal_size(&self) -> u64 {
        self.disk.size(&self.wal).unwrap_or(0)
    }

    /// Bytes that the database takes, without what is in the WAL alone.
    pub(super) fn database_size(&self) -> u64 {
        self.disk.size(&self.database).unwrap_or(0)
    }

    /// Whether the disk has room for another database of this size.
    pub(super) fn has_room_for_another(&self) -> bool {
        let bytes = self.database_size() + self.wal_size();
        self.free_disk().is_none_or(|free| free / 4 * 3 > bytes)
    }

    /// Free bytes on the disk, as an ordinary user may take them; `None` where it does not say.
    pub(super) fn free_disk(&self) -> Option<u64> {
        self.disk.free(&self.dir)
    }
}

/// Pages of the database, as the running transaction sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pages {
    /// All.
    pub(super) all: u64,
    /// Not in use.
    pub(super) free: u64,
}

impl Pages {
    /// Counts them.
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Pages> {
        let count = |sql| connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).map(unsigned);
        Ok(Pages { all: count("PRAGMA page_count")?, free: count("PRAGMA freelist_count")? })
    }

    /// Bytes in use.
    pub(super) fn in_use(self) -> u64 {
        self.all.saturating_sub(self.free) * PAGE
    }
}

/// What the database may take now, where its files take so much of the disk and so much is free.
pub(super) fn allowed(config: &Checked, files: u64, free_disk: Option<u64>) -> u64 {
    let Some(free) = free_disk else { return config.max_size };
    let by_disk = files.saturating_add(free).saturating_sub(config.min_free_disk);
    // Below the floor the disk's other tenants are at fault, and emptying the store would not help.
    config.max_size.min(by_disk.max(KEPT_ANYWAY))
}

/// Says so where the disk would be short of `min_free_disk` even without all that the store may give up.
pub(super) fn missed_floor(config: &Checked, files: u64, free_disk: Option<u64>) -> Option<String> {
    let (free, floor) = (free_disk?, config.min_free_disk);
    (files.saturating_add(free) < floor.saturating_add(KEPT_ANYWAY.min(config.max_size))).then(|| {
        let (floor, free) = (units::show_size(floor), units::show_size(free / 1_000 * 1_000));
        let kept = units::show_size(KEPT_ANYWAY.min(config.max_size));
        format!(
            "min_free_disk = \"{floor}\" cannot be kept: {free} of the disk are free, and the store, which takes {kept} whatever is free, cannot make it more"
        )
    })
}

impl Log {
    /// Makes room until what the store takes is allowed: of segments of which little is wanted that is copied on,
    /// then the oldest go.
    pub(super) fn make_room(
        &mut self,
        connection: &Connection,
        files: &Files,
        apart: &[Apart],
        config: &Checked,
    ) -> Result<(), Fault> {
        let mut copies = None;
        loop {
            let over = self.look_for_room(connection, files, apart, config)?;
            let is_over = over.of_size || over.of_disk;
            if !is_over && self.room != Room::None {
                return Ok(());
            }
            if is_over
                && files.free_disk().is_some_and(|free| free < config.min_free_disk)
                && aside::remove_oldest(files)
            {
                continue;
            }
            // What is copied is written before what it was copied from gives its place back.
            let has_space = || files.free_disk().is_none_or(|free| free > self.sizes.segment_bytes * 4);
            let left = copies.get_or_insert_with(|| if has_space() { COPIES_MAX } else { 0 });
            if *left > 0 && self.compact(connection)? {
                *left -= 1;
                continue;
            }
            // For the disk's sake first, since that counts in both; and there what cannot go is no reason that all
            // goes that can.
            let for_disk = over.of_disk && self.yielding(|_| true) > kept_of_queues(config);
            if for_disk && self.drop_for_disk(connection, apart)? {
                continue;
            }
            if !over.of_size || !self.drop_oldest_segment(connection)? {
                return Ok(());
            }
        }
    }

    /// Finds out how much room there is, and whether the store takes more than it may.
    pub(super) fn look_for_room(
        &mut self,
        connection: &Connection,
        files: &Files,
        apart: &[Apart],
        config: &Checked,
    ) -> Result<Over, Fault> {
        let here = self.taken_here(connection, files)?;
        let all = here + self.taken_apart(apart);
        // A file apart of which nothing is wanted any more goes with this transaction.
        let done = apart.iter().filter(|apart| !self.has_any_of(apart));
        let given_back: u64 = done.map(|apart| successor::size(files, std::slice::from_ref(apart))).sum();
        let free = files.free_disk().map(|free| free.saturating_add(given_back));
        // Pages that are in the WAL alone are still to be taken of the disk.
        let allowed = allowed(config, files.database_size() + files.wal_size(), free);
        // Where something else takes the most of it, dropping what waits would not help, and never end.
        let rows: u64 = self.segments.values().map(|segment| segment.bytes).sum();
        let is_much = rows > kept_of_queues(config);
        let over = Over {
            of_size: is_much && all > config.max_size,
            of_disk: is_much && allowed < config.max_size && here > allowed,
        };
        // Sessions are as `[store]` says.
        if self.rules.when_full == Policy::DropOldest
            && !self.bounded().any(|(_, reader)| reader.is_guarded())
        {
            self.room = Room::Left(u64::MAX);
            return Ok(over);
        }
        let elsewhere = self.elsewhere(apart);
        let left_of = |most: u64, taken: u64, yielding: u64| {
            most.saturating_sub(self.sizes.headroom()).saturating_sub(taken) + yielding
        };
        let mut left = left_of(config.max_size, all, self.yielding(|_| true));
        if allowed < config.max_size {
            left = left.min(left_of(allowed, here, self.yielding(|id| !elsewhere.contains(&id))));
        }
        // Once it was full, a whole segment must have gone: it would be full again with the next commit.
        let enough = if self.room == Room::None { self.sizes.segment_bytes } else { 1 };
        self.room = if left >= enough { Room::Left(left) } else { Room::None };
        Ok(over)
    }

    /// Bytes that count in `max_size`.
    pub(super) fn taken(
        &self,
        connection: &Connection,
        files: &Files,
        apart: &[Apart],
    ) -> rusqlite::Result<u64> {
        Ok(self.taken_here(connection, files)? + self.taken_apart(apart))
    }

    /// Those of the database itself, but for tables that are about to go: messages would be dropped for those in vain.
    fn taken_here(&self, connection: &Connection, files: &Files) -> rusqlite::Result<u64> {
        let left: u64 = self.left_behind().map(|(_, bytes)| bytes).sum();
        Ok((Pages::of(connection)?.in_use() + files.wal_size()).saturating_sub(left))
    }

    /// Bytes of segments in files apart. One that has gone counts no more, as pages that are free do not: or the
    /// whole of such a file would have to go at once.
    fn taken_apart(&self, apart: &[Apart]) -> u64 {
        let ids = self.elsewhere(apart).into_iter();
        ids.filter_map(|id| self.segments.get(&id)).map(|segment| segment.bytes).sum()
    }

    /// Segments in files apart.
    fn elsewhere(&self, apart: &[Apart]) -> BTreeSet<u32> {
        let ids = apart.iter().flat_map(|apart| &apart.segments);
        ids.filter(|id| self.segments.contains_key(id)).copied().collect()
    }

    /// Whether a file apart is still needed.
    pub(super) fn has_any_of(&self, apart: &Apart) -> bool {
        apart.segments.iter().any(|id| self.segments.contains_key(id))
    }

    /// Bytes of those of these segments that may be dropped to make room.
    fn yielding(&self, is_counted: impl Fn(u32) -> bool) -> u64 {
        let segments = self.segments.iter().filter(|(id, segment)| is_counted(**id) && self.may_go(segment));
        segments.map(|(_, segment)| segment.bytes).sum()
    }

    /// Whether a segment may be dropped to make room.
    fn may_go(&self, segment: &Segment) -> bool {
        let is_guarded = |id: &ReaderId| self.readers.get(id).is_some_and(Reader::is_guarded);
        segment.rows > 0 && !segment.wanted.readers().any(|id| is_guarded(&id))
    }

    /// Bytes go into the store.
    pub(super) fn use_room(&mut self, bytes: u64) {
        if let Room::Left(left) = self.room {
            self.room = left.checked_sub(bytes).map_or(Room::None, Room::Left);
        }
    }

    /// Drops the oldest segment of which no reader wants a row that keeps what it has, and with it every
    /// older row of the others wherever it was copied to. False where there is none.
    pub(super) fn drop_oldest_segment(&mut self, connection: &Connection) -> Result<bool, Fault> {
        let Some((id, segment)) = self.segments.iter().find(|(_, segment)| self.may_go(segment)) else {
            return Ok(false);
        };
        let (id, through) = (*id, segment.last);
        let waiting =
            |reader: &Reader| !reader.is_guarded() && reader.spans.range(..=through).next().is_some();
        let readers: Vec<ReaderId> =
            self.readers.iter().filter(|(_, reader)| waiting(reader)).map(|(id, _)| *id).collect();
        self.drop_to_make_room(connection, id, readers, |log, reader| {
            log.advance(connection, reader, through, STORE_FULL)
        })?;
        Ok(true)
    }

    /// Drops what gives the disk room: the oldest closed segment of the database; where there is none, all that is
    /// wanted of the oldest file apart that can go, since it gives nothing back before; or else the open segment.
    /// False where none of them may go.
    pub(super) fn drop_for_disk(&mut self, connection: &Connection, apart: &[Apart]) -> Result<bool, Fault> {
        let elsewhere = self.elsewhere(apart);
        if elsewhere.is_empty() {
            return self.drop_oldest_segment(connection);
        }
        let may_go = |id: &u32| {
            // It may have to be read whose its rows are.
            !self.resting.contains(id) && self.segments.get(id).is_some_and(|segment| self.may_go(segment))
        };
        let open = self.ledger.last_segment;
        let closed = self.segments.keys().filter(|id| **id != open && !elsewhere.contains(id));
        let of_file = |apart: &Apart| -> Vec<u32> {
            let ids = apart.segments.iter().filter(|id| self.segments.contains_key(id));
            ids.copied().collect()
        };
        // The newest comes first.
        let files = apart.iter().rev().map(of_file);
        let ids = (closed.copied().find(|id| may_go(id)).map(|id| vec![id]))
            .or_else(|| files.into_iter().find(|ids| !ids.is_empty() && ids.iter().all(may_go)))
            .or_else(|| may_go(&open).then(|| vec![open]))
            .unwrap_or_default();
        for id in &ids {
            self.drop_alone(connection, *id)?;
        }
        Ok(!ids.is_empty())
    }

    /// Drops a segment, and of what is older nothing.
    fn drop_alone(&mut self, connection: &Connection, id: u32) -> Result<(), Fault> {
        let Some(segment) = self.segments.get(&id) else { return Ok(()) };
        let readers = segment.wanted.readers().collect();
        self.drop_to_make_room(connection, id, readers, |log, reader| {
            log.end_of_segment(connection, reader, id, STORE_FULL)
        })
    }

    /// Drops a segment after `end` has ended the rows of these readers that go with it.
    fn drop_to_make_room(
        &mut self,
        connection: &Connection,
        id: u32,
        readers: Vec<ReaderId>,
        mut end: impl FnMut(&mut Log, ReaderId) -> Result<u64, Fault>,
    ) -> Result<(), Fault> {
        if id == self.ledger.last_segment {
            self.close_segment(connection)?;
            self.begin_segment(connection)?;
        }
        for reader in readers {
            let rows = end(self, reader)?;
            if rows > 0 {
                let name = self.readers.get(&reader).map(|reader| reader.name.as_str());
                tracing::warn!(reader = name, rows, "the store is full: the oldest messages are dropped");
            }
        }
        self.touched.remove(&id);
        self.drop_segment(connection, id)
    }
}

/// Whether the store takes more than it may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    /// More than `max_size`.
    of_size: bool,
    /// The database takes more than the disk has for it.
    of_disk: bool,
}

impl Reader {
    /// Whether it keeps its rows where the store is full.
    pub(super) fn is_guarded(&self) -> bool {
        self.bounds.when_full != Policy::DropOldest
    }
}

/// What becomes of rows that go to make room.
const STORE_FULL: Fate = Fate::Dropped(DropReason::StoreFull);

/// Bytes of a page.
pub(super) const PAGE: u64 = 4_096;

/// So many segments are copied on in one transaction to make room.
const COPIES_MAX: u32 = 8;

/// What the rows that wait may take whatever else the store holds; an eighth of a smaller store.
fn kept_of_queues(config: &Checked) -> u64 {
    2_000_000.min(config.max_size / 8)
}

/// What the store keeps even where the disk has less than `min_free_disk`.
const KEPT_ANYWAY: u64 = 8_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Config;

    #[test]
    fn a_short_disk_lowers_what_is_allowed_but_not_to_nothing() {
        let config = Config::default().check().unwrap();
        assert_eq!(allowed(&config, 0, Some(10_000_000_000)), 1_000_000_000);
        assert_eq!(allowed(&config, 100_000_000, Some(150_000_000)), 50_000_000);
        assert_eq!(allowed(&config, 100_000_000, Some(0)), KEPT_ANYWAY);
        assert_eq!(allowed(&config, 5, None), 1_000_000_000);
    }

    #[test]
    fn segments_and_wal_shrink_with_the_store() {
        let small = Config { max_size: "1MB".into(), ..Config::default() }.check().unwrap();
        let sizes = Sizes::of(&small);
        assert_eq!((sizes.segment_bytes, sizes.checkpoint_frames), (62_500, 30));
        assert_eq!(Sizes::of(&Config::default().check().unwrap()).segment_bytes, 4_000_000);
    }
}

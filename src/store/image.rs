//! The pages of a database as they lie on the disk, read without SQLite.
//!
//! A page is the newest sound version of it in the write-ahead log, else the one in the database. A page
//! that the disk does not read, or that lies beyond the end, is not there. What lies in it is not judged.
//! Nor is a frame of the log that it does not read, and whichever page that was of is taken from elsewhere.

use std::cell::Cell as Count;
use std::io;
use std::path::Path;

use super::btree::{self, Cell, LINK, Page, SIZE};
use super::disk::Reading;
use super::open::with_suffix;
use super::progress::Progress;
use super::room::{Files, PAGE};
use super::salvage;
use super::wal::Wal;

/// The pages.
pub(super) struct Image {
    database: Box<dyn Reading>,
    log: Option<Box<dyn Reading>>,
    wal: Wal,
    /// How many.
    pub(super) count: u32,
    /// Reads so far.
    reads: Count<u32>,
    /// Whether the disk has failed to read some.
    failed: Count<bool>,
    progress: Progress,
}

impl Image {
    /// Opens a database and its log.
    pub(super) fn open(files: &Files, path: &Path) -> io::Result<Image> {
        let database = files.disk.open(path)?;
        let log = with_suffix(path, "-wal");
        let bytes = files.disk.size(&log).unwrap_or(0);
        let log = if bytes > 0 { Some(files.disk.open(&log)?) } else { None };
        let wal = log.as_deref().map_or(Wal::default(), |log| Wal::read_round(log, bytes, &files.progress));
        let there = u32::try_from(files.disk.size(path).unwrap_or(0).div_ceil(PAGE)).unwrap_or(u32::MAX);
        // What a commit says of it may come from a damaged page: more than there is it cannot be, save where the file
        // has lost its end.
        let frames = (wal.pages.len() + wal.stale.len()) as u64 + wal.unread;
        let most = there.saturating_add(u32::try_from(frames).unwrap_or(u32::MAX));
        let most = most.max(wal.pages.range(..PAGES_BELIEVED).next_back().map_or(0, |(page, _)| *page));
        let count = wal.size.unwrap_or(there).max(wal.beyond).min(most);
        let (reads, failed, progress) = (Count::new(0), Count::new(false), files.progress.clone());
        Ok(Image { database, log, wal, count, reads, failed, progress })
    }

    /// Reads a page; `None` where it is not there.
    pub(super) fn page(&self, number: u32) -> Option<Box<Page>> {
        self.read(number).ok().flatten()
    }

    fn read(&self, number: u32) -> io::Result<Option<Box<Page>>> {
        let mut page = Box::new([0; SIZE]);
        let read = match (self.wal.pages.get(&number), &self.log) {
            (Some(at), Some(log)) => log.read_at(*at, page.as_mut_slice()),
            _ => {
                let Some(before) = number.checked_sub(1) else { return Ok(None) };
                self.database.read_at(u64::from(before) * PAGE, page.as_mut_slice())
            }
        };
        // A page that the disk does not read may have taken it long to give up.
        if read.is_err() || self.reads.get().is_multiple_of(READS) {
            self.progress.step();
        }
        self.failed.set(self.failed.get() || read.is_err());
        self.reads.set(self.reads.get().wrapping_add(1));
        Ok((read? > 0).then_some(page))
    }

    /// Whether the disk has failed to read a page.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get() || self.wal.unread > 0
    }

    /// Whether a page is older than the last commit.
    pub(super) fn is_stale(&self, number: u32) -> bool {
        self.wal.stale.contains(&number)
    }

    /// The whole record of a cell, with what of it lies in other pages; `None` where that cannot be.
    pub(super) fn record(&self, cell: &Cell<'_>) -> Option<Vec<u8>> {
        // A length is only believed where the columns fill it.
        btree::types(cell.local, cell.length)?;
        let mut record = cell.local.to_vec();
        let mut next = cell.overflow;
        while record.len() < cell.length {
            if next == 0 || next > self.count {
                return None;
            }
            let page = self.page(next)?;
            let (link, content) = page.split_at_checked(LINK)?;
            let missing = cell.length - record.len();
            record.extend_from_slice(content.get(..missing.min(content.len()))?);
            next = btree::number32(link)?;
        }
        Some(record)
    }
}

/// A page of a log with a higher number, beyond the end of the file, is no page of ours: 4 GB.
const PAGES_BELIEVED: u32 = 1 << 20;

/// So many pages are a piece of work: a megabyte.
const READS: u32 = 256;

/// What the disk reads of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// All of it.
    Whole,
    /// Most of it.
    Spotted,
    /// Hardly anything.
    Lost,
}

impl Health {
    /// Reads every page of the file that the store is in, to see.
    pub(super) fn of_store(files: &Files) -> Health {
        salvage::source(files).map_or(Health::Lost, |path| Health::of(files, &path))
    }

    /// The same of another file.
    pub(super) fn of(files: &Files, path: &Path) -> Health {
        let Ok(image) = Image::open(files, path) else { return Health::Lost };
        let (mut good, mut bad) = (0u64, image.wal.unread);
        for number in 1..=image.count {
            match image.read(number) {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            }
            if bad > good + SPOT_PAGES {
                return Health::Lost;
            }
        }
        match bad {
            0 => Health::Whole,
            bad if bad > good => Health::Lost,
            _ => Health::Spotted,
        }
    }
}

/// A spot at the beginning of a file may be so large: a disk that reads nothing is not asked for all of it.
const SPOT_PAGES: u64 = 256;

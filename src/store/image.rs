//! The pages of a database as they lie on the disk, read without SQLite.
//!
//! A page is the newest sound version of it in the write-ahead log, else the one in the database. A page
//! that the disk does not read, or that lies beyond the end, is not there. What lies in it is not judged.

use std::cell::Cell as Count;
use std::io;
use std::path::Path;

use super::btree::{self, Cell, LINK, Page, SIZE};
use super::disk::Reading;
use super::open::with_suffix;
use super::progress::Progress;
use super::room::{Files, PAGE};
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
        let wal = log.as_deref().map_or(Ok(Wal::default()), |log| Wal::read(log, bytes))?;
        let there = u32::try_from(files.disk.size(path).unwrap_or(0).div_ceil(PAGE)).unwrap_or(u32::MAX);
        let count = wal.size.unwrap_or(there);
        let (reads, failed, progress) = (Count::new(0), Count::new(false), files.progress.clone());
        Ok(Image { database, log, wal, count, reads, failed, progress })
    }

    /// Reads a page; `None` where it is not there.
    pub(super) fn page(&self, number: u32) -> Option<Box<Page>> {
        let mut page = Box::new([0; SIZE]);
        let read = match (self.wal.pages.get(&number), &self.log) {
            (Some(at), Some(log)) => log.read_at(*at, page.as_mut_slice()),
            _ => {
                let at = u64::from(number.checked_sub(1)?) * PAGE;
                self.database.read_at(at, page.as_mut_slice())
            }
        };
        // A page that the disk does not read may have taken it long to give up.
        if read.is_err() || self.reads.get().is_multiple_of(READS) {
            self.progress.step();
        }
        self.failed.set(self.failed.get() || read.is_err());
        self.reads.set(self.reads.get().wrapping_add(1));
        (read.ok()? > 0).then_some(page)
    }

    /// Whether the disk has failed to read a page.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
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

/// So many pages are a piece of work: a megabyte.
const READS: u32 = 256;

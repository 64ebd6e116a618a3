//! The pages of a database as they lie on the disk, read without SQLite.
//!
//! A page is the newest sound version of it in the write-ahead log, else the one in the database. A page
//! that the disk does not read, or that lies beyond the end, is not there. What lies in it is not judged.

use std::cell::Cell as Count;
use std::io;

use super::btree::{self, Cell, LINK, Page, SIZE};
use super::disk::Reading;
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
    progress: Progress,
}

impl Image {
    /// Opens a database and its log.
    pub(super) fn open(files: &Files) -> io::Result<Image> {
        let database = files.disk.open(&files.database)?;
        let bytes = files.wal_size();
        let log = if bytes > 0 { Some(files.disk.open(&files.wal)?) } else { None };
        let wal = log.as_deref().map_or(Ok(Wal::default()), |log| Wal::read(log, bytes))?;
        let there = u32::try_from(files.database_size().div_ceil(PAGE)).unwrap_or(u32::MAX);
        let count = wal.size.unwrap_or(there);
        let (reads, progress) = (Count::new(0), files.progress.clone());
        Ok(Image { database, log, wal, count, reads, progress })
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
        self.reads.set(self.reads.get().wrapping_add(1));
        (read.ok()? > 0).then_some(page)
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

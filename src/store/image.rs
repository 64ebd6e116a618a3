//! The pages of a database as they lie on the disk, read without SQLite.
//!
//! A page is the newest sound version of it in the write-ahead log, else the one in the database. A page
//! that the disk does not read, or that lies beyond the end, is not there. What lies in it is not judged.
//! Nor is a frame of the log that it does not read, and whichever page that was of is taken from elsewhere.

use std::io;

use super::btree::{self, Cell, LINK, Page, SIZE};
use super::disk::Reading;
use super::room::{Files, PAGE};
use super::wal::Wal;

/// The pages.
pub(super) struct Image {
    database: Box<dyn Reading>,
    log: Option<Box<dyn Reading>>,
    wal: Wal,
    /// How many.
    pub(super) count: u32,
}

impl Image {
    /// Opens a database and its log.
    pub(super) fn open(files: &Files) -> io::Result<Image> {
        let database = files.disk.open(&files.database)?;
        let bytes = files.wal_size();
        let log = if bytes > 0 { Some(files.disk.open(&files.wal)?) } else { None };
        let wal = log.as_deref().map_or(Wal::default(), |log| Wal::read_round(log, bytes).0);
        let there = u32::try_from(files.database_size().div_ceil(PAGE)).unwrap_or(u32::MAX);
        let count = wal.size.unwrap_or(there);
        Ok(Image { database, log, wal, count })
    }

    /// Reads a page; `None` where it is not there.
    pub(super) fn page(&self, number: u32) -> Option<Box<Page>> {
        self.read(number).ok().flatten()
    }

    fn read(&self, number: u32) -> io::Result<Option<Box<Page>>> {
        let mut page = Box::new([0; SIZE]);
        let read = match (self.wal.pages.get(&number), &self.log) {
            (Some(at), Some(log)) => log.read_at(*at, page.as_mut_slice())?,
            _ => {
                let at = u64::from(number.saturating_sub(1)) * PAGE;
                self.database.read_at(at, page.as_mut_slice())?
            }
        };
        Ok((read > 0).then_some(page))
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
    /// Reads every page to see.
    pub(super) fn of(files: &Files) -> Health {
        let Ok(image) = Image::open(files) else { return Health::Lost };
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

//! Disk that is held back, so that there is a way out of a full disk.
//!
//! Pages that a commit adds to the database lie in the WAL first, and must fit the disk when they are
//! moved; the WAL itself can be begun again only after that. Were the disk full to the last byte in
//! between, nothing could be written any more, not even what makes room. So a file of this size stands
//! by: it is given up for that moment, and taken again when there is space.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// The file that holds space.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
}

impl Reserve {
    /// As it is found in the data directory.
    pub(super) fn within(dir: &Path) -> Reserve {
        let path = dir.join("tidegate.reserve");
        let size = fs::metadata(&path).map_or(0, |file| file.len());
        Reserve { path, size }
    }

    /// Bytes that are held.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Gives the space up. Says whether there was any.
    pub(super) fn release(&mut self) -> bool {
        let held = self.size > 0 && fs::remove_file(&self.path).is_ok();
        self.size = 0;
        if held {
            tracing::warn!("the disk is full: the store gives up its reserve");
        }
        held
    }

    /// Takes the space where it is not held and the disk has plenty.
    pub(super) fn keep(&mut self, size: u64, free_disk: Option<u64>) {
        let Some(free) = free_disk else { return };
        let size = size.min(free / 4);
        if self.size > 0 || size < RESERVE_MIN {
            return;
        }
        match self.allocate(size) {
            Ok(()) => self.size = size,
            Err(_) => drop(fs::remove_file(&self.path)),
        }
    }

    /// Takes blocks from the disk; a file with holes would hold nothing.
    fn allocate(&self, size: u64) -> std::io::Result<()> {
        let file = File::create(&self.path)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, size)?)
    }
}

/// Less than this is no help.
const RESERVE_MIN: u64 = 65_536;

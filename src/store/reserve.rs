//! Disk that is held back, so that there is a way out of a full disk.
//!
//! Pages that a commit adds to the database lie in the WAL first, and must fit the disk when they are
//! moved; the WAL itself can be begun again only after that. Were the disk full to the last byte in
//! between, nothing could be written any more, not even what makes room. So a file of this size stands
//! by: it is given up for that moment, and taken again when there is space.

use std::path::PathBuf;
use std::sync::Arc;

use super::disk::Disk;
use super::room::Files;

/// The file that holds space.
#[derive(Debug)]
pub(super) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    size: u64,
}

impl Reserve {
    /// As it is found in the data directory.
    pub(super) fn within(files: &Files) -> Reserve {
        let path = files.dir.join("tidegate.reserve");
        let size = files.disk.size(&path).unwrap_or(0);
        Reserve { disk: files.disk.clone(), path, size }
    }

    /// Bytes that are held.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Gives the space up. Says whether there was any.
    pub(super) fn release(&mut self) -> bool {
        let held = self.size > 0 && self.disk.remove(&self.path).is_ok();
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
        match self.disk.hold(&self.path, size) {
            Ok(()) => self.size = size,
            Err(_) => drop(self.disk.remove(&self.path)),
        }
    }
}

/// Less than this is no help.
const RESERVE_MIN: u64 = 65_536;

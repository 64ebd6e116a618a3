//! The disk under the store, as far as SQLite is not asked: names, sizes, free space.
//!
//! Together with the names of SQLite's file layers this is all that the store knows of its disk, so that
//! a test can put another one below it that fails, fills up and loses its power.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::layer;

/// A disk.
pub(super) trait Disk: Debug + Send + Sync {
    /// SQLite's file layer for the database that is in use.
    fn layer(&self) -> &'static str;

    /// SQLite's file layer for one that is only read: it takes no locks, so that it needs no right to
    /// write. The lock on the data directory keeps others away.
    fn layer_for_reading(&self) -> &'static str;

    /// Opens a file to read it as it lies there, whatever SQLite makes of it.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Reading>>;

    /// Bytes of a file; `None` where there is none.
    fn size(&self, path: &Path) -> Option<u64>;

    /// Free bytes, as an ordinary user may take them; `None` where the disk does not say.
    fn free(&self, dir: &Path) -> Option<u64>;

    /// Whether nothing can be changed.
    fn is_read_only(&self, dir: &Path) -> bool;

    /// Makes a file of so many bytes that really takes them: one with holes would hold nothing.
    fn hold(&self, path: &Path, size: u64) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of one that may have it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The files of a directory, sorted.
    fn names(&self, dir: &Path) -> Vec<PathBuf>;

    /// Returns once the names in a directory are such that a power cut leaves them as they are.
    fn sync_names(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is only read.
pub(super) trait Reading {
    /// Reads from a place on. Fewer bytes than asked for come at the end of the file alone.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// The system's own.
#[derive(Debug)]
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    fn layer(&self) -> &'static str {
        layer::over(c"unix", c"tidegate")
    }

    fn layer_for_reading(&self) -> &'static str {
        layer::over(c"unix-none", c"tidegate-none")
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Reading>> {
        Ok(Box::new(File::open(path)?))
    }

    fn size(&self, path: &Path) -> Option<u64> {
        fs::metadata(path).ok().map(|file| file.len())
    }

    fn free(&self, dir: &Path) -> Option<u64> {
        let disk = rustix::fs::statvfs(dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn is_read_only(&self, dir: &Path) -> bool {
        let read_only = rustix::fs::StatVfsMountFlags::RDONLY;
        rustix::fs::statvfs(dir).is_ok_and(|disk| disk.f_flag.contains(read_only))
    }

    fn hold(&self, path: &Path, size: u64) -> io::Result<()> {
        Ok(fallocate(&File::create(path)?, FallocateFlags::empty(), 0, size)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn names(&self, dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl Reading for File {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

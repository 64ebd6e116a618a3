//! Damaged databases that were put aside.
//!
//! Each is kept for whoever can read more of it than we can, up to a few. They count in no limit of the
//! store: their rows are accounted for already. Where the disk is short the oldest goes before any message
//! that is still wanted.

use std::io;
use std::path::{Path, PathBuf};

use super::open::{OpenError, with_suffix};
use super::room::Files;
use super::successor;

/// Moves a damaged database and its WAL out of the way.
pub(super) fn put(files: &Files, wall: u64, why: &str) -> Result<PathBuf, OpenError> {
    let aside =
        (0..).map(|more| name(files, wall / 1_000 + more)).find(|path| files.disk.size(path).is_none());
    let aside = aside.expect("a directory holds fewer files than there are numbers");
    tracing::error!(
        reason = why,
        aside = %aside.display(),
        "THE STORE IS DAMAGED: it is put aside, and a new one is begun with what can be read of it"
    );
    let failed = |path: &Path, error: io::Error| OpenError::Unavailable {
        path: path.into(),
        reason: error.to_string(),
    };
    let rename = |from: &Path, to: &Path| match files.disk.rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(from, error)),
        _ => Ok(()),
    };
    if files.disk.size(&files.database).is_none() {
        // It was set apart before, and has no successor.
        for path in successor::paths(files) {
            successor::put_aside(files, &path, why).map_err(|error| failed(&path, error))?;
        }
    }
    // The WAL goes second: without its database it is inert, while a database without it looks sound.
    rename(&files.database, &aside)?;
    files.disk.sync_names(&files.dir).map_err(|error| failed(&files.dir, error))?;
    rename(&files.wal, &with_suffix(&aside, "-wal"))?;
    let _ = files.disk.remove(&with_suffix(&files.database, "-shm"));
    files.disk.sync_names(&files.dir).map_err(|error| failed(&files.dir, error))?;
    prune(files);
    Ok(aside)
}

/// Removes the oldest of more than a few databases that were put aside.
fn prune(files: &Files) {
    while all(files).len() > ASIDES_MAX && remove_oldest(files) {}
}

/// Removes the oldest. Says whether there was one.
pub(super) fn remove_oldest(files: &Files) -> bool {
    let Some(oldest) = all(files).into_iter().next() else { return false };
    tracing::warn!(path = %oldest.display(), "the oldest damaged store is removed");
    let removed = files.disk.remove(&oldest).is_ok();
    let _ = files.disk.remove(&with_suffix(&oldest, "-wal"));
    removed
}

/// Bytes of all.
pub(super) fn size(files: &Files) -> u64 {
    let size = |path: &Path| files.disk.size(path).unwrap_or(0);
    all(files).iter().map(|path| size(path) + size(&with_suffix(path, "-wal"))).sum()
}

/// All, the oldest first.
fn all(files: &Files) -> Vec<PathBuf> {
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(ASIDE) && !name.ends_with("-wal")
    };
    files.disk.names(&files.dir).into_iter().filter(is_aside).collect()
}

fn name(files: &Files, seconds: u64) -> PathBuf {
    files.dir.join(format!("{ASIDE}{seconds:012}"))
}

/// Before the second in which it was put aside.
const ASIDE: &str = "tidegate.db.damaged-";

/// So many damaged databases are kept for salvage.
const ASIDES_MAX: usize = 3;

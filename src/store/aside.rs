//! Damaged databases that were put aside.
//!
//! Each is kept for whoever can read more of it than we can, up to a few. They count in no limit of the
//! store: their rows are accounted for already. Where the disk is short the oldest goes before any message
//! that is still wanted.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::open::with_suffix;
use super::room::Files;
use super::{salvage, successor};

/// Moves a damaged database and its WAL out of the way, for the sake of what was salvaged of it.
pub(super) fn put(files: &Files, salvaged: Option<&Path>, why: &str) -> io::Result<PathBuf> {
    let aside = next(files);
    tracing::error!(
        reason = why,
        aside = %aside.display(),
        "THE STORE IS DAMAGED: it is put aside, and a new one is begun with what can be read of it"
    );
    let rename = |from: &Path, to: &Path| match files.disk.rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let source = salvage::source(files).unwrap_or_else(|| files.database.clone());
    // The WAL goes second: without its database it is inert, while a database without it looks sound.
    rename(&source, &aside)?;
    files.disk.sync_names(&files.dir)?;
    rename(&with_suffix(&source, "-wal"), &with_suffix(&aside, "-wal"))?;
    let _ = files.disk.remove(&with_suffix(&source, "-shm"));
    if source != files.database && salvaged.is_none() {
        // Nothing says what is wanted of the older ones.
        for path in successor::paths(files) {
            successor::put_aside(files, &path, why)?;
        }
    }
    files.disk.sync_names(&files.dir)?;
    prune(files);
    Ok(aside)
}

/// Removes the oldest of more than a few databases that were put aside.
pub(super) fn prune(files: &Files) {
    while all(files).len() > ASIDES_MAX && remove_oldest(files) {}
}

/// Removes the oldest. Says whether there was one.
pub(super) fn remove_oldest(files: &Files) -> bool {
    let Some(oldest) = all(files).into_iter().next() else { return false };
    tracing::warn!(path = %oldest.display(), "the oldest damaged store is removed");
    let database = files.disk.remove(&oldest).is_ok();
    // Some WALs have lost their database.
    let wal = files.disk.remove(&with_suffix(&oldest, "-wal")).is_ok();
    database || wal
}

/// Bytes of all, and the newest.
pub(super) fn sum(files: &Files) -> (u64, Option<PathBuf>) {
    let size = |path: &Path| files.disk.size(path).unwrap_or(0);
    let mut all = all(files);
    let bytes = all.iter().map(|path| size(path) + size(&with_suffix(path, "-wal"))).sum();
    (bytes, all.pop())
}

/// All, the oldest first; a WAL that has lost its database counts as one.
fn all(files: &Files) -> Vec<PathBuf> {
    found(files).into_iter().map(|(_, path)| path).collect()
}

/// The name of the next: its number is the highest, whatever the clock says.
pub(super) fn next(files: &Files) -> PathBuf {
    let last = found(files).last().map_or(0, |(number, _)| *number);
    files.dir.join(format!("{ASIDE}{:012}", last + 1))
}

/// All, by their numbers.
fn found(files: &Files) -> BTreeSet<(u64, PathBuf)> {
    files.disk.names(&files.dir).iter().filter_map(|path| numbered(path)).collect()
}

/// The number of a database that was put aside, and its path without the WAL's suffix. An older program has
/// given names without a number: they come first.
fn numbered(path: &Path) -> Option<(u64, PathBuf)> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix("-wal").unwrap_or(name);
    let number = name.strip_prefix(ASIDE)?.parse().unwrap_or(0);
    Some((number, path.with_file_name(name)))
}

/// Before the number of one that was put aside.
const ASIDE: &str = "tidegate.db.damaged-";

/// So many damaged databases are kept for salvage.
const ASIDES_MAX: usize = 3;

//! What can still be read of a damaged database, in a new one.
//!
//! Each table is read from its front, and behind every place that cannot be read from the next row that
//! can. Only what its checksum vouches for is taken. Which rows are whose is found anew from the rows, so
//! that what is missing is known to be missing, and counted as damaged. The new database is built beside
//! the damaged one and synced, before that one is put aside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};

use super::audience::Audience;
use super::log::Log;
use super::open::with_suffix;
use super::pack::unseal;
use super::room::{Files, Sizes};
use super::runs::Runs;
use super::schema::{self, Fault, unsigned};
use super::segment::{self, AsIs, Header, Named, RawRow};
use super::successor;
use crate::record::ReaderId;

/// Builds a database of what is readable, and syncs it. Its name is no database's yet.
pub(super) fn build(files: &Files, sizes: &Sizes, wall: u64) -> Result<PathBuf, Fault> {
    let path = path(files);
    successor::discard(files, &path);
    let built = copy(files, sizes, wall, &path);
    if built.is_err() {
        successor::discard(files, &path);
    }
    built.map(|()| path)
}

/// Sees to it that what was salvaged has its name, whenever that was interrupted.
pub(super) fn ensure(files: &Files) -> io::Result<()> {
    let path = path(files);
    if files.disk.size(&path).is_none() {
        return Ok(());
    }
    if files.disk.size(&files.database).is_some() {
        // The damaged one is still there: perhaps this was never finished.
        successor::discard(files, &path);
        return Ok(());
    }
    // Never beside the WAL of the damaged one, which would be taken for its own.
    if files.disk.size(&files.wal).is_some() {
        files.disk.rename(&files.wal, &with_suffix(&files.database, ".damaged-wal"))?;
        files.disk.sync_names(&files.dir)?;
    }
    files.disk.rename(&path, &files.database)?;
    files.disk.sync_names(&files.dir)
}

/// Where a salvaged database waits for its name. It is whole as soon as the damaged one has gone.
pub(super) fn path(files: &Files) -> PathBuf {
    with_suffix(&files.database, ".salvaged")
}

fn copy(files: &Files, sizes: &Sizes, wall: u64, path: &Path) -> Result<(), Fault> {
    let source = damaged(files)?;
    let target = successor::begin_new(files, path)?;
    successor::attach(&target, files)?;
    target.execute_batch("BEGIN IMMEDIATE")?;
    target.execute_batch(&schema::tables())?;
    let mut kept = 0;
    for (from, to) in [
        ("mirror", &["state", "mirror"][..]),
        ("state", &["state", "mirror"][..]),
        ("sessions", &["sessions"][..]),
        ("routes", &["routes"][..]),
    ] {
        kept += copy_sealed(&source, &target, from, to)?;
    }
    kept += copy_retained(&source, &target)?;
    let mut rows = 0;
    for id in segments(&source) {
        rows += match has_table(&source, id) {
            true => copy_segment(&source, &target, id)?,
            // Its rows are in a file that was set apart, or are lost.
            false => copy_header(&source, &target, id)?,
        };
    }
    if kept == 0 && rows == 0 {
        return Err(Fault::Unusable("nothing of it can be read".into()));
    }
    let mut log = Log::load(&target, *sizes, &BTreeMap::new())?;
    log.reconcile(&target)?;
    // Numbers may come again that the damaged one had given.
    log.ledger.epoch = wall.max(1);
    // No commit of the log's own: whoever asks what took place finds the damaged one's last.
    log.ledger.stamp = log.ledger.stamp.saturating_sub(1);
    log.write_state(&target)?;
    target.execute_batch("COMMIT")?;
    successor::finish_new(files, path, target)?;
    tracing::warn!(rows, "what can be read of the damaged store is in the new one");
    Ok(())
}

/// The damaged database, as far as SQLite can be brought to look at it.
fn damaged(files: &Files) -> Result<Connection, Fault> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection =
        Connection::open_with_flags_and_vfs(&files.database, flags, files.disk.layer_for_reading())?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
    // Entries of the schema that make no sense are passed over, and a file may be shorter than it says.
    connection.execute_batch("PRAGMA writable_schema = ON; PRAGMA cell_size_check = ON;")?;
    Ok(connection)
}

/// Copies rows of a table of sealed blobs.
fn copy_sealed(source: &Connection, target: &Connection, from: &str, to: &[&str]) -> Result<u64, Fault> {
    let mut failed = None;
    let mut copied = 0;
    let sql = format!("SELECT reader, data FROM {from} WHERE reader > ?");
    walk(source, &sql, -1, |key, row| {
        let Some(blob) = row.get_ref(1).ok().and_then(|value| value.as_blob().ok()) else { return };
        if unseal(blob, unsigned(key)).is_none() {
            return;
        }
        copied += 1;
        for table in to {
            let sql = format!("REPLACE INTO {table} VALUES (?, ?)");
            let put = target.prepare_cached(&sql).and_then(|mut put| put.execute((key, blob)));
            failed = failed.take().or(put.err());
        }
    });
    failed.map_or(Ok(copied), |error| Err(error.into()))
}

/// Copies retained messages. They have texts for keys, so that there is no way around a damaged place but
/// from the other end.
fn copy_retained(source: &Connection, target: &Connection) -> Result<u64, Fault> {
    let mut copied = BTreeSet::new();
    for order in ["ASC", "DESC"] {
        let sql = format!("SELECT topic, data FROM retained ORDER BY topic {order}");
        let Ok(mut statement) = source.prepare(&sql) else { continue };
        let Ok(mut rows) = statement.query([]) else { continue };
        while let Ok(Some(row)) = rows.next() {
            let topic = row.get::<_, String>(0);
            let blob = row.get::<_, Vec<u8>>(1);
            let (Ok(topic), Ok(blob)) = (topic, blob) else { continue };
            if unseal(&blob, super::kept::topic_key(&topic)).is_some() {
                target.execute("REPLACE INTO retained VALUES (?, ?)", (&topic, &blob))?;
                copied.insert(topic);
            }
        }
    }
    Ok(copied.len() as u64)
}

/// Segments of which anything may be there.
fn segments(source: &Connection) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    walk(source, "SELECT id FROM segments WHERE id > ?", -1, |id, _| {
        found.extend(u32::try_from(id));
    });
    let Ok(mut tables) = source.prepare("SELECT rowid, name FROM sqlite_schema WHERE rowid > ?") else {
        return found;
    };
    if let Ok(mut rows) = tables.query([0]) {
        while let Ok(Some(row)) = rows.next() {
            let name = row.get::<_, String>(1).unwrap_or_default();
            found.extend(name.strip_prefix("log_").and_then(|id| id.parse::<u32>().ok()));
        }
    }
    found
}

fn has_table(source: &Connection, id: u32) -> bool {
    source.prepare(&format!("SELECT seq FROM log_{id}")).is_ok()
}

fn copy_header(source: &Connection, target: &Connection, id: u32) -> Result<u64, Fault> {
    let sql = "SELECT data FROM segments WHERE id = ?";
    if let Ok(blob) = source.query_row(sql, [id], |row| row.get::<_, Vec<u8>>(0))
        && unseal(&blob, u64::from(id)).is_some()
    {
        target.execute("REPLACE INTO segments VALUES (?, ?)", (id, &blob))?;
    }
    Ok(0)
}

/// Copies the sound rows of a segment, and writes its index and header for them. Returns how many.
fn copy_segment(source: &Connection, target: &Connection, id: u32) -> Result<u64, Fault> {
    target.execute_batch(&segment::table(id))?;
    let sql = format!("INSERT INTO main.log_{id} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    let mut insert = target.prepare(&sql)?;
    let mut failed = None;
    let mut header = Header::default();
    let mut named: Vec<(u64, u64)> = Vec::new();
    let mut audiences: HashMap<u64, Audience> = HashMap::new();
    walk(source, &format!("SELECT * FROM log_{id} WHERE seq > ?"), 0, |_, row| {
        let Some(sound) = RawRow::sound(row) else { return };
        let columns = (0..10).map(|column| AsIs(row.get_ref(column).unwrap_or(ValueRef::Null)));
        failed = failed.take().or(insert.execute(params_from_iter(columns)).err());
        (header.rows, header.bytes) = (header.rows + 1, header.bytes + sound.weight());
        header.last = header.last.max(sound.seq);
        match sound.audience {
            Named::At(at) => named.push((sound.seq, at)),
            Named::Here(set) => {
                audiences.insert(sound.seq, Audience::unpack(set).unwrap_or_default());
                named.push((sound.seq, sound.seq));
            }
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut index: BTreeMap<ReaderId, Runs> = BTreeMap::new();
    for (seq, at) in named {
        for member in audiences.get(&at).map(|audience| &*audience.members).unwrap_or_default() {
            index.entry(member.want.reader).or_default().insert(seq);
        }
    }
    for (reader, rows) in &index {
        segment::put_index(target, id, *reader, rows)?;
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            header.readers.insert(*reader, (rows.count(), first, last));
        }
    }
    segment::put_header(target, id, &header)?;
    Ok(header.rows)
}

/// Hands out rows whose first column is above `after`, and goes on behind what cannot be read.
fn walk(source: &Connection, sql: &str, after: i64, mut take: impl FnMut(i64, &Row<'_>)) {
    let (mut after, mut misses) = (after, 0);
    while misses < MISSES_MAX {
        let Ok(mut statement) = source.prepare_cached(sql) else { return };
        let Ok(mut rows) = statement.query([after]) else { return };
        loop {
            match rows.next() {
                Ok(Some(row)) => {
                    let Ok(key) = row.get::<_, i64>(0) else { break };
                    if key <= after {
                        break;
                    }
                    (after, misses) = (key, 0);
                    take(key, row);
                }
                Ok(None) => return,
                Err(_) => break,
            }
        }
        // One by one at first, then in longer and longer strides.
        after = after.saturating_add(1 << (misses / STRIDE));
        misses += 1;
    }
}

/// So often a row is looked for behind a place that cannot be read: over some thousands of rows.
const MISSES_MAX: u32 = 160;

/// After so many looks the stride doubles.
const STRIDE: u32 = 16;

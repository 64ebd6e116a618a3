//! A new database in the place of one that must never be written again.
//!
//! When a sync fails, the kernel forgets the pages that it covered: the file reads as written, and at the
//! next loss of power they are gone. So the file gets another name, by which a later process knows it
//! too, is only read from then on, and a new database is built beside it, synced, and renamed into its
//! place. State, sessions, routes, retained messages and the newest segments are copied, whatever that takes:
//! all that the failed sync may have covered. Older segments were synced long ago, and are read where they
//! are until nobody wants a row of them. Rows are checked when they are read, here as everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::image::Health;
use super::open::{Refusal, with_suffix};
use super::patience::Patience;
use super::progress::Progress;
use super::room::{Files, PAGE, Pages, Sizes};
use super::schema::{self, Fault, LEDGER, Ledger, unsigned};
use super::segment::Header;
use super::{aside, rescue, salvage, segment};

/// A database that is only read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Apart {
    path: PathBuf,
    schema: String,
    /// Segments that are read from it.
    pub(super) segments: BTreeSet<u32>,
}

/// Gives the database another name: whoever opens the store next takes over from it.
pub(super) fn set_apart(files: &Files) -> io::Result<()> {
    if files.disk.size(&files.database).is_some() {
        put_orphans_aside(files)?;
        let last = paths(files).last().and_then(|path| number(path)).unwrap_or(0);
        let apart = files.dir.join(format!("{APART}{:06}", last + 1));
        tracing::error!(
            path = %apart.display(),
            "a sync has failed: the store's file is not trusted any more, is set apart and only read"
        );
        files.disk.rename(&files.database, &apart)?;
    }
    // Second: a WAL without its database is nobody's, a database without its WAL would be taken for whole.
    if let Some(newest) = paths(files).last()
        && files.disk.size(&files.database).is_none()
        && files.disk.size(&files.wal).is_some()
    {
        // Not every disk changes its names in the order in which it was asked to.
        files.disk.sync_names(&files.dir)?;
        let own = with_suffix(newest, "-wal");
        // Beside its own this one is another's, which was put aside a moment before a cut.
        let to = if files.disk.size(&own).is_some() { with_suffix(&aside::next(files), "-wal") } else { own };
        files.disk.rename(&files.wal, &to)?;
    }
    files.disk.sync_names(&files.dir)
}

/// Puts WALs aside whose database has gone, before another gets its name.
fn put_orphans_aside(files: &Files) -> io::Result<()> {
    let apart = paths(files);
    for path in files.disk.names(&files.dir) {
        let name = path.to_string_lossy();
        let orphan =
            name.strip_suffix("-wal").is_some_and(|of| !apart.iter().any(|path| *path == *Path::new(of)));
        if name.contains(APART) && orphan {
            tracing::error!(path = %path.display(), "a WAL without its database is put aside");
            files.disk.rename(&path, &with_suffix(&aside::next(files), "-wal"))?;
            files.disk.sync_names(&files.dir)?;
        }
    }
    Ok(())
}

/// Sees to it that a database that was set apart has a successor, whenever its making was interrupted.
pub(super) fn ensure(files: &Files, sizes: &Sizes) -> Result<(), Refusal> {
    let apart = paths(files);
    put_orphans_aside(files)?;
    salvage::ensure(files)?;
    let has_database = files.disk.size(&files.database).is_some();
    if apart.is_empty() {
        if !has_database && files.disk.size(&files.wal).is_some() {
            // SQLite would remove it for a new database's sake.
            files.disk.rename(&files.wal, &with_suffix(&aside::next(files), "-wal"))?;
        }
        return Ok(());
    }
    // Whoever has changed the names may not have come to this.
    files.disk.sync_names(&files.dir)?;
    if has_database {
        return Ok(());
    }
    set_apart(files)?;
    let new = with_suffix(&files.database, ".new");
    let built = match build_alone(files, sizes, &new, Extent::Ample) {
        Err(refusal) if refusal.is_full() => build_alone(files, sizes, &new, Extent::Least),
        other => other,
    };
    built?;
    // One change of one name: before it there is no successor, after it a whole one.
    files.disk.rename(&new, &files.database)?;
    files.disk.sync_names(&files.dir)?;
    tracing::warn!("a new database has taken over from the one that was set apart");
    Ok(())
}

/// Lets a connection read what is set apart, the newest first: a segment that is in several is whole in
/// the newest. Hands on those that it cannot read and for which nobody waits any more: they are damaged, or the disk
/// has not read all of them for long.
pub(super) fn attach(
    connection: &Connection,
    files: &Files,
    paths: &[PathBuf],
    mut leave: impl FnMut(&Path) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for path in paths.iter().rev() {
        if files.patience == Patience::None && Health::of(files, path) != Health::Whole {
            leave(path)?;
            continue;
        }
        match attach_one(connection, files, path) {
            Err(Refusal::Damaged(why)) => {
                tracing::error!(path = %path.display(), reason = why, "what was set apart is damaged");
                leave(path)?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Copies on what can be read of a file that is not attached while newer ones are, and puts it aside. What a full
/// disk leaves out is lost to its readers, or waits: so room is made for it as long as there is any to make.
pub(super) fn copy_on(
    connection: &Connection,
    files: &Files,
    path: &Path,
    make_room: &mut dyn FnMut() -> bool,
) -> Result<(), Refusal> {
    let copy = || -> Result<(), Fault> {
        let mut homeless = segment::headers(connection)?;
        for schema in schemas(connection)? {
            for id in tables(connection, &schema)? {
                homeless.remove(&id);
            }
        }
        rescue::copy_on(connection, files, path, &mut homeless, u64::MAX)?;
        Ok(())
    };
    let mut copied = copy();
    while copied.as_ref().is_err_and(Fault::is_full) && make_room() {
        copied = copy();
    }
    match copied {
        Err(fault) if fault.is_full() => {
            tracing::error!(path = %path.display(), "NO ROOM ON THE DISK to copy on what can be read of it");
            if attach_as_it_is(connection, files, path).is_ok() {
                // Who needs what is not read waits for room.
                return Ok(());
            }
        }
        other => other?,
    }
    put_aside(files, path, "the disk does not read all of it, or it is damaged")?;
    Ok(files.disk.sync_names(&files.dir)?)
}

/// Attaches it, unless its tables are not as they were made: rows that are there would not be found.
fn attach_one(connection: &Connection, files: &Files, path: &Path) -> Result<(), Refusal> {
    let Some(schema) = attach_as_it_is(connection, files, path)? else { return Ok(()) };
    let are_as_made = schema::are_tables_as_made(connection, &schema);
    if matches!(are_as_made, Ok(true)) {
        return Ok(());
    }
    detach(connection, &schema);
    are_as_made?;
    Err(Refusal::Damaged("its list of tables is not as it was made".into()))
}

fn detach(connection: &Connection, schema: &str) {
    let _ = connection.execute_batch(&format!("DETACH DATABASE {schema}"));
}

/// Attaches it under the name that is returned.
fn attach_as_it_is(connection: &Connection, files: &Files, path: &Path) -> Result<Option<String>, Refusal> {
    let Some(number) = number(path) else { return Ok(None) };
    let schema = format!("apart_{number}");
    let uri = format!("file:{}?mode=ro&vfs={}", escaped(path), files.disk.layer_for_reading());
    let look = || -> rusqlite::Result<i64> {
        connection.execute(&format!("ATTACH DATABASE ?1 AS {schema}"), [uri])?;
        let sql = format!("SELECT count(*) FROM {schema}.segments");
        connection.query_row(&sql, [], |row| row.get(0))
    };
    match look() {
        Ok(_) => Ok(Some(schema)),
        Err(error) => {
            detach(connection, &schema);
            Err(error.into())
        }
    }
}

/// Gives up what was set apart: it is kept for whoever can read it.
pub(super) fn put_aside(files: &Files, path: &Path, why: &str) -> io::Result<()> {
    let aside = aside::next(files);
    tracing::error!(path = %aside.display(), reason = why, "what was set apart is damaged and put aside");
    files.disk.rename(path, &aside)?;
    let _ = files.disk.rename(&with_suffix(path, "-wal"), &with_suffix(&aside, "-wal"));
    Ok(())
}

/// The databases of a connection by name.
fn schemas(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_database_list")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// What a connection reads from elsewhere.
pub(super) fn attached(connection: &Connection, files: &Files) -> rusqlite::Result<Vec<Apart>> {
    let schemas = schemas(connection)?;
    let mut elsewhere = tables(connection, "main")?;
    let mut found = Vec::new();
    for path in paths(files).into_iter().rev() {
        let Some(schema) = number(&path).map(|number| format!("apart_{number}")) else { continue };
        if !schemas.contains(&schema) {
            continue;
        }
        let mut segments = tables(connection, &schema)?;
        segments.retain(|id| elsewhere.insert(*id));
        found.push(Apart { path, schema, segments });
    }
    Ok(found)
}

/// Lets go of what is not read any more.
pub(super) fn release(
    connection: &Connection,
    files: &Files,
    apart: &mut Vec<Apart>,
    is_wanted: impl Fn(u32) -> bool,
) -> rusqlite::Result<()> {
    let done = |apart: &Apart| !apart.segments.iter().any(|id| is_wanted(*id));
    while let Some(at) = apart.iter().position(done) {
        let gone = apart.remove(at);
        let is_as_made = matches!(schema::are_tables_as_made(connection, &gone.schema), Ok(true));
        connection.execute_batch(&format!("DETACH DATABASE {}", gone.schema))?;
        if !is_as_made {
            // Rows may not have been found that are there.
            let _ = put_aside(files, &gone.path, "its list of tables is not read, or not as it was made");
            let _ = files.disk.sync_names(&files.dir);
            aside::prune(files);
            continue;
        }
        tracing::info!(path = %gone.path.display(), "nothing is wanted any more of what was set apart");
        // The WAL last: without it the database would be taken for whole.
        let _ = files.disk.remove(&gone.path);
        let _ = files.disk.remove(&with_suffix(&gone.path, "-wal"));
    }
    Ok(())
}

/// Bytes of everything that is set apart.
pub(super) fn size(files: &Files, apart: &[Apart]) -> u64 {
    let size = |path: &Path| files.disk.size(path).unwrap_or(0);
    apart.iter().map(|apart| size(&apart.path) + size(&with_suffix(&apart.path, "-wal"))).sum()
}

/// Begins a database under a name that nobody takes for one.
pub(super) fn begin_new(files: &Files, new: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags_and_vfs(new, flags, files.disk.layer())?;
    // Or the end of this connection would move the WAL into a database that it only reads.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
    // Without a journal: should this fail, the file is removed.
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = OFF;
         PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;"
    ))?;
    Ok(connection)
}

/// Ends it, with everything synced.
pub(super) fn finish_new(files: &Files, new: &Path, connection: Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    // Nothing is in it yet.
    for suffix in ["-wal", "-journal"] {
        let _ = files.disk.remove(&with_suffix(new, suffix));
    }
    Ok(())
}

/// How much of the log is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Some more than the failed sync can have covered.
    Ample,
    /// What it can have covered: the disk has no room for more.
    Least,
}

/// Builds the successor, or leaves nothing behind.
fn build_alone(files: &Files, sizes: &Sizes, new: &Path, extent: Extent) -> Result<(), Refusal> {
    discard(files, new);
    let built = build(files, sizes, new, extent);
    if built.is_err() {
        discard(files, new);
    }
    built
}

fn build(files: &Files, sizes: &Sizes, new: &Path, extent: Extent) -> Result<(), Refusal> {
    let connection = begin_new(files, new)?;
    let mut older = paths(files);
    if let Some(newest) = older.pop() {
        // Where SQLite cannot read this one, its pages are salvaged: it is where the store is.
        attach_one(&connection, files, &newest)?;
    }
    // What is left is copied on by whoever opens it next.
    attach(&connection, files, &older, |_| Ok(()))?;
    let schemas: Vec<String> = attached(&connection, files)?.into_iter().map(|apart| apart.schema).collect();
    let Some(newest) = schemas.first() else {
        return Err(Refusal::Damaged("there is nothing that was set apart".into()));
    };
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(&schema::tables())?;
    for (table, _) in schema::TABLES {
        connection.execute_batch(&format!("INSERT INTO main.{table} SELECT * FROM {newest}.{table}"))?;
        files.progress.step();
    }
    copy_segments(&connection, sizes, &schemas, extent, &files.progress)?;
    connection.execute_batch("COMMIT")?;
    Ok(finish_new(files, new, connection)?)
}

/// Copies every segment that the last commit has written to, whatever they take, since the next one writes to
/// the newest of them; the one that was copied on last; some more, since a program of before did not note which those
/// are; and all of those that would otherwise have to be read from too many files.
fn copy_segments(
    connection: &Connection,
    sizes: &Sizes,
    schemas: &[String],
    extent: Extent,
    progress: &Progress,
) -> rusqlite::Result<()> {
    let headers = segment::headers(connection)?;
    let newest = newest(connection, &headers)?;
    let ledger = schema::state(connection, LEDGER)?.and_then(|blob| Ledger::unpack(&blob));
    let (wrote_from, copied_on) = ledger.map_or((0, 0), |ledger| (ledger.wrote_from, ledger.copied_on));
    let most = if extent == Extent::Least && wrote_from > 0 { 0 } else { sizes.segment_rows * 4 };
    let before = Pages::of(connection)?.all;
    let mut rows = 0;
    for id in headers.into_keys().rev() {
        let must = id == newest || id == copied_on || (wrote_from > 0 && id >= wrote_from);
        // Twice what may wait for a commit, of the log alone.
        let bytes = Pages::of(connection)?.all.saturating_sub(before) * PAGE;
        let reached = !must && (rows >= most || bytes >= sizes.segment_bytes * 2);
        let mut home = None;
        for (place, schema) in schemas.iter().enumerate() {
            if home.is_none() && segment::has_table(connection, schema, id)? {
                home = Some((place, schema));
            }
        }
        let Some((place, home)) = home.filter(|(place, _)| !reached || *place >= APART_MAX) else { continue };
        connection.execute_batch(&segment::table(id))?;
        let copied =
            connection.execute(&format!("INSERT INTO main.log_{id} SELECT * FROM {home}.log_{id}"), [])?;
        progress.step();
        rows += if place < APART_MAX { copied as u64 } else { 0 };
    }
    Ok(())
}

/// Sees to it that the newest segment can be written, where an older program has left it in a file apart.
pub(super) fn adopt_newest(connection: &Connection, files: &Files) -> rusqlite::Result<()> {
    let apart = paths(files);
    if apart.is_empty() {
        return Ok(());
    }
    let id = newest(connection, &segment::headers(connection)?)?;
    if segment::has_table(connection, "main", id)? {
        return Ok(());
    }
    for number in apart.iter().rev().filter_map(|path| number(path)) {
        let schema = format!("apart_{number}");
        if segment::has_table(connection, &schema, id)? {
            let table = segment::table(id);
            let copy = format!("INSERT INTO main.log_{id} SELECT * FROM {schema}.log_{id}");
            return connection.execute_batch(&format!("BEGIN IMMEDIATE; {table}; {copy}; COMMIT;"));
        }
    }
    Ok(())
}

/// The highest number of those in the list of segments that was given: of a segment with a sound header, or with a table
/// in one of the databases. What neither vouches for is none; 0 where there is no other.
pub(super) fn newest(
    connection: &Connection,
    headers: &BTreeMap<u32, Option<Header>>,
) -> rusqlite::Result<u32> {
    for (id, header) in headers.iter().rev() {
        if header.is_some() {
            return Ok(*id);
        }
        for schema in schemas(connection)? {
            if segment::has_table(connection, &schema, *id)? {
                return Ok(*id);
            }
        }
    }
    Ok(0)
}

/// The segments that have their table in a database.
pub(super) fn tables(connection: &Connection, schema: &str) -> rusqlite::Result<BTreeSet<u32>> {
    let sql = format!(
        "SELECT substr(name, 5) + 0 FROM {schema}.sqlite_schema WHERE name LIKE 'log\\_%' ESCAPE '\\'"
    );
    let mut statement = connection.prepare(&sql)?;
    let ids = statement.query_map([], |row| row.get::<_, i64>(0))?;
    ids.map(|id| Ok(u32::try_from(unsigned(id?)).unwrap_or(0))).collect()
}

/// Databases that are set apart, oldest first.
pub(super) fn paths(files: &Files) -> Vec<PathBuf> {
    files.disk.names(&files.dir).into_iter().filter(|path| number(path).is_some()).collect()
}

/// The number of a database that is set apart; `None` for any other file.
pub(super) fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix(APART)?.parse().ok()
}

pub(super) fn discard(files: &Files, path: &Path) {
    for suffix in ["", "-wal", "-journal"] {
        let _ = files.disk.remove(&with_suffix(path, suffix));
    }
}

/// A path as it stands in a URI.
fn escaped(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => out.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(*byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Before the number of a database that is set apart.
const APART: &str = "tidegate.db.unsynced-";

/// So many are read at most; of more, the segments are copied.
const APART_MAX: usize = 4;

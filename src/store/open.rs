//! Opening the data directory: the lock, the database, and what to do when it is no sound one.
//!
//! Nothing here reads the backlog. A damaged database is put aside, never written to and never removed
//! but for the oldest of several, or where the disk is full; one of a newer version is left exactly as it was found.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::reserve::Reserve;
use super::room::{Files, PAGE, Pages, Sizes};
use super::salvage::Legible;
use super::schema::{self, Fault, OLDEST, VERSION, is_damage, is_missing, signed};
use super::wal::Wal;
use super::{aside, salvage, successor};

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another running instance has the data directory: the one reason not to start.
    #[error("use {0}: another running tidegate has locked it")]
    Locked(PathBuf),
    /// A newer program has written it; it was left untouched.
    #[error("read {path}: its version is {found}, this program knows {VERSION}")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// The disk does not let us: serve without a store (see [`super::absent()`]) and try again.
    #[error("open {path}: {reason}")]
    Unavailable {
        /// The file or directory.
        path: PathBuf,
        /// What the disk says.
        reason: String,
    },
}

/// An open database.
pub(super) struct Database {
    pub(super) connection: Connection,
    /// Where a damaged one was put.
    pub(super) put_aside: Option<PathBuf>,
}

/// The data directory, taken for this process until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(pub(super) File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A child between its fork and its own program has the file open too, and would keep it locked.
        let _ = self.0.unlock();
    }
}

/// Takes the data directory for this process.
pub(super) fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let unavailable =
        |error: std::io::Error| OpenError::Unavailable { path: dir.into(), reason: error.to_string() };
    fs::create_dir_all(dir).map_err(unavailable)?;
    let path = dir.join("tidegate.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(unavailable)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(dir.into())),
        Err(TryLockError::Error(error)) => Err(unavailable(error)),
    }
}

/// Opens the database, after putting a damaged one aside.
pub(super) fn database(files: &Files, sizes: &Sizes, wall: u64) -> Result<Database, OpenError> {
    match connect_in_need(files, sizes, &mut Reserve::within(files)) {
        Ok(connection) => Ok(Database { connection, put_aside: None }),
        Err(Refusal::Newer(found)) => Err(OpenError::Newer { path: files.database.clone(), found }),
        Err(Refusal::Sqlite(error)) => {
            let fault = Fault::Sqlite(error);
            if fault.is_unsynced() {
                // The next attempt takes over from it.
                let _ = successor::set_apart(files);
            }
            Err(unavailable(files, &fault))
        }
        Err(Refusal::Disk(error)) => Err(unavailable(files, &error)),
        Err(Refusal::Damaged(why)) => {
            let fault = Fault::Damaged(why);
            replace_damaged(files, sizes, wall, &fault, Legible::Not)
                .map_err(|fault| unavailable(files, &fault))
        }
    }
}

/// Puts a damaged database aside, and opens a new one that has what could be read of it.
pub(super) fn replace_damaged(
    files: &Files,
    sizes: &Sizes,
    wall: u64,
    why: &Fault,
    legible: Legible,
) -> Result<Database, Fault> {
    let aside = salvage_aside(files, sizes, wall, why, legible)?;
    let opened = connect_salvaged(files, sizes);
    if opened.as_ref().is_err_and(Fault::is_unsynced) {
        // The next attempt takes over from it.
        let _ = successor::set_apart(files);
    }
    Ok(Database { connection: opened?, put_aside: Some(aside) })
}

/// Puts a damaged database aside, and what could be read of it in its place.
pub(super) fn salvage_aside(
    files: &Files,
    sizes: &Sizes,
    wall: u64,
    why: &Fault,
    legible: Legible,
) -> Result<PathBuf, Fault> {
    let salvaged = match salvage::build(files, sizes, wall, legible) {
        Ok(path) => Some(path),
        Err(fault) if legible == Legible::AsFarAsItGoes => {
            tracing::error!(reason = %why, %fault, "THE STORE IS DAMAGED, and cannot be salvaged: it is read as it is");
            return Err(fault);
        }
        // The damaged one stays where it is, so that nothing is given up for want of a disk.
        Err(fault) if fault.is_of_disk() => {
            tracing::error!(reason = %why, "THE STORE IS DAMAGED, and the disk does not let it be salvaged");
            return Err(fault);
        }
        Err(fault) => {
            tracing::error!(reason = %fault, "nothing can be salvaged of the damaged store");
            None
        }
    };
    Ok(aside::put(files, salvaged.as_deref(), &why.to_string())?)
}

/// Opens that.
pub(super) fn connect_salvaged(files: &Files, sizes: &Sizes) -> Result<Connection, Fault> {
    connect_in_need(files, sizes, &mut Reserve::within(files)).map_err(|refusal| match refusal {
        Refusal::Newer(_) | Refusal::Damaged(_) => Fault::Unusable("a new one is damaged too".into()),
        refusal => refusal.into(),
    })
}

/// Why a connection cannot be used.
pub(super) enum Refusal {
    /// A newer schema.
    Newer(i64),
    /// No sound database.
    Damaged(String),
    /// The disk says no.
    Sqlite(rusqlite::Error),
    /// The disk refuses to open its files, or to change their names.
    Disk(io::Error),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        match refusal {
            Refusal::Sqlite(error) => Fault::Sqlite(error),
            Refusal::Disk(error) => Fault::Disk(error),
            Refusal::Damaged(why) => Fault::Damaged(why),
            Refusal::Newer(found) => Fault::Unusable(format!("its version is {found}")),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        match fault {
            Fault::Sqlite(error) => error.into(),
            Fault::Disk(error) => Refusal::Disk(error),
            other => Refusal::Disk(io::Error::other(other.to_string())),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Disk(error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Refusal {
        // A table that is not there is damage too, where the version says that it must be.
        match is_damage(&error) || is_missing(&error) {
            true => Refusal::Damaged(error.to_string()),
            false => Refusal::Sqlite(error),
        }
    }
}

impl Refusal {
    pub(super) fn is_full(&self) -> bool {
        match self {
            Refusal::Sqlite(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            Refusal::Disk(error) => error.kind() == io::ErrorKind::StorageFull,
            Refusal::Newer(_) | Refusal::Damaged(_) => false,
        }
    }
}

/// Connects. Where there is no room for what that has to write, the reserve is given up, and then what was put aside.
pub(super) fn connect_in_need(
    files: &Files,
    sizes: &Sizes,
    reserve: &mut Reserve,
) -> Result<Connection, Refusal> {
    let mut make_room = || reserve.release() || aside::remove_oldest(files);
    loop {
        match connect(files, sizes, &mut make_room) {
            Err(refusal) if refusal.is_full() && make_room() => {}
            other => return other,
        }
    }
}

/// Connects, and makes the tables of a new database.
fn connect(files: &Files, sizes: &Sizes, make_room: &mut dyn FnMut() -> bool) -> Result<Connection, Refusal> {
    successor::ensure(files, sizes)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags_and_vfs(&files.database, flags, files.disk.layer())?;
    // Whoever closes a database that it must not touch would otherwise still move the WAL into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
    let found = schema::version(&connection)?;
    if found > VERSION {
        // A flipped bit of the header is no newer program: that would have sealed its version, too.
        return Err(match schema::sealed_version(&connection).filter(|sealed| *sealed <= VERSION) {
            Some(sealed) => {
                Refusal::Damaged(format!("its header is of version {found}, its ledger of {sealed}"))
            }
            None => Refusal::Newer(found),
        });
    }
    let pages = check_log(files)?;
    if Pages::of(&connection)?.all == 0 {
        // Only now: on a database that is there, the second would write to a disk that may be full.
        connection.execute_batch(&format!("PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL;"))?;
    }
    connection.execute_batch(&format!(
        "PRAGMA secure_delete = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = {};",
        sizes.checkpoint_frames * PAGE * 2
    ))?;
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if journal != "wal" {
        return Err(Refusal::Damaged(format!("its journal is in mode {journal}")));
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        check_header(&connection, pages)?;
    }
    match (found, tables) {
        (VERSION, _) => {}
        (OLDEST..VERSION, _) => schema::raise(&connection)?,
        (0, 0) => schema::create(&connection)?,
        _ => return Err(Refusal::Damaged(format!("it is no store: version {found}, {tables} tables"))),
    }
    successor::attach(&connection, files, &successor::paths(files), |path| {
        successor::copy_on(&connection, files, path, make_room)
    })?;
    successor::adopt_newest(&connection, files)?;
    Ok(connection)
}

/// SQLite would replay a log up to a damaged place, and write over what lies behind. Returns how many pages
/// the database has, after its log or else by its file.
fn check_log(files: &Files) -> Result<u64, Refusal> {
    let bytes = files.wal_size();
    let wal = match bytes {
        0 => Wal::default(),
        // In the words of what SQLite does not read: it is waited for, and gone round, like that.
        bytes => Wal::read(&*files.disk.open(&files.wal)?, bytes).map_err(|_| schema::unread())?,
    };
    match wal.behind {
        0 => Ok(wal.size.map_or(files.database_size() / PAGE, u64::from)),
        frames => {
            Err(Refusal::Damaged(format!("its write-ahead log is, before {frames} frames that were synced")))
        }
    }
}

/// What the header and the list of tables of every database of ours say, and SQLite would believe otherwise.
fn check_header(connection: &Connection, pages: u64) -> Result<(), Refusal> {
    let wrong = |what: &str| Err(Refusal::Damaged(format!("its {what} is not as it was made")));
    let encoding: String = connection.pragma_query_value(None, "encoding", |row| row.get(0))?;
    if encoding != "UTF-8" {
        return wrong("text encoding");
    }
    for (name, made) in
        [("page_size", signed(PAGE)), ("auto_vacuum", 2), ("application_id", schema::APPLICATION)]
    {
        let found: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
        if found != made {
            return wrong(name);
        }
    }
    // Of fewer pages than there are SQLite says nothing.
    if Pages::of(connection)?.all != pages {
        return wrong("size");
    }
    let sql = "SELECT count(*), count(DISTINCT rootpage), max(rootpage) FROM sqlite_schema";
    let (tables, roots, last): (i64, i64, i64) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    // SQLite keeps them together, behind two pages and between those of its pointer map.
    if roots < tables || last > tables + 4 + tables / 819 || !schema::are_tables_as_made(connection, "main")?
    {
        return wrong("list of tables");
    }
    Ok(())
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The disk does not let us, for this reason.
pub(super) fn unavailable(files: &Files, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Unavailable { path: files.database.clone(), reason: error.to_string() }
}

/// SQLite's page cache.
const CACHE_KIB: u32 = 1_024;

/// Prepared statements that are kept; each open or read segment needs a few.
const STATEMENTS_MAX: usize = 64;

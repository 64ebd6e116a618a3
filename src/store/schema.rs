//! The tables that are always there, their version, and the errors of working on them.
//!
//! Every value that matters is a packed, sealed blob, so that a flipped bit is seen. `state` and
//! `mirror` hold the same rows in different pages: cursors and counters are kept twice. Rows of the log
//! are in tables of their own (`segment.rs`). A change of the schema raises [`VERSION`].

use rusqlite::{Connection, OptionalExtension, ffi, params};

use super::log::Doubt;
use super::pack::{Unpack, put_number, seal, unseal};
use super::reader::Counters;
use super::times;
use super::unread::ELSEWHERE;
use crate::record::Kept;

/// What goes wrong while the database is worked on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// SQLite says no.
    #[error("{}", said(.0))]
    Sqlite(#[from] rusqlite::Error),
    /// A segment cannot be read or written because the database is damaged there.
    #[error("segment {0} is damaged")]
    Segment(u32),
    /// A page of a segment's table is damaged, which may be above rows that are sound.
    #[error("a page of segment {0} is damaged")]
    Page(u32),
    /// The disk does not read a part of the file in which this segment lies; perhaps it will.
    #[error("the disk cannot be read")]
    Unreadable(u32),
    /// The broker used an order number twice.
    #[error("order number {0} was given before")]
    Sequence(u64),
    /// The gate that a test holds before each commit refused.
    #[error("the disk refused to sync: {0}")]
    Gate(std::io::Error),
    /// The disk refuses to open its files, or to change their names.
    #[error("the disk does not let the store at its files: {0}")]
    Disk(#[from] std::io::Error),
    /// The connection was dropped and is not open again.
    #[error("the database is not open")]
    Closed,
    /// It is no sound database.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// It could be read as far as it goes, and a salvage may find more.
    #[error("the database is damaged: {0}")]
    AtOdds(String),
    /// It was opened and is of no use.
    #[error("{0}")]
    Unusable(String),
    /// Growing the file now could leave no way back from a full disk.
    #[error("the disk is full")]
    Tight,
}

impl Fault {
    /// Whether the disk or a limit is full, so that making room can help.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Fault::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Fault::Gate(error) | Fault::Disk(error) => error.kind() == std::io::ErrorKind::StorageFull,
            Fault::Tight => true,
            Fault::Damaged(_)
            | Fault::AtOdds(_)
            | Fault::Segment(_)
            | Fault::Page(_)
            | Fault::Unreadable(_)
            | Fault::Sequence(_)
            | Fault::Closed
            | Fault::Unusable(_) => false,
        }
    }

    /// Whether the disk, full or failing, is at fault, and not what lies on it.
    pub(super) fn is_of_disk(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, ReadOnly, SystemIoFailure};
        let code = match self {
            Fault::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        };
        self.is_full()
            || matches!(self, Fault::Disk(_) | Fault::Unreadable(_))
            || matches!(code, Some(CannotOpen | ReadOnly | SystemIoFailure))
    }

    /// Whether a sync has failed: what it covered is forgotten, and no later sync brings it back.
    pub(super) fn is_unsynced(&self) -> bool {
        match self {
            Fault::Sqlite(error) => error.sqlite_error().is_some_and(|error| {
                [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&error.extended_code)
            }),
            Fault::Gate(error) => error.kind() != std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// Whether the database itself is damaged.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Fault::Sqlite(error) => is_damage(error),
            Fault::Damaged(_) | Fault::AtOdds(_) => true,
            _ => false,
        }
    }

    /// Whether it is about one segment.
    pub(super) fn is_of_segment(&self) -> bool {
        matches!(self, Fault::Segment(_) | Fault::Page(_) | Fault::Unreadable(_))
    }

    /// What becomes of a segment that it is about, if nothing else can be done.
    pub(super) fn doubt(&self) -> Doubt {
        match self {
            Fault::Page(_) => Doubt::Page,
            _ => Doubt::Segment,
        }
    }

    /// The place that the disk does not read: a segment, or anywhere else.
    pub(super) fn unread(&self) -> Option<u32> {
        match self {
            Fault::Unreadable(id) => Some(*id),
            Fault::Sqlite(error) if is_unreadable(error) => Some(ELSEWHERE),
            _ => None,
        }
    }

    /// Whether it is, where nothing was done with it yet: a table that is not there is damage, too.
    pub(super) fn is_damage_at_start(&self) -> bool {
        self.is_damage() || matches!(self, Fault::Sqlite(error) if is_missing(error))
    }
}

/// What SQLite says, in the operator's words where there are some.
fn said(error: &rusqlite::Error) -> String {
    let words = match error.sqlite_error().map(|error| error.extended_code) {
        Some(ffi::SQLITE_FULL) => "the disk is full",
        Some(ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ) => "the disk cannot be read",
        Some(ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE) => "the disk cannot be written",
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => "the disk refused to sync",
        Some(ffi::SQLITE_CANTOPEN) => "the database cannot be opened",
        _ => return error.to_string(),
    };
    words.into()
}

/// What SQLite says where the disk does not read.
pub(super) fn unread() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_READ), None)
}

/// Whether the error says that the file is no sound database.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// Whether the error says that there is no such table, or that it is another.
pub(super) fn is_missing(error: &rusqlite::Error) -> bool {
    // A column that is not there comes as an error in the SQL.
    matches!(error, rusqlite::Error::SqlInputError { .. })
        || error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown)
}

/// Whether the error says that the disk does not read. SQLite has then undone the transaction, if there was one.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ))
}

/// What the store keeps of itself, written with every commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ledger {
    /// The highest order number ever given.
    pub(super) last_seq: u64,
    /// The highest reader id ever given.
    pub(super) last_reader: u32,
    /// The highest segment ever made: the open one.
    pub(super) last_segment: u32,
    /// Commits since the database was made: tells after a failed one whether it took place.
    pub(super) stamp: u64,
    /// When the database was made; tells two databases apart.
    pub(super) epoch: u64,
    /// The house's time at the last commit, and what is known of it.
    pub(super) times: Kept,
    /// The segment that was open when the last commit began: it wrote to no older one. 0 where that is not
    /// known, since a program that did not write it was the last.
    pub(super) wrote_from: u32,
    /// The older segment that was copied on since, and that the last sync was for; 0: none.
    pub(super) copied_on: u32,
    /// All that became of the messages of sessions that are gone, so that their sums go on.
    pub(super) past: Counters,
}

impl Ledger {
    pub(super) fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, self.last_seq);
        put_number(&mut out, u64::from(self.last_reader));
        put_number(&mut out, u64::from(self.last_segment));
        put_number(&mut out, self.stamp);
        put_number(&mut out, self.epoch);
        times::pack(&self.times, &mut out);
        // Every later version keeps its own here.
        put_number(&mut out, unsigned(VERSION));
        // Whoever does not know it does not read on.
        put_number(&mut out, u64::from(self.wrote_from));
        if self.copied_on > 0 || self.past != Counters::default() {
            put_number(&mut out, u64::from(self.copied_on));
            self.past.pack(&mut out);
        }
        out
    }

    pub(super) fn unpack(blob: &[u8]) -> Option<Ledger> {
        let mut unpack = Unpack::new(blob);
        let mut ledger = Ledger::take(&mut unpack)?;
        // Behind the version, which a program that did not write it leaves out.
        if unpack.number().is_some() && !unpack.is_empty() {
            ledger.wrote_from = unpack.number32()?;
            ledger.copied_on = unpack.number32().unwrap_or(0);
            ledger.past = Counters::unpack(&mut unpack).unwrap_or_default();
        }
        Some(ledger)
    }

    /// The version of the schema that it was written in; `None` where it was not yet kept.
    fn version(blob: &[u8]) -> Option<i64> {
        let mut unpack = Unpack::new(blob);
        Ledger::take(&mut unpack)?;
        unpack.number().map(signed)
    }

    fn take(unpack: &mut Unpack<'_>) -> Option<Ledger> {
        Some(Ledger {
            last_seq: unpack.number()?,
            last_reader: unpack.number32()?,
            last_segment: unpack.number32()?,
            stamp: unpack.number()?,
            epoch: unpack.number()?,
            times: times::unpack(unpack)?,
            wrote_from: 0,
            copied_on: 0,
            past: Counters::default(),
        })
    }
}

/// Makes the tables of an empty database.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {} COMMIT;", tables()))
}

/// The tables of a database, in SQL.
pub(super) fn tables() -> String {
    let made: String =
        TABLES.iter().map(|(name, columns)| format!("CREATE TABLE {name}{columns};")).collect();
    format!("{made} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};")
}

/// Whether the tables of the database of that name are as they were made. SQLite keeps their SQL and believes it: where
/// a bit has changed, what was the key may be none any more, and rows that are there are not found.
pub(super) fn are_tables_as_made(connection: &Connection, schema: &str) -> rusqlite::Result<bool> {
    let columns = "name, sql, type IS 'table' AND tbl_name IS name";
    // What somebody has had SQLite note of them, as by ANALYZE, is of no account.
    let others = "ifnull(name, '') NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut statement =
        connection.prepare(&format!("SELECT {columns} FROM {schema}.sqlite_schema WHERE {others}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (Ok(name), Ok(sql)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) else {
            return Ok(false);
        };
        let columns = sql.strip_prefix("CREATE TABLE ").and_then(|rest| rest.strip_prefix(name));
        let of_all = TABLES.iter().filter(|(table, _)| *table == name).map(|(_, made)| *made);
        let of_segments = SEGMENT.into_iter().filter(|_| name.starts_with("log_"));
        let is_known = columns.is_some_and(|columns| of_all.chain(of_segments).any(|made| made == columns));
        if !is_known || !row.get::<_, bool>(2)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The highest number of a reader of whom anything is there that its checksum vouches for: what is kept of it twice
/// stands under its number and another above that. Of a damaged table what comes before the damage.
pub(super) fn last_reader(connection: &Connection) -> rusqlite::Result<u32> {
    let mut last = 0;
    for table in ["state", "mirror"] {
        let mut statement = connection.prepare(&format!("SELECT reader, data FROM main.{table}"))?;
        let mut rows = statement.query([])?;
        let mut next = || -> rusqlite::Result<Option<u64>> {
            let Some(row) = rows.next()? else { return Ok(None) };
            let (key, blob) = (unsigned(row.get(0)?), row.get_ref(1)?.as_blob().unwrap_or_default());
            Ok(Some(unseal(blob, key).map_or(0, |_| key & u64::from(u32::MAX))))
        };
        loop {
            match next() {
                Err(error) if is_damage(&error) => break,
                Ok(None) => break,
                found => last = last.max(found?.unwrap_or(0)),
            }
        }
    }
    Ok(u32::try_from(last).unwrap_or(0))
}

/// Marks a file of an older version, which is read as it is, as one that may hold what is new: in its header
/// and in its ledger at once, so that one of them alone is damage.
pub(super) fn raise(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.pragma_update(None, "user_version", VERSION)?;
    if let Some(ledger) = state(connection, LEDGER)?.and_then(|blob| Ledger::unpack(&blob)) {
        put_state(connection, LEDGER, ledger.pack())?;
    }
    connection.execute_batch("COMMIT")
}

/// The version of the schema that the ledger has under its seal; `None` where it has none.
pub(super) fn sealed_version(connection: &Connection) -> Option<i64> {
    Ledger::version(&state(connection, LEDGER).ok()??)
}

/// The version of the schema that the file has; 0 where it is empty.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Writes one reader's state (or the ledger, under 0) to both places.
pub(super) fn put_state(connection: &Connection, reader: u32, mut blob: Vec<u8>) -> rusqlite::Result<()> {
    seal(&mut blob, u64::from(reader));
    for sql in ["REPLACE INTO state VALUES (?, ?)", "REPLACE INTO mirror VALUES (?, ?)"] {
        connection.prepare_cached(sql)?.execute(params![reader, blob])?;
    }
    Ok(())
}

/// Removes one reader's state.
pub(super) fn remove_state(connection: &Connection, reader: u32) -> rusqlite::Result<()> {
    for sql in ["DELETE FROM state WHERE reader = ?", "DELETE FROM mirror WHERE reader = ?"] {
        connection.prepare_cached(sql)?.execute([reader])?;
    }
    Ok(())
}

/// One reader's state from whichever place is sound; `None` where neither is.
pub(super) fn state(connection: &Connection, reader: u32) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut unread = None;
    let in_transaction = !connection.is_autocommit();
    for sql in ["SELECT data FROM state WHERE reader = ?", "SELECT data FROM mirror WHERE reader = ?"] {
        let blob = |row: &rusqlite::Row<'_>| Ok(row.get_ref(0)?.as_blob().unwrap_or_default().to_vec());
        let read = connection.prepare_cached(sql)?.query_row([reader], blob);
        let blob = match read.optional() {
            // The transaction is no more.
            Err(error) if in_transaction && is_unreadable(&error) => return Err(error),
            Err(error) if is_unreadable(&error) => {
                unread = Some(error);
                None
            }
            Err(error) if !is_damage(&error) => return Err(error),
            other => other.ok().flatten(),
        };
        if let Some(body) = blob.as_deref().and_then(|blob| unseal(blob, u64::from(reader))) {
            return Ok(Some(body.to_vec()));
        }
    }
    unread.map_or(Ok(None), Err)
}

/// A number for SQLite, which has no unsigned ones.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number from SQLite; a negative one was never written.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The version of the schema. Since 2 an exchange of QoS 2 may name whose packet id it is, which a program
/// of version 1 would take for one that PUBREC has come for; and messages may go for want of memory. Since 3 a session
/// says through which mount point it was made, which an older program would not heed, and an exchange of a group whether
/// its PUBLISH was sent, in a number that version 2 would take for damage. Since 4 stamps are taken from the house's
/// time, which the ledger keeps, and a row may say that its reading had no clock; an older program would take
/// the stamps for the wall clock's. And an exchange may be of a row that is settled, which an older program would
/// take for one that waits.
pub(super) const VERSION: i64 = 4;

/// The oldest version that this program reads: all that it may hold is the same in the newest.
pub(super) const OLDEST: i64 = 1;

/// The tables that are always there, and their columns.
pub(super) const TABLES: [(&str, &str); 6] = [
    ("state", "(reader INTEGER PRIMARY KEY, data BLOB NOT NULL)"),
    ("mirror", "(reader INTEGER PRIMARY KEY, data BLOB NOT NULL)"),
    ("sessions", "(reader INTEGER PRIMARY KEY, data BLOB NOT NULL)"),
    ("routes", "(reader INTEGER PRIMARY KEY, data BLOB NOT NULL)"),
    ("segments", "(id INTEGER PRIMARY KEY, data BLOB NOT NULL)"),
    ("retained", "(topic TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID"),
];

/// A segment's columns: as they are made, and as they were made before.
pub(super) const SEGMENT: [&str; 2] = [
    "(seq INTEGER PRIMARY KEY,topic,audience,flags,wall,expiry,numbers,properties,payload,crc)",
    "(seq INTEGER PRIMARY KEY, topic, audience, flags INTEGER, wall INTEGER,
         expiry INTEGER, numbers BLOB, properties BLOB, payload BLOB, crc INTEGER)",
];

/// The first page of each: they are made first of all, in this order, and never go, so that they are where they
/// were whatever becomes of the list of tables.
pub(super) const ROOTS: [u32; 6] = [3, 4, 5, 6, 7, 8];

/// "tide" in the file's header.
pub(super) const APPLICATION: i64 = 0x7469_6465;

/// The ledger's row.
pub(super) const LEDGER: u32 = 0;

//! SQLite's file layer with two changes: a read error stays a read error, and a log is written in few calls.
//!
//! Where the disk says EIO, SQLite's own layer says `SQLITE_IOERR_CORRUPTFS`, of which the machine that runs the
//! statements makes `SQLITE_CORRUPT`: a sector that cannot be read would pass for a damaged database, and that
//! is put aside. So each layer that the store uses is put over SQLite's, which does all the work.
//!
//! Writes to a write-ahead log wait for each other until its sync at the latest. A commit takes place only after
//! that, and SQLite is told by it where they fail. Invariant: whoever reads the log through us finds them in it.

#![allow(unsafe_code, reason = "SQLite calls a file layer through C pointers")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_void};
use std::sync::{Mutex, PoisonError};
use std::{ptr, slice};

use rusqlite::ffi;

use super::gathered::{Gathered, Taken};

/// The functions of an open file: ours, and what they need of the layer below.
#[repr(C)]
struct Functions {
    ours: ffi::sqlite3_io_methods,
    below: Below,
    /// Of a log: where in its file the place of what waits for it begins.
    own: Option<usize>,
}

/// Functions of the layer below.
struct Below {
    read: unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, i64) -> c_int,
    write: unsafe extern "C" fn(*mut ffi::sqlite3_file, *const c_void, c_int, i64) -> c_int,
    truncate: unsafe extern "C" fn(*mut ffi::sqlite3_file, i64) -> c_int,
    sync: unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int,
    size: unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut i64) -> c_int,
    close: unsafe extern "C" fn(*mut ffi::sqlite3_file) -> c_int,
}

/// What was made so far. It is never freed: SQLite holds pointers to it for as long as the process lives.
static MADE: Mutex<Made> = Mutex::new(Made { layers: BTreeMap::new(), functions: BTreeMap::new() });

struct Made {
    /// By the name of the layer below.
    layers: BTreeMap<&'static CStr, &'static CStr>,
    /// By the address of the functions of the layer below, of which it has a few, and the place in a log.
    functions: BTreeMap<(usize, Option<usize>), &'static Functions>,
}

/// The name of the layer over the one of the name `below`; that one's own where it is not known to SQLite.
pub(super) fn over(below: &'static CStr, name: &'static CStr) -> &'static str {
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = match made.layers.get(below).copied() {
        Some(name) => name,
        None => {
            let name = if register(below, name) == ffi::SQLITE_OK { name } else { below };
            made.layers.insert(below, name);
            name
        }
    };
    name.to_str().unwrap_or_default()
}

fn register(below: &CStr, name: &'static CStr) -> c_int {
    // SAFETY: the name is a C string, and SQLite's layers live for as long as the process does.
    let (below, known) = unsafe {
        let below = ffi::sqlite3_vfs_find(below.as_ptr());
        (below, below.as_ref())
    };
    let Some(known) = known else { return ffi::SQLITE_ERROR };
    let Ok(size) = c_int::try_from(own_place(known) + size_of::<*mut Gathered>()) else {
        return ffi::SQLITE_ERROR;
    };
    // The copy's functions take no notice of which of the two they are given, but for `xOpen`, which is ours and
    // hands on the one below.
    let layer = ffi::sqlite3_vfs {
        pNext: ptr::null_mut(),
        szOsFile: size,
        zName: name.as_ptr(),
        pAppData: below.cast(),
        xOpen: Some(open),
        ..*known
    };
    // SAFETY: the layer and its name live for as long as the process does, and are registered once.
    unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(layer)), 0) }
}

/// Where in a file we have a place of our own: behind what the layer below has of it.
fn own_place(below: &ffi::sqlite3_vfs) -> usize {
    usize::try_from(below.szOsFile).unwrap_or(0).next_multiple_of(align_of::<*mut Gathered>())
}

unsafe extern "C" fn open(
    layer: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `register` has put the layer below there, and SQLite's files are as large as we ask for: as that one
    // does, and a pointer.
    let (code, own) = unsafe {
        let below = (*layer).pAppData.cast::<ffi::sqlite3_vfs>();
        let Some(open) = (*below).xOpen else { return ffi::SQLITE_CANTOPEN };
        (open(below, name, file, flags, out_flags), own_place(&*below))
    };
    if code != ffi::SQLITE_OK {
        return code;
    }
    let own = (flags & ffi::SQLITE_OPEN_WAL != 0).then_some(own);
    // SAFETY: every file begins with its functions, and has room for a pointer in our place.
    unsafe {
        let below = (*file).pMethods;
        if let Some(functions) = below.as_ref().and_then(|methods| functions(below as usize, methods, own)) {
            if let Some(own) = own {
                // `close_log` frees it.
                file.byte_add(own).cast::<*mut Gathered>().write(Box::into_raw(Box::default()));
            }
            // Of all of it: a pointer to its first field alone must not be read beyond that.
            (*file).pMethods = ptr::from_ref(functions).cast();
        }
    }
    code
}

/// Our functions over these.
fn functions(
    address: usize,
    methods: &ffi::sqlite3_io_methods,
    own: Option<usize>,
) -> Option<&'static Functions> {
    let read_only = ffi::sqlite3_io_methods { xRead: Some(read_from), ..*methods };
    let ours = match own {
        None => read_only,
        Some(_) => ffi::sqlite3_io_methods {
            xRead: Some(read_log),
            xWrite: Some(write_log),
            xTruncate: Some(truncate_log),
            xSync: Some(sync_log),
            xFileSize: Some(size_log),
            xClose: Some(close_log),
            ..*methods
        },
    };
    let below = Below {
        read: methods.xRead?,
        write: methods.xWrite?,
        truncate: methods.xTruncate?,
        sync: methods.xSync?,
        size: methods.xFileSize?,
        close: methods.xClose?,
    };
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || &*Box::leak(Box::new(Functions { ours, below, own }));
    Some(made.functions.entry((address, own)).or_insert_with(make))
}

/// What we know of an open file.
///
/// # Safety
/// `file` was opened by [`open`], and is not closed.
unsafe fn functions_of(file: *mut ffi::sqlite3_file) -> &'static Functions {
    // SAFETY: `open` has put a `Functions` there, which is never freed.
    unsafe { &*(*file).pMethods.cast::<Functions>() }
}

unsafe extern "C" fn read_from(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    count: c_int,
    at: i64,
) -> c_int {
    // SAFETY: the file is open, and what SQLite asks of us it may ask of the layer below.
    let code = unsafe { (functions_of(file).below.read)(file, into, count, at) };
    if code == ffi::SQLITE_IOERR_CORRUPTFS { ffi::SQLITE_IOERR_READ } else { code }
}

/// What waits for a log.
///
/// # Safety
/// `file` was opened by [`open`] as a log, and is not closed.
unsafe fn gathered_of(file: *mut ffi::sqlite3_file) -> *mut Gathered {
    // SAFETY: `open` has put it in our place.
    unsafe { file.byte_add(functions_of(file).own.unwrap_or_default()).cast::<*mut Gathered>().read() }
}

/// A log that is open.
struct Log<'a> {
    file: *mut ffi::sqlite3_file,
    below: &'static Below,
    gathered: &'a mut Gathered,
}

impl Log<'_> {
    /// # Safety
    /// `file` was opened by [`open`] as a log, and is not closed. SQLite uses a file in one call at a time.
    unsafe fn of<'a>(file: *mut ffi::sqlite3_file) -> Log<'a> {
        // SAFETY: as the caller promises; only `close_log` frees what is there.
        unsafe { Log { file, below: &functions_of(file).below, gathered: &mut *gathered_of(file) } }
    }

    /// Makes the writes that wait, as one.
    fn hand_down(&mut self) -> Result<(), c_int> {
        let (file, below) = (self.file, self.below);
        self.gathered.make(|at, bytes| match hand_down(file, below, at, bytes) {
            // Of a long write that does not fit some file systems take nothing: the log would never grow to where the
            // disk ends, and what makes room needs every byte of it.
            Err(ffi::SQLITE_FULL) => {
                pieces(at, bytes).try_for_each(|(at, piece)| hand_down(file, below, at, piece))
            }
            other => other,
        })
    }

    fn write(&mut self, at: i64, bytes: &[u8]) -> Result<(), c_int> {
        if !self.gathered.may_write(at, bytes.len()) {
            return Err(ffi::SQLITE_IOERR_WRITE);
        }
        if self.gathered.take(at, bytes) == Taken::Yes {
            return Ok(());
        }
        self.hand_down()?;
        match self.gathered.take(at, bytes) {
            Taken::Yes => Ok(()),
            Taken::No => hand_down(self.file, self.below, at, bytes),
        }
    }
}

/// Writes to the layer below.
fn hand_down(file: *mut ffi::sqlite3_file, below: &Below, at: i64, bytes: &[u8]) -> Result<(), c_int> {
    let Ok(count) = c_int::try_from(bytes.len()) else { return Err(ffi::SQLITE_IOERR_WRITE) };
    // SAFETY: only an open log is written, and there are so many bytes.
    result(unsafe { (below.write)(file, bytes.as_ptr().cast(), count, at) })
}

/// A write in short ones.
fn pieces(at: i64, bytes: &[u8]) -> impl Iterator<Item = (i64, &[u8])> {
    (at..).step_by(PIECE).zip(bytes.chunks(PIECE))
}

unsafe extern "C" fn read_log(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    count: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite has opened it as a log.
    let mut log = unsafe { Log::of(file) };
    if log.gathered.has_any_of(at, i64::from(count))
        && let Err(code) = log.hand_down()
    {
        return code;
    }
    if !log.gathered.may_read(at, i64::from(count)) {
        return ffi::SQLITE_IOERR_READ;
    }
    // SAFETY: it is as SQLite has asked.
    unsafe { read_from(file, into, count, at) }
}

unsafe extern "C" fn write_log(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    at: i64,
) -> c_int {
    let Ok(count) = usize::try_from(count) else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: SQLite has opened it as a log, and gives `count` bytes.
    let (mut log, bytes) = unsafe { (Log::of(file), slice::from_raw_parts(from.cast::<u8>(), count)) };
    code(log.write(at, bytes))
}

unsafe extern "C" fn truncate_log(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite has opened it as a log.
    let mut log = unsafe { Log::of(file) };
    // SAFETY: the log is open.
    code(log.hand_down().and_then(|()| result(unsafe { (log.below.truncate)(file, size) })))
}

unsafe extern "C" fn sync_log(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite has opened it as a log.
    let mut log = unsafe { Log::of(file) };
    // SAFETY: the log is open.
    code(log.hand_down().and_then(|()| result(unsafe { (log.below.sync)(file, flags) })))
}

unsafe extern "C" fn size_log(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: SQLite has opened it as a log.
    let mut log = unsafe { Log::of(file) };
    // SAFETY: the log is open, and SQLite gives a place for the size.
    code(log.hand_down().and_then(|()| result(unsafe { (log.below.size)(file, out) })))
}

unsafe extern "C" fn close_log(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes only what `open` has opened, and once.
    unsafe {
        let mut log = Log::of(file);
        let (made, close) = (log.hand_down(), log.below.close);
        drop(Box::from_raw(gathered_of(file)));
        code(made.and(result(close(file))))
    }
}

fn result(code: c_int) -> Result<(), c_int> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
}

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
}

/// What a disk gives and takes at once.
const PIECE: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::{Connection, OpenFlags};

    use super::*;

    fn open(dir: &Path, layer: &str) -> Connection {
        let path = dir.join(layer);
        let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), layer).unwrap();
        connection
            .execute_batch(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 PRAGMA wal_autocheckpoint = 0; CREATE TABLE rows(number INTEGER PRIMARY KEY, bytes);",
            )
            .unwrap();
        connection
    }

    /// Write calls of this thread.
    fn calls() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("syscw: "));
        line.unwrap().parse().unwrap()
    }

    #[test]
    fn what_a_commit_writes_to_the_log_is_written_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(dir.path(), over(c"unix", c"tidegate"));
        for rows in [1, 10, 100] {
            let before = calls();
            let sql = format!(
                "INSERT INTO rows(bytes) SELECT zeroblob(4000) FROM (
                    WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count LIMIT {rows})
                    SELECT n FROM count)"
            );
            connection.execute_batch(&sql).unwrap();
            let calls = calls() - before;
            assert!(calls <= 1 + rows / 14, "{calls} calls for {rows} pages");
        }
    }

    #[test]
    fn a_transaction_reads_what_waits_for_the_log_and_leaves_what_it_would_without_us() {
        let dir = tempfile::tempdir().unwrap();
        let layers = [over(c"unix", c"tidegate"), "unix"];
        let connections = layers.map(|layer| open(dir.path(), layer));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |most: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % most
        };
        for _ in 0..60 {
            // So few pages that a transaction puts some into the log and reads them there before it ends.
            let mut sql = String::from("PRAGMA cache_size = 4; BEGIN;");
            for _ in 0..below(120) {
                let (number, size, byte) = (below(400), below(3_000) + 1, below(10));
                sql.push_str(&match below(8) {
                    0 => format!("DELETE FROM rows WHERE number % 50 = {};", number % 50),
                    1 => format!(
                        "UPDATE rows SET bytes = bytes || {byte} WHERE number % 20 = {};",
                        number % 20
                    ),
                    _ => format!(
                        "REPLACE INTO rows VALUES ({number}, replace(hex(zeroblob({size})), '0', {byte}));"
                    ),
                });
            }
            sql.push_str(["COMMIT;", "COMMIT;", "ROLLBACK;", "COMMIT; PRAGMA wal_checkpoint;"][below(4)]);
            let found = connections.each_ref().map(|connection| {
                connection.execute_batch(&sql).unwrap();
                let check: String =
                    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
                assert_eq!(check, "ok");
                let mut rows = connection.prepare("SELECT number, bytes FROM rows").unwrap();
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                rows.query_map([], row).unwrap().collect::<Result<Vec<(i64, String)>, _>>().unwrap()
            });
            let sizes = layers.map(|layer| {
                let size = |end| std::fs::metadata(dir.path().join(format!("{layer}{end}"))).unwrap().len();
                (size(""), size("-wal"))
            });
            assert!(found[0] == found[1] && sizes[0] == sizes[1], "{sizes:?}");
        }
    }
}

//! SQLite's file layer over [`FaultyDisk`]: the one place of the store's tests that is not safe Rust.
//!
//! One layer serves every disk; a path says which. It is of SQLite's first version: no shared memory, no
//! mapping. Every function only turns SQLite's pointers into slices and paths, and calls a safe one.
//! SQLite promises that a file is used by one thread at a time, and closed once.

#![allow(unsafe_code, reason = "SQLite calls a file layer through C pointers")]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError, Weak};

use rusqlite::ffi;

use super::{FaultyDisk, Opened, State};

/// Its name among SQLite's layers, with that over it which the store puts over every one.
pub(super) fn name() -> &'static str {
    crate::store::layer::over(NAME, c"faulty-tidegate")
}

const NAME: &CStr = c"faulty";

/// Disks by number, for as long as somebody holds them.
static DISKS: Mutex<BTreeMap<u64, Weak<Mutex<State>>>> = Mutex::new(BTreeMap::new());

/// A file as SQLite sees it: its functions, and ours behind them.
#[repr(C)]
struct Handle {
    functions: *const ffi::sqlite3_io_methods,
    opened: *mut Opened,
}

/// Makes a disk known to SQLite, under a number of its own.
pub(super) fn register(mut disk: FaultyDisk) -> FaultyDisk {
    static LAYER: OnceLock<()> = OnceLock::new();
    LAYER.get_or_init(register_layer);
    let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    disks.retain(|_, disk| disk.strong_count() > 0);
    static LAST: Mutex<u64> = Mutex::new(0);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    *last += 1;
    disk.number = *last;
    disks.insert(disk.number, std::sync::Arc::downgrade(&disk.state));
    disk
}

fn register_layer() {
    let layer = Box::leak(Box::new(ffi::sqlite3_vfs {
        iVersion: 1,
        szOsFile: c_int::try_from(size_of::<Handle>()).unwrap(),
        mxPathname: PATH_MAX,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_path),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: None,
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: the layer and its name live for as long as the process does, and are registered once.
    let code = unsafe { ffi::sqlite3_vfs_register(layer, 0) };
    assert_eq!(code, ffi::SQLITE_OK);
}

static FUNCTIONS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// The disk that a path of ours is on.
fn disk_of(path: &Path) -> Option<FaultyDisk> {
    let number = path.strip_prefix("/faulty").ok()?.components().next()?;
    let number = number.as_os_str().to_str()?.parse().ok()?;
    let disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    Some(FaultyDisk { number, state: disks.get(&number)?.upgrade()? })
}

/// A path from SQLite.
///
/// # Safety
/// `name` is null, or a C string that outlives the path.
unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: it is a C string, as the caller promises.
    let name = unsafe { CStr::from_ptr(name) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())))
}

/// Our file behind SQLite's.
///
/// # Safety
/// `file` was made by [`open`], and is not closed.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a Opened {
    // SAFETY: `open` has put a handle and a box there, and only `close` frees it.
    unsafe { &*(*file.cast::<Handle>()).opened }
}

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let handle = file.cast::<Handle>();
    // SAFETY: SQLite gives room for a handle; without functions it takes the file for one that is not open.
    unsafe { handle.write(Handle { functions: ptr::null(), opened: ptr::null_mut() }) };
    // SAFETY: SQLite's names are C strings that outlive the file.
    let path = unsafe { path_of(name) };
    let disk = match path {
        Some(path) => disk_of(path),
        // A file without a name is on no disk that anybody looks at.
        None => Some(FaultyDisk { number: 0, state: Default::default() }),
    };
    let Some(disk) = disk else { return ffi::SQLITE_CANTOPEN };
    let (opened, writable) = match disk.open(path, flags) {
        Ok(opened) => opened,
        Err(code) => return code,
    };
    // SAFETY: as above; the box is freed by `close`, which SQLite calls once.
    unsafe { handle.write(Handle { functions: &FUNCTIONS, opened: Box::into_raw(Box::new(opened)) }) };
    if !out_flags.is_null() {
        let access = if writable { ffi::SQLITE_OPEN_READWRITE } else { ffi::SQLITE_OPEN_READONLY };
        let rest = flags & !(ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_READONLY);
        // SAFETY: it is not null, so it is a place for the flags.
        unsafe { out_flags.write(rest | access) };
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes only what `open` has opened, and once.
    drop(unsafe { Box::from_raw((*file.cast::<Handle>()).opened) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, count: c_int, at: i64) -> c_int {
    let (Ok(count), Ok(at)) = (usize::try_from(count), usize::try_from(at)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite gives room for `count` bytes, and the file is open.
    let (opened, into) = unsafe { (opened(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), count)) };
    code(opened.read(at, into))
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    at: i64,
) -> c_int {
    let (Ok(count), Ok(at)) = (usize::try_from(count), usize::try_from(at)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite gives `count` bytes, and the file is open.
    let (opened, from) = unsafe { (opened(file), std::slice::from_raw_parts(from.cast::<u8>(), count)) };
    code(opened.write(at, from))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: the file is open.
    let opened = unsafe { opened(file) };
    code(usize::try_from(size).map_err(|_| ffi::SQLITE_IOERR_TRUNCATE).and_then(|size| opened.truncate(size)))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: the file is open.
    code(unsafe { opened(file) }.sync())
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: the file is open.
    match unsafe { opened(file) }.size() {
        Ok(size) => {
            // SAFETY: SQLite gives a place for the size.
            unsafe { out.write(i64::try_from(size).unwrap_or(i64::MAX)) };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { out.write(0) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    // As SQLite's own layer for this system says.
    4_096
}

unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // As SQLite's own layer says: a write leaves its neighbours alone.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite's names are C strings.
    let Some(path) = (unsafe { path_of(name) }) else { return ffi::SQLITE_IOERR_DELETE };
    let Some(disk) = disk_of(path) else { return ffi::SQLITE_IOERR_DELETE };
    let mut state = disk.lock();
    match state.remove(path) {
        Ok(()) => {
            if sync != 0 {
                let all = state.renamings.len();
                state.keep_names(all);
            }
            ffi::SQLITE_OK
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's names are C strings.
    let path = unsafe { path_of(name) };
    let there =
        path.is_some_and(|path| disk_of(path).is_some_and(|disk| disk.lock().names.contains_key(path)));
    // SAFETY: SQLite gives a place for the answer.
    unsafe { out.write(c_int::from(there)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's names are C strings.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if usize::try_from(room).is_ok_and(|room| room < bytes.len()) {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: it fits, as was just seen, and SQLite's two buffers are apart.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite gives room for `count` bytes.
    unsafe { ptr::write_bytes(out, 7, usize::try_from(count).unwrap_or(0)) };
    count
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    micros
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite gives a place for the time.
    unsafe { out.write(2_461_000.5) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

/// The longest path.
const PATH_MAX: c_int = 512;

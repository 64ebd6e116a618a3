//! SQLite's file layer with the one change that a read error stays a read error.
//!
//! Where the disk says EIO, SQLite's own layer says `SQLITE_IOERR_CORRUPTFS`, of which the machine that runs the
//! statements makes `SQLITE_CORRUPT`: a sector that cannot be read would pass for a damaged database, and that
//! is put aside. So each layer that the store uses is put over SQLite's, which does all the work.

#![allow(unsafe_code, reason = "SQLite calls a file layer through C pointers")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use rusqlite::ffi;

/// The functions of an open file: those of the layer below but for `xRead`, and that of the layer below.
#[repr(C)]
struct Functions {
    ours: ffi::sqlite3_io_methods,
    read: Read,
}

type Read = unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, i64) -> c_int;

/// What was made so far. It is never freed: SQLite holds pointers to it for as long as the process lives.
static MADE: Mutex<Made> = Mutex::new(Made { layers: BTreeMap::new(), functions: BTreeMap::new() });

struct Made {
    /// By the name of the layer below.
    layers: BTreeMap<&'static CStr, &'static CStr>,
    /// By the address of the functions of the layer below, of which it has a few.
    functions: BTreeMap<usize, &'static Functions>,
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
    // SAFETY: the name is a C string.
    let below = unsafe { ffi::sqlite3_vfs_find(below.as_ptr()) };
    if below.is_null() {
        return ffi::SQLITE_ERROR;
    }
    // SAFETY: SQLite's layers live for as long as the process does. The copy's functions take no notice of which
    // of the two they are given, but for `xOpen`, which is ours and hands on the one below.
    let layer = ffi::sqlite3_vfs {
        pNext: ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: below.cast(),
        xOpen: Some(open),
        ..unsafe { *below }
    };
    // SAFETY: the layer and its name live for as long as the process does, and are registered once.
    unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(layer)), 0) }
}

unsafe extern "C" fn open(
    layer: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `register` has put the layer below there, and SQLite's files are as large as that one asks for.
    let code = unsafe {
        let below = (*layer).pAppData.cast::<ffi::sqlite3_vfs>();
        let Some(open) = (*below).xOpen else { return ffi::SQLITE_CANTOPEN };
        open(below, name, file, flags, out_flags)
    };
    // SAFETY: every file begins with its functions, which are null where it is not open.
    unsafe {
        let below = (*file).pMethods;
        if let Some(functions) = below.as_ref().and_then(|methods| functions(below as usize, methods)) {
            // Of all of it: a pointer to its first field alone must not be read beyond that.
            (*file).pMethods = ptr::from_ref(functions).cast();
        }
    }
    code
}

/// Our functions over these.
fn functions(address: usize, below: &ffi::sqlite3_io_methods) -> Option<&'static Functions> {
    let read = below.xRead?;
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let ours = ffi::sqlite3_io_methods { xRead: Some(read_from), ..*below };
        &*Box::leak(Box::new(Functions { ours, read }))
    };
    Some(made.functions.entry(address).or_insert_with(make))
}

unsafe extern "C" fn read_from(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    count: c_int,
    at: i64,
) -> c_int {
    // SAFETY: `open` has put a `Functions` there, and what SQLite asks of us it may ask of the layer below.
    let code = unsafe {
        let functions = (*file).pMethods.cast::<Functions>();
        ((*functions).read)(file, into, count, at)
    };
    if code == ffi::SQLITE_IOERR_CORRUPTFS { ffi::SQLITE_IOERR_READ } else { code }
}

//! What of the program lies in the process's memory.
//!
//! Reading the command line and the configuration and making the parts takes much of the program's code and constants,
//! which would stay beside what the work needs; and so do the first seconds of the work. The kernel is told after each
//! that nothing of it is wanted just now. What is wanted again it maps again, from its own copy of the file.

#![allow(unsafe_code, reason = "the kernel is told about memory by its address")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

/// Lets go of what the start has used, and of what the first seconds have used after it.
pub(super) async fn shrink() {
    for wait in [Duration::ZERO, SETTLED] {
        tokio::time::sleep(wait).await;
        match try_shrink() {
            Ok(bytes) => tracing::debug!(bytes, "code that was used so far is let go of"),
            Err(error) => tracing::debug!("the code that was used so far stays in memory: {error}"),
        }
    }
}

/// How many bytes of code and constants there are.
fn try_shrink() -> io::Result<usize> {
    let mut done = Ok(0);
    // SAFETY: `let_go` takes what it is handed for what this function hands out.
    unsafe { dl_iterate_phdr(let_go, (&raw mut done).cast()) };
    done
}

/// Lets go of the segments of one object, the program or a library, that nobody may write to, nor has, not even who had to
/// put addresses in. The loader is asked for them: the kernel's list of what is mapped is old when it has been read, does
/// not show changes that are in the swap, and is of another process under an emulator.
extern "C" fn let_go(object: *const Object, _size: usize, done: *mut c_void) -> c_int {
    // SAFETY: the loader hands out an object of its list, which stays there until this returns, and its own segments; and
    // `done` is what `try_shrink` has given it.
    let (done, object, segments, name) = unsafe {
        let object = &*object;
        let segments = std::slice::from_raw_parts(object.segments, usize::from(object.count));
        (&mut *done.cast::<io::Result<usize>>(), object, segments, CStr::from_ptr(object.name))
    };
    // The kernel's own is in no file.
    let is_file = name.is_empty() || name.to_bytes().starts_with(b"/");
    for segment in segments.iter().filter(|segment| is_file && segment.is_fixed()) {
        let start = object.base.wrapping_add(segment.address);
        // SAFETY: it has no condition.
        let before = start % usize::try_from(unsafe { getpagesize() }).unwrap_or(1);
        let (address, length) = ((start - before) as *mut c_void, before + segment.size);
        // SAFETY: the loader has mapped this from a file, without the right to write to it, and unmaps nothing meanwhile:
        // every page of it is as the file has it, and reads as before once the kernel maps it again.
        let advised = unsafe { madvise(address, length, Advice::LinuxDontNeed) };
        match (&mut *done, advised) {
            (Ok(bytes), Ok(())) => *bytes += length,
            (_, Err(error)) => *done = Err(error.into()),
            (Err(_), Ok(())) => {}
        }
    }
    0
}

unsafe extern "C" {
    fn dl_iterate_phdr(
        each: extern "C" fn(*const Object, usize, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
    fn getpagesize() -> c_int;
}

/// The begin of the loader's `dl_phdr_info`.
#[repr(C)]
struct Object {
    base: usize,
    name: *const c_char,
    segments: *const Segment,
    count: u16,
}

/// `Elf64_Phdr`.
#[cfg(target_pointer_width = "64")]
#[repr(C)]
struct Segment {
    kind: u32,
    rights: u32,
    _offset: usize,
    address: usize,
    _physical: usize,
    _in_file: usize,
    size: usize,
    _alignment: usize,
}

/// `Elf32_Phdr`.
#[cfg(target_pointer_width = "32")]
#[repr(C)]
struct Segment {
    kind: u32,
    _offset: usize,
    address: usize,
    _physical: usize,
    _in_file: usize,
    size: usize,
    rights: u32,
    _alignment: usize,
}

impl Segment {
    /// Whether it is mapped, and nobody may write to it.
    fn is_fixed(&self) -> bool {
        self.kind == PT_LOAD && self.rights & PF_W == 0 && self.size > 0
    }
}

/// A segment that is mapped.
const PT_LOAD: u32 = 1;

/// The right to write to it.
const PF_W: u32 = 2;

/// By then each part has begun its work.
const SETTLED: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;

    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    #[test]
    fn the_program_runs_on() {
        let bytes = try_shrink().expect("the kernel takes the advice");
        assert!(bytes > 1_000_000, "this program has more code than {bytes} bytes");
        let sum: u64 = (1..=100).sum();
        assert_eq!(sum.to_string(), "5050");
    }

    /// Bytes in memory of the mapping that begins there.
    fn resident(start: usize) -> usize {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let of_it = maps.split_once(&format!("{start:x}-")).expect("it is mapped").1;
        let line = of_it.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    // While a library comes in, what will be its data are for a moment a mapping like this one.
    #[test]
    fn what_is_neither_code_nor_constants_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        File::create(&path).unwrap().write_all(&[7; 4_096]).unwrap();
        let file = File::open(&path).unwrap();
        // SAFETY: nobody else has this memory, nor looks at it.
        unsafe {
            let start =
                mmap(std::ptr::null_mut(), 4_096, ProtFlags::READ, MapFlags::PRIVATE, &file, 0).unwrap();
            assert_eq!(start.cast::<u8>().read_volatile(), 7);
            try_shrink().unwrap();
            assert_eq!(resident(start.addr()), 4);
            munmap(start, 4_096).unwrap();
        }
    }
}

//! What of the program lies in the process's memory.
//!
//! Reading the command line and the configuration and making the parts takes much of the program's code,
//! which would stay beside what the work needs. The kernel is told once that nothing of it is wanted just now.
//! What is wanted again it maps again, from its own copy of the file.

#![allow(unsafe_code, reason = "the kernel is told about memory by its address")]

use std::fs;
use std::io;

use rustix::mm::{Advice, madvise};

/// Lets go of the code that the start has used.
pub(super) fn shrink() {
    match try_shrink() {
        Ok(bytes) => tracing::debug!(bytes, "the code that the start has used is let go of"),
        Err(error) => tracing::debug!("the code that the start has used stays in memory: {error}"),
    }
}

/// How many bytes of code there are.
fn try_shrink() -> io::Result<usize> {
    let mut bytes = 0;
    for Mapping { start, length } in code(&fs::read_to_string("/proc/self/maps")?) {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the kernel itself says that the process has this mapping. Nobody may write to it, so every page
        // of it is as the file has it, and reads as before once the kernel maps it again. Code is never unmapped.
        unsafe { madvise(address, length, Advice::LinuxDontNeed) }?;
        bytes += length;
    }
    Ok(bytes)
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    length: usize,
}

/// The mappings of files that can be run and not written to.
fn code(maps: &str) -> impl Iterator<Item = Mapping> {
    maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let is_file = fields.nth(3)?.starts_with('/');
        let (start, end) = range.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        (rights == "r-xp" && is_file).then_some(Mapping { start, length: end.checked_sub(start)? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_can_be_run_and_comes_from_a_file() {
        let maps = "\
5581c6600000-5581c6660000 r--p 00000000 fd:00 1311 /usr/bin/tidegate
5581c6660000-5581c6c00000 r-xp 00060000 fd:00 1311 /usr/bin/tidegate
5581c6c00000-5581c6c31000 rw-p 00600000 fd:00 1311 /usr/bin/tidegate
5581c7000000-5581c7040000 rwxp 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 r-xp 00000000 00:00 0 [vdso]
7f0000002000-7f0000003000 r-xp 00000000 00:00 0
";
        let found: Vec<Mapping> = code(maps).collect();
        assert_eq!(found, [Mapping { start: 0x5581_c666_0000, length: 0x5a_0000 }]);
    }

    #[test]
    fn the_program_runs_on() {
        let bytes = try_shrink().expect("the kernel takes the advice");
        assert!(bytes > 1_000_000, "this program has more code than {bytes} bytes");
        let sum: u64 = (1..=100).sum();
        assert_eq!(sum.to_string(), "5050");
    }
}

//! What of the program lies in the process's memory.
//!
//! Reading the command line and the configuration and making the parts takes much of the program's code and constants,
//! which would stay beside what the work needs; and so do the first seconds of the work. The kernel is told after each
//! that nothing of it is wanted just now. What is wanted again it maps again, from its own copy of the file.

#![allow(unsafe_code, reason = "the kernel is told about memory by its address")]

use std::fs;
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
    let mut bytes = 0;
    for Mapping { start, length } in of_files(&fs::read_to_string("/proc/self/smaps")?) {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the kernel itself says that the process has this mapping. Nobody may write to it and nobody has, so
        // every page of it is as the file has it, and reads as before once the kernel maps it again. Such a mapping is
        // never unmapped.
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

/// The mappings of files that nobody may write to, nor has: not even who had to put addresses in.
fn of_files(maps: &str) -> Vec<Mapping> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in maps.lines() {
        match line.strip_prefix("Anonymous:") {
            Some(pages) if pages.trim() == "0 kB" => found.extend(last.take()),
            Some(_) => last = None,
            None if line.contains(": ") => {}
            None => last = of_file(line),
        }
    }
    found
}

/// The mapping that such a line is of, if it is of a file and may not be written to.
fn of_file(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let is_file = fields.nth(3)?.starts_with('/');
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let is_fixed = matches!(rights, "r-xp" | "r--p");
    (is_fixed && is_file).then_some(Mapping { start, length: end.checked_sub(start)? })
}

/// By then each part has begun its work.
const SETTLED: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_a_file_and_is_as_it_is_there_is_found() {
        let maps = "\
5581c6600000-5581c6660000 r--p 00000000 fd:00 1311 /usr/bin/tidegate
Size:                384 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
5581c6660000-5581c6c00000 r-xp 00060000 fd:00 1311 /usr/bin/tidegate
Rss:                3820 kB
Anonymous:             0 kB
5581c6c00000-5581c6c20000 r--p 00600000 fd:00 1311 /usr/bin/tidegate
Anonymous:           128 kB
5581c6c20000-5581c6c31000 rw-p 00620000 fd:00 1311 /usr/bin/tidegate
Anonymous:             0 kB
5581c7000000-5581c7040000 rwxp 00000000 00:00 0 [heap]
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
7f0000002000-7f0000003000 r-xp 00000000 00:00 0
Anonymous:             0 kB
";
        let constants = Mapping { start: 0x5581_c660_0000, length: 0x6_0000 };
        let code = Mapping { start: 0x5581_c666_0000, length: 0x5a_0000 };
        assert_eq!(of_files(maps), [constants, code]);
    }

    #[test]
    fn the_program_runs_on() {
        let bytes = try_shrink().expect("the kernel takes the advice");
        assert!(bytes > 1_000_000, "this program has more code than {bytes} bytes");
        let sum: u64 = (1..=100).sum();
        assert_eq!(sum.to_string(), "5050");
    }
}

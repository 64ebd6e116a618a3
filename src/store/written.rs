//! Bytes that the store's thread has written to disk.
//!
//! The kernel counts them for each thread. Both of its figures are looked at: `write_bytes` counts
//! whole pages on their way to the device and is what flash feels, but stays at 0 on a memory disk;
//! `wchar` counts what was handed to write calls. The larger one counts against the budget.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// What the kernel counts for one thread: that which has looked first.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// `None` before that, and where the kernel does not count.
    file: Option<File>,
}

impl Written {
    /// Bytes written by the calling thread since it began; `None` where the kernel does not say.
    pub(super) fn by_this_thread(&mut self) -> Option<u64> {
        if self.file.is_none() {
            self.file = File::open("/proc/thread-self/io").ok();
        }
        let mut room = [0; ROOM];
        let read = self.file.as_ref()?.read_at(&mut room, 0).ok()?;
        larger(std::str::from_utf8(room.get(..read)?).ok()?)
    }
}

fn larger(text: &str) -> Option<u64> {
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    figure("wchar:").into_iter().chain(figure("write_bytes:")).max()
}

/// Seven lines, of a name and a number of twenty digits at most.
const ROOM: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_look_finds_what_was_written_since() {
        let mut written = Written::default();
        let dir = tempfile::tempdir().unwrap();
        let mut before = written.by_this_thread().unwrap();
        for bytes in [1, 10_000, 300_000] {
            std::fs::write(dir.path().join("file"), vec![7; bytes]).unwrap();
            let after = written.by_this_thread().unwrap();
            assert!(after >= before + bytes as u64, "{after} after {before}");
            before = after;
        }
    }

    #[test]
    fn the_larger_figure_counts() {
        let text = "rchar: 9\nwchar: 120\nsyscr: 1\nsyscw: 2\nread_bytes: 0\nwrite_bytes: 4096\n";
        assert_eq!(larger(text), Some(4_096));
        assert_eq!(larger("wchar: 7\nwrite_bytes: 0\n"), Some(7));
        assert_eq!(larger(""), None);
    }
}

//! Bytes that the store's thread has written to disk.
//!
//! The kernel counts them for each thread. Both of its figures are looked at: `write_bytes` counts
//! whole pages on their way to the device and is what flash feels, but stays at 0 on a memory disk;
//! `wchar` counts what was handed to write calls. The larger one counts against the budget.

use std::fs;

/// Bytes written by the calling thread since it began; `None` where the kernel does not say.
pub(super) fn by_this_thread() -> Option<u64> {
    larger(&fs::read_to_string("/proc/thread-self/io").ok()?)
}

fn larger(text: &str) -> Option<u64> {
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    figure("wchar:").into_iter().chain(figure("write_bytes:")).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_figure_counts() {
        let text = "rchar: 9\nwchar: 120\nsyscr: 1\nsyscw: 2\nread_bytes: 0\nwrite_bytes: 4096\n";
        assert_eq!(larger(text), Some(4_096));
        assert_eq!(larger("wchar: 7\nwrite_bytes: 0\n"), Some(7));
        assert_eq!(larger(""), None);
    }
}

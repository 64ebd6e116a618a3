//! How much memory a gateway comes to hold while something is done to it.
//!
//! Resident memory counts its code as well, which comes as it is used for the first time and goes when the gateway, or a
//! kernel that is short of memory, lets go of it: some megabytes of a debug build, held for nobody. So what is anonymous
//! is looked at, each millisecond. Of a peak that is shorter the kernel tells, from which the most of code is taken that
//! was ever seen.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Gateway;

/// Looks at a gateway's memory until it is dropped.
pub struct MemoryWatch {
    pid: u32,
    /// Anonymous at first, in KB.
    idle: u64,
    most: Arc<Most>,
    watcher: Option<JoinHandle<()>>,
}

/// What was seen, in KB.
#[derive(Default)]
struct Most {
    anonymous: AtomicU64,
    of_files: AtomicU64,
    is_over: AtomicBool,
}

impl MemoryWatch {
    /// The gateway has nothing to do yet.
    pub fn start(gateway: &Gateway) -> MemoryWatch {
        let (pid, most) = (gateway.pid(), Arc::new(Most::default()));
        // The peak of its start is forgotten.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("its own user may do that");
        assert!(most.look(pid), "it runs");
        let watcher = thread::spawn({
            let most = most.clone();
            move || {
                while !most.is_over.load(Ordering::Relaxed) && most.look(pid) {
                    thread::park_timeout(Duration::from_millis(1));
                }
            }
        });
        let idle = most.anonymous.load(Ordering::Relaxed);
        MemoryWatch { pid, idle, most, watcher: Some(watcher) }
    }

    /// By how much it has grown at most, in KB.
    pub fn growth(&self) -> u64 {
        let is_watched = self.watcher.as_ref().is_some_and(|watcher| !watcher.is_finished());
        assert!(is_watched && self.most.look(self.pid), "it still runs and was seen all the time");
        let peak = status_of(self.pid).and_then(|status| figure_in(&status, "VmHWM")).expect("it runs");
        let short = peak.saturating_sub(self.most.of_files.load(Ordering::Relaxed));
        self.most.anonymous.load(Ordering::Relaxed).max(short) - self.idle
    }
}

/// What the kernel says of a process; `None` once it is gone.
pub(super) fn status_of(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

/// A figure of what the kernel says line by line, by its name; memory is in KB, of which a process that has ended has
/// none.
pub fn figure_in(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Most {
    /// Whether the process is still there.
    fn look(&self, pid: u32) -> bool {
        let Some(status) = status_of(pid) else { return false };
        let of = |name| figure_in(&status, name);
        let (Some(anonymous), Some(of_files), Some(shared)) = (of("RssAnon"), of("RssFile"), of("RssShmem"))
        else {
            return false;
        };
        self.anonymous.fetch_max(anonymous, Ordering::Relaxed);
        self.of_files.fetch_max(of_files + shared, Ordering::Relaxed);
        true
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.most.is_over.store(true, Ordering::Relaxed);
        self.watcher.take().into_iter().for_each(|watcher| drop(watcher.join()));
    }
}

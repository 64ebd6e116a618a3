//! How much memory a gateway comes to hold while something is done to it.
//!
//! Resident memory counts its code as well, which comes as it is used for the first time and goes when the gateway, or a
//! kernel that is short of memory, lets go of it: some megabytes of a debug build, held for nobody. So what is anonymous
//! is looked at, each millisecond or when this machine comes to it. Of a peak between two looks the kernel tells, from
//! which the code is taken that was there at either.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Gateway;

/// Looks at a gateway's memory until it is dropped.
pub struct MemoryWatch {
    pid: u32,
    /// Anonymous at first, in KB.
    idle: u64,
    seen: Arc<Mutex<Seen>>,
    is_over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

/// What was seen, in KB.
struct Seen {
    /// Anonymous, at most.
    most: u64,
    /// Of files, when it was last looked at.
    of_files: u64,
}

impl MemoryWatch {
    /// The gateway has nothing to do yet.
    pub fn start(gateway: &Gateway) -> MemoryWatch {
        let pid = gateway.pid();
        let (idle, of_files, _) = figures(pid).expect("it runs");
        forget_peak(pid).expect("its own user may do that");
        let (seen, is_over) = (Arc::new(Mutex::new(Seen { most: idle, of_files })), Arc::default());
        let watcher = thread::spawn({
            let (seen, is_over): (_, Arc<AtomicBool>) = (seen.clone(), Arc::clone(&is_over));
            move || {
                while !is_over.load(Ordering::Relaxed) && seen.lock().unwrap().look(pid) {
                    thread::park_timeout(Duration::from_millis(1));
                }
            }
        });
        MemoryWatch { pid, idle, seen, is_over, watcher: Some(watcher) }
    }

    /// By how much it has grown at most, in KB.
    pub fn growth(&self) -> u64 {
        let mut seen = self.seen.lock().unwrap();
        let is_watched = self.watcher.as_ref().is_some_and(|watcher| !watcher.is_finished());
        assert!(is_watched && seen.look(self.pid), "it still runs and was seen all the time");
        seen.most - self.idle
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.watcher.take().into_iter().for_each(|watcher| drop(watcher.join()));
    }
}

impl Seen {
    /// Whether the process is still there.
    fn look(&mut self, pid: u32) -> bool {
        let Some((anonymous, of_files, peak)) = figures(pid) else { return false };
        let between = peak.saturating_sub(of_files.max(self.of_files));
        self.most = self.most.max(anonymous).max(between);
        self.of_files = of_files;
        forget_peak(pid).is_ok()
    }
}

/// What is resident of a process, anonymous and of files, and its peak, in KB; `None` once it is gone.
fn figures(pid: u32) -> Option<(u64, u64, u64)> {
    let status = status_of(pid)?;
    let of = |name| figure_in(&status, name);
    Some((of("RssAnon")?, of("RssFile")? + of("RssShmem")?, of("VmHWM")?))
}

/// The next peak is one from now on.
fn forget_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
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

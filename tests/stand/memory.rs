//! How much memory a gateway comes to hold while something is done to it.
//!
//! Resident memory counts its code as well, which comes as it is used for the first time and goes when the gateway, or a
//! kernel that is short of memory, lets go of it: a megabyte or two of a debug build, held for nobody. So what is
//! anonymous is looked at, each millisecond. A peak shorter than that the kernel has seen, beside the code of then.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Gateway;

/// Looks at a gateway's memory until it is dropped.
pub struct MemoryWatch {
    /// Resident at first, in KB.
    idle: u64,
    /// Anonymous at first and at most, in KB.
    idle_anonymous: u64,
    most_anonymous: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// The gateway has nothing to do yet.
    pub fn start(gateway: &Gateway) -> MemoryWatch {
        let pid = gateway.pid();
        let idle_anonymous = anonymous(pid).expect("it runs");
        let (most, is_over) = (Arc::new(AtomicU64::new(idle_anonymous)), Arc::new(AtomicBool::new(false)));
        let watcher = thread::spawn({
            let (most, is_over) = (most.clone(), is_over.clone());
            move || {
                while !is_over.load(Ordering::Relaxed)
                    && let Some(now) = anonymous(pid)
                {
                    most.fetch_max(now, Ordering::Relaxed);
                    thread::park_timeout(Duration::from_millis(1));
                }
            }
        });
        MemoryWatch {
            idle: gateway.resident(),
            idle_anonymous,
            most_anonymous: most,
            is_over,
            watcher: Some(watcher),
        }
    }

    /// By how much it has grown at most, in KB.
    pub fn growth(&self, gateway: &Gateway) -> u64 {
        let seen = self.most_anonymous.load(Ordering::Relaxed) - self.idle_anonymous;
        seen.max(gateway.most_resident().saturating_sub(self.idle + CODE))
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.watcher.take().into_iter().for_each(|watcher| drop(watcher.join()));
    }
}

/// In KB; `None` once the process is gone.
fn anonymous(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    size.trim().trim_end_matches(" kB").parse().ok()
}

/// What code may come in beside, in KB.
const CODE: u64 = 2_048;

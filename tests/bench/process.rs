//! What the kernel says of a process, and what is made of many figures.
//!
//! Figures of one process are read from outside, so that it need not be built for it.

use std::fs;
use std::time::Duration;

/// User and system time of a process, in ticks of 10 ms.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Time that the threads of a process have run, to the nanosecond; of those that have ended, none.
pub(crate) fn running_time(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let times = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

/// The one in the middle.
pub(crate) fn median(figures: Vec<f64>) -> f64 {
    quantile(figures, 50)
}

/// The figure below which so many of a hundred are.
pub(crate) fn quantile(mut figures: Vec<f64>, percent: usize) -> f64 {
    assert!(!figures.is_empty(), "nothing was measured");
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() * percent / 100).min(figures.len() - 1)]
}

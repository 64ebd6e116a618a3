//! What the kernel says of a process, and what is made of many figures.
//!
//! Figures of one process are read from outside, so that it need not be built for it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::stand::figure_in;

/// What a process is started under that is to end with the bench, however that ends.
pub(crate) const LEASH: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// Counters of one process.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Time that each of its threads has run, to the nanosecond.
    running: BTreeMap<u32, Duration>,
    /// User and system time of all threads, those that have ended too, in ticks of 10 ms.
    processor: Duration,
    /// Bytes written to disk.
    pub(crate) written: u64,
    /// Times that a thread went to sleep.
    pub(crate) sleeps: u64,
    /// KB in memory.
    pub(crate) resident: u64,
}

impl Usage {
    /// As of now; all 0 of a process that is gone.
    pub(crate) fn of(pid: u32) -> Usage {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let figure = |text: &str, name| figure_in(text, name).unwrap_or(0);
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut usage = Usage {
            processor: processor_time(&read("stat")),
            written: figure(&read("io"), "write_bytes"),
            resident: figure(&read("status"), "VmRSS"),
            ..Usage::default()
        };
        for thread in threads {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let name = thread.file_name();
            let id = name.to_str().and_then(|name| name.parse().ok());
            if let (Some(id), Some(time)) = (id, running(&read("schedstat"))) {
                usage.running.insert(id, time);
            }
            usage.sleeps += figure(&read("status"), "voluntary_ctxt_switches");
        }
        usage
    }

    /// Microseconds of the processor since then. Where a thread has ended in between, only the coarser
    /// counter knows its time.
    pub(crate) fn micros_since(&self, before: &Usage) -> f64 {
        let all = |usage: &Usage| usage.running.values().sum::<Duration>();
        let ended = before.running.keys().any(|thread| !self.running.contains_key(thread));
        let spent = if ended || before.running.is_empty() {
            self.processor.saturating_sub(before.processor)
        } else {
            all(self).saturating_sub(all(before))
        };
        spent.as_secs_f64() * 1e6
    }
}

fn processor_time(stat: &str) -> Duration {
    // What follows the name, which may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn running(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Time that the threads of a process have run, to the nanosecond; of those that have ended, none.
pub(crate) fn running_time(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let times = threads
        .flatten()
        .filter_map(|thread| running(&fs::read_to_string(thread.path().join("schedstat")).ok()?));
    times.sum()
}

/// The one in the middle, or what is between the two that are.
pub(crate) fn median(figures: Vec<f64>) -> f64 {
    let mirrored = figures.iter().map(|figure| -figure).collect();
    f64::midpoint(quantile(figures, 50), -quantile(mirrored, 50))
}

/// The figure below which so many of a hundred are.
pub(crate) fn quantile(mut figures: Vec<f64>, percent: usize) -> f64 {
    assert!(!figures.is_empty(), "nothing was measured");
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() * percent / 100).min(figures.len() - 1)]
}

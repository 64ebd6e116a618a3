//! What a broker has cost within a span, and what it did in it.
//!
//! The first part of a timed span is not measured: memory grows and windows fill then.

use std::time::{Duration, Instant};

use super::Span;
use crate::process::Usage;
use crate::stand::monotonic;

/// The measured span of one run.
pub(crate) struct Gauge {
    pid: u32,
    begin: Duration,
    end: Duration,
    /// Messages from clients after which it ends in any case.
    most: u64,
    opened: Option<(Meter, (u64, u64))>,
    /// Its figures, once it is closed.
    pub(crate) taken: Option<Taken>,
}

/// What was done in it, and what that cost.
pub(crate) struct Taken {
    /// Messages that came from clients.
    pub(crate) inward: u64,
    /// Messages that went to clients.
    pub(crate) outward: u64,
    pub(crate) cost: Cost,
}

impl Gauge {
    /// To be opened once the warm-up is over.
    pub(crate) fn new(pid: u32, now: Duration, span: Span) -> Gauge {
        let (begin, end, most) = match span {
            Span::Count(_) => (now, Duration::MAX, u64::MAX),
            Span::Time { warm_up, measured, most } => (now + warm_up, now + warm_up + measured, most),
        };
        Gauge { pid, begin, end, most, opened: None, taken: None }
    }

    /// Opens it when it is time; whether it is open.
    pub(crate) fn open(&mut self, now: Duration, counts: (u64, u64)) -> bool {
        let is_due = now >= self.begin || counts.0 >= self.most / 5;
        if self.opened.is_none() && self.taken.is_none() && is_due {
            self.opened = Some((Meter::start(self.pid), counts));
        }
        self.opened.is_some()
    }

    pub(crate) fn is_over(&self, now: Duration, counts: (u64, u64)) -> bool {
        now >= self.end || counts.0 >= self.most
    }

    pub(crate) fn close(&mut self, counts: (u64, u64)) {
        let Some((meter, before)) = self.opened.take() else { return };
        let (inward, outward) = (counts.0 - before.0, counts.1 - before.1);
        self.taken = Some(Taken { inward, outward, cost: meter.stop() });
    }
}

/// Counters at the begin.
pub(crate) struct Meter {
    pid: u32,
    broker: Usage,
    own: Usage,
    since: Instant,
}

/// What has happened since.
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    /// Microseconds of the processor that the broker took.
    pub(crate) broker: f64,
    /// The same with those of this program: part of the kernel's work for one side is done, and counted,
    /// in the other's time.
    pub(crate) both: f64,
    /// Bytes that the broker has written to disk.
    pub(crate) written: f64,
    /// Times that the broker went to sleep.
    pub(crate) sleeps: f64,
    /// KB that are resident at the end.
    pub(crate) resident: f64,
}

impl Meter {
    pub(crate) fn start(pid: u32) -> Meter {
        let own = Usage::of(std::process::id());
        Meter { pid, broker: Usage::of(pid), own, since: monotonic() }
    }

    pub(crate) fn stop(self) -> Cost {
        let seconds = self.since.elapsed().as_secs_f64();
        let (broker, own) = (Usage::of(self.pid), Usage::of(std::process::id()));
        let cost = broker.micros_since(&self.broker);
        Cost {
            seconds,
            broker: cost,
            both: cost + own.micros_since(&self.own),
            written: (broker.written - self.broker.written) as f64,
            sleeps: (broker.sleeps.saturating_sub(self.broker.sleeps)) as f64,
            resident: broker.resident as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_begins_and_ends_by_the_clock_or_by_what_was_taken() {
        let seconds = Duration::from_secs;
        let span = Span::Time { warm_up: seconds(1), measured: seconds(4), most: 100 };
        let gauge = || Gauge::new(std::process::id(), seconds(10), span);
        for (now, taken, is_open) in [(10, 19, false), (11, 0, true), (10, 20, true)] {
            assert_eq!(gauge().open(seconds(now), (taken, 0)), is_open, "{now} s, {taken} messages");
        }
        for (now, taken, is_over) in [(14, 99, false), (15, 0, true), (10, 100, true)] {
            assert_eq!(gauge().is_over(seconds(now), (taken, 0)), is_over, "{now} s, {taken} messages");
        }
    }
}

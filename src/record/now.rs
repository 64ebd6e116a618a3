//! A moment, on three clocks.
//!
//! Pure rooms are handed the time as an argument. Deadlines of what lives as long as this process use `mono`;
//! what must end at its time over restarts is stamped and judged by the house's time, see
//! [`Timeline`](super::Timeline); `wall` is only shown.

use super::timeline::Known;

/// One reading of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since the process started; never goes back.
    pub mono: u64,
    /// Milliseconds since 1970-01-01 UTC; may jump.
    pub wall: u64,
    /// The house's time in milliseconds: stamps are taken from it.
    pub house: u64,
    /// What else is known of the clocks.
    pub span: Span,
}

/// One run of the machine, as far as time is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Which start of the machine it is; 0 where that is not known.
    pub boot: u64,
    /// Milliseconds since that start.
    pub since_boot: u64,
    /// The house's time at which this run's stamps begin.
    pub began: u64,
    /// Whether the wall clock has been set in this run.
    pub set: bool,
    /// A moment at which it was, if ever.
    pub known: Option<Known>,
    /// What was learned when it was set, if that was after stamps had been taken.
    pub mend: Mend,
}

/// What a clock that was set has told of stamps that were taken before. The default mends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mend {
    /// The first stamp that was taken while the clock was not set.
    pub from: u64,
    /// The first one that was taken in the run in which it was set: from here on `shift` is exact. Before,
    /// the machine was off for a time that nobody knows.
    pub exact: u64,
    /// All of them are below.
    pub to: u64,
    /// Milliseconds that the machine had been off before them, unnoticed: they are younger by so much.
    pub gap: u64,
    /// Milliseconds by which the wall clock was ahead of what was believed.
    pub shift: i64,
}

impl Now {
    /// A moment of a machine whose clock is set and was never off.
    pub fn steady(mono: u64, wall: u64) -> Now {
        let span = Span { set: true, ..Span::default() };
        Now { mono, wall, house: wall, span }
    }

    /// Milliseconds that have passed since a stamp was taken, as far as the house knows.
    pub fn age(&self, stamp: u64) -> u64 {
        self.house.saturating_sub(self.span.mend.stamp(stamp))
    }
}

impl Mend {
    /// Whether the stamp was taken while the clock was not set.
    pub fn covers(&self, stamp: u64) -> bool {
        (self.from..self.to).contains(&stamp)
    }

    /// The stamp as it would have been taken, had the time that the machine was off been known.
    pub fn stamp(&self, stamp: u64) -> u64 {
        if self.covers(stamp) { stamp.saturating_add(self.gap) } else { stamp }
    }
}

//! A machine of the tests: its clocks, which a script turns, and the house's time on it.
//!
//! It knows the true time, so that a test can say what should have been.

use adapter_api::clock::FLOOR_MILLIS;

use super::{Kept, Now, Reading, Timeline};

/// What a script turns.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Milliseconds since 1970.
    pub(crate) truth: u64,
    /// By how much the wall clock is wrong.
    pub(crate) error: i64,
    /// Whether it was set, rightly or not.
    pub(crate) set: bool,
    pub(crate) boot: u64,
    booted: u64,
    /// When the process began.
    started: u64,
    pub(crate) timeline: Timeline,
}

/// How the wall clock stands when the power comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// A battery has kept it.
    Set,
    /// It begins in 1970.
    Lost,
    /// It begins where it stood when the power went.
    Old,
}

impl Machine {
    /// One that was started a while ago, with a process that begins.
    pub(crate) fn new(truth: u64, clock: Clock) -> Machine {
        let mut machine = Machine {
            truth,
            error: 0,
            set: true,
            boot: 0,
            booted: truth,
            started: truth,
            timeline: Timeline::begin(&Reading { boot: 0, since_boot: 0, wall: truth, set: true }),
        };
        machine.switch_off(0, clock);
        machine.pass(50_000);
        machine.start(&Kept::default());
        machine
    }

    pub(crate) fn wall(&self) -> u64 {
        self.truth.saturating_add_signed(self.error)
    }

    pub(crate) fn now(&self) -> Now {
        self.timeline.now(self.truth - self.started, self.truth - self.booted, self.wall())
    }

    /// What the house takes for the wall clock's time.
    pub(crate) fn believed(&self) -> u64 {
        self.timeline.believed(self.truth - self.booted)
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.truth += millis;
    }

    /// The power is off for a while; the process is yet to be started.
    pub(crate) fn switch_off(&mut self, millis: u64, clock: Clock) {
        let stood = self.wall();
        self.truth += millis;
        (self.boot, self.booted, self.set) = (self.boot + 1, self.truth, clock == Clock::Set);
        let wall = match clock {
            Clock::Set => self.truth,
            Clock::Lost => 0,
            Clock::Old => stood,
        };
        self.error = wall.cast_signed() - self.truth.cast_signed();
    }

    /// A process starts, with what the one before has kept.
    pub(crate) fn start(&mut self, kept: &Kept) {
        self.started = self.truth;
        let set = self.set && self.wall() >= FLOOR_MILLIS;
        let since_boot = self.truth - self.booted;
        let reading = Reading { boot: self.boot, since_boot, wall: self.wall(), set };
        self.timeline = Timeline::resume(kept, &reading);
    }

    /// The clock is set.
    pub(crate) fn set_clock(&mut self) {
        (self.set, self.error) = (true, 0);
        self.timeline = self.timeline.learn(self.truth - self.booted, self.wall());
    }
}

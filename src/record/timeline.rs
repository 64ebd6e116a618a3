//! The house's time: how old things are, whatever the wall clock does, and over restarts.
//!
//! It counts milliseconds while the machine runs, and goes on from the last commit when it starts again. The time
//! that the machine was off is added where the wall clock was known to be set before and after. If it is set only
//! later, it is added then, and stamps that were taken meanwhile are mended ([`Mend`]) so that they do not age by it.
//! So: nothing ends early, as long as a clock that says that it is set is not ahead; and nothing lives longer than
//! its limit but by the time that the machine was off without a set clock before and after, or for more than
//! [`OFF_MAX`], and by what passed between the last commit and the end of the run ([`HEARTBEAT`] at most).
//! A step of a clock that is set moves nothing; the first setting in a run is the only one that is listened to.

use adapter_api::clock::FLOOR_MILLIS;

use super::now::{Mend, Now, Span};

/// What the machine's clocks say, and whether the wall clock can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Which start of the machine it is; 0 where that is not known.
    pub boot: u64,
    /// Milliseconds since that start.
    pub since_boot: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub wall: u64,
    /// Whether the wall clock is known to be set.
    pub set: bool,
}

/// What is kept of the house's time with each commit. The default is that of a house without a past.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// The house's time at the commit; 0 where there was none.
    pub time: u64,
    /// The house's time when it began.
    pub origin: u64,
    /// Which start of the machine it was.
    pub boot: u64,
    /// Milliseconds since that start.
    pub since_boot: u64,
    /// The house's time at which that run's stamps begin.
    pub began: u64,
    /// Whether the wall clock had been set in that run.
    pub set: bool,
    /// The last moment at which it was set, in whichever run.
    pub known: Option<Known>,
    /// What set clocks have told of earlier stamps; [`MENDS_MAX`] at most.
    pub mends: Vec<Mend>,
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The house's time.
    pub time: u64,
    /// The wall clock.
    pub wall: u64,
}

impl Known {
    /// What the wall clock says later if nobody touches it.
    fn wall_at(self, time: u64) -> u64 {
        self.wall.saturating_add(time.saturating_sub(self.time))
    }
}

/// The house's time in one process.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    boot: u64,
    began: u64,
    /// The house's time and the time since the machine's start when the process began.
    start: (u64, u64),
    /// The first stamp that was or will be taken without a set clock.
    unset_from: u64,
    /// Milliseconds that were added when the clock was set.
    added: u64,
    set: bool,
    known: Option<Known>,
    mend: Mend,
}

impl Timeline {
    /// Goes on from what the last commit of an earlier process kept.
    pub fn resume(kept: &Kept, reading: &Reading) -> Timeline {
        if kept.time == 0 {
            return Timeline::begin(reading);
        }
        let same = kept.boot == reading.boot && reading.boot != 0 && reading.since_boot >= kept.since_boot;
        let passed = if same { reading.since_boot - kept.since_boot } else { 0 };
        // One more, so that no stamp of the run before is taken for one of this.
        let time = kept.time + passed.max(1);
        let resumed = Timeline {
            boot: reading.boot,
            began: if same { kept.began } else { time },
            start: (time, reading.since_boot),
            unset_from: kept.known.map_or(0, |known| known.time + 1),
            added: 0,
            set: same && kept.set,
            known: kept.known,
            mend: Mend::default(),
        };
        if !reading.set {
            return resumed;
        }
        let learned = resumed.learn(reading.since_boot, reading.wall);
        let stamped = kept.time > kept.known.map_or(0, |known| known.time);
        Timeline { mend: if stamped { learned.mend } else { Mend::default() }, ..learned }
    }

    /// Begins with the wall clock, whatever it says.
    pub fn begin(reading: &Reading) -> Timeline {
        let time = reading.wall.max(1);
        Timeline {
            boot: reading.boot,
            began: time,
            start: (time, reading.since_boot),
            unset_from: 0,
            added: 0,
            set: reading.set,
            known: reading.set.then_some(Known { time, wall: time }),
            mend: Mend::default(),
        }
    }

    /// Whether the wall clock has been set in this run of the machine.
    pub fn is_set(&self) -> bool {
        self.set
    }

    /// The wall clock is found to be set. Only the first time in a run tells anything.
    #[must_use]
    pub fn learn(self, since_boot: u64, wall: u64) -> Timeline {
        if self.set {
            return self;
        }
        let time = self.time(since_boot);
        let shift = wall.cast_signed().saturating_sub(self.believed(since_boot).cast_signed());
        let off = u64::try_from(shift).unwrap_or(0);
        let gap = if self.known.is_some() && off > OFF_MAX { 0 } else { off };
        let mend = Mend { from: self.unset_from, exact: self.began, to: time + gap.max(1), gap, shift };
        Timeline { set: true, added: gap, known: Some(Known { time: time + gap, wall }), mend, ..self }
    }

    /// This moment.
    pub fn now(&self, mono: u64, since_boot: u64, wall: u64) -> Now {
        let Timeline { boot, began, set, known, mend, .. } = *self;
        let span = Span { boot, since_boot, began, set, known, mend };
        Now { mono, wall, house: self.time(since_boot), span }
    }

    /// What the wall clock should say, as far as the house knows; milliseconds.
    pub fn believed(&self, since_boot: u64) -> u64 {
        let time = self.time(since_boot);
        self.known.map_or(time, |known| known.wall_at(time))
    }

    fn time(&self, since_boot: u64) -> u64 {
        let (time, at) = self.start;
        time + self.added + since_boot.saturating_sub(at)
    }
}

impl Kept {
    /// What a store of before version 4 lets know: its newest stamp, which is one of the wall clock.
    pub fn of_stamp(newest: u64) -> Kept {
        if newest == 0 {
            return Kept::default();
        }
        let known = Some(Known { time: newest, wall: newest });
        Kept { time: newest, origin: newest, known, ..Kept::default() }
    }

    /// Goes along with a commit.
    pub fn keep(&mut self, now: &Now) {
        let span = &now.span;
        if self.origin == 0 {
            self.origin = span.began;
        }
        if span.set {
            // A clock that steps is wrong before or after. The latest makes the time off the shortest, so that
            // nothing ends early.
            let goes_on = self.set && self.boot == span.boot;
            let said = [span.known, self.known.filter(|_| goes_on)];
            let said = said.into_iter().flatten().map(|known| known.wall_at(now.house));
            self.known = Some(Known { time: now.house, wall: said.fold(now.wall, u64::max) });
        }
        (self.time, self.boot, self.since_boot) = (now.house, span.boot, span.since_boot);
        (self.began, self.set) = (span.began, span.set);
        if span.mend != Mend::default() && self.mends.last() != Some(&span.mend) {
            self.mends.push(span.mend);
        }
        while self.mends.len() > MENDS_MAX {
            let first = self.mends.remove(0);
            if let Some(second) = self.mends.first_mut() {
                *second = second.after(&first);
            }
        }
    }

    /// The stamp as it would have been taken, had all been known that earlier processes learned; and the
    /// mend by which the time in a reading of ours is mended. What this process learned is in `now`.
    pub fn mended(&self, stamp: u64, now: &Now) -> (u64, Mend) {
        // Before version 4 stamps were taken from the wall clock, also where it was not set.
        if stamp < FLOOR_MILLIS && self.origin >= FLOOR_MILLIS {
            return (self.origin, Mend::default());
        }
        let earlier = self.mends.iter().filter(|mend| **mend != now.span.mend);
        let mend = earlier.copied().find(|mend| mend.covers(stamp)).unwrap_or_default();
        (mend.stamp(stamp), mend)
    }
}

impl Mend {
    /// Stands for an earlier one as well: what either covers is rather too young than too old.
    fn after(&self, first: &Mend) -> Mend {
        let gap = self.gap.max(first.gap);
        Mend { from: first.from.min(self.from), gap, ..*self }
    }
}

/// The longest time off that is believed: 366 days. A clock that says more is not believed, since no machine
/// is out of use for so long more often than a clock is wrong by years.
pub const OFF_MAX: u64 = 366 * 86_400_000;

/// While nothing else is committed, the time is, every ten minutes: so much at most of a run is forgotten.
pub const HEARTBEAT: u64 = 600_000;

/// So many settings of a clock after the fact are remembered; the oldest become one.
pub const MENDS_MAX: usize = 64;

//! The house's time against the true time, over random scripts in which every clock misbehaves.
//!
//! The machine is switched off, loses the clock or comes up with an old one, is killed between commits, has its clock
//! set late, or stepped by years. Nothing may seem older than it is, and nothing younger but by what the
//! house cannot know. Runs from fixed seeds and from a fresh one, which is printed.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a script are small")]

use super::machine::{Clock, Machine};
use super::{HEARTBEAT, Kept, Message, OFF_MAX};
use crate::broker::tests::random::{Random, fresh_seed};
use crate::codec::{Properties, QoS};

/// The world, and the house in it.
struct World {
    random: Random,
    machine: Machine,
    /// The clock was stepped while it was set: it is wrong before or after.
    lied: bool,
    kept: Kept,
    committed: u64,
    stamps: Vec<Stamped>,
    /// The time off since the clock was last known.
    off: u64,
    /// Each start may count a millisecond too much.
    starts: u64,
}

/// Something that was stamped, such as a reading.
struct Stamped {
    truth: u64,
    message: Message,
    /// Time off that the house may come to know of.
    pending: u64,
    /// And of which it never will.
    unknown: u64,
    /// In which start of the machine.
    boot: u64,
    committed: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let clock = any_clock(&mut random);
        let machine = Machine::new(1_800_000_000_000, if clock == Clock::Old { Clock::Lost } else { clock });
        let (kept, stamps, committed) = (Kept::default(), Vec::new(), machine.truth);
        World { random, machine, lied: false, kept, committed, stamps, off: 0, starts: 0 }
    }

    fn step(&mut self) {
        match self.below(20) {
            0..6 => self.pass(),
            6..11 => self.stamp(),
            11..14 => self.commit(),
            14..16 => self.restart(),
            16 => self.switch_off(),
            17 | 18 => self.set_clock(),
            _ => self.step_clock(),
        }
        self.check();
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    /// Time passes, and is committed at least now and then.
    fn pass(&mut self) {
        for _ in 0..self.below(5) {
            let passes = self.below(HEARTBEAT);
            self.machine.pass(passes);
            if self.machine.truth - self.committed >= HEARTBEAT {
                self.commit();
            }
        }
    }

    fn stamp(&mut self) {
        let now = self.machine.now();
        let taken = self.machine.believed() as f64 / 1_000.0;
        let message = Message {
            topic: "a".into(),
            payload: format!(r#"{{"v":1,"t":{taken},"q":"no-clock"}}"#).into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::new(),
            expiry: Some(1_000_000_000),
            received: now.house,
            unclocked: !now.span.set,
        };
        let (truth, boot) = (self.machine.truth, self.machine.boot);
        self.stamps.push(Stamped { truth, message, pending: 0, unknown: 0, boot, committed: false });
    }

    fn commit(&mut self) {
        let now = self.machine.now();
        self.kept.keep(&now);
        self.committed = self.machine.truth;
        self.stamps.iter_mut().for_each(|stamped| stamped.committed = true);
        if now.span.set {
            self.off = 0;
        }
    }

    /// The process is killed and comes back.
    fn restart(&mut self) {
        if self.kept.time == 0 {
            return;
        }
        if self.lied && !(self.kept.set && self.kept.boot == self.machine.boot) {
            // Else the first setting that the next process hears of is a wrong one.
            self.commit();
        }
        self.stamps.retain(|stamped| stamped.committed);
        let passes = self.below(60_000);
        self.machine.pass(passes);
        self.starts += 1;
        self.resume();
    }

    /// The power goes, for seconds, days or years; then comes back, with or without a clock.
    fn switch_off(&mut self) {
        if self.kept.time == 0 {
            return;
        }
        self.stamps.retain(|stamped| stamped.committed);
        let most = [60_000, 86_400_000, 100 * 86_400_000, 2 * OFF_MAX][self.below(4) as usize];
        let (off, clock) = (self.below(most), any_clock(&mut self.random));
        self.machine.switch_off(off, clock);
        let off = self.machine.truth - self.committed;
        for stamped in &mut self.stamps {
            // Without a clock before it is not known how much of the time off was before this run.
            *(if self.kept.set { &mut stamped.pending } else { &mut stamped.unknown }) += off;
        }
        self.off += off;
        self.starts += 1;
        self.resume();
    }

    fn resume(&mut self) {
        let is_new = !(self.kept.set && self.kept.boot == self.machine.boot);
        self.machine.start(&self.kept);
        if is_new && self.machine.timeline.is_set() {
            self.learned();
        }
        self.commit();
    }

    /// The clock is set, perhaps late.
    fn set_clock(&mut self) {
        if self.machine.set || self.kept.time == 0 {
            return;
        }
        let is_new = !self.machine.timeline.is_set();
        self.machine.set_clock();
        if is_new {
            self.learned();
            if self.below(4) == 0 {
                self.step_clock();
            }
            // The store does so as soon as it sees the time jump.
            self.commit();
        }
    }

    fn learned(&mut self) {
        // Close to the limit it may be either.
        let believed = self.off + 1_000 * self.starts < OFF_MAX && !self.lied;
        for stamped in &mut self.stamps {
            let pending = std::mem::take(&mut stamped.pending);
            stamped.unknown += if believed { 0 } else { pending };
        }
        self.lied = false;
    }

    /// Somebody sets a clock that was set, by minutes or years, in either direction.
    fn step_clock(&mut self) {
        if !self.machine.set {
            return;
        }
        let most = [600_000, 10 * 366 * 86_400_000][self.below(2) as usize];
        let step = self.below(most).cast_signed();
        self.machine.error += if self.below(2) == 0 { step } else { -step };
        self.lied = true;
    }

    fn check(&self) {
        let now = self.machine.now();
        let slack = self.starts + 1;
        for stamped in &self.stamps {
            let mut message = stamped.message.clone();
            let (received, mend) = self.kept.mended(message.received, &now);
            message.payload = message.mended(&mend).unwrap_or(message.payload.clone());
            message.received = received;
            let age = now.age(message.received);
            let truly = self.machine.truth - stamped.truth;
            assert!(age <= truly + slack, "after {truly} ms it seems {age} ms old");
            let least = truly.saturating_sub(stamped.pending + stamped.unknown + slack);
            assert!(age >= least, "after {truly} ms it seems {age} ms old, which is less than {least}");
            let left = message.remaining(&now).unwrap();
            assert_eq!(u64::from(1_000_000_000 - left), age / 1_000);
            message.payload = message.mended(&now.span.mend).unwrap_or(message.payload.clone());
            self.check_reading(stamped, &message, slack);
        }
    }

    /// Once the clock was set in the run in which a reading was taken, the reading says when that was.
    fn check_reading(&self, stamped: &Stamped, message: &Message, slack: u64) {
        let text = std::str::from_utf8(&message.payload).unwrap();
        let is_mended = text.ends_with(r#","q":"good"}"#);
        let same = stamped.boot == self.machine.boot && self.machine.timeline.is_set();
        assert!(!same || !message.unclocked || is_mended, "{text} was not mended");
        if is_mended {
            let taken = text.split(r#""t":"#).nth(1).and_then(|rest| rest.split(',').next()).unwrap();
            let taken = (taken.parse::<f64>().unwrap() * 1_000.0).round() as u64;
            let truly = stamped.truth;
            assert!(taken.abs_diff(truly) <= slack, "{text} was taken at {truly}");
        }
    }
}

fn any_clock(random: &mut Random) -> Clock {
    [Clock::Set, Clock::Set, Clock::Lost, Clock::Old][random.below(4)]
}

fn check(seed: u64) {
    println!("seed {seed}");
    let mut world = World::new(seed);
    for _ in 0..300 {
        world.step();
    }
}

#[test]
fn nothing_seems_older_than_it_is_from_fixed_seeds() {
    (0..300).for_each(check);
}

#[test]
fn nothing_seems_older_than_it_is_from_a_fresh_seed() {
    let seed = fresh_seed();
    (seed..seed + 100).for_each(check);
}
